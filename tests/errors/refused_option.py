"""A case for an option that a method refuses."""

from __future__ import annotations

from typing import Any

import fdfa
from fdfa.errors import ConfigError
from tests.engine.refused_models import mlp
from tests.errors.provoke import Case

__all__ = ["refused_option"]


def refused_option(method: str, **options: Any) -> Case:
    """Wrapping a network with this one option raises ``ConfigError``."""
    ((name, value),) = options.items()
    return Case(
        f"{method} with {name} {value}",
        ConfigError,
        lambda here: fdfa.wrap(method, mlp(), **options),
    )

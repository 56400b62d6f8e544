"""Which names are public, and which of them a list of explained names leaves out."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import fdfa

__all__ = ["namespaces", "unexplained", "value_of"]


def namespaces() -> Iterator[ModuleType]:
    """``fdfa``, and everything right under it that says what it offers."""
    yield fdfa
    for found in pkgutil.iter_modules(fdfa.__path__):
        if not found.name.startswith("_"):
            module = importlib.import_module(f"fdfa.{found.name}")
            if hasattr(module, "__all__"):
                yield module


def unexplained(explained: Iterable[str]) -> list[str]:
    """Public names that none of these dotted names stands for.

    Their values are compared, since what is re-exported need be explained only once.
    """
    known = [value_of(name) for name in explained]
    return [
        f"{module.__name__}.{name}"
        for module in namespaces()
        for name in module.__all__
        if not any(getattr(module, name) is value for value in known)
    ]


def value_of(name: str) -> Any:
    """What goes by this dotted name: ``fdfa.methods`` is the function of that name."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)

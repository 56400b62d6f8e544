"""Any value as one that JSON can hold."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["plain"]


def plain(value: Any) -> Any:
    """What JSON can hold of a value: records as objects, what is not finite as null.

    Args:
        value: records, mappings, sequences, numbers, texts; anything else is given as its ``repr``.

    Returns:
        Dictionaries, lists, numbers, texts, booleans and None.

    Example:
        >>> plain({"a": (1, float("nan")), "b": Path})
        {'a': [1, None], 'b': "<class 'pathlib.Path'>"}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value) if isinstance(value, Path) else repr(value)

"""What a signature says of the types of its options."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from typing import Any

__all__ = ["alternatives", "hints_of"]


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of what a function, or the making of a class, takes.

    Args:
        function: or class.

    Returns:
        Name to type; nothing where the annotations cannot be resolved from here.

    Example:
        >>> def factory(width: int) -> None: ...
        >>> hints_of(factory)["width"]
        <class 'int'>
    """
    # Of a class, get_type_hints would give the attributes.
    takes_options = vars(function).get("__init__") if isinstance(function, type) else function
    try:
        return typing.get_type_hints(takes_options)
    except (NameError, TypeError):  # annotations that cannot be resolved here, or none at all
        return {}


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The types that a value may have.

    Args:
        hint: an annotation.

    Returns:
        The members of a union, or the one type.

    Example:
        >>> alternatives(int | None)
        (<class 'int'>, <class 'NoneType'>)
    """
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)

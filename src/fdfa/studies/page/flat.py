"""Nested settings as one list of dotted names, and where several of them differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["absent_somewhere", "differing", "flat", "in_words"]


def flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of nested mappings.

    Args:
        content: of mappings, lists and plain values.

    Returns:
        Dotted name to value.

    Example:
        >>> flat({"task": {"data": "digits", "augment": []}, "seed": 0})
        {'task.data': 'digits', 'task.augment': [], 'seed': 0}
    """
    found: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            found.update({f"{name}.{inner}": each for inner, each in flat(value).items()})
        else:
            found[name] = value
    return found


def differing(settings: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Names that are not of one value in all settings that have them.

    Args:
        settings: flat.

    Returns:
        The names, in the order in which they come.

    Example:
        >>> differing([{"width": 8, "depth": 2}, {"width": 8, "depth": 3, "bias": True}])
        ('depth',)
    """
    values: dict[str, set[str]] = {}
    for each in settings:
        for name, value in each.items():
            values.setdefault(name, set()).add(in_words(value))
    return tuple(name for name, found in values.items() if len(found) > 1)


def absent_somewhere(settings: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Names that only some of the settings have.

    Args:
        settings: flat.

    Returns:
        The names, in the order in which they come.

    Example:
        >>> absent_somewhere([{"width": 8, "depth": 2}, {"width": 8, "depth": 3, "bias": True}])
        ('bias',)
    """
    names = dict.fromkeys(name for each in settings for name in each)
    return tuple(name for name in names if not all(name in each for each in settings))


def in_words(value: Any) -> str:
    """A setting as a reader would type it.

    Args:
        value: from JSON.

    Returns:
        A short text.

    Example:
        >>> in_words([1, "a"]), in_words(True), in_words(None), in_words(0.001)
        ('1, a', 'yes', 'none', '0.001')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(in_words(each) for each in value) or "none"
    return "none" if value is None else str(value)

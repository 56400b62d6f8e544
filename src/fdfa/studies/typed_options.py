"""Options given as text (``feedback_rate=0.05``), turned into what a signature asks for."""

from __future__ import annotations

import collections.abc
import inspect
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fdfa.errors import ConfigError, unknown_name
from fdfa.studies.signatures import alternatives, hints_of

__all__ = ["typed_options"]


def typed_options(
    texts: Mapping[str, str],
    function: Callable[..., Any],
    *,
    valid: Sequence[str],
    owner: str,
) -> dict[str, Any]:
    """Options from text, each turned into the type that a function's signature gives it.

    Args:
        texts: option to value, as text.
        function: whose annotations say the types; without one a value is read as JSON, else text.
        valid: names that may be given.
        owner: of the options, for error texts.

    Returns:
        Option to value.

    Raises:
        ConfigError: if an option is unknown, or a value is not of its type.

    Example:
        >>> def factory(width: int, *, batch_norm: bool = True) -> None: ...
        >>> valid = ["width", "batch_norm"]
        >>> typed_options({"batch_norm": "no"}, factory, valid=valid, owner="model 'mine'")
        {'batch_norm': False}
    """
    hints = hints_of(function)
    result = {}
    for name, text in texts.items():
        if name not in valid:
            raise ConfigError(f"{owner}: {unknown_name('option', name, valid)}")
        kinds = _alternatives(hints.get(name, Any))
        for kind in kinds:
            try:
                result[name] = _read(kind, text)
                break
            except ValueError:
                continue
        else:
            if not (words := _wording(kinds)):
                raise ConfigError(
                    f"{owner}: option {name!r} cannot be given as text. Pass it from Python."
                )
            raise ConfigError(f"{owner}: option {name!r} takes {words}, not {text!r}.")
    return result


def _alternatives(hint: Any) -> list[Any]:
    """The types that a value may have, those that accept fewest texts first."""
    return sorted(alternatives(hint), key=lambda kind: _ORDER.get(_plain(kind), len(_ORDER)))


def _plain(kind: Any) -> Any:
    return typing.get_origin(kind) or kind


_ORDER = {
    kind: place
    for place, kind in enumerate(
        (type(None), typing.Literal, bool, int, float, collections.abc.Sequence, tuple, list, str)
    )
}
_SWITCH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def _read(kind: Any, text: str) -> Any:
    """The value of this type that the text stands for; ValueError if there is none."""
    plain = _plain(kind)
    if plain is type(None):
        if text.lower() != "none":
            raise ValueError
        return None
    if plain is typing.Literal:
        matching = [value for value in typing.get_args(kind) if str(value) == text]
        if not matching:
            raise ValueError
        return matching[0]
    if plain is bool:
        if text.lower() not in _SWITCH:
            raise ValueError
        return _SWITCH[text.lower()]
    if plain in (int, float, str):
        return plain(text)
    if plain in (collections.abc.Sequence, tuple, list):
        if text == "[]":
            return ()
        if "," not in text:
            raise ValueError
        return tuple(part.strip() for part in text.strip("[]").split(",") if part.strip())
    if kind is Any or kind is inspect.Parameter.empty:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    raise ValueError  # classes and functions cannot be written as text


def _wording(kinds: Sequence[Any]) -> str:
    """What may be given, in words; nothing if no text will do."""
    words = []
    for kind in kinds:
        plain = _plain(kind)
        if plain is typing.Literal:
            words += [str(value) for value in typing.get_args(kind)]
        elif plain in _WORDS:
            words.append(_WORDS[plain])
    if not words:
        return ""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


_WORDS = {
    type(None): "none",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    collections.abc.Sequence: "names with commas between",
}

"""Records written as JSON, read back as what they were; anything unknown is refused."""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import math
import types
import typing
from typing import Any, TypeVar

from fdfa.errors import ConfigError, unknown_name

__all__ = ["from_json", "value_from_json"]

RecordT = TypeVar("RecordT")


def from_json(kind: type[RecordT], content: Any, *, where: str) -> RecordT:
    """A record from what JSON holds of it.

    Args:
        kind: a frozen dataclass, whose annotations say the types.
        content: from ``json.loads``.
        where: it stands, for the text of an error, such as ``"config.json: train"``.

    Returns:
        The record; what is missing has its default.

    Raises:
        ConfigError: if a key is unknown or missing, or a value is not of its type.

    Example:
        >>> from fdfa.training import TrainingSettings
        >>> from_json(TrainingSettings, {"epochs": 3}, where="mine.json").epochs
        3
        >>> from_json(TrainingSettings, {"epoch": 3}, where="mine.json")
        Traceback (most recent call last):
            ...
        fdfa.errors.ConfigError: mine.json: unknown key 'epoch'. Did you mean 'epochs'? ...
    """
    record: RecordT = value_from_json(kind, content, where=where)
    return record


def value_from_json(kind: Any, content: Any, *, where: str) -> Any:
    """A value from what JSON holds of it.

    Args:
        kind: its type, as an annotation says it.
        content: from ``json.loads``.
        where: it stands.

    Returns:
        The value.

    Raises:
        ConfigError: if it is not of that type.

    Example:
        >>> value_from_json(tuple[str, ...], ["a", "b"], where="mine.json: names")
        ('a', 'b')
    """
    return _value(kind, content, where)


def _value(kind: Any, content: Any, where: str) -> Any:
    plain = typing.get_origin(kind) or kind
    if kind is Any:
        return content
    if plain in (typing.Union, types.UnionType):
        return _alternative(typing.get_args(kind), content, where)
    if plain is typing.Literal:
        if content not in typing.get_args(kind):
            raise ConfigError(
                f"{where}: {unknown_name('value', str(content), typing.get_args(kind))}"
            )
        return content
    if dataclasses.is_dataclass(kind):
        return _record(kind, content, where)
    if plain in (collections.abc.Mapping, dict):
        _, value_kind = typing.get_args(kind) or (str, Any)
        _expect(isinstance(content, dict), "an object", content, where)
        return {
            key: _value(value_kind, value, _below(where, key)) for key, value in content.items()
        }
    if plain in (tuple, list, collections.abc.Sequence):
        item = (typing.get_args(kind) or (Any,))[0]
        _expect(isinstance(content, list), "a list", content, where)
        entries = [_value(item, value, f"{where}[{n}]") for n, value in enumerate(content)]
        return entries if plain is list else tuple(entries)
    return _number_or_text(plain, content, where)


def _record(kind: Any, content: Any, where: str) -> Any:
    _expect(isinstance(content, dict), "an object", content, where)
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in content:
        if key not in fields:
            raise ConfigError(f"{where}: {unknown_name('key', key, list(fields))}")
    for name, field in fields.items():
        has_default = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        if name not in content and not has_default:
            raise ConfigError(
                f"{where}: key {name!r} is missing. Add it, or put the file back as it was."
            )
    values = {key: _value(hints[key], value, _below(where, key)) for key, value in content.items()}
    try:
        return kind(**values)
    except ConfigError as error:  # a value out of range: the record does not know its file
        raise ConfigError(f"{where}: {error}") from error


def _below(where: str, key: str) -> str:
    """The place of an entry: ``FILE: train.task``."""
    return f"{where}.{key}" if ": " in where else f"{where}: {key}"


def _alternative(kinds: tuple[Any, ...], content: Any, where: str) -> Any:
    if content is None and type(None) in kinds:
        return None
    refusals = []
    for kind in kinds:
        if kind is not type(None):
            try:
                return _value(kind, content, where)
            except ConfigError as error:
                refusals.append(error)
    raise refusals[0]


def _number_or_text(kind: Any, content: Any, where: str) -> Any:
    if kind is float and content is None:
        return math.nan  # JSON has no word for it
    if kind is float:
        number = isinstance(content, (int, float)) and not isinstance(content, bool)
        _expect(number, "a number", content, where)
        try:
            return float(content)
        except OverflowError as error:
            raise ConfigError(f"{where} must be a smaller number, below 1e308.") from error
    words = {int: "a whole number", str: "a text", bool: "true or false"}
    _expect(kind in words, "a value that JSON can hold", content, where)
    right = isinstance(content, kind) and not (kind is int and isinstance(content, bool))
    _expect(right, words[kind], content, where)
    return content


def _expect(right: bool, wanted: str, content: Any, where: str) -> None:
    if not right:
        shown = repr(content) if isinstance(content, str) else json.dumps(content, default=str)
        raise ConfigError(f"{where} must be {wanted}, not {shown[:80]}.")

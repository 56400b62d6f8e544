"""Options that stand in a ``config.json``, read by the types in their owners' signatures."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import fdfa.data
from fdfa.errors import ConfigError
from fdfa.methods import described
from fdfa.studies.json_values import plain
from fdfa.studies.records import value_from_json
from fdfa.studies.setup import CompareConfig, TrainConfig
from fdfa.studies.signatures import alternatives, hints_of
from fdfa.studies.task import Task, factory_of

__all__ = ["with_typed_options"]

ConfigT = TypeVar("ConfigT", bound=TrainConfig | CompareConfig)

# What is written of a function, a class or an object.
_OBJECT = re.compile(r"<(class|function|bound|built-in) .*>|<.* at 0x\w+>|functools\.partial\(.*")
_NONE = type(None)
_IN_JSON = {_NONE, bool, int, float, str, typing.Literal, list, tuple, dict} | {
    collections.abc.Sequence,
    collections.abc.Mapping,
}


def with_typed_options(config: ConfigT, *, where: str) -> ConfigT:
    """The same configuration, each option of method, data set and network of its right type.

    Args:
        config: as JSON held it.
        where: it stands, for the text of an error.

    Returns:
        The configuration; an option whose owner is unknown stays as it is, for others to refuse.

    Raises:
        ConfigError: if an option is not of its type, or of one that JSON cannot hold.

    Example:
        >>> config = TrainConfig(options={"taps": ["relu1", "relu2"]})
        >>> with_typed_options(config, where="config.json: train").options
        {'taps': ['relu1', 'relu2']}
    """
    task = _typed_task(config.task, f"{where}.task")
    if isinstance(config, CompareConfig):
        options = {
            name: _typed(given, functools.partial(_method, name), f"{where}.options.{name}")
            for name, given in config.options.items()
        }
        return dataclasses.replace(config, task=task, options=options)
    given = _typed(config.options, lambda: _method(config.method), f"{where}.options")
    return dataclasses.replace(config, task=task, options=given)


def _typed_task(task: Task, where: str) -> Task:
    data = _typed(
        task.data_options, lambda: fdfa.data.describe(task.data).loader, f"{where}.data_options"
    )
    model = _typed(task.model_options, lambda: factory_of(task.model), f"{where}.model_options")
    return dataclasses.replace(task, data_options=data, model_options=model)


def _method(name: str) -> Callable[..., Any]:
    return described(name).estimator


def _typed(
    given: Mapping[str, Any], find_owner: Callable[[], Callable[..., Any]], where: str
) -> dict[str, Any]:
    """Options by the signature of their owner."""
    if not given:
        return {}
    try:
        owner = find_owner()
        parameters = inspect.signature(owner).parameters
    except (ConfigError, KeyError, ValueError):  # who needs it will say that there is none
        return dict(given)
    hints = hints_of(owner)
    typed = {}
    for name, content in given.items():
        default = parameters[name].default if name in parameters else inspect.Parameter.empty
        if content == plain(default) and type(content) is type(plain(default)):
            typed[name] = default  # also of a type that JSON cannot hold
        else:
            typed[name] = _option(hints.get(name, Any), content, f"{where}.{name}")
    return typed


def _option(hint: Any, content: Any, where: str) -> Any:
    kinds = alternatives(hint)
    free = Any in kinds or object in kinds
    readable = [kind for kind in kinds if (typing.get_origin(kind) or kind) in _IN_JSON]
    text = isinstance(content, str)
    if text and Path in kinds:
        return Path(content)
    if (text and _OBJECT.fullmatch(content)) or not (readable or free):
        raise ConfigError(
            f"{where} was {str(content)[:80]!r}, of a type that JSON cannot hold. Start the run "
            "anew from Python."
        )
    if free:
        return content
    if content is None and _NONE not in readable:
        raise ConfigError(f"{where} must be a value, not null. Leave it out for its default.")
    value = value_from_json(typing.Union[tuple(readable)], content, where=where)  # noqa: UP007
    # As it was given: a tuple only where one is asked for.
    asked = tuple in {typing.get_origin(kind) or kind for kind in readable}
    return list(value) if isinstance(content, list) and not asked else value

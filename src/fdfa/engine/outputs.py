"""Which tensor of a model's return value is its output, and how to put another in its place."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch

from fdfa.errors import UnsupportedModelError, unknown_name

__all__ = ["map_tensors", "output_tensor"]


def output_tensor(returned: Any, *, name: str | int | None, sample_dims: int) -> torch.Tensor:
    """The output (N, K, ...) within what the model returned.

    Args:
        returned: what the model returned.
        name: key, attribute or index of the output in a dict, dataclass or tuple; None if the model
            returns it bare.
        sample_dims: number of leading dimensions that count samples.

    Returns:
        The output tensor itself.

    Raises:
        UnsupportedModelError: if it is not there, not floating point, or has no component
            dimension.
        ValueError: if it holds no sample.
    """
    y = returned if name is None else _entry(returned, name)
    if not isinstance(y, torch.Tensor):
        kind = type(y).__name__
        raise UnsupportedModelError(
            f"the model returned an object of type {kind} where one output tensor was expected:"
            " the output error belongs to one tensor. Pass output=NAME to say which entry of a"
            f" tuple, dict or dataclass it is{_entries(y)}."
        )
    if not y.is_floating_point():
        raise UnsupportedModelError(
            f"the model's output has dtype {y.dtype}: an output error needs floating point. Return"
            " logits or values, not class numbers."
        )
    if 0 in y.shape[:sample_dims]:
        raise ValueError(
            f"the batch is empty: the output has shape {tuple(y.shape)}. A mean over no samples has"
            " no gradient; leave empty batches out (drop_last, or a check before the call)."
        )
    if y.dim() <= sample_dims:
        raise UnsupportedModelError(
            f"the model's output has shape {tuple(y.shape)}, but (N, K, ...) with {sample_dims}"
            " sample dimension(s) and at least one component is needed. Keep the component"
            " dimension: (N, 1) instead of (N,), and lower sample_dims if it was raised."
        )
    return y


def map_tensors(value: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same value with ``function`` of every tensor in its place.

    Goes into mappings, tuples, lists, dataclasses and other objects with attributes; what holds no
    tensor that changes is kept as it is.

    Args:
        value: what a model returned; it is not changed.
        function: called with every tensor, in order.

    Returns:
        A value of the same type.
    """
    return _mapped(value, function, frozenset())


def _mapped(
    value: Any, function: Callable[[torch.Tensor], torch.Tensor], within: frozenset[int]
) -> Any:
    if isinstance(value, torch.Tensor):
        return function(value)
    if id(value) in within or callable(value):
        return value
    within |= {id(value)}
    if isinstance(value, (tuple, list)):
        entries = [_mapped(entry, function, within) for entry in value]
        if all(new is old for new, old in zip(entries, value, strict=True)):
            return value
        return type(value)(*entries) if hasattr(value, "_fields") else type(value)(entries)
    if isinstance(value, Mapping):
        old = dict(value.items())
    else:
        old = {name: getattr(value, name) for name in _names(value)}
    new = {name: _mapped(entry, function, within) for name, entry in old.items()}
    if all(new[name] is old[name] for name in old):
        return value
    result = copy.copy(value)
    for name, entry in new.items():
        if isinstance(value, Mapping):
            result[name] = entry
        else:
            object.__setattr__(result, name, entry)  # also in a frozen dataclass
    return result


def _entry(returned: Any, name: str | int) -> Any:
    if isinstance(returned, torch.Tensor):
        raise UnsupportedModelError(
            f"output={name!r} was given, but the model returns a bare tensor. Leave output= out."
        )
    names = _names(returned)
    if isinstance(returned, Mapping) and name in returned:
        return returned[name]
    if isinstance(returned, (tuple, list)):
        return returned[_index(returned, name)]
    if not isinstance(returned, Mapping) and isinstance(name, str) and name in names:
        return getattr(returned, name)
    raise UnsupportedModelError(unknown_name("output", str(name), names))


def _index(returned: tuple[Any, ...] | list[Any], name: str | int) -> int:
    fields = getattr(returned, "_fields", ())
    if name in fields:
        return int(fields.index(name))
    if isinstance(name, int) and -len(returned) <= name < len(returned):
        return name % len(returned)
    raise UnsupportedModelError(unknown_name("output", str(name), _names(returned)))


def _names(returned: Any) -> list[str]:
    if isinstance(returned, Mapping):
        return [str(key) for key in returned]
    if isinstance(returned, (tuple, list)):
        return list(getattr(returned, "_fields", ())) or [str(i) for i in range(len(returned))]
    if dataclasses.is_dataclass(returned):
        return [field.name for field in dataclasses.fields(returned)]
    return list(getattr(returned, "__dict__", ()))


def _entries(returned: Any) -> str:
    names = _names(returned)
    return f" (here: {', '.join(names)})" if names else ""

"""Which tensor of a model's return value is its output, and how to put another in its place."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch

from fdfa.errors import UnsupportedModelError, unknown_name

__all__ = ["output_tensor", "replace_output"]


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
    """
    y = returned if name is None else _entry(returned, name)
    if not isinstance(y, torch.Tensor):
        kind = type(y).__name__
        raise UnsupportedModelError(
            f"the model returned {_article(kind)} where one output tensor was expected: the output"
            " error belongs to one tensor. Pass output=NAME to say which entry of a tuple, dict or"
            f" dataclass it is{_entries(y)}."
        )
    if not y.is_floating_point():
        raise UnsupportedModelError(
            f"the model's output has dtype {y.dtype}: an output error needs floating point. Return"
            " logits or values, not class numbers."
        )
    if y.dim() <= sample_dims:
        raise UnsupportedModelError(
            f"the model's output has shape {tuple(y.shape)}, but (N, K, ...) with {sample_dims}"
            " sample dimension(s) and at least one component is needed. Keep the component"
            " dimension: (N, 1) instead of (N,), and lower sample_dims if it was raised."
        )
    return y


def replace_output(
    returned: Any,
    *,
    name: str | int | None,
    new: torch.Tensor,
    seal: Callable[[torch.Tensor], torch.Tensor],
) -> Any:
    """The same return value with another output, every other tensor sealed.

    Args:
        returned: what the model returned; it is not changed.
        name: as in :func:`output_tensor`.
        new: takes the output's place.
        seal: called with every other tensor, in order; its result takes that one's place.

    Returns:
        ``new`` itself for a bare output, else a container of the same type.
    """
    if name is None:
        return new
    if isinstance(returned, Mapping):
        result = copy.copy(returned)
        for key, value in returned.items():
            result[key] = new if key == name else _sealed(value, seal)  # type: ignore[index]
        return result
    if isinstance(returned, (tuple, list)):
        index = _index(returned, name)
        values = [new if i == index else _sealed(value, seal) for i, value in enumerate(returned)]
        return type(returned)(*values) if hasattr(returned, "_fields") else type(returned)(values)
    result = copy.copy(returned)
    for key in _names(returned):
        entry = new if key == name else _sealed(getattr(returned, key), seal)
        object.__setattr__(result, key, entry)  # also in a frozen dataclass
    return result


def _sealed(value: Any, seal: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return seal(value)
    if isinstance(value, Mapping):
        result = copy.copy(value)
        for key, entry in value.items():
            result[key] = _sealed(entry, seal)  # type: ignore[index]
        return result
    if isinstance(value, (tuple, list)):
        entries = [_sealed(entry, seal) for entry in value]
        return type(value)(*entries) if hasattr(value, "_fields") else type(value)(entries)
    return value


def _entry(returned: Any, name: str | int) -> Any:
    if isinstance(returned, torch.Tensor):
        raise UnsupportedModelError(
            f"output={name!r} was given, but the model returns a bare tensor. Leave output= away."
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


def _article(kind: str) -> str:
    return f"an object of type {kind}"

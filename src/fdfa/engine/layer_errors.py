"""Linear layers and convolutions: which one holds a weight, and the error at its output."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from fdfa.engine.intercept import Forward, Interception
from fdfa.errors import UnsupportedModelError

__all__ = ["Layer", "LayerErrors", "from_rows", "layer_of", "to_rows"]

Layer = nn.Linear | _ConvNd


def layer_of(model: nn.Module, name: str) -> Layer | None:
    """The linear layer or convolution that holds a weight.

    Args:
        model: that holds them.
        name: of the weight, dotted.

    Returns:
        The layer, the first of those that share it; None where the weight belongs to others.
    """
    owner, _, tensor = name.rpartition(".")
    module = model.get_submodule(owner)
    if isinstance(module, Layer) and tensor == "weight":
        return module
    return next((layer for layer, held in _holders(model, [name]) if held == name), None)


def to_rows(weight: Tensor, layer: Layer) -> Tensor:
    """A weight with one row for each output of its layer.

    Args:
        weight: of the layer's weight's shape.
        layer: the layer.

    Returns:
        (groups, outputs of a group, all that a row holds); a linear layer is one group.
    """
    groups = _groups(layer)
    parts = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    if isinstance(layer, _ConvTransposeNd):
        parts = parts.transpose(1, 2)
    return parts.flatten(2)


def from_rows(rows: Tensor, layer: Layer) -> Tensor:
    """A weight from its rows: the inverse of :func:`to_rows`.

    Args:
        rows: (groups, outputs of a group, ...).
        layer: the layer.

    Returns:
        Of the layer's weight's shape.
    """
    if isinstance(layer, nn.Linear):
        return rows[0]
    shape = layer.weight.shape
    if not isinstance(layer, _ConvTransposeNd):
        return rows.reshape(shape)
    parts = rows.reshape(*rows.shape[:2], shape[0] // layer.groups, *shape[2:])
    return parts.transpose(1, 2).reshape(shape)


class LayerErrors:
    """A context for one forward pass: the error at each layer's output is told as it comes by.

    Args:
        model: whose forward pass runs in the context.
        names: of weights, each of a linear layer or a convolution.
        tell: called in the backward pass with a weight's name and the error at an output of its
            layer, (groups, N, outputs of a group): positions count as samples. Once for each call
            of the layer.

    Raises:
        UnsupportedModelError: when the context ends, if a layer was not called: its weight was
            used in another way, and its error went by unseen.
    """

    def __init__(
        self, model: nn.Module, names: Iterable[str], tell: Callable[[str, Tensor], None]
    ) -> None:
        self._tell = tell
        self._unseen = dict.fromkeys(names)
        self._interception = Interception(
            {layer: self._watched(name, layer) for layer, name in _holders(model, names)}
        )

    def __enter__(self) -> Self:
        self._interception.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._interception.__exit__(kind, *error)
        if kind is None and self._unseen:
            raise UnsupportedModelError(
                f"weight '{name}' is used without a call of its layer, '{name.rpartition('.')[0]}':"
                " the error there cannot be seen, so no projection can learn from it. Call the"
                " layer, or pass learn_p=False."
                for name in self._unseen
            )

    def _watched(self, name: str, layer: Layer) -> Forward:
        forward = layer.forward

        def watched(*args: Any, **kwargs: Any) -> Tensor:
            y: Tensor = forward(*args, **kwargs)
            self._unseen.pop(name, None)
            if y.requires_grad:
                hear = functools.partial(_hear, self._tell, name, layer)
                y.register_hook(hear)  # type: ignore[no-untyped-call]
            return y

        return watched


def _holders(model: nn.Module, names: Iterable[str]) -> Iterator[tuple[Layer, str]]:
    """Every layer with the name of its weight, for these weights; several layers may share one."""
    owners = {
        model.get_submodule(owner): name
        for name in names
        for owner, _, tensor in [name.rpartition(".")]
        if tensor == "weight"
    }
    tensors = {id(owner._parameters.get("weight")): name for owner, name in owners.items()}
    tensors.pop(id(None), None)  # those that are parametrised
    for module in model.modules():
        if isinstance(module, Layer):
            name = owners.get(module) or tensors.get(id(module._parameters.get("weight")))
            if name is not None:
                yield module, name


@torch.no_grad()
def _hear(tell: Callable[[str, Tensor], None], name: str, layer: Layer, error: Tensor) -> None:
    if not isinstance(layer, nn.Linear):
        error = error.movedim(-1 - len(layer.kernel_size), -1)
    groups = _groups(layer)
    tell(name, error.reshape(-1, groups, error.shape[-1] // groups).movedim(1, 0))


def _groups(layer: Layer) -> int:
    return 1 if isinstance(layer, nn.Linear) else layer.groups

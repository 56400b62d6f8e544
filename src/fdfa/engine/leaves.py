"""The parameters that learn, as rules see them that perturb all weights."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fdfa.engine.intercept import Forward

__all__ = ["Leaf", "forwards_of_padding", "leaves_of", "origin"]


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A tensor that directions have a part for.

    Attributes:
        name: of the parameter, dotted.
        number: its place among all parameters of the model, those at rest included: with it its
            random numbers stay the same while others are frozen and freed.
        shape: of the tensor.
        dtype: of the tensor.
        device: where it lies.
        row: one that no direction moves, since no gradient reaches it; None if there is none.
    """

    name: str
    number: int
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    row: int | None = None

    @classmethod
    def like(cls, tensor: Tensor, *, name: str, number: int, row: int | None = None) -> Leaf:
        """The leaf that a tensor is."""
        return cls(name, number, tensor.shape, tensor.dtype, tensor.device, row)

    @property
    def dimension(self) -> int:
        """How many numbers of it can move."""
        return self.shape.numel() - (0 if self.row is None else self.shape[1:].numel())

    def at_rest(self, part: Tensor) -> Tensor:
        """Let the row rest that no direction moves.

        Args:
            part: of one direction, or of several, ``(..., *shape)``; written to.

        Returns:
            The same tensor.
        """
        if self.row is not None:
            part.select(part.dim() - len(self.shape), self.row).zero_()
        return part


def leaves_of(model: nn.Module) -> list[Leaf]:
    """Those parameters of a model that learn, in its order.

    An embedding's ``padding_idx`` gets no gradient: that row rests, unless another module has the
    weight too.

    Args:
        model: any module.

    Returns:
        A leaf each.

    Example:
        >>> [leaf] = leaves_of(torch.nn.Embedding(5, 2, padding_idx=0))
        >>> leaf.row, leaf.dimension
        (0, 8)
    """
    rows = _rows_at_rest(model)
    return [
        Leaf.like(parameter, name=name, number=number, row=rows[id(parameter)])
        for number, (name, parameter) in enumerate(model.named_parameters())
        if parameter.requires_grad
    ]


def forwards_of_padding(model: nn.Module) -> dict[nn.Module, Forward]:
    """What is to run in the place of embeddings whose row of padding moves all the same.

    Where another module has the weight, the row learns from that one alone: looked up, it stays.

    Args:
        model: any module.

    Returns:
        Module to a function with the same result as long as the row has not moved.
    """
    rows = _rows_at_rest(model)
    return {
        module: _looked_up(module, module.padding_idx)
        for module in model.modules()
        if type(module) is nn.Embedding
        and module.padding_idx is not None
        and module.max_norm is None
        and "forward" not in module.__dict__
        and rows.get(id(module._parameters.get("weight")), 0) is None
    }


def _looked_up(module: nn.Embedding, row: int) -> Forward:
    forward, held = module.forward, module.weight.detach()[row]

    def with_padding(input: Tensor) -> Tensor:
        return torch.where((input == row)[..., None], held, forward(input))

    return with_padding


def _rows_at_rest(model: nn.Module) -> dict[int, int | None]:
    """By the parameter's id."""
    rows: dict[int, set[int | None]] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                row = None
                if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and name == "weight":
                    row = module.padding_idx
                rows.setdefault(id(parameter), set()).add(row)
    return {key: None if len(found) > 1 else found.pop() for key, found in rows.items()}


def origin(leaves: Sequence[Leaf]) -> int:
    """A number that differs where a direction would be drawn over other leaves, or otherwise.

    Args:
        leaves: of the direction.

    Returns:
        A checksum of what the draw is a function of; the same in all processes of a training.
    """
    drawn = [
        (leaf.name, leaf.number, *leaf.shape, leaf.row, str(leaf.dtype), leaf.device.type)
        for leaf in leaves
    ]
    return zlib.crc32(repr(drawn).encode())

"""What a method keeps for each weight, so as to carry the error back; and how it starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal, cast

import torch
from torch import Tensor, nn

from fdfa.errors import ConfigError, unknown_name

__all__ = [
    "START_NAMES",
    "FeedbackWeights",
    "WeightStart",
    "check_start",
    "draw_start",
    "fans",
]

WeightStart = Literal["uniform", "kaiming-uniform", "xavier-uniform"]
START_NAMES = ("uniform", "kaiming-uniform", "xavier-uniform")


class FeedbackWeights(nn.Module):
    """What a method keeps for each weight: one buffer, under the weight's name, dots as slashes."""

    def __contains__(self, name: str) -> bool:
        return _key(name) in self._buffers

    def __getitem__(self, name: str) -> Tensor:
        return cast(Tensor, self._buffers[_key(name)])

    def __setitem__(self, name: str, value: Tensor) -> None:
        self._buffers[_key(name)] = value

    def names(self) -> list[str]:
        """Names of the weights that have feedback."""
        return [key.replace("/", ".") for key in self._buffers]

    def conflicts(
        self, entries: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]
    ) -> list[str]:
        """Why a state cannot be that of these weights.

        Args:
            entries: of a state dict, prefix removed.
            shapes: of the model's weights, by dotted name.

        Returns:
            One text a problem; empty if it can.
        """
        problems = []
        for key, value in entries.items():
            name = key.replace("/", ".")
            if "." in key or name not in shapes:
                problems.append(f"'feedback.{key}' belongs to no weight of the model.")
            elif shapes[name] != value.shape:
                sizes = f"{tuple(value.shape)} in the state and {tuple(shapes[name])} here"
                problems.append(f"'feedback.{key}' is {sizes}.")
        return problems

    def adopt(self, entries: Mapping[str, Tensor], like: Tensor) -> None:
        """Make room for exactly these entries of a state dict.

        Args:
            entries: of a state dict, prefix removed.
            like: a tensor with the device and dtype that they go with.
        """
        self._buffers.clear()
        dtype = torch.promote_types(like.dtype, torch.float32)
        # in an order that is the same in all processes: DDP sends all buffers as one
        for key, value in sorted(entries.items()):
            self._buffers[key] = torch.empty_like(value, dtype=dtype, device=like.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FeedbackWeights:
        kept = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for key, before in kept.items():
            now = self._buffers[key]
            # .half() and .bfloat16() convert the model, not what the feedback has learned
            if (
                before is not None
                and now is not None
                and now.dtype.itemsize < 4 <= before.dtype.itemsize
            ):
                self._buffers[key] = before.to(now.device)
        return self


def check_start(start: str) -> None:
    """Refuse an unknown start.

    Args:
        start: as the user gave it.

    Raises:
        ConfigError: if it is none of :data:`START_NAMES`.
    """
    if start not in START_NAMES:
        raise ConfigError(unknown_name("start", str(start), START_NAMES))


def draw_start(start: WeightStart, weight: Tensor, generator: torch.Generator) -> Tensor:
    """A random feedback weight, of a weight's shape and layout.

    Args:
        start: ``"uniform"`` U(+-1/sqrt(fan_in)), as linear layers and convolutions start;
            ``"kaiming-uniform"`` U(+-sqrt(6/fan_in)); ``"xavier-uniform"``
            U(+-sqrt(6/(fan_in + fan_out))).
        weight: that it goes with.
        generator: draws it.

    Returns:
        The feedback weight, never narrower than float32.
    """
    fan_in, fan_out = fans(weight)
    bound = {
        "uniform": 1 / math.sqrt(fan_in),
        "kaiming-uniform": math.sqrt(6 / fan_in),
        "xavier-uniform": math.sqrt(6 / (fan_in + fan_out)),
    }[start]
    dtype = torch.promote_types(weight.dtype, torch.float32)
    # drawn in one order whatever the weight's memory format
    drawn = torch.empty(weight.shape, dtype=dtype, device=weight.device)
    return drawn.uniform_(-bound, bound, generator=generator)


def fans(weight: Tensor) -> tuple[int, int]:
    """Inputs and outputs of a unit, as the layers' own initialisation counts them.

    Args:
        weight: of two or more dimensions.

    Returns:
        fan_in and fan_out.
    """
    return nn.init._calculate_fan_in_and_fan_out(weight)


def _key(name: str) -> str:
    return name.replace(".", "/")

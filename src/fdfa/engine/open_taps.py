"""One whole forward pass whose output can be differentiated by every tapped activation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fdfa.engine.at_taps import AtTaps
from fdfa.engine.outputs import output_tensor
from fdfa.engine.taps import Tap, TapPlan

__all__ = ["OpenPass", "open_pass"]


@dataclasses.dataclass(frozen=True)
class OpenPass:
    """A forward pass that no tap cuts, with its autograd graph.

    Attributes:
        returned: what the model returned.
        output: y (N, K, ...), the output within it.
        offsets: one tensor of zeros a tap, of its shape, added to it: the derivative of the output
            by an offset is that by the tap, through all later ones.
    """

    returned: Any
    output: Tensor
    offsets: tuple[Tensor, ...]


def open_pass(
    model: nn.Module,
    plan: TapPlan,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    output: str | int | None,
    sample_dims: int,
) -> OpenPass:
    """Run the model once with something to differentiate by at every tap.

    Buffers and random number generators move as in any pass: guard them where they must not.

    Args:
        model: the user's model.
        plan: where the taps are.
        args: positional arguments of the model.
        kwargs: keyword arguments of the model.
        output: names the output in what the model returns.
        sample_dims: number of leading dimensions that count samples.

    Returns:
        The pass.

    Example:
        >>> from fdfa.engine.taps import plan_taps
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> plan = plan_taps(model, (torch.rand(3, 4),), {})
        >>> run = open_pass(model, plan, (torch.rand(3, 4),), {}, output=None, sample_dims=1)
        >>> (slope,) = torch.autograd.grad(run.output.sum(), run.offsets)
        >>> bool((slope == model[2].weight.sum(0)).all())
        True
    """
    offsets: dict[str, Tensor] = {}

    def open_tap(tap: Tap, tensor: Tensor) -> Tensor:
        offsets[tap.name] = torch.zeros_like(tensor, requires_grad=True)
        return tensor + offsets[tap.name]  # a new tensor: what works in place leaves the offset be

    with torch.enable_grad(), AtTaps(model, plan, open_tap):
        returned = model(*args, **kwargs)
    return OpenPass(
        returned=returned,
        output=output_tensor(returned, name=output, sample_dims=sample_dims),
        offsets=tuple(offsets[tap.name] for tap in plan.taps),
    )

"""An independent oracle of direct feedback: a multilayer perceptron, run block by block.

Nothing is shared with the library. Each local gradient is autograd's of its block alone, the
directional derivative is ``torch.func.jvp``'s from block to block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, softmax

__all__ = ["blocks_of", "feedback_after", "gradients_of", "network"]

Blocks = Sequence[nn.Module]
WIDTHS = (5, 8, 7, 3)


def network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Two hidden layers."""
    torch.manual_seed(11)
    return nn.Sequential(
        nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3)
    ).to(dtype)


def blocks_of(model: nn.Sequential) -> list[nn.Module]:
    """Its blocks, each ending where a tap belongs."""
    return [model[0:2], model[2:4], model[4:5]]


def gradients_of(
    model: nn.Sequential, feedback: Sequence[Tensor], x: Tensor, target: Tensor
) -> dict[str, Tensor]:
    """Gradients of the mean cross-entropy of one process, each hidden block's from ``e B``."""
    h, hidden = x, []
    for block in blocks_of(model):
        h = block(h.detach())
        hidden.append(h)
    e = (softmax(h.detach(), dim=1) - one_hot(target, h.shape[1])) / len(x)  # (N, K)
    found: dict[int, Tensor] = {}
    for block, output, credit in zip(
        blocks_of(model), hidden, [*(e @ B for B in feedback), e], strict=True
    ):
        parameters = list(block.parameters())
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(output, parameters, credit), strict=True
        ):
            found[id(parameter)] = gradient
    return {name: found[id(parameter)] for name, parameter in model.named_parameters()}


def derivative_of(model: nn.Sequential, x: Tensor, noises: Sequence[Tensor]) -> Tensor:
    """The output's derivative d (N, K) along perturbations of all taps at once."""
    first, *others = blocks_of(model)
    h, tangent = first(x), noises[0]
    for number, block in enumerate(others, 1):
        h, tangent = torch.func.jvp(block, (h,), (tangent,))
        if number < len(noises):
            tangent = tangent + noises[number]
    return tangent.detach()


def feedback_after(
    model: nn.Sequential,
    feedback: Sequence[Tensor],
    shares: Sequence[tuple[Tensor, Sequence[Tensor]]],
    change: Callable[[Tensor, Tensor], Tensor],
    *,
    innovation: bool = False,
) -> list[Tensor]:
    """The maps after one probe on all processes.

    Args:
        model: with the weights of the forward pass.
        feedback: the maps before.
        shares: inputs and perturbations of each process.
        change: from a map and its mean correlation over all samples to the new map.
        innovation: correlate what the maps did not foresee.
    """
    sums = [torch.zeros_like(B) for B in feedback]
    for x, noises in shares:
        d = derivative_of(model, x, noises)
        if innovation:
            d = d - sum(p @ B.T for p, B in zip(noises, feedback, strict=True))
        sums = [total + d.T @ p for total, p in zip(sums, noises, strict=True)]
    samples = sum(len(x) for x, _ in shares)
    return [change(B, total / samples) for B, total in zip(feedback, sums, strict=True)]

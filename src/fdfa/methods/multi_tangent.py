"""Several forward gradients a step, averaged or joined to the projection on their span."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fdfa.engine.directions import Directions, StackedDirections
from fdfa.engine.leaves import Leaf
from fdfa.engine.probes import draw_noise, generator_for
from fdfa.engine.tangent_sets import REDRAWS, TangentSet, independent
from fdfa.engine.weight_probe import WeightProbeEstimator
from fdfa.methods.record import Method

__all__ = ["RECORDS", "MultiTangent"]

_AT_ONCE = 2**14


class MultiTangent(WeightProbeEstimator):
    """Multi-tangent forward gradients in weight space (Fluegel et al. 2024, arXiv:2410.17764).

    k tangents V (k, n) over all n weights, ``c = V g`` by k directional derivatives; with
    ``combine``

    - ``"projection"``: ``V^T (V V^T)^{-1} c``, the gradient's orthogonal projection on their span:
      it never points uphill, is the gradient itself for k = n, and on average k/n of it, which
      ``unbiased=True`` divides out, and its mean length ``length_correction=True``;
    - ``"mean"``: ``V^T c / k``; unbiased;
    - ``"sum"``: ``V^T c``.

    One Gram matrix over all weights, solved by Cholesky in float64. More tangents than weights are
    no use: n are taken.

    Args:
        model: any module.
        output: which entry of the model's return value is the output (N, K, ...).
        count: k, the tangents a step; each is one more forward pass with derivatives.
        combine: ``"projection"``, ``"mean"`` or ``"sum"``.
        unbiased: multiply the projection by n/k.
        tangents: ``"normal"``; ``"rademacher"``, dependent ones drawn again; ``"orthonormal"``, a
            uniform set at right angles, of length sqrt(n), so that the mean stays unbiased; or
            ``"angle"``: the first uniform, every other one at ``angle`` to it, of the same length.
        angle: degrees, in (0, 90].
        length_correction: divide the projection by its mean length, chi_k / chi_n of the
            gradient's; not together with ``unbiased``.
        probe: ``"forward-ad"`` or, for what has no forward derivative, ``"finite-difference"``.
        difference_step: length of a finite difference; None takes 1e-3, or 1e-5 in float64.
        seed: of the tangents; by default torch's seed.

    Raises:
        ConfigError: if an option is unknown or out of range.

    Example:
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)
        ... ).double()
        >>> learner = MultiTangent(model, count=23)  # as many as there are weights
        >>> learner(torch.ones(3, 4).double()).sum().backward()
        >>> model[2].bias.grad  # the exact gradient
        tensor([3.0000, 3.0000], dtype=torch.float64)
    """

    method = "multi-tangent"

    def __init__(
        self,
        model: nn.Module,
        *,
        output: str | int | None = None,
        count: int = 4,
        combine: Literal["projection", "mean", "sum"] = "projection",
        unbiased: bool = False,
        tangents: Literal["normal", "rademacher", "orthonormal", "angle"] = "normal",
        angle: float = 90.0,
        length_correction: bool = False,
        probe: Literal["forward-ad", "finite-difference"] = "forward-ad",
        difference_step: float | None = None,
        seed: int | None = None,
    ) -> None:
        tangent_set = TangentSet(count, combine, unbiased, tangents, angle, length_correction)
        super().__init__(
            model, output=output, derivative=probe, difference_step=difference_step, seed=seed
        )
        self.set = tangent_set

    def directions(self, leaves: Sequence[Leaf], seeds: Sequence[int]) -> Directions:
        """As many as asked for, and how ``combine`` weighs their slopes."""
        n = sum(leaf.dimension for leaf in leaves)
        k = min(self.set.count, n)
        stacks, factor = self._draw(leaves, k, seeds)
        weigh = functools.partial(torch.mul, self.set.scale(k, n))
        if self.set.combine == "projection":
            weigh = functools.partial(_projected, factor, self.set.scale(k, n))
        return StackedDirections.of(stacks, weigh)

    def _draw(
        self, leaves: Sequence[Leaf], k: int, seeds: Sequence[int]
    ) -> tuple[list[Tensor], Tensor]:
        """The tangents, (k, ...) a leaf, and the Cholesky factor of their Gram matrix, if used."""
        for attempt in range(REDRAWS if self.set.tangents == "rademacher" else 1):
            stacks = [
                _drawn(self.set.noise, k, leaf, (*seeds, attempt, leaf.number)) for leaf in leaves
            ]
            if not self.set.lies_as_drawn:
                stacks = self._shaped(stacks, leaves)
            if not self.set.needs_gram:
                return stacks, torch.empty(0)
            factor, fine = independent(_gram(stacks))
            if fine.item():
                return stacks, factor
        raise self.set.dependent(k)

    def _shaped(self, stacks: Sequence[Tensor], leaves: Sequence[Leaf]) -> list[Tensor]:
        """Brought to the set's angles, of length sqrt(n), n without what rests."""
        device = stacks[0].device
        wide = torch.float32 if device.type == "mps" else torch.float64
        V = torch.cat([stack.to(device, wide).flatten(1) for stack in stacks], dim=1)
        # columns of zeros stay so, but count for the length
        V = self.set.shaped(V) * math.sqrt(sum(leaf.dimension for leaf in leaves) / V.shape[1])
        parts = torch.split(V, [leaf.shape.numel() for leaf in leaves], dim=1)
        return [
            leaf.at_rest(part.reshape(len(V), *leaf.shape).to(leaf.device, leaf.dtype))
            for part, leaf in zip(parts, leaves, strict=True)
        ]


def _projected(factor: Tensor, scale: float, slopes: Tensor) -> Tensor:
    """``(V V^T)^{-1} c``, times what makes it unbiased."""
    solved = torch.cholesky_solve(slopes.to(factor)[:, None], factor)[:, 0]
    return (solved * scale).to(slopes)


def _drawn(noise: str, k: int, leaf: Leaf, seeds: Sequence[int]) -> Tensor:
    """(k, ...) independent numbers of a leaf's dtype."""
    wide = torch.promote_types(leaf.dtype, torch.float32)
    drawn = draw_noise(noise, (k, *leaf.shape), wide, generator_for(leaf.device, *seeds))
    return leaf.at_rest(drawn.to(leaf.dtype))


def _gram(stacks: Sequence[Tensor]) -> Tensor:
    """``V V^T`` over all weights, float64, on the CPU: it is small, and every CPU has float64."""
    k = len(stacks[0])
    gram = torch.zeros(k, k, dtype=torch.float64)
    for stack in stacks:
        whole = stack[0].numel() // _AT_ONCE * _AT_ONCE
        many, few = torch.tensor_split(stack.flatten(1), [whole], dim=1)
        # Of many weights, rounding within a piece is below that of the slopes. Where there are few,
        # tangents as many as weights may be nearly dependent, and wide numbers cost nothing.
        V = many.to(torch.promote_types(many.dtype, torch.float32)).reshape(k, -1, _AT_ONCE)
        gram += torch.bmm(V.transpose(0, 1), V.permute(1, 2, 0)).cpu().double().sum(0)
        few = few if few.device.type == "mps" else few.double()
        gram += (few @ few.T).cpu()
    return gram


RECORDS = (
    Method(
        "multi-tangent",
        MultiTangent,
        "k directional derivatives in weight space, averaged or projected on their span",
        "Fluegel et al. 2024, arXiv:2410.17764",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=True,
        extra_state="none",
        products="3 k",
        aliases=("frog",),
    ),
)

"""Several forward gradients a step, averaged or joined to the projection on their span."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fdfa.engine.directions import Directions, DrawnDirection, KeptDirection
from fdfa.engine.tangent_sets import REDRAWS, TangentSet, independent
from fdfa.engine.weight_probe import WeightProbeEstimator

__all__ = ["MultiTangent"]

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

    def directions(self, parameters: Mapping[str, Tensor], seeds: Sequence[int]) -> Directions:
        """As many as asked for, and how ``combine`` weighs their slopes."""
        leaves = list(parameters.values())
        n = sum(leaf.numel() for leaf in leaves)
        k = min(self.set.count, n)
        sets, factor = self._draw(leaves, k, seeds)
        weigh = functools.partial(torch.mul, self.set.scale(k, n))
        if self.set.combine == "projection":
            weigh = functools.partial(_projected, factor, self.set.scale(k, n))
        return Directions([KeptDirection(parts) for parts in sets], weigh)

    def _draw(
        self, leaves: Sequence[Tensor], k: int, seeds: Sequence[int]
    ) -> tuple[list[list[Tensor]], Tensor]:
        """The tangents, part by part, and their Gram matrix's Cholesky factor, empty if unused."""
        for attempt in range(REDRAWS if self.set.tangents == "rademacher" else 1):
            drawn = [DrawnDirection(self.set.noise, leaves, (*seeds, j, attempt)) for j in range(k)]
            sets = [[one.leaf(i) for i in range(len(leaves))] for one in drawn]
            if not self.set.lies_as_drawn:
                sets = _parts(self.set.shaped(_matrix(sets)), leaves)
            if not self.set.needs_gram:
                return sets, torch.empty(0)
            factor, fine = independent(_gram(sets))
            if fine.item():
                return sets, factor
        raise self.set.dependent(k)


def _projected(factor: Tensor, scale: float, slopes: Tensor) -> Tensor:
    """``(V V^T)^{-1} c``, times what makes it unbiased."""
    solved = torch.cholesky_solve(slopes.to(factor)[:, None], factor)[:, 0]
    return (solved * scale).to(slopes)


def _gram(sets: Sequence[Sequence[Tensor]]) -> Tensor:
    """``V V^T`` over all weights, float64, on the CPU: it is small, and every CPU has float64."""
    k = len(sets)
    gram = torch.zeros(k, k, dtype=torch.float64)
    for parts in zip(*sets, strict=True):
        rows = [part.flatten().split(_AT_ONCE) for part in parts]
        for pieces in zip(*rows, strict=True):
            V = torch.stack(pieces)  # (k, at most _AT_ONCE): wide numbers that stay in the cache
            V = V if V.device.type == "mps" else V.double()
            gram += (V @ V.T).cpu()
    return gram


def _matrix(sets: Sequence[Sequence[Tensor]]) -> Tensor:
    """V (k, n), float64 where the device has it."""
    device = sets[0][0].device
    wide = torch.float32 if device.type == "mps" else torch.float64
    rows = [torch.cat([part.to(device, wide).flatten() for part in parts]) for parts in sets]
    return torch.stack(rows)


def _parts(V: Tensor, leaves: Sequence[Tensor]) -> list[list[Tensor]]:
    sizes = [leaf.numel() for leaf in leaves]
    return [
        [
            part.view(leaf.shape).to(leaf)
            for part, leaf in zip(row.split(sizes), leaves, strict=True)
        ]
        for row in V
    ]

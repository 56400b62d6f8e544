"""Mean and covariance of per-sample Jacobians, without holding them all."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from fdfa.diagnostics.jacobians import OpenTaps, OwnBlocks
from fdfa.engine.probes import generator_for

__all__ = ["JacobianMoments", "measure_moments"]


@dataclasses.dataclass(frozen=True)
class JacobianMoments:
    """What a sub-sample says of the Jacobians ``J_n = dy_n / dh_n`` at one tap.

    Measured twice where it was measured by random signs, so that products of the two have no bias;
    else both are one and the same.

    Attributes:
        means: ``Jbar`` (K, |h|), twice.
        credits: ``e_n J_n`` (samples, |h|), twice.
        products: (K, K), the mean of ``J_n J_n^T``.
        reach: (K, K), the same with the derivatives by other samples' activations beside.
        samples: how many were measured.
    """

    means: tuple[Tensor, Tensor]
    credits: tuple[Tensor, Tensor]
    products: Tensor
    reach: Tensor
    samples: int

    @property
    def mean(self) -> Tensor:
        """``Jbar`` (K, |h|), the best there is."""
        one, other = self.means
        return one if one is other else (one + other) / 2

    @property
    def covariance(self) -> Tensor:
        """(K, K): that of the Jacobians' rows over the samples, summed over units, unbiased."""
        centred = self.products - symmetric_product(*self.means)
        return centred * (self.samples / (self.samples - 1))

    def projected(self, P: Tensor) -> JacobianMoments:
        """Those of ``P J_n``.

        Args:
            P: (r, K).

        Returns:
            With the credits as they are.
        """
        one, other = (P.to(mean.dtype) @ mean for mean in self.means)
        wide = P.double()
        return dataclasses.replace(
            self,
            means=(one, one if self.means[0] is self.means[1] else other),
            products=wide @ self.products @ wide.T,
            reach=wide @ self.reach @ wide.T,
        )


def measure_moments(
    taps: OpenTaps, e: Tensor, *, exact: bool, seed: int = 0
) -> list[JacobianMoments]:
    """The moments at every tap, of the samples chosen.

    Args:
        taps: the pass.
        e: the output error of the chosen samples (samples, K).
        exact: where samples meet, take every sample's own block exactly; else by random signs.
        seed: of these.

    Returns:
        One a tap.
    """
    drawn = taps.coupled and not exact
    K, samples = taps.outputs, len(taps.chosen)
    wide = torch.promote_types(taps.y.dtype, torch.float32)
    times = 2 if drawn else 1
    means = [[e.new_zeros(K, n, dtype=wide) for _ in range(times)] for n in taps.units]
    credits = [[e.new_empty(samples, n, dtype=wide) for _ in range(times)] for n in taps.units]
    squares = [e.new_zeros(2, K, K, dtype=torch.float64) for _ in taps.units]
    for blocks in _measured(taps, seed if drawn else None):
        tap, rows = blocks[0].tap, blocks[0].rows
        own = [block.own.to(wide) for block in blocks]
        for place, one in enumerate(own):
            means[tap][place] += one.sum(1)
            credits[tap][place][rows] = torch.einsum("nk,kni->ni", e[rows].to(wide), one)
        reach = sum(block.reach.double() for block in blocks) / times
        squares[tap][0] += symmetric_product(own[0].flatten(1), own[-1].flatten(1))
        squares[tap][1] += reach
    return [
        JacobianMoments(
            means=(mean[0] / samples, mean[-1] / samples) if drawn else (mean[0] / samples,) * 2,
            credits=(credit[0], credit[-1]),
            products=square[0] / samples,
            reach=square[1] / samples,
            samples=samples,
        )
        for mean, credit, square in zip(means, credits, squares, strict=True)
    ]


def symmetric_product(a: Tensor, b: Tensor) -> Tensor:
    """``(a b^T + b a^T) / 2`` of two matrices, in double precision."""
    product = (a @ b.T).double()
    return (product + product.T) / 2


def _measured(taps: OpenTaps, seed: int | None) -> Iterator[tuple[OwnBlocks, ...]]:
    """Pieces of the own blocks, two independent ones of each where they are drawn."""
    if seed is None:
        for block in taps.own_blocks():
            yield (block,)
        return
    generators = [generator_for(torch.device("cpu"), seed, place) for place in range(2)]
    yield from zip(*map(taps.drawn_blocks, generators), strict=True)

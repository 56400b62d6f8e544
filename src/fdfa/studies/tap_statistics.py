"""What the Jacobians at a tap say of the credit that a feedback map could give there."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdfa.diagnostics.credit_parts import explainable_share
from fdfa.diagnostics.jacobian_moments import JacobianMoments, measure_moments
from fdfa.diagnostics.jacobians import OpenTaps, open_learner
from fdfa.engine.lessons import as_matrix
from fdfa.engine.random_state import random_state_of
from fdfa.methods.fdfa import FDFA

__all__ = ["MeasuredTaps", "TapStatistics", "measure_taps"]


@dataclasses.dataclass(frozen=True)
class TapStatistics:
    """One tap, in shares of the energy of the mean Jacobian's credit ``e Jbar``.

    Attributes:
        name: of the tap.
        units: |h|.
        ceiling: cosine of ``e Jbar`` with the true credit: what no rate improves on.
        spread: energy of ``e (Jbar - J_n)`` relative to that of the true credit.
        explainable: share of the true credit that the best map of the error explains.
        reach: what one unit's perturbation, anywhere, adds to the energy of a map's noise in a
            probe, before it is multiplied by this tap's units: of each tap, by name.
        own: what has to be added to that for this tap itself.
        drift: squared, of the mean Jacobian in one step.
    """

    name: str
    units: int
    ceiling: float
    spread: float
    explainable: float
    reach: dict[str, float]
    own: float
    drift: float

    def noise(self, beside: Sequence[TapStatistics]) -> float:
        """Energy of one probe's noise, where these taps are probed at once."""
        return self.units * sum(self.reach[tap.name] for tap in beside) + self.own

    def cosine(self, rate: float, interval: int, beside: Sequence[TapStatistics]) -> float:
        """Predicted for the credit by a map that follows with this rate.

        Noise is uncorrelated with the rest; the lag, of length ``drift`` for every step that the
        map is behind, is taken to be so.

        Args:
            rate: a.
            interval: steps from probe to probe.
            beside: the taps that are probed at once, this one among them.

        Returns:
            The cosine.
        """
        behind = interval * (1 - rate) / rate + (interval - 1) / 2
        error = rate / (2 - rate) * self.noise(beside) + self.drift * behind**2
        return self.ceiling / math.sqrt(1 + error)

    def best_rate(self, beside: Sequence[TapStatistics]) -> float:
        """``(4 delta^2 / s^2)^(1/3)``: the closed form for this tap alone, probing every step."""
        return min(1.0, math.cbrt(4 * self.drift / self.noise(beside)))


@dataclasses.dataclass(frozen=True)
class MeasuredTaps:
    """The Jacobians at all taps at one moment."""

    names: list[str]
    e: Tensor
    credits: list[Tensor]
    moments: list[JacobianMoments]
    noise: str
    batch_size: int

    @property
    def means(self) -> list[Tensor]:
        """Jbar (K, |h|), one a tap."""
        return [moment.mean for moment in self.moments]

    def against(self, earlier: Sequence[Tensor], steps: int) -> list[TapStatistics]:
        """What follows from these, and from the mean Jacobians so many steps before."""
        e = self.e.double()
        errors = e.T @ e
        found = []
        for place, moment in enumerate(self.moments):
            q, mean = self.credits[place].double(), moment.mean.double()
            carried = e @ mean
            size, whole = _energy(carried), _energy(q)
            moved = e @ (mean - earlier[place].double()) / steps
            one, other = (
                e @ average.double() - own.double()
                for average, own in zip(moment.means, moment.credits, strict=True)
            )

            def share(covariance: Tensor, size: float = size) -> float:
                return (errors * covariance).sum().item() / (size * self.batch_size)

            # Rademacher perturbations leave out what a unit does to its own estimate
            beside = -1 if self.noise == "rademacher" else 1
            found.append(
                TapStatistics(
                    name=self.names[place],
                    units=mean.shape[1],
                    ceiling=(carried * q).sum().item() / math.sqrt(size * whole),
                    spread=(one * other).sum().item() / whole,
                    explainable=explainable_share(e, q),
                    reach={
                        name: share(other.reach)
                        for name, other in zip(self.names, self.moments, strict=True)
                    },
                    own=share(beside * moment.products + moment.covariance),
                    drift=_energy(moved) / size,
                )
            )
        return found


def measure_taps(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    batch_size: int,
    noise: str = "rademacher",
) -> MeasuredTaps:
    """The moments of the Jacobians at FDFA's taps, and the true credits.

    Dropout draws the same masks every time: what two measurements differ by is the weights' doing.

    Args:
        network: in training mode.
        inputs: to measure on.
        labels: of the inputs.
        batch_size: examples in a probe of the training.
        noise: of the probe.

    Returns:
        What was measured.
    """
    with random_state_of(0), open_learner(FDFA(network), inputs) as opened:
        taps = OpenTaps(opened.run, 1, None)
        loss = F.cross_entropy(opened.run.returned, labels)
        (error,) = torch.autograd.grad(loss, opened.run.output, retain_graph=True)
        e = as_matrix(error, 1)
        return MeasuredTaps(
            names=[tap.name for tap in opened.plan.taps],
            e=e,
            credits=[credit.detach() for credit in taps.credits(e)],
            moments=measure_moments(taps, e, exact=False),
            noise=noise,
            batch_size=batch_size,
        )


def _energy(rows: Tensor) -> float:
    """The sum of squares."""
    return rows.square().sum().item()

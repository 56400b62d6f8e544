"""What draws of a gradient say of it, as numbers with intervals."""

from __future__ import annotations

import dataclasses
import math

from torch import Tensor

from fdfa.diagnostics.estimates import Estimate, Statistic, quantile
from fdfa.diagnostics.gradient_moments import ComponentMoments
from fdfa.diagnostics.moments import Moments, average_moments

__all__ = ["ComponentQuality", "GradientQuality", "QualityRecord"]


@dataclasses.dataclass(frozen=True)
class ComponentQuality:
    """Bias and variance of each component, with the half widths of their intervals.

    Attributes:
        bias: mean over draws and batches, less the exact value; of its shape, in float64.
        bias_reach: the interval is ``bias - bias_reach`` to ``bias + bias_reach``.
        variance: of one draw; the mean over batches.
        variance_reach: likewise.
    """

    bias: Tensor
    bias_reach: Tensor
    variance: Tensor
    variance_reach: Tensor


@dataclasses.dataclass(frozen=True)
class GradientQuality:
    """A rule's estimate x of a gradient against the exact one, g; the noise is the rule's own.

    Every figure is the mean over the batches of what holds at each; of a quotient both parts are.

    Attributes:
        size: components of g.
        draws: behind these figures, of all batches.
        deterministic: whether all draws of a batch were the same to the last bit: what is off is
            bias alone.
        exact_norm: root of the mean |g|^2.
        cosine: of x and g, the mean over draws. A draw of zeros has none.
        angle: between them in degrees, likewise.
        norm_ratio: |x| / |g|, likewise.
        cosine_of_mean: of E x and g: what is left when the noise is averaged away. NaN where the
            mean cannot be told from zero.
        bias: |E x - g|.
        squared_bias: its square, an estimate without bias of its own: below zero at times where
            there is little bias or none.
        variance: E |x - E x|^2, the sum over components.
        error: E |x - g|^2 = squared bias + variance.
        signal_to_noise: |E x|^2 / variance; infinite without noise. Its interval is rather wide:
            that the noise of both parts goes together is not used.
        effective_probes: the number of forward gradients whose mean has this error. A single one,
            along a Gaussian direction in the space of all trainable parameters, has for a parameter
            of n components the error ``n |G|^2 + |g|^2``, G the exact gradient of all. For a tap it
            is the activity-perturbed one, with a direction for each sample: ``sum over samples of n
            |q|^2 + |g|^2``, q the exact credit at all taps. So ``fg-w`` and ``fg-a`` themselves
            have 1, and an exact rule infinitely many.
        components: bias and variance of each component, where asked for.
    """

    size: int
    draws: int
    deterministic: bool
    exact_norm: float
    cosine: Estimate
    angle: Estimate
    norm_ratio: Estimate
    cosine_of_mean: Estimate
    bias: Estimate
    squared_bias: Estimate
    variance: Estimate
    error: Estimate
    signal_to_noise: Estimate
    effective_probes: Estimate
    components: ComponentQuality | None = None


class QualityRecord:
    """What is known of one tensor, batch after batch.

    Args:
        confidence: of the intervals.
    """

    def __init__(self, confidence: float) -> None:
        self._confidence = confidence
        self._batches: list[Moments] = []
        self._one_probe: list[float] = []
        self._components: ComponentMoments | None = None
        self._draws = 0

    def add(
        self,
        moments: Moments,
        *,
        draws: int,
        one_probe: float,
        components: ComponentMoments | None = None,
    ) -> None:
        """Take in a batch.

        Args:
            moments: of its draws.
            draws: their number.
            one_probe: the error E |x - g|^2 of a single forward gradient at this batch.
            components: moments of each component.
        """
        self._batches.append(moments)
        self._one_probe.append(one_probe)
        self._draws += draws
        if components is not None and self._components is not None:
            components = self._components.plus(components)
        self._components = components

    def quality(self) -> GradientQuality:
        """The figures of all batches so far."""
        moments, confidence = average_moments(self._batches), self._confidence
        one_probe = sum(self._one_probe) / len(self._one_probe)
        square = moments.squared_bias.estimate(confidence)
        error = moments.error.estimate(confidence, "positive")
        return GradientQuality(
            size=moments.size,
            draws=self._draws,
            deterministic=moments.variance.value == 0,
            exact_norm=math.sqrt(moments.exact_square),
            cosine=moments.cosine.estimate(confidence, bounds=(-1.0, 1.0)),
            angle=moments.angle.estimate(confidence, bounds=(0.0, 180.0)),
            norm_ratio=moments.norm_ratio.estimate(confidence, "positive"),
            cosine_of_mean=moments.cosine_of_mean.estimate(confidence, bounds=(-1.0, 1.0)),
            bias=_root(square),
            squared_bias=square,
            variance=moments.variance.estimate(confidence, "positive"),
            error=error,
            signal_to_noise=_ratio(moments.squared_mean, moments.variance, confidence),
            effective_probes=_inverse(one_probe, error),
            components=self._of_components(),
        )

    def _of_components(self) -> ComponentQuality | None:
        found, batches = self._components, len(self._batches)
        if found is None:
            return None
        t = quantile(self._confidence, found.draws - batches)
        return ComponentQuality(
            bias=found.bias / batches,
            bias_reach=found.bias_error.sqrt() * (t / batches),
            variance=found.variance / batches,
            variance_reach=found.variance_error.sqrt() * (t / batches),
        )


def _root(square: Estimate) -> Estimate:
    low, value, high = (
        math.sqrt(max(0.0, end)) if not math.isnan(end) else end
        for end in (square.low, square.value, square.high)
    )
    error = square.standard_error / (2 * value) if value > 0 else square.standard_error * math.inf
    return Estimate(value, low, high, error if square.standard_error else 0.0)


def _ratio(above: Statistic, below: Statistic, confidence: float) -> Estimate:
    """A quotient; both parts taken as independent."""
    if below.value == 0:  # no noise
        value = math.inf if above.value > 0 else math.nan
        return Estimate(value, value, value, 0.0 if above.value > 0 else math.nan)
    value = above.value / below.value
    variance = (above.variance + value**2 * below.variance) / below.value**2
    return Statistic(value, variance, above.degrees).estimate(confidence)


def _inverse(one_probe: float, error: Estimate) -> Estimate:
    """How many times one error holds the other."""

    def times(part: float) -> float:
        if part == 0:
            return math.inf if one_probe > 0 else math.nan
        return one_probe / part

    value = times(error.value)
    spread = value * error.standard_error / error.value if error.value else 0.0
    return Estimate(value, times(error.high), times(error.low), spread)

"""Gradients that the library's own learners draw, and how far they lie from what is expected."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from fdfa.diagnostics.estimates import Statistic
from fdfa.engine.estimator import Estimator
from fdfa.studies.reproduce.variance.laws import Law

__all__ = ["Gradients", "Measured", "chain", "independent", "replicas", "warm_up"]

_FORGOTTEN = 1e-6  # of the variance that is missing when a chain has warmed up


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was found of a rule's gradients; squares are of distances from the expected gradient.

    Attributes:
        variance: mean square over all weights.
        layers: the same of each layer.
        slope: mean inner product with the exact gradient.
    """

    variance: Statistic
    layers: Mapping[str, Statistic]
    slope: Statistic


class Gradients:
    """A learner whose weights stand still, on one batch.

    Args:
        learner: of any method.
        batch: inputs and labels.
        exact: the gradient, (n, m + 1) by the layer's name, the bias last.
        law: what is expected of the learner.
    """

    def __init__(
        self,
        learner: Estimator,
        batch: tuple[Tensor, Tensor],
        exact: Mapping[str, Tensor],
        law: Law,
    ) -> None:
        self._learner, self._batch = learner, batch
        layers = [learner.model.get_submodule(name) for name in exact]
        self._parameters = [parameter for layer in layers for parameter in layer.parameters()]
        self._exact = _by_parameter(exact, like=batch[0])
        self.expect(law)

    def expect(self, law: Law) -> None:
        """Take another law.

        Args:
            law: what is expected of the learner from now on.
        """
        self._expected = _by_parameter(law.mean, like=self._batch[0])

    def teach(self) -> None:
        """One pass for the feedback maps alone; no block computes its gradient."""
        self._gradients(self._parameters[-1:])

    def draw(self) -> dict[str, float]:
        """One gradient of all weights, which teaches the maps too.

        Returns:
            Squared distance from the expected one for each layer, and as ``"slope"`` the inner
            product with the exact one.
        """
        found = iter(self._gradients(self._parameters))
        kept, slope = dict.fromkeys(self._exact, 0.0), 0.0
        for name in kept:
            for expected, exact in zip(self._expected[name], self._exact[name], strict=True):
                g = next(found)
                slope += (g * exact).sum(dtype=torch.float64).item()
                kept[name] += (g - expected).square_().sum(dtype=torch.float64).item()
        return {**kept, "slope": slope}

    def _gradients(self, parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
        inputs, labels = self._batch
        loss = nn.functional.cross_entropy(self._learner(inputs), labels)
        return torch.autograd.grad(loss, parameters)


def independent(gradients: Gradients, count: int) -> Measured:
    """Draws of a rule that remembers nothing.

    Args:
        gradients: of it.
        count: of draws.

    Returns:
        What was found.
    """
    return _measured([gradients.draw() for _ in range(count)])


def chain(gradients: Gradients, rate: float, count: int) -> Measured:
    """Successive draws of a rule whose maps are a running average, in its stationary state.

    An average m probes later holds the share (1 - a)^m of this one, so that is what linear
    functions of the two correlate, and its square what squares do: errors count those.

    Args:
        gradients: of the rule, before its first probe.
        rate: a.
        count: of draws.

    Returns:
        What was found.
    """
    for _ in range(warm_up(rate)):
        gradients.teach()
    return _measured([gradients.draw() for _ in range(count)], kept=1 - rate)


def replicas(fresh: Callable[[int], Gradients], probes: int, count: int) -> Measured:
    """Draws of as many learners, each after its own probes.

    Args:
        fresh: a learner before its first probe, for each number.
        probes: that it takes before the draw.
        count: of learners.

    Returns:
        What was found.
    """
    draws = []
    for number in range(count):
        gradients = fresh(number)
        for _ in range(probes):
            gradients.teach()
        draws.append(gradients.draw())
    return _measured(draws)


def warm_up(rate: float) -> int:
    """After how many probes from zero a running average is as good as stationary.

    Args:
        rate: of the average.

    Returns:
        The number: the variance then lacks a millionth.

    Example:
        >>> warm_up(0.1)
        66
    """
    return math.ceil(math.log(_FORGOTTEN) / (2 * math.log1p(-rate))) if rate < 1 else 1


def _measured(draws: Sequence[Mapping[str, float]], kept: float = 0.0) -> Measured:
    layers = {name: [draw[name] for draw in draws] for name in draws[0]}
    slopes = layers.pop("slope")
    whole = [math.fsum(values) for values in zip(*layers.values(), strict=True)]
    return Measured(
        _mean(whole, kept**2),
        {name: _mean(values, kept**2) for name, values in layers.items()},
        _mean(slopes, kept),
    )


def _mean(values: Sequence[float], correlation: float) -> Statistic:
    """Of a series in which numbers m apart have the correlation to the power of m."""
    worth = len(values) * (1 - correlation) / (1 + correlation)  # so many independent ones
    mean = math.fsum(values) / len(values)
    if worth <= 1:
        return Statistic(mean)
    spread = statistics.pvariance(values, mean) / (1 - 1 / worth)
    return Statistic(mean, spread / worth, int(worth) - 1)


def _by_parameter(parts: Mapping[str, Tensor], like: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Weight and bias of each layer, as the learner computes."""
    return {
        name: (part[:, :-1].contiguous().to(like), part[:, -1].contiguous().to(like))
        for name, part in parts.items()
    }

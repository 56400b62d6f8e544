"""A network on a fixed batch, and what each rule's gradients come to on it."""

from __future__ import annotations

import collections
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

import fdfa
from fdfa.data.dataset import Dataset
from fdfa.diagnostics.estimates import Statistic
from fdfa.engine.random_state import random_state_of
from fdfa.models import fully_connected
from fdfa.studies.reproduce.variance import laws
from fdfa.studies.reproduce.variance.draws import (
    Gradients,
    Measured,
    chain,
    independent,
    replicas,
)
from fdfa.studies.reproduce.variance.settings import (
    FGA,
    FGW,
    INNOVATION,
    MEAN,
    MOMENTUM,
    PROJECTION,
    GridPoint,
    VarianceSettings,
)
from fdfa.studies.threads import suitable_threads, using_threads

__all__ = ["Case"]

# Weights times tangents, in all passes of a rule together: a large network gets fewer draws.
_WORK = 2**30
_LEAST_DRAWS, _LEAST_EFFECTIVE, _LEAST_REPLICAS = 32, 24, 12
_WIDE = 1_000_000  # weights from which float32 will do; below it float64 costs little
_LIFETIMES = 68  # of 1/a each: e^-68 is below all rounding
_DECAYING = 4  # learners whose decay is followed


class Case:
    """A network on its batch; both are made when a rule is measured, for all rules once.

    Args:
        settings: of the reproduction.
        place: says which network.
        data: that the batch is taken from.
        exactly: whether in float64, however wide the network is.
    """

    def __init__(
        self, settings: VarianceSettings, place: GridPoint, data: Dataset, *, exactly: bool = False
    ) -> None:
        self.settings, self.place, self.data, self.exactly = settings, place, data, exactly

    @functools.cached_property
    def network(self) -> nn.Sequential:
        """With the weights that it was initialised with."""
        place = self.place
        with random_state_of(self.settings.seed):
            network = fully_connected(
                math.prod(self.data.shape),
                classes=self.data.classes,
                width=place.width,
                depth=place.depth,
                batch_norm=False,
            )
        if place.kind == "linear":
            layers = [(n, m) for n, m in network.named_children() if not isinstance(m, nn.ReLU)]
            network = nn.Sequential(collections.OrderedDict(layers))
        wide = sum(p.numel() for p in network.parameters()) >= _WIDE
        return network if wide and not self.exactly else network.double()

    @functools.cached_property
    def batch(self) -> tuple[Tensor, Tensor]:
        """The first examples."""
        inputs, labels = self.data.train.first(self.settings.batch)
        return inputs.to(next(self.network.parameters()).dtype), labels

    @functools.cached_property
    def linearized(self) -> laws.Linearized:
        """What all laws follow from."""
        return laws.linearized(self.network, *self.batch)

    @functools.cached_property
    def exact(self) -> dict[str, Tensor]:
        """The gradient, layer by layer."""
        return self.linearized.gradient(self.linearized.credits())

    @property
    def weights(self) -> int:
        """How many there are."""
        return sum(p.numel() for p in self.network.parameters())

    @functools.cached_property
    def innovation_rate(self) -> float:
        """As FDFA's, where that is stable enough."""
        return min(self.settings.feedback_rate, laws.fastest_rate(self.linearized))

    def measured(self, rule: str) -> dict[str, Any]:
        """A rule's variance, its layers' and its slope, beside what is expected."""
        with using_threads(suitable_threads(None, self.network)):
            law = self._law(rule)
            return self._compared(rule, law, self._draws(rule, law))

    @property
    def probes(self) -> int:
        """After which the innovation is looked at."""
        return min(self.settings.probes, math.ceil(4 / self.innovation_rate))

    def _law(self, rule: str) -> laws.Law:
        k = min(self.settings.tangents, self.weights)
        law_of: dict[str, Callable[[laws.Linearized], laws.Law]] = {
            FGW: laws.fg_w,
            FGA: laws.fg_a,
            MOMENTUM: lambda network: laws.momentum(network, self.settings.feedback_rate),
            INNOVATION: lambda network: laws.innovation(network, self.innovation_rate, self.probes),
            MEAN: lambda network: laws.tangent_mean(network, k),
            PROJECTION: lambda network: laws.projection(network, k),
        }
        return law_of[rule](self.linearized)

    def _draws(self, rule: str, law: laws.Law) -> Measured:
        rate, k = self.settings.feedback_rate, self.settings.tangents
        draws = self._number_of_draws(1)
        if rule == MOMENTUM:
            effective = max(_LEAST_EFFECTIVE, draws // 4)
            # so many successive draws are worth one; see chain
            apart = (1 + (1 - rate) ** 2) / (1 - (1 - rate) ** 2)
            gradients = self._gradients(law, "fdfa", feedback_rate=rate)
            return chain(gradients, rate, math.ceil(effective * apart))
        if rule == INNOVATION:
            fresh = functools.partial(self._innovating, law, self.innovation_rate)
            return replicas(fresh, self.probes, max(_LEAST_REPLICAS, draws // 16))
        if rule in (FGW, FGA):
            return independent(self._gradients(law, rule.lower()), draws)
        combine = "mean" if rule == MEAN else "projection"
        gradients = self._gradients(law, "multi-tangent", count=k, combine=combine)
        return independent(gradients, self._number_of_draws(k))

    def _number_of_draws(self, tangents: int) -> int:
        few = min(_LEAST_DRAWS, self.settings.draws)
        return max(few, min(self.settings.draws, _WORK // (self.weights * tangents)))

    def _gradients(self, law: laws.Law, method: str, number: int = 0, **options: Any) -> Gradients:
        seed = self.settings.seed + number
        learner = fdfa.wrap(method, self.network, seed=seed, **options)
        return Gradients(learner, self.batch, self.exact, law)

    def _innovating(self, law: laws.Law, rate: float, number: int) -> Gradients:
        options = {"feedback_rate": rate, "feedback_update": "innovation"}
        return self._gradients(law, "fdfa", number, **options)

    def _compared(self, rule: str, law: laws.Law, found: Measured) -> dict[str, Any]:
        squares = {name: part.square().sum().item() for name, part in self.exact.items()}
        whole = sum(squares.values())
        slope = sum((law.mean[name] * g).sum().item() for name, g in self.exact.items())
        bias = sum((law.mean[name] - g).square().sum().item() for name, g in self.exact.items())
        taught = {}
        if rule == MOMENTUM:
            taught = {"rate": self.settings.feedback_rate}
        elif rule == INNOVATION:
            taught = {"rate": self.innovation_rate, "probes": self.probes}
        return {
            "weights": self.weights,
            **taught,
            "variance": _beside(sum(law.variance.values()), found.variance, whole),
            "slope": _beside(slope, found.slope, whole),
            "squared bias": bias / whole,
            "layers": {
                name: _beside(law.variance[name], found.layers[name], square)
                for name, square in squares.items()
            },
        }

    def decay(self) -> list[dict[str, float]]:
        """The innovation's variance after ever more probes, at its fastest rate."""
        rate = laws.fastest_rate(self.linearized)
        step = math.ceil(4 / rate)
        whole = sum(part.square().sum().item() for part in self.exact.values())
        times = range(step, step * _LIFETIMES // 4 + 1, step)
        after = {t: laws.innovation(self.linearized, rate, t) for t in times}
        with using_threads(suitable_threads(None, self.network)):
            paths = [self._path(after, rate, number) for number in range(_DECAYING)]
        return [
            {
                "probes": t,
                "expected": sum(law.variance.values()) / whole,
                "found": math.fsum(path[t] for path in paths) / len(paths) / whole,
            }
            for t, law in after.items()
        ]

    def _path(self, after: Mapping[int, laws.Law], rate: float, number: int) -> dict[int, float]:
        """One learner's squared distances from what is expected after so many probes."""
        gradients = self._innovating(next(iter(after.values())), rate, number)
        path = {}
        for probes in range(max(after) + 1):
            if probes not in after:
                gradients.teach()
                continue
            gradients.expect(after[probes])
            draw = gradients.draw()  # which teaches too
            path[probes] = math.fsum(draw[name] for name in self.exact)
        return path


def _beside(expected: float, found: Statistic, unit: float) -> dict[str, float]:
    """A number, its standard error and what was expected, in this unit."""
    return {
        "expected": expected / unit,
        "found": found.value / unit,
        "error": math.sqrt(found.variance) / unit,
        "degrees": found.degrees,
    }

"""A short measured probe of a network: which taps, rate and probe interval suit it, and why."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdfa.data.dataset import Dataset
from fdfa.engine.taps import TapPlan
from fdfa.errors import ConfigError
from fdfa.methods.fdfa import FDFA
from fdfa.studies.preparation import prepared
from fdfa.studies.setup import Machine
from fdfa.studies.tap_statistics import TapStatistics, measure_taps
from fdfa.studies.task import Task
from fdfa.studies.whole_numbers import MOST_SEED, check_whole

__all__ = [
    "DepthOutlook",
    "IntervalOutlook",
    "RecommendConfig",
    "Recommendation",
    "choose",
    "recommend",
]

NOISE = "rademacher"  # a lower variance than normal noise, always
RATES = tuple(round(10 ** (-3 + place / 20), 4) for place in range(61))  # 0.001 to 1
INTERVALS = (1, 2, 4, 8, 16)
_WORTH = 0.01  # of the mean cosine: what rarer probes may cost
_HOPELESS = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecommendConfig:
    """What is probed, and how long.

    Attributes:
        steps: optimiser steps before the last measurement; the network learns by backpropagation.
        batch_size: examples in a step, and in a probe.
        examples: how many the Jacobians are measured on.
        learning_rate: of Adam.
        cosine: of the credits with the true ones, on average over the layers, that is enough.
        seed: of weights and batches.
        task: what is learned, and by which network.
        machine: what it is computed on.

    Raises:
        ConfigError: if a value is out of range.

    Example:
        >>> RecommendConfig(steps=100).batch_size
        64
    """

    steps: int = 200
    batch_size: int = 64
    examples: int = 128
    learning_rate: float = 1e-3
    cosine: float = 0.9
    seed: int = 0
    task: Task = dataclasses.field(default_factory=Task)
    machine: Machine = dataclasses.field(default_factory=Machine)

    def __post_init__(self) -> None:
        """Check every value."""
        check_whole("steps", self.steps, least=10)
        check_whole("batch_size", self.batch_size, least=2)
        check_whole("examples", self.examples, least=2)
        check_whole("seed", self.seed, least=0, most=MOST_SEED)
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(
                f"learning_rate={self.learning_rate!r} is not possible. Give a positive number,"
                " such as 0.001."
            )
        if not 0 < self.cosine < 1:
            raise ConfigError(
                f"cosine={self.cosine!r} is not possible: how near to the true credit is near"
                " enough? Give a number between 0 and 1, such as 0.9."
            )


@dataclasses.dataclass(frozen=True)
class IntervalOutlook:
    """What probing one step in so many would give.

    Attributes:
        probe_every: the interval.
        feedback_rate: the best one for it.
        cosine: predicted, on average over the weight layers.
        products: matrix products a layer and step, 2 + 1 / interval; backpropagation takes 3.
    """

    probe_every: int
    feedback_rate: float
    cosine: float
    products: float


@dataclasses.dataclass(frozen=True)
class DepthOutlook:
    """What taps at every so many weight layers would give.

    Attributes:
        depth: weight layers in a block.
        taps: their names.
        cosines: predicted for the credit at each tap, probing every step at the best rate.
        ceilings: the same with a map that is the mean Jacobian itself.
        cosine: predicted, on average over the weight layers; those of the last block count 1.
        feedback_rate: the best one.
    """

    depth: int
    taps: tuple[str, ...]
    cosines: tuple[float, ...]
    ceilings: tuple[float, ...]
    cosine: float
    feedback_rate: float


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """What suits a network, with the numbers behind it.

    Attributes:
        depth: weight layers in a block.
        feedback_rate: a.
        probe_every: probe one step in so many.
        noise: of the probe.
        cosine: predicted with these, on average over the weight layers.
        reached: whether that is as near as was asked for.
        taps: measured at every tap of depth 1.
        depths: outlook by depth.
        intervals: outlook by probe interval, at the recommended depth.
        hopeless: taps of the recommended depth where even the mean Jacobian points elsewhere.
        steps: after how many the last measurement was taken.
    """

    depth: int
    feedback_rate: float
    probe_every: int
    noise: str
    cosine: float
    reached: bool
    taps: tuple[TapStatistics, ...]
    depths: tuple[DepthOutlook, ...]
    intervals: tuple[IntervalOutlook, ...]
    hopeless: tuple[str, ...]
    steps: int

    @property
    def options(self) -> dict[str, object]:
        """Options of ``fdfa.FDFA`` and of ``--options``."""
        return {
            "depth": self.depth,
            "feedback_rate": self.feedback_rate,
            "probe_every": self.probe_every,
            "noise": self.noise,
        }

    @property
    def call(self) -> str:
        """The learner as Python."""
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"fdfa.FDFA(model, {options})"


def recommend(
    config: RecommendConfig, *, told: Callable[[int], None] | None = None
) -> Recommendation:
    """Train for a short while, measure the Jacobians at the taps, and choose.

    Args:
        config: names data set and network.
        told: called with the number of each step made.

    Returns:
        The choice, and what it follows from.

    Raises:
        ConfigError: if a name or an option is wrong.
        UnsupportedModelError: if the network cannot be cut.

    Example:
        >>> task = Task(model_options={"width": 8, "depth": 1})
        >>> recommend(RecommendConfig(task=task, steps=20)).depth
        1
    """
    with prepared(config.task, seed=config.seed, machine=config.machine) as start:
        return _recommend_for(start.network, start.data, config, told=told)


def _recommend_for(
    network: nn.Module,
    data: Dataset,
    config: RecommendConfig,
    *,
    told: Callable[[int], None] | None,
) -> Recommendation:
    """The same for a network that is there; it learns meanwhile."""
    batch = data.train.first(config.examples)
    plans = _plans(network, batch[0])
    gap = max(1, config.steps // 10)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    earlier: list[Tensor] | None = None
    batches = _batches(data, config)
    for step in range(1, config.steps + 1):
        if step == config.steps - gap + 1:
            earlier = measure_taps(network, *batch, batch_size=config.batch_size).means
        x, labels = next(batches)
        optimizer.zero_grad()
        loss = F.cross_entropy(network(x), labels)
        if not math.isfinite(loss.item()):
            raise ConfigError(
                f"the loss is {loss.item()} at step {step} of the measurement: there is nothing to"
                " measure after it. Give a smaller learning rate, such as"
                f" {config.learning_rate / 10:g}."
            )
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if told is not None:
            told(step)
    measured = measure_taps(network, *batch, batch_size=config.batch_size, noise=NOISE)
    taps = measured.against(earlier or measured.means, gap)
    return choose(taps, plans, config)


def choose(
    taps: Sequence[TapStatistics], plans: Sequence[TapPlan], config: RecommendConfig
) -> Recommendation:
    """The choice that follows from what was measured.

    Depth: the smallest whose predicted cosine is enough, else the one with the best. Interval: the
    largest with which it still is; where it never was, the largest that loses at most a hundredth.
    Rate: the best for both.

    Args:
        taps: measured at every tap of depth 1.
        plans: by depth, from 1 up.
        config: says what is enough.

    Returns:
        The choice.
    """
    by_name = {tap.name: tap for tap in taps}
    depths = []
    for depth, plan in enumerate(plans, 1):
        rate, cosine = _best_rate(plan, by_name, interval=1)
        names = tuple(tap.name for tap in plan.taps)
        here = [by_name[name] for name in names]
        cosines = tuple(tap.cosine(rate, 1, here) for tap in here)
        ceilings = tuple(tap.ceiling for tap in here)
        depths.append(DepthOutlook(depth, names, cosines, ceilings, cosine, rate))
    enough = [outlook for outlook in depths if outlook.cosine >= config.cosine]
    chosen = enough[0] if enough else max(depths, key=lambda outlook: outlook.cosine)
    plan = plans[chosen.depth - 1]
    intervals = [
        IntervalOutlook(every, *_best_rate(plan, by_name, interval=every), 2 + 1 / every)
        for every in INTERVALS
    ]
    least = config.cosine if enough else intervals[0].cosine - _WORTH
    probing = [outlook for outlook in intervals if outlook.cosine >= least][-1]
    return Recommendation(
        depth=chosen.depth,
        feedback_rate=probing.feedback_rate,
        probe_every=probing.probe_every,
        noise=NOISE,
        cosine=probing.cosine,
        reached=bool(enough),
        taps=tuple(taps),
        depths=tuple(depths),
        intervals=tuple(intervals),
        hopeless=tuple(name for name in chosen.taps if by_name[name].ceiling < _HOPELESS),
        steps=config.steps,
    )


def _best_rate(
    plan: TapPlan, taps: dict[str, TapStatistics], *, interval: int
) -> tuple[float, float]:
    """The rate with the largest predicted cosine on average over weight layers, and that."""
    here = [taps[tap.name] for tap in plan.taps]
    layers = [max(1, len(names)) for names in plan.weight_layers]  # of each block; the last: exact

    def average(rate: float) -> float:
        cosines = [*(tap.cosine(rate, interval, here) for tap in here), 1.0]
        return sum(c * n for c, n in zip(cosines, layers, strict=True)) / sum(layers)

    best = max(RATES, key=average)
    return best, average(best)


def _plans(network: nn.Module, inputs: Tensor) -> list[TapPlan]:
    """Where FDFA would cut, by depth from 1 up, as long as there is a tap."""
    plans = (FDFA(network, depth=depth).train().plan(inputs) for depth in itertools.count(1))
    return list(itertools.takewhile(lambda plan: bool(plan.taps), plans))


def _batches(data: Dataset, config: RecommendConfig) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end, in an order of the seed."""
    generator = torch.Generator().manual_seed(config.seed)
    while True:
        order = torch.randperm(len(data.train), generator=generator)
        yield from data.train.batches(
            [part for part in torch.split(order, config.batch_size) if len(part) > 1],
            generator=generator,
        )

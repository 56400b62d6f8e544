"""Time of a training step relative to backpropagation's, measured turn by turn in one process."""

from __future__ import annotations

import copy
import dataclasses
import math
import statistics
import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fdfa.engine.estimator import Estimator
from fdfa.engine.tap_rule import TapRule
from fdfa.studies.trial_step import gradient_step
from fdfa.training import start_training

__all__ = ["StepTime", "probing_period", "step_times"]

# Many short turns, not few long ones: on a busy machine a long turn is always interrupted, a short
# one mostly not, so that the median sees none of it.
_ENOUGH_SECONDS = 1.0  # for up to so many learners, and in proportion for more:
_SHARING = 4
_MOST_ROUNDS = 400
_FEWEST_ROUNDS = 10
_WARM_UP_ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Time of one step: forward and backward pass, without the optimiser.

    Attributes:
        seconds: median over the rounds.
        ratio: median over the rounds of the time relative to the reference in the same round.
        rounds: how many there were.
    """

    seconds: float
    ratio: float
    rounds: int


def step_times(
    learners: Mapping[str, Estimator],
    inputs: Tensor,
    labels: Tensor,
    *,
    reference: str,
    rounds: int = 20,
) -> dict[str, StepTime]:
    """Let every learner take its turn in every round; a busy moment hits all alike.

    A turn is one probing period, so that a learner that probes one step in k is charged for its
    share of probes. The learners themselves are left as they are.

    Args:
        learners: by name.
        inputs: of one batch, the same for all; where the learners are.
        labels: of the batch.
        reference: name of the learner that counts as 1.
        rounds: at least so many, and at least 10; more while they take under a second together (of
            more than four learners: under a quarter for each).

    Returns:
        Name to time.
    """
    runners = {name: copy.deepcopy(learner) for name, learner in learners.items()}
    for learner in runners.values():
        start_training(learner)
        if isinstance(learner, TapRule) and learner.probe is not None:  # as it is in the long run
            learner.probe = dataclasses.replace(learner.probe, first=0)
    for _ in range(_WARM_UP_ROUNDS):
        for learner in runners.values():
            _turn(learner, inputs, labels)
    taken: dict[str, list[float]] = {name: [] for name in runners}
    order = list(runners)
    enough = _ENOUGH_SECONDS * max(1.0, len(runners) / _SHARING)
    least, started, done = max(rounds, _FEWEST_ROUNDS), time.perf_counter(), 0
    while done < least or (done < _MOST_ROUNDS and time.perf_counter() - started < enough):
        order = order[1:] + order[:1]  # no learner is always the first, whose caches are cold
        for name in order:
            taken[name].append(_turn(runners[name], inputs, labels))
        done += 1
    return {
        name: StepTime(statistics.median(times), _median_ratio(times, taken[reference]), done)
        for name, times in taken.items()
    }


def _median_ratio(times: Sequence[float], reference: Sequence[float]) -> float:
    return statistics.median(t / r for t, r in zip(times, reference, strict=True))


def probing_period(learner: Estimator) -> int:
    """Steps after which a learner's work repeats.

    Args:
        learner: of any method.

    Returns:
        The least common multiple of ``probe_every`` and ``first_block_every``, as far as it has
        them.

    Example:
        >>> probing_period(fdfa.FDFA(torch.nn.Linear(2, 2), probe_every=4, first_block_every=6))
        12
    """
    probing = int(getattr(getattr(learner, "probe", None), "every", 1))
    return math.lcm(probing, getattr(learner, "first_block_every", 1))


def _turn(learner: Estimator, inputs: Tensor, labels: Tensor) -> float:
    """Seconds a step, over one probing period."""
    steps = probing_period(learner)
    started = time.perf_counter()
    for _ in range(steps):
        gradient_step(learner, inputs, labels)
    if inputs.device.type == "cuda":
        torch.cuda.synchronize(inputs.device)
    return (time.perf_counter() - started) / steps

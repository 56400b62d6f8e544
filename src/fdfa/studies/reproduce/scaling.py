"""A budget of minutes: how many epochs and seeds it has room for."""

from __future__ import annotations

import copy
import dataclasses
import math
import statistics
import time
from collections.abc import Sequence

import torch

from fdfa.studies.costs import fresh_learner
from fdfa.studies.preparation import Prepared
from fdfa.studies.reproduce.planned_runs import PlannedRun
from fdfa.studies.setup import TrainConfig
from fdfa.studies.speed import probing_period
from fdfa.studies.trial_step import gradient_step
from fdfa.training import start_training

__all__ = ["Scale", "in_words", "scaled", "seconds_of"]

_WARM_UP, _STEPS, _FEWEST_TURNS = 3, 9, 3
_LOOKED_AT = 1 / 3  # a forward pass, as a share of a step


@dataclasses.dataclass(frozen=True)
class Scale:
    """What is made of a table; ``config.json`` keeps it for whoever goes on.

    Attributes:
        seeds: runs of each cell.
        share: of the epochs.
        words: how it came to be; none if nothing was scaled down.

    Example:
        >>> Scale(seeds=5).share
        1.0
    """

    seeds: int
    share: float = 1.0
    words: str = ""


def scaled(
    runs: Sequence[PlannedRun], seconds: Sequence[float], *, seeds: int, minutes: float
) -> Scale:
    """Fewer seeds and epochs, together, until the budget has room for them.

    Args:
        runs: the first seed of each cell.
        seconds: that each would take, divided by the number of processes.
        seeds: that were asked for; a rule with fewer of its own has those.
        minutes: the budget.

    Returns:
        What there is room for: never more than was asked for, one seed and one epoch at least.
    """

    def room_with(seeds: int) -> float:
        """Share of the epochs that the budget has room for."""
        every = [
            min(seeds, run.row.seeds or seeds) * taken
            for run, taken in zip(runs, seconds, strict=True)
        ]
        return 60 * minutes / math.fsum(every)

    room = room_with(seeds)
    if room >= 1:
        return Scale(seeds)
    asked = sorted({run.config.training.epochs for run in runs})
    # Half of the cut, in its logarithm, is the seeds': the spread is worth as much as the length.
    kept = max(1, min(seeds, math.ceil(seeds * math.sqrt(room))))
    while kept > 1 and room_with(kept) * asked[0] < 1:
        kept -= 1
    share = min(1.0, room_with(kept))
    chosen = [max(1, int(share * epochs + 1e-9)) for epochs in asked]
    words = f"{in_words(chosen)} of {in_words(asked)} epochs, {kept} of {seeds} seeds"
    return Scale(kept, share, f"scaled to {minutes:g} minutes: {words}")


def in_words(numbers: Sequence[int]) -> str:
    """Whole numbers as a range.

    Args:
        numbers: at least one.

    Returns:
        The smallest, and the largest if it is another.

    Example:
        >>> in_words([20, 10, 10])
        '10 to 20'
    """
    first, last = min(numbers), max(numbers)
    return str(first) if first == last else f"{first} to {last}"


def seconds_of(config: TrainConfig, start: Prepared) -> float:
    """How long a run would take, by its first steps.

    Args:
        config: of the run.
        start: its data and network; they stay as they are.

    Returns:
        Seconds: of all steps, and of the looks at validation and test examples.
    """
    learner = copy.deepcopy(fresh_learner(config, start.network, start.data))
    start_training(learner)
    optimizer = config.training.make_optimizer(learner.parameters())
    inputs, labels = (
        tensor.to(start.device) for tensor in start.data.train.first(config.training.batch_size)
    )
    # A turn is as many steps as the rule's work takes to repeat: one in four may be a probe.
    period = probing_period(learner)
    warm_up, turns = math.ceil(_WARM_UP / period), max(_FEWEST_TURNS, math.ceil(_STEPS / period))
    taken = []
    for _ in range(warm_up + turns):
        started = time.perf_counter()
        for _ in range(period):
            gradient_step(learner, inputs, labels)
            optimizer.step()
        if start.device.type == "cuda":
            torch.cuda.synchronize(start.device)
        taken.append((time.perf_counter() - started) / period)
    size = config.training.batch_size
    trained = len(start.data.train) + _LOOKED_AT * len(start.data.validation)
    steps = config.training.epochs * trained / size
    return steps * statistics.median(taken[warm_up:])

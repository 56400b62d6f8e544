"""What a comparison found: numbers with their spread, ready for a table or a file."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fdfa.studies.costs import Costs
from fdfa.studies.json_values import plain
from fdfa.studies.memory import StepMemory
from fdfa.studies.runs import Run
from fdfa.studies.setup import CompareConfig
from fdfa.studies.speed import StepTime

__all__ = ["Comparison", "MethodSummary", "Spread", "summarize"]


@dataclasses.dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over runs.

    Attributes:
        mean: over the runs.
        deviation: None for a single run.
    """

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of some values.

        Args:
            values: at least one.

        Returns:
            Mean and deviation.

        Example:
            >>> Spread.of([1.0, 3.0])
            Spread(mean=2.0, deviation=1.4142135623730951)
        """
        several = len(values) > 1
        return cls(statistics.fmean(values), statistics.stdev(values) if several else None)


@dataclasses.dataclass(frozen=True)
class MethodSummary:
    """One line of the comparison.

    Attributes:
        method: its name.
        finished: runs that went to their end; the spreads are over these.
        failed: runs that did not.
        test_accuracy: 0 to 1; None if no run was finished.
        test_loss: mean cross entropy in nats.
        cosine: with the exact gradient, mean over the weight matrices.
        cosines: with the exact gradient of each trained parameter.
        learning_rate: that it was trained with, before schedule, decay and warm-up.
        step_time: forward and backward pass of one batch.
        step_memory: of the same; None on a device that does not count.
    """

    method: str
    finished: int
    failed: int
    test_accuracy: Spread | None
    test_loss: Spread | None
    cosine: Spread | None
    cosines: Mapping[str, Spread]
    learning_rate: float
    step_time: StepTime
    step_memory: StepMemory | None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        parameters: number of the network's parameters.
        layers: names of its weight matrices, in order.
        complete: whether every run was made; False after an interruption.
        summaries: one a method, in the order of the configuration.
        left_out: methods that are not defined for the network, and why, if all were asked for.
        runs: all of them, seed by seed.
        files: that were written.
        notes: what a reader should know besides.
    """

    parameters: int
    layers: tuple[str, ...]
    complete: bool
    summaries: tuple[MethodSummary, ...]
    left_out: Mapping[str, str]
    runs: tuple[Run, ...]
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def report(self) -> dict[str, Any]:
        """The content of ``results.json``: everything but the epochs, which are in the metrics.

        Returns:
            Plain values that JSON can hold.
        """
        content: dict[str, Any] = plain(
            {
                "complete": self.complete,
                "parameters": self.parameters,
                "layers": self.layers,
                "left_out": self.left_out,
                "summaries": self.summaries,
                "runs": self.runs,
            }
        )
        for run in content["runs"]:
            run["epochs"] = len(run["epochs"])
        return content


def summarize(
    config: CompareConfig, runs: Sequence[Run], costs: Costs
) -> tuple[MethodSummary, ...]:
    """One summary a method.

    Args:
        config: names the methods, in the order of the summaries.
        runs: of all methods and seeds.
        costs: of a step of each.

    Returns:
        The summaries.
    """
    summaries = []
    for method in config.methods:
        mine = [run for run in runs if run.method == method]
        scores = [run.test for run in mine if run.test is not None]
        finished = [run for run in mine if run.test is not None]
        summaries.append(
            MethodSummary(
                method=method,
                finished=len(scores),
                failed=len(mine) - len(scores),
                test_accuracy=Spread.of([s.accuracy for s in scores]) if scores else None,
                test_loss=Spread.of([s.loss for s in scores]) if scores else None,
                cosine=Spread.of([run.cosine for run in finished]) if finished else None,
                cosines=_spreads([run.alignment for run in finished]),
                learning_rate=config.run_of(method, config.first_seed).training.learning_rate,
                step_time=costs.times[method],
                step_memory=costs.memory[method],
            )
        )
    return tuple(summaries)


def _spreads(runs: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Name by name over the runs, which have the same names."""
    return {name: Spread.of([run[name] for run in runs]) for name in (runs[0] if runs else ())}

"""What a comparison found: numbers with their spread, ready for a table or a file."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fdfa.studies.json_values import plain
from fdfa.studies.runs import Run
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
        step_time: forward and backward pass of one batch.
    """

    method: str
    finished: int
    failed: int
    test_accuracy: Spread | None
    test_loss: Spread | None
    cosine: Spread | None
    step_time: StepTime


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        parameters: number of the network's parameters.
        complete: whether every run was made; False after an interruption.
        summaries: one a method, in the order of the configuration.
        runs: all of them, seed by seed.
        files: that were written.
        notes: what a reader should know besides.
    """

    parameters: int
    complete: bool
    summaries: tuple[MethodSummary, ...]
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
                "summaries": self.summaries,
                "runs": self.runs,
            }
        )
        for run in content["runs"]:
            run["epochs"] = len(run["epochs"])
        return content


def summarize(
    methods: Sequence[str], runs: Sequence[Run], times: Mapping[str, StepTime]
) -> tuple[MethodSummary, ...]:
    """One summary a method.

    Args:
        methods: their names, in the order of the summaries.
        runs: of all methods and seeds.
        times: of one step, by method.

    Returns:
        The summaries.
    """
    summaries = []
    for method in methods:
        mine = [run for run in runs if run.method == method]
        scores = [run.test for run in mine if run.test is not None]
        cosines = [run.cosine for run in mine if run.test is not None]
        summaries.append(
            MethodSummary(
                method=method,
                finished=len(scores),
                failed=len(mine) - len(scores),
                test_accuracy=Spread.of([s.accuracy for s in scores]) if scores else None,
                test_loss=Spread.of([s.loss for s in scores]) if scores else None,
                cosine=Spread.of(cosines) if scores else None,
                step_time=times[method],
            )
        )
    return tuple(summaries)

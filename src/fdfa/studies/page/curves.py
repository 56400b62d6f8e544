"""The curves of a comparison as numbers: means over seeds, point by point."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from fdfa.studies.page.contestants import Contestant
from fdfa.studies.page.found_runs import FoundRun
from fdfa.training import EpochResult

__all__ = ["Chart", "Curve", "Point", "charts"]

_MEBIBYTE = 2**20


@dataclasses.dataclass(frozen=True)
class Point:
    """The runs of one contestant at one place of a curve.

    Attributes:
        x: the place, a number or a name.
        values: one a run that has got so far, in the order of the seeds; NaN where a run has no
            number there.
    """

    x: float | str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the runs; NaN if any of them has no number: the others alone would flatter."""
        return statistics.fmean(self.values) if self.known else math.nan

    @property
    def lowest(self) -> float:
        """Of the runs; NaN as the mean."""
        return min(self.values) if self.known else math.nan

    @property
    def highest(self) -> float:
        """Of the runs; NaN as the mean."""
        return max(self.values) if self.known else math.nan

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation; None for a single run."""
        if len(self.values) < 2 or not self.known:
            return None
        return statistics.stdev(self.values)

    @property
    def known(self) -> bool:
        """Whether every run has a number here."""
        return all(math.isfinite(value) for value in self.values)


@dataclasses.dataclass(frozen=True)
class Curve:
    """One contestant in one chart.

    Attributes:
        contestant: its place among all.
        points: in order; at least one.
    """

    contestant: int
    points: tuple[Point, ...]


@dataclasses.dataclass(frozen=True)
class Chart:
    """What one figure and its table show.

    Attributes:
        key: a short word, for links.
        title: of the figure.
        says: what is drawn, in a sentence.
        x: quantity and unit along the axis.
        y: the same, upwards.
        curves: of the contestants that have any.
        digits: behind the point, in the table.
        logarithmic: whether the axis upwards is.
        named: whether places along the axis are names.
    """

    key: str
    title: str
    says: str
    x: str
    y: str
    curves: tuple[Curve, ...]
    digits: int
    logarithmic: bool = False
    named: bool = False


def charts(entries: Sequence[Contestant]) -> tuple[Chart, ...]:
    """All charts for which there are any numbers.

    Args:
        entries: the contestants.

    Returns:
        The charts, in the order of the page.
    """
    every = (
        Chart(
            "validation-accuracy",
            "Validation accuracy",
            "Accuracy on the validation examples after each epoch.",
            "epoch",
            "accuracy (%)",
            _curves(entries, _by_epoch(_validation_accuracy)),
            2,
        ),
        Chart(
            "validation-loss",
            "Validation loss",
            "Mean cross entropy on the validation examples, in nats per example, after each epoch.",
            "epoch",
            "loss (nats)",
            _curves(entries, _by_epoch(lambda e: e.validation.loss if e.validation else None)),
            4,
            logarithmic=True,
        ),
        Chart(
            "training-loss",
            "Training loss",
            "Mean over the batches of each epoch as they were learned, in training mode.",
            "epoch",
            "loss (nats)",
            _curves(entries, _by_epoch(lambda epoch: epoch.train.loss)),
            4,
            logarithmic=True,
        ),
        Chart(
            "alignment",
            "Alignment during the training",
            "Cosine of the gradient with the exact one, mean over the weight matrices: 1 is "
            "backpropagation's own direction, 0 a direction that has nothing to do with it.",
            "optimiser step",
            "cosine",
            _curves(entries, _alignment_by_step),
            3,
        ),
        Chart(
            "alignment-by-layer",
            "Alignment by layer, after the training",
            "Cosine of the gradient of each weight matrix with the exact one, on a fixed batch of "
            "validation examples after the last epoch; layers from the input to the output.",
            "weight matrix",
            "cosine",
            _curves(entries, _alignment_by_layer),
            3,
            named=True,
        ),
        Chart(
            "accuracy-by-time",
            "Validation accuracy by training time",
            "What has been reached after how much time; a point an epoch, time without the "
            "validation, mean over the seeds.",
            "training time (s)",
            "accuracy (%)",
            _curves(entries, _accuracy_by_time),
            2,
        ),
        Chart(
            "time",
            "Time of an epoch",
            "Wall time without the validation, with diagnoses if the run makes any. An epoch that "
            "was resumed counts its last part.",
            "epoch",
            "time (s)",
            _curves(entries, _by_epoch(_seconds)),
            3,
        ),
        Chart(
            "memory",
            "Peak memory",
            "The most that was held at once since the training began: on a GPU, by its tensors; "
            "on a CPU, by the whole process, with Python, torch and the data.",
            "epoch",
            "peak memory (MiB)",
            _curves(entries, _memory_by_epoch),
            1,
        ),
    )
    return tuple(chart for chart in every if chart.curves)


_Points = Callable[[Contestant], Iterable[Point]]


def _curves(entries: Sequence[Contestant], points: _Points) -> tuple[Curve, ...]:
    found = [Curve(place, tuple(points(entry))) for place, entry in enumerate(entries)]
    return tuple(curve for curve in found if curve.points)


def _by_epoch(value: Callable[[EpochResult], float | None]) -> _Points:
    """A point an epoch, as far as any run goes."""

    def points(entry: Contestant) -> Iterable[Point]:
        yield from _joined(
            {epoch.epoch: number for epoch in run.epochs if (number := value(epoch)) is not None}
            for run in entry.runs
        )

    return points


def _joined(runs: Iterable[Mapping[int, float]]) -> Iterable[Point]:
    numbers = list(runs)
    for x in sorted({place for run in numbers for place in run}):
        yield Point(x, tuple(run[x] for run in numbers if x in run))


def _validation_accuracy(epoch: EpochResult) -> float | None:
    return None if epoch.validation is None else 100 * epoch.validation.accuracy


def _seconds(epoch: EpochResult) -> float | None:
    return None if math.isnan(epoch.seconds) else epoch.seconds  # no line tells it


def _memory_by_epoch(entry: Contestant) -> Iterable[Point]:
    yield from _joined(
        {epoch: peak / _MEBIBYTE for epoch, peak in run.peak_memory.items()} for run in entry.runs
    )


def _accuracy_by_time(entry: Contestant) -> Iterable[Point]:
    """Accuracy of those that have got so far, at the mean of their times."""
    times = [_time_until(run) for run in entry.runs]
    for point in _by_epoch(_validation_accuracy)(entry):
        at = [time[point.x] for time in times if point.x in time]
        if at and all(math.isfinite(time) for time in at):
            yield Point(statistics.fmean(at), point.values)


def _time_until(run: FoundRun) -> dict[float | str, float]:
    total, until = 0.0, dict[float | str, float]()
    for epoch in run.epochs:
        total += epoch.seconds
        until[epoch.epoch] = total
    return until


def _alignment_by_step(entry: Contestant) -> Iterable[Point]:
    """From the diagnoses; a run without any has the one point behind its training."""
    yield from _joined(_mean_cosines(run, entry.matrices) for run in entry.runs)


def _mean_cosines(run: FoundRun, matrices: Sequence[str]) -> dict[int, float]:
    found = {}
    for diagnosis in run.diagnoses:
        names = [name for name in matrices or diagnosis.cosines if name in diagnosis.cosines]
        if names:
            found[diagnosis.step] = statistics.fmean(diagnosis.cosines[name] for name in names)
    if not found and run.result is not None and run.epochs and math.isfinite(run.result.cosine):
        found[run.epochs[-1].step] = run.result.cosine
    return found


def _alignment_by_layer(entry: Contestant) -> Iterable[Point]:
    results = [run.result for run in entry.runs if run.result is not None and run.finished]
    for name in entry.matrices:
        values = tuple(result.alignment[name] for result in results if name in result.alignment)
        if values:
            yield Point(name, values)

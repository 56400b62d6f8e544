"""Progress of a study: a live bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fdfa.studies.runs import Run, StudyObserver
from fdfa.studies.tables import size
from fdfa.training import EpochResult, StepResult, Trainer

__all__ = ["LiveProgress", "PlainProgress", "reported_download", "reported_progress"]


@contextlib.contextmanager
def reported_progress(
    console: Console, *, runs: int, epochs: int, quiet: bool = False
) -> Iterator[StudyObserver]:
    """An observer that shows progress in the way that suits the console.

    Args:
        console: where to show it.
        runs: that the study has.
        epochs: of each run.
        quiet: show nothing.

    Yields:
        The observer.
    """
    if quiet:
        yield StudyObserver()
    elif console.is_terminal:
        live = LiveProgress(console, runs=runs, epochs=epochs)
        with live.bar:
            yield live
    else:
        yield PlainProgress(console, runs=runs, epochs=epochs)


@contextlib.contextmanager
def reported_download(
    console: Console, *, quiet: bool = False
) -> Iterator[Callable[[str, int, int], None]]:
    """What to call during a download.

    Args:
        console: where to show it.
        quiet: show nothing.

    Yields:
        To be called with a file's name, the bytes that are there, and its size.
    """
    with reported_progress(console, runs=1, epochs=1, quiet=quiet) as observer:
        yield observer.downloading


class _Narrator(StudyObserver):
    """Words for what happens; knows which run is on."""

    def __init__(self, console: Console, *, runs: int, epochs: int) -> None:
        self.console = console
        self.runs = runs
        self.epochs = epochs
        self.started = 0
        self.begun = 0.0
        self.title = ""
        self.file = ""  # that is being downloaded

    def runs_planned(self, count: int) -> None:
        self.runs = count

    def run_started(self, method: str, seed: int) -> None:
        self.started += 1
        self.begun = time.perf_counter()
        self.title = f"{method}, seed {seed}"

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def describe(self, result: EpochResult) -> str:
        text = f"train loss {result.train.loss:.4f}"
        if result.validation is not None:
            text += (
                f", validation loss {result.validation.loss:.4f}"
                f", accuracy {100 * result.validation.accuracy:.2f} %"
            )
        return text

    def run_finished(self, run: Run) -> None:
        if self.runs == 1:
            return  # the epochs have said it all
        seconds = time.perf_counter() - self.begun
        counter = f"[{self.started}/{self.runs}] "
        if run.failure is not None:
            done = f"{len(run.epochs)} of {self.epochs} epochs"
            self.say(f"{counter}{self.title}: failed after {done}")
        elif run.epochs:
            self.say(f"{counter}{self.title}: {self.describe(run.epochs[-1])} ({seconds:.1f} s)")


class PlainProgress(_Narrator):
    """One line a finished run; and an epoch now and then, or every one if there is but one run."""

    SILENCE = 10.0  # seconds after which an epoch is worth a line

    def __init__(self, console: Console, *, runs: int, epochs: int) -> None:
        super().__init__(console, runs=runs, epochs=epochs)
        self.spoken = time.perf_counter()

    def downloading(self, file: str, done: int, total: int) -> None:
        """Says so at the begin of each file, and when it is there."""
        if file != self.file:
            self.say(f"downloading {file} ({size(total)}) ...")
        elif done == total:
            self.say(f"downloaded {file}")
        self.file = file

    def measuring_costs(self) -> None:
        """Says so."""
        self.say("measuring time and memory of a step ...")

    def epoch_finished(self, trainer: Trainer, result: EpochResult) -> None:
        """Says so if it is time."""
        if self.runs > 1 and time.perf_counter() - self.spoken < self.SILENCE:
            return
        self.say(f"{self.title}: epoch {result.epoch}/{self.epochs}, {self.describe(result)}")

    def say(self, text: str) -> None:
        """Prints a line."""
        super().say(text)
        self.spoken = time.perf_counter()


class LiveProgress(_Narrator):
    """A bar over all epochs of all runs; finished runs scroll away above it."""

    def __init__(self, console: Console, *, runs: int, epochs: int) -> None:
        super().__init__(console, runs=runs, epochs=epochs)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[latest]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            expand=True,
            transient=True,
        )
        self.task = self.bar.add_task("starting", total=float(runs * epochs), latest="")

    def downloading(self, file: str, done: int, total: int) -> None:
        """Shows how much of a file is there."""
        if total:
            self.bar.update(
                self.task,
                description=f"downloading {file}",
                latest=f"{size(done)} of {size(total)}",
                completed=self.epochs * self.runs * done / total,
            )

    def measuring_costs(self) -> None:
        """Says so."""
        self.bar.update(self.task, description="measuring time and memory of a step")

    def runs_planned(self, count: int) -> None:
        """Makes the bar as long as all of them."""
        super().runs_planned(count)
        self.bar.update(self.task, total=float(count * self.epochs))

    def run_started(self, method: str, seed: int) -> None:
        """Names the run beside the bar."""
        super().run_started(method, seed)
        place = f" ({self.started} of {self.runs})" if self.runs > 1 else ""
        self.bar.update(self.task, description=self.title + place, latest="")

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        """Moves the bar."""
        done = (self.started - 1) * self.epochs + result.epoch - 1 + result.share
        self.bar.update(self.task, completed=done)

    def epoch_finished(self, trainer: Trainer, result: EpochResult) -> None:
        """Shows how well it does; says so in a line of its own if there is but one run."""
        if result.validation is not None:
            self.bar.update(
                self.task, latest=f"validation {100 * result.validation.accuracy:.1f} %"
            )
        if self.runs == 1:
            self.say(f"epoch {result.epoch}/{self.epochs}: {self.describe(result)}")

    def run_finished(self, run: Run) -> None:
        """Says so, and fills the run's part of the bar if it stopped early."""
        super().run_finished(run)
        self.bar.update(self.task, completed=self.started * self.epochs)

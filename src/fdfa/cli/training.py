"""``fdfa train``, ``compare``, ``resume`` and ``evaluate``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import tyro
from rich.console import Console
from rich.text import Text

from fdfa.cli.command import Kept, Shown, print_files, print_json, speaks_not, status
from fdfa.studies.compare import StudyInterrupted, compare
from fdfa.studies.comparison_report import ComparisonReport
from fdfa.studies.evaluate import evaluate_run
from fdfa.studies.options import data_set_options, method_options, options_by_method, rate_shares
from fdfa.studies.progress import reported_progress
from fdfa.studies.rehearsal import rehearse_study
from fdfa.studies.report import (
    evaluation_report,
    rehearsal_report,
    training_report,
)
from fdfa.studies.results import Comparison
from fdfa.studies.resume import Study, read_config, resume
from fdfa.studies.runs import StudyObserver
from fdfa.studies.scoring import Part
from fdfa.studies.setup import CompareConfig, TrainConfig
from fdfa.studies.task import Task, model_options
from fdfa.studies.train import TrainReport, train
from fdfa.training import TrainingInterrupted

__all__ = ["Compare", "Evaluate", "Resume", "Train", "typed_task"]

_ConfigT = TypeVar("_ConfigT")


@dataclasses.dataclass(frozen=True)
class Train(Kept, TrainConfig):
    """Train one network by one method."""

    EXAMPLE: ClassVar = (
        "fdfa train --data digits --method fdfa --epochs 5 --options feedback_rate=0.05"
    )

    def run(self, out: Console, err: Console) -> int:
        """Train, and show how well it went."""
        config, before = settings(self, TrainConfig), _given(self.config, TrainConfig)
        options = method_options(config.method, config.options)
        if before is not None and before.method == config.method:
            options = {**before.options, **options}
        task = typed_task(config.task, before)
        config = dataclasses.replace(config, options=options, task=task)
        if self.dry_run:
            return _rehearse(self, config, out)
        return _show(
            lambda observer: train(
                config, out=self.out, overwrite=self.overwrite, observer=observer
            ),
            config,
            self,
            out,
            err,
            folder=self.out,
        )


@dataclasses.dataclass(frozen=True)
class Compare(Kept, CompareConfig):
    """Train several methods from the same weights, on the same examples, and compare them."""

    EXAMPLE: ClassVar = (
        "fdfa compare --data digits --methods backpropagation dfa fdfa \\\n"
        "      --epochs 20 --seeds 3 --out runs/first"
    )

    def run(self, out: Console, err: Console) -> int:
        """Compare, and show the table."""
        config, before = settings(self, CompareConfig), _given(self.config, CompareConfig)
        options = options_by_method(config.candidates, dict[str, Any](config.options))
        shares = rate_shares(dict[str, Any](config.rate_shares))
        if before is not None:
            kept = {m: s for m, s in before.rate_shares.items() if m in config.candidates}
            shares = {**kept, **shares}
            for method in set(before.candidates) & set(config.candidates):
                options[method] = {**before.options.get(method, {}), **options.get(method, {})}
        task = typed_task(config.task, before)
        config = dataclasses.replace(config, options=options, rate_shares=shares, task=task)
        if self.dry_run:
            return _rehearse(self, config, out)
        return _show(
            lambda observer: compare(
                config, out=self.out, overwrite=self.overwrite, observer=observer
            ),
            config,
            self,
            out,
            err,
            folder=self.out,
        )


@dataclasses.dataclass(frozen=True)
class Resume(Shown):
    """Go on with a run or a comparison that was interrupted, bit for bit.

    Attributes:
        run_folder: where the run is, as --out named it.
        quiet: show no progress.
    """

    EXAMPLE: ClassVar = "fdfa resume runs/first"

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="run", metavar="RUN")]
    quiet: bool = False

    def run(self, out: Console, err: Console) -> int:
        """Go on, and show how well it went."""
        config, _ = read_config(self.run_folder)
        return _show(
            lambda observer: resume(self.run_folder, observer=observer),
            config,
            self,
            out,
            err,
            folder=self.run_folder,
        )


@dataclasses.dataclass(frozen=True)
class Evaluate(Shown):
    """Measure the network of a run once more, on its test examples.

    Attributes:
        run_folder: where the run is, as --out named it.
        part: test, validation or train.
        data_dir: folder with the data set's files, if it is not where it was.
        device: cpu, cuda, cuda:1, mps, or auto for the best that is there.
    """

    EXAMPLE: ClassVar = "fdfa evaluate runs/first"

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="run", metavar="RUN")]
    part: Part = "test"
    data_dir: str | None = None
    device: str = "auto"

    def run(self, out: Console, err: Console) -> int:
        """Measure, and show the score."""
        found = evaluate_run(
            self.run_folder, part=self.part, data_dir=self.data_dir, device=self.device
        )
        if self.json:
            print_json(found.report())
        else:
            out.print(evaluation_report(found))
        return 0


def settings(command: Any, kind: type[_ConfigT]) -> _ConfigT:
    """The part of a command that is a configuration.

    Args:
        command: as it was typed.
        kind: of the configuration.

    Returns:
        The configuration; options of method, data and network are still text.
    """
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: getattr(command, name) for name in names})


def typed_task(task: Task, before: Study | None = None) -> Task:
    """The same task with options turned from text into what they stand for.

    Args:
        task: as a command line gives it.
        before: what ``--config`` says: its options count where data and network are the same.

    Returns:
        What Python would have been given.
    """
    data = data_set_options(task.data, task.data_options)
    network = model_options(task.model, task.model_options)
    if before is not None and before.task.data == task.data:
        data = {**before.task.data_options, **data}
    if before is not None and before.task.model == task.model:
        network = {**before.task.model_options, **network}
    if before is not None and before.task.data != task.data:
        # What belonged to the other data set, unless it was given anew.
        if task.validation == before.task.validation:
            task = dataclasses.replace(task, validation=None)
        if task.data_dir == before.task.data_dir:
            task = dataclasses.replace(task, data_dir=None)
    return dataclasses.replace(task, data_options=data, model_options=network)


def _given(path: Path | None, kind: type[_ConfigT]) -> _ConfigT | None:
    """What ``--config`` names; its kind was checked when the defaults were taken from it."""
    if path is None:
        return None
    config, _ = read_config(path)
    return config if isinstance(config, kind) else None


def _rehearse(command: Kept, config: Study, out: Console) -> int:
    found = rehearse_study(config, out=command.out, overwrite=command.overwrite)
    if command.json:
        print_json(found)
    else:
        out.print(rehearsal_report(found))
    return 0


def _show(
    perform: Callable[[StudyObserver], TrainReport | Comparison],
    config: Study,
    command: Train | Compare | Resume,
    out: Console,
    err: Console,
    *,
    folder: Path | None,
) -> int:
    """Run a study with its progress, then show what came of it, also after Ctrl-C."""
    runs = len(config.candidates) * config.seeds if isinstance(config, CompareConfig) else 1
    epochs = config.training.epochs
    # Of the processes that torchrun started, the first speaks for all.
    quiet = command.quiet or speaks_not()
    interrupted = None
    try:
        with reported_progress(err, runs=runs, epochs=epochs, quiet=quiet) as observer:
            found = perform(observer)
    except StudyInterrupted as stop:
        found, interrupted = stop.comparison, _share_of_runs(config, stop.comparison)
    except TrainingInterrupted as stop:
        err.print(_how_to_go_on(f"after step {stop.step}", folder), soft_wrap=True)
        return 130
    if command.json:
        print_json(found.report())
    elif isinstance(found, Comparison):
        if found.runs and isinstance(config, CompareConfig):
            out.print(ComparisonReport(config, found))
    elif found.run.failure is None:
        out.print(training_report(found))
    if not command.json:
        print_files(out, found.files)
    if interrupted is not None:
        err.print(_how_to_go_on(f"{interrupted} were finished", folder), soft_wrap=True)
        return 130
    finished = found.runs if isinstance(found, Comparison) else (found.run,)
    return status(err, finished)


def _share_of_runs(config: Study, comparison: Comparison) -> str:
    seeds = config.seeds if isinstance(config, CompareConfig) else 1
    return f"{len(comparison.runs)} of {len(comparison.summaries) * seeds} runs"


def _how_to_go_on(done: str, folder: Path | None) -> Text:
    if folder is None:
        return Text(f"Interrupted: {done}. Nothing was kept: --out FOLDER would have.")
    return Text(f"Interrupted: {done}. `fdfa resume {folder}` goes on.")

"""A table of trainings: made run by run, kept, gone on with, and put side by side."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fdfa.errors import ConfigError
from fdfa.studies.costs import fresh_learner
from fdfa.studies.environment import surroundings
from fdfa.studies.json_values import plain
from fdfa.studies.records import from_json
from fdfa.studies.reproduce.declaration import TrainingTable
from fdfa.studies.reproduce.findings import Findings
from fdfa.studies.reproduce.markdown import caption, write_report
from fdfa.studies.reproduce.pictures import write_panels
from fdfa.studies.reproduce.planned_runs import PlannedRun, TableSettings, planned_runs
from fdfa.studies.reproduce.scaling import Scale, in_words, scaled, seconds_of
from fdfa.studies.reproduce.starts import starts_by_column
from fdfa.studies.reproduce.step_costs import Costs, costs_grids, kept_step_costs
from fdfa.studies.reproduce.table_findings import (
    cells_of,
    grid_of,
    run_units,
    sources_of,
    target_expectations,
    validation_grid,
)
from fdfa.studies.reproduce.table_pictures import path_panels, table_panels
from fdfa.studies.reproduce.workers import make_runs, workers_for
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.runs import Run, StudyObserver, recall
from fdfa.studies.same_run import check_same_run
from fdfa.studies.tables import plural_s
from fdfa.studies.trial_step import rehearse

__all__ = ["table_made"]

Told = Callable[[str], None]
# What another process of the same study may change.
_ANYWHERE = {"workers": None, "data_dir": None, "device": "auto", "retry_failed": False, "note": ""}


def table_made(
    name: str,
    table: TrainingTable,
    settings: TableSettings,
    *,
    command: str,
    out: RunFolder | None,
    overwrite: bool,
    minutes: float | None,
    told: Told,
) -> Findings:
    """Train every rule on every task from every seed; what is finished already is read.

    Args:
        name: of the study.
        table: what its file says.
        settings: which part of it, and by how many processes.
        command: that makes it.
        out: keeps the runs; None for a folder that is gone afterwards.
        overwrite: whether the files of another study in it may be replaced.
        minutes: budget; None for none.
        told: is called with a line about each run.

    Returns:
        What was found; a failed run is shown as failed.

    Raises:
        ConfigError: if something in the study cannot be, or ``out`` holds other runs.
        KeyboardInterrupt: after Ctrl-C, with checkpoints written.
    """
    if out is None:
        with tempfile.TemporaryDirectory() as place:
            found = table_made(
                name,
                table,
                settings,
                command=command,
                out=RunFolder(place),
                overwrite=True,
                minutes=minutes,
                told=told,
            )
        return dataclasses.replace(found, files=())
    scale = _scale(name, table, settings, out, minutes)
    runs = planned_runs(table, settings, seeds=scale.seeds, share=scale.share)
    with _opened(name, out, runs, overwrite=overwrite) as folder:
        content = {"name": name, "settings": settings, "minutes": minutes, "scale": scale}
        folder.write_json("config.json", {"reproduce": content, "environment": surroundings()})
        costs = kept_step_costs(table, runs, folder, told)
        _trained(runs, settings, folder, told)
        return _found(name, table, settings, scale, runs, costs, command, folder)


def _scale(
    name: str,
    table: TrainingTable,
    settings: TableSettings,
    out: RunFolder,
    minutes: float | None,
) -> Scale:
    """All that was asked for, or what the budget has room for; a study that goes on keeps it."""
    seeds = settings.seeds or table.seeds
    if minutes is None:
        return Scale(seeds)
    if _goes_on(name, out) and (kept := _kept(out)).get("scale") is not None:
        before = {**kept, "settings": {**kept["settings"], **_ANYWHERE}}
        now = {"name": name, "settings": {**plain(settings), **_ANYWHERE}, "minutes": minutes}
        if before == {**now, "scale": kept["scale"]}:
            return from_json(Scale, kept["scale"], where=str(out.path / "config.json"))
    cells = planned_runs(table, settings, seeds=1)
    jobs = len(planned_runs(table, settings, seeds=seeds))
    workers = workers_for(settings.workers, jobs=jobs, device=settings.device)
    seconds = [
        seconds_of(run.config, start) / workers
        for column in starts_by_column(cells)
        for run, start in column
    ]
    return scaled(cells, seconds, seeds=seeds, minutes=minutes)


def _kept(out: RunFolder) -> Mapping[str, Any]:
    content = (out.read_json("config.json") or {}).get("reproduce")
    return content if isinstance(content, dict) else {}


def _goes_on(name: str, out: RunFolder) -> bool:
    """Whether the folder is this study's, or has nothing but runs in it yet."""
    if out.study() == "reproduce":
        return _kept(out).get("name") == name
    return out.path.is_dir() and out.held_names() == ["runs"]


@contextlib.contextmanager
def _opened(
    name: str, out: RunFolder, runs: Sequence[PlannedRun], *, overwrite: bool
) -> Iterator[RunFolder]:
    """The folder, held: with runs that fit the study, or fresh."""

    def check() -> None:
        for run in runs:
            check_same_run(_folder_of(run, out), run.config, study="study")

    fits = _goes_on(name, out)
    if fits:
        try:
            check()
        except ConfigError:
            if not overwrite:
                raise
            fits = False
    if fits:
        with out.held():
            yield out
    else:
        with RunFolder.fresh(out.path, overwrite=overwrite) as folder:
            check()  # runs that no study made are left alone, and none of them counts as its own
            yield folder


def _folder_of(run: PlannedRun, out: RunFolder) -> RunFolder:
    return RunFolder(out.path / "runs" / run.name)


def _trained(
    runs: Sequence[PlannedRun], settings: TableSettings, folder: RunFolder, told: Told
) -> None:
    """Make what is not finished."""
    todo: dict[Path, PlannedRun] = {}
    for run in runs:
        own = _folder_of(run, folder)
        before = recall(own)
        if before is not None and before.failure is not None and settings.retry_failed:
            own.clear()
            before = None
        if before is None:
            todo[own.path] = run
    if len(todo) < len(runs):
        told(f"{len(runs) - len(todo)} of {len(runs)} runs were finished before")
    # What cannot be trained as asked is found now, not after hours.
    unseen = {
        (run.column.name, run.row.name): run
        for path, run in todo.items()
        if RunFolder(path).study() is None
    }
    for column in starts_by_column(list(unseen.values())):
        for run, start in column:
            rehearse(run.config, fresh_learner(run.config, start.network, start.data), start.data)
    done: list[Path] = []

    def finished(path: Path) -> None:
        done.append(path)
        run = recall(RunFolder(path))
        assert run is not None  # noqa: S101  # it was just finished
        told(f"[{len(done)}/{len(todo)}] {todo[path].title}: {_in_short(run)}")

    make_runs(
        {path: run.config for path, run in todo.items()},
        workers=workers_for(settings.workers, jobs=len(todo), device=settings.device),
        observer=StudyObserver(),
        finished=finished,
    )


def _in_short(run: Run) -> str:
    if run.test is None:
        return f"failed: {run.failure}"
    seconds = sum(epoch.seconds for epoch in run.epochs)
    return f"{100 * run.test.accuracy:.2f} % ({seconds:.0f} s)"


def _found(
    name: str,
    table: TrainingTable,
    settings: TableSettings,
    scale: Scale,
    runs: Sequence[PlannedRun],
    costs: Costs,
    command: str,
    folder: RunFolder,
) -> Findings:
    """Read every run, and write what they come to."""
    made = [(run, own) for run in runs if (own := recall(_folder_of(run, folder))) is not None]
    cells = cells_of(table, made)
    declared = dataclasses.replace(settings, epochs=None)
    whole = planned_runs(table, declared, seeds=1)
    epochs = {(run.column.name, run.row.name): run.config.training.epochs for run in whole}
    as_declared = scale.seeds >= table.seeds and all(
        run.config.training.epochs == epochs[run.column.name, run.row.name] for run in runs
    )
    environments = [_folder_of(run, folder).read_json("config.json")["environment"] for run in runs]
    last = max((_folder_of(run, folder).path / "results.json").stat().st_mtime for run in runs)
    day = datetime.datetime.fromtimestamp(last, tz=datetime.UTC).date()
    lengths = [run.config.training.epochs for run in runs]
    shorter = _other_size(table, scale, lengths, list(epochs.values()))
    trained = f"{in_words(lengths)} epoch{plural_s(max(lengths))}"
    sources = [f"[{n}] {text}" for n, text in enumerate(sources_of(table, cells), 1)]
    found = Findings(
        name=name,
        settings=settings,
        expectations=target_expectations(table, cells, costs, whole=as_declared),
        units={**run_units(table, made), **({"costs": costs} if costs else {})},
        grids=(
            grid_of(table, cells, epochs=trained, words=scale.words),
            *validation_grid(table, cells_of(table, made, validation=True)),
            *costs_grids(table, costs),
        ),
        caption=caption(command, environments, day, scale.words, settings.note),
        differences=(*table.differences, *shorter),
    )
    notes = write_panels(
        [
            *table_panels(table, made, lambda run: _folder_of(run, folder)),
            *path_panels(table, cells, costs),
        ],
        folder,
        title=f"{name}: {table.source}",
    )
    notes = (*sources, *_data_notes(runs, environments), *notes)
    found = dataclasses.replace(found, notes=notes, files=tuple(folder.files))
    write_report(found, table, folder)
    folder.write_json("results.json", found.report())
    folder.note("config.json", "units.json")
    return dataclasses.replace(found, files=tuple(folder.files))


def _other_size(
    table: TrainingTable, scale: Scale, lengths: Sequence[int], declared: Sequence[int]
) -> Iterator[str]:
    """That the set-up which the file describes has other epochs or seeds."""
    ours, theirs = in_words(lengths), in_words(declared)
    if (ours, scale.seeds) != (theirs, table.seeds):
        yield (
            f"These runs have {ours} epoch{plural_s(max(lengths))} and {scale.seeds} "
            f"seed{plural_s(scale.seeds)}; the study declares {theirs} and {table.seeds}."
        )


def _data_notes(
    runs: Sequence[PlannedRun], environments: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """That a mean is over runs which did not see the same data."""
    seen: dict[str, set[str]] = {}
    for run, environment in zip(runs, environments, strict=True):
        seen.setdefault(run.column.label, set()).add(str(environment.get("data_sha256")))
    for label, sums in seen.items():
        if len(sums) > 1:
            yield f"{label}: not all runs saw the same data; there are {len(sums)} checksums."

"""What lies in the folders of runs, finished or not; nothing in them is loaded or computed."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from fdfa.errors import ConfigError
from fdfa.studies.costs import Costs
from fdfa.studies.diagnosis_log import DIAGNOSIS
from fdfa.studies.page.flat import flat
from fdfa.studies.records import from_json
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.runs import Run, result_of
from fdfa.training import EpochResult, read_lines
from fdfa.training.metrics import METRICS, TIMINGS

__all__ = ["DataSet", "Diagnosis", "FoundRun", "found_runs"]


class DataSet(NamedTuple):
    """What was learned: runs are on the same data if all of it is equal.

    Attributes:
        name: of the data set.
        checksum: SHA-256 of all examples and of how they are divided; None if nobody noted it.
    """

    name: str
    checksum: str | None


class Diagnosis(NamedTuple):
    """One look at the gradients during a training.

    Attributes:
        epoch: that was running.
        step: optimiser steps taken.
        cosines: with the exact gradient, by parameter; NaN where one has no direction.
    """

    epoch: int
    step: int
    cosines: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class FoundRun:
    """One run, as far as it went.

    Attributes:
        name: its folder, as short as the user will know it.
        path: the folder.
        method: its name.
        seed: of the run.
        data: what was learned.
        settings: all that decides what it learns, but for method and seed, by dotted name.
        surroundings: machine, versions and records, by dotted name.
        epochs_planned: how many there were to be.
        epochs: that were finished, from the metrics.
        peak_memory: bytes up to each epoch, by its number.
        diagnoses: in order.
        result: what ``results.json`` says; None if the run is not finished.
        matrices: names of the weight matrices; none where no trained network lies.
        costs: of a step of the method, relative to backpropagation, if they were measured.
        notes: what could not be read, and how much of it.
    """

    name: str
    path: Path
    method: str
    seed: int
    data: DataSet
    settings: Mapping[str, Any]
    surroundings: Mapping[str, Any]
    epochs_planned: int | None
    epochs: tuple[EpochResult, ...]
    peak_memory: Mapping[int, int]
    diagnoses: tuple[Diagnosis, ...]
    result: Run | None
    matrices: tuple[str, ...]
    costs: Costs | None
    notes: tuple[str, ...]

    @property
    def finished(self) -> bool:
        """Whether it went to its end and was tested."""
        return self.result is not None and self.result.test is not None

    @property
    def accuracy(self) -> float | None:
        """On the test examples; None if it was not tested."""
        return self.result.test.accuracy if self.result and self.result.test else None

    @property
    def loss(self) -> float | None:
        """The same of the loss."""
        return self.result.test.loss if self.result and self.result.test else None

    @property
    def cosine(self) -> float | None:
        """With the exact gradient after the training, mean over the weight matrices."""
        known = self.result is not None and math.isfinite(self.result.cosine)
        return self.result.cosine if self.result is not None and known else None

    @property
    def status(self) -> str:
        """In words: finished, unfinished, or why it failed."""
        if self.finished:
            return "finished"
        if self.result is not None:
            return f"failed: {self.result.failure}"
        return f"unfinished: {len(self.epochs)} of {self.epochs_planned or '?'} epochs"


def found_runs(
    folders: Sequence[str | os.PathLike[str]],
) -> tuple[tuple[FoundRun, ...], tuple[str, ...]]:
    """The runs in folders of single runs, comparisons and reproductions.

    Args:
        folders: in the order in which they are to be shown.

    Returns:
        The runs, each once; and notes on what was passed over.

    Raises:
        ConfigError: if a folder holds no run.
    """
    found: dict[Path, FoundRun] = {}
    notes: list[str] = []
    for given in folders:
        folder = RunFolder(given)
        kind = folder.study()
        if kind is None:
            raise ConfigError(_no_run(folder.path))
        inside = [folder] if kind == "train" else folder.runs()
        if not inside:
            raise ConfigError(
                f"'{folder.path}' is of a study that has begun no run yet. Wait for its first "
                "epoch, or leave the folder out."
            )
        notes += _passed_over(folder, inside)
        costs = _costs(folder, notes)
        for run in _ordered(folder, [_found(each, costs) for each in inside]):
            place = run.path.resolve()
            if place in found:
                notes.append(f"'{run.path}' was given twice; it is counted once.")
            else:
                found[place] = run
    return tuple(found.values()), tuple(notes)


def _no_run(path: Path) -> str:
    if not path.exists():
        return f"there is no run '{path}'. Name the folder that --out named."
    what = "holds no run (no config.json of fdfa)" if path.is_dir() else "is a file, not a folder"
    return f"'{path}' {what}. Name the folder that --out named."


def _ordered(folder: RunFolder, runs: list[FoundRun]) -> list[FoundRun]:
    """The runs of a comparison, method by method as its configuration names them."""
    compare = folder.read_json("config.json").get("compare")
    methods = list(compare.get("methods") or []) if isinstance(compare, dict) else []

    def place(run: FoundRun) -> tuple[int, int]:
        known = run.method in methods
        return methods.index(run.method) if known else len(methods), run.seed

    return sorted(runs, key=place)


def _passed_over(folder: RunFolder, inside: Iterable[RunFolder]) -> Iterator[str]:
    """Folders that stand where runs stand, and are none."""
    runs = {run.path for run in inside}
    above = folder.path / "runs"
    if folder.path in runs or not above.is_dir():
        return
    for entry in sorted(above.iterdir()):
        if entry.is_dir() and entry not in runs:
            yield f"'{entry}' holds no run that can be read; it is left out."


def _costs(folder: RunFolder, notes: list[str]) -> Costs | None:
    try:
        saved = folder.read_json("costs.json")
        where = str(folder.path / "costs.json")
        return None if saved is None else from_json(Costs, saved, where=where)
    except ConfigError as error:
        notes.append(f"no costs of a step: {error}")
        return None


def _found(folder: RunFolder, costs: Costs | None) -> FoundRun:
    content = folder.read_json("config.json")
    train, environment = content["train"], content["environment"]
    train = train if isinstance(train, dict) else {}
    environment = environment if isinstance(environment, dict) else {}
    method, seed = train.get("method"), train.get("seed")
    task, training = (train.get(name) or {} for name in ("task", "training"))
    if not (isinstance(method, str) and isinstance(seed, int) and "data" in task):
        raise ConfigError(
            f"{folder.path / 'config.json'} does not say method, seed and data. Put the file back "
            "as it was, or leave the run out."
        )
    notes: list[str] = []
    epochs = _read(folder, METRICS, _epoch, notes)
    timings = {
        line["epoch"]: line for line in _read(folder, TIMINGS, lambda line, _: _timing(line), notes)
    }
    try:
        result = result_of(folder)
    except ConfigError as error:
        result = None
        notes.append(str(error))
    machine = {name: train.get(name) for name in ("machine", "records")}
    return FoundRun(
        name=str(folder.path),
        path=folder.path,
        method=method,
        seed=seed,
        data=DataSet(str(task["data"]), environment.get("data_sha256")),
        settings=flat({"options": train.get("options"), "task": task, "training": training}),
        surroundings=flat({**machine, **environment}),
        epochs_planned=training.get("epochs"),
        epochs=tuple(
            dataclasses.replace(
                epoch, seconds=timings.get(epoch.epoch, {}).get("seconds", math.nan)
            )
            for epoch in epochs
        ),
        peak_memory={
            number: line["peak_memory"]
            for number, line in timings.items()
            if isinstance(line.get("peak_memory"), int)
        },
        diagnoses=tuple(_read(folder, DIAGNOSIS, lambda line, _: _diagnosis(line), notes)),
        result=result,
        matrices=_matrices(folder.path / "model.safetensors", notes),
        costs=costs,
        notes=tuple(notes),
    )


def _read(folder: RunFolder, name: str, understood: Any, notes: list[str]) -> list[Any]:
    """The lines of a file that can be understood; how many cannot, is noted."""
    path = folder.path / name
    if not path.is_file():
        return []
    lines, damaged = read_lines(path)
    found = []
    for line in lines:
        try:
            found.append(understood(line, str(path)))
        except (ConfigError, KeyError, TypeError, AttributeError):
            damaged += 1
    if damaged:
        notes.append(f"{path}: {damaged} damaged line{'s' if damaged > 1 else ''} skipped.")
    return found


def _epoch(line: dict[str, Any], where: str) -> EpochResult:
    return from_json(EpochResult, {**line, "seconds": None}, where=where)


def _timing(line: dict[str, Any]) -> dict[str, Any]:
    if not (isinstance(line["epoch"], int) and isinstance(line["seconds"], (int, float))):
        raise TypeError
    return line


def _diagnosis(line: dict[str, Any]) -> Diagnosis:
    cosines = {name: entry["cosine"] for name, entry in line["parameters"].items()}
    numbers = {n: math.nan if value is None else float(value) for n, value in cosines.items()}
    return Diagnosis(int(line["epoch"]), int(line["step"]), numbers)


def _matrices(path: Path, notes: list[str]) -> tuple[str, ...]:
    """From the head of the file: the tensors themselves are not read."""
    if not path.is_file():
        return ()
    try:
        with safe_open(path, framework="pt") as file:
            return tuple(n for n in file.keys() if len(file.get_slice(n).get_shape()) > 1)  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        notes.append(f"{path} cannot be read ({error}).")
        return ()

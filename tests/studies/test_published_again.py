"""What stands in ``docs/results`` comes again from its command: the smallest part of each.

Of a table the cheapest of its runs is made again, of a measurement its first part; both need the
data that they were made on.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fdfa.data
from fdfa.cli.parsing import parse
from fdfa.data.registry import located
from fdfa.studies.json_values import plain
from fdfa.studies.records import from_json
from fdfa.studies.reproduce import declared_in, reproduce, reproductions
from fdfa.studies.reproduce.declaration import Measurement, TrainingTable
from fdfa.studies.reproduce.findings import Units
from fdfa.studies.reproduce.planned_runs import TableSettings
from tests.docs.pages import DOCS, blocks, commands
from tests.studies.tables import written

RESULTS = sorted((DOCS / "results").glob("*.json"))
# Same seed, same data: on another machine sums come out in another order, and runs drift apart by
# what two seeds do; a cell of one run states no spread.
_LEAST = 0.5


def spread_of(units: dict[str, Any], task: str, rule: str, score: str) -> float:
    """Twice the standard deviation of the cell, as far as it has one; percentage points."""
    values = [unit[score] for unit in cell_of(units, task, rule) if unit["failure"] is None]
    return max(_LEAST, 2 * statistics.stdev(values)) if len(values) > 1 else _LEAST


def cell_of(units: dict[str, Any], task: str, rule: str) -> list[dict[str, Any]]:
    """Its runs."""
    return [u for u in units.values() if (u.get("task"), u.get("rule")) == (task, rule)]


def check_page(table: TrainingTable, results: dict[str, Any], text: str) -> None:
    """Each row of the page has the mean and the deviation of the runs beside it."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for column, row in table.cells():
        runs = cell_of(results["units"], column.name, row.name)
        values = [unit[table.score] for unit in runs if unit["failure"] is None]
        if len(values) < len(runs):
            words = f" {len(runs) - len(values)} of {len(runs)} failed "
        elif len(values) > 1:
            mean, deviation = statistics.fmean(values), statistics.stdev(values)
            words = f" {mean:.2f} ± {deviation:.2f} ({len(values)}) "
        elif values:
            words = f" {values[0]:.2f} (1) "
        else:
            continue
        assert any(line.startswith(f"| {row.label} |") and words in line for line in rows), words


def cheapest(units: dict[str, Any]) -> dict[str, Any]:
    """The run that took the least time, of the first seed."""
    runs = [u for u in units.values() if u.get("seed") == 0 and u.get("failure", "") is None]
    found: dict[str, Any] = min(runs, key=lambda run: run["seconds"])
    return found


def check_table(table: TrainingTable, results: dict[str, Any], again: Callable[..., Any]) -> None:
    """Make the cheapest run once more, and compare."""
    run = cheapest(results["units"])
    chosen = TableSettings(
        tasks=(run["task"],),
        rules=(run["rule"],),
        seeds=1,
        epochs=run["epochs"],
        workers=1,
        device="cpu",
    )
    (found,) = (u for u in again(chosen).units.values() if "task" in u)
    allowed = spread_of(results["units"], run["task"], run["rule"], table.score)
    assert abs(found[table.score] - run[table.score]) <= allowed


class FirstPart(Units):
    """Measures one part, and stops."""

    class Measured(Exception):  # noqa: N818  # it is no error
        """Carries name and value of the part."""

    def get(self, name: str, measure: Callable[[], Any], words: Callable[[Any], str]) -> Any:
        raise self.Measured(name, measure())


def numbers(value: Any, where: str = "") -> Iterator[tuple[str, float]]:
    """Every number in a value, with its place; times are nobody's to repeat."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if "seconds" not in key:
                yield from numbers(inner, f"{where}.{key}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from numbers(inner, f"{where}[{number}]")
    elif isinstance(value, (int, float)):
        yield where, float(value)


def check_measurement(measurement: Measurement, kind: type, results: dict[str, Any]) -> None:
    """Measure the first part once more, and compare number by number."""
    module = importlib.import_module(measurement.measured_by)
    saved = {name: value for name, value in results["settings"].items() if name != "data_dir"}
    settings = from_json(kind, saved, where="settings")
    with pytest.raises(FirstPart.Measured) as caught:
        module.measure(settings, FirstPart(None, lambda line: None))
    name, found = caught.value.args
    wanted = dict(numbers(results["units"][name]))
    for where, number in numbers(plain(found)):
        assert number == pytest.approx(wanted[where], rel=0.02, abs=1e-6), f"{name}{where}"


@pytest.mark.slow
@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_smallest_part_comes_again(path: Path, tmp_path: Path) -> None:
    results = json.loads(path.read_text(encoding="utf-8"))
    study = reproductions()[results["name"]]
    if isinstance(study.declaration, TrainingTable):
        column = next(
            column
            for column in study.declaration.task
            if column.name == cheapest(results["units"])["task"]
        )
        skip_without(column.data)
        check_table(
            study.declaration, results, lambda chosen: reproduce(study, chosen, out=tmp_path)
        )
    else:
        names = results["settings"].get("data", ())
        for name in [names] if isinstance(names, str) else names:
            skip_without(name)
        check_measurement(study.declaration, study.settings, results)


def skip_without(name: str) -> None:
    """Nothing is downloaded for a test."""
    if name != "digits" and located(fdfa.data.describe(name)) is None:
        pytest.skip(f"no files of {name} are here: FDFA_DATA names their folder")


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_each_page_says_how_it_came_to_be(path: Path) -> None:
    """Beside its numbers lie its page, with the command, and its picture."""
    results = json.loads(path.read_text(encoding="utf-8"))
    page = path.with_suffix(".md")
    (command, *_) = [command for block in blocks(page) for command in commands(block)]
    parse(command.words[1:])
    assert command.words[:3] == ["fdfa", "reproduce", results["name"]]
    assert " ".join(command.words) == " ".join(results["caption"][0].replace("'", "").split())
    text = page.read_text(encoding="utf-8")
    assert "torch 2." in text
    if f"![{results['name']}]" in text:
        assert path.with_suffix(".svg").exists()
    declaration = reproductions()[results["name"]].declaration
    if isinstance(declaration, TrainingTable):
        check_page(declaration, results, text)


class TestTheTestItself:
    """Results that are made here come again; such that were tampered with do not."""

    def test_of_a_table(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # no pictures
        study = declared_in(written(tmp_path))
        assert isinstance(study.declaration, TrainingTable)
        settings = TableSettings(tasks=("narrow",), rules=("bp",), workers=1, device="cpu")
        results = plain(reproduce(study, settings, out=tmp_path / "out").report())
        check_table(study.declaration, results, lambda chosen: reproduce(study, chosen))
        page = (tmp_path / "out" / "report.md").read_text()
        check_page(study.declaration, results, page)
        first, second = results["units"].values()
        first["accuracy"] = second["accuracy"] = first["accuracy"] + 1.0
        with pytest.raises(AssertionError):
            check_table(study.declaration, results, lambda chosen: reproduce(study, chosen))
        with pytest.raises(AssertionError):
            check_page(study.declaration, results, page)

    def test_a_failed_run_is_no_number(self, tmp_path: Path) -> None:
        table = declared_in(written(tmp_path)).declaration
        assert isinstance(table, TrainingTable)
        good = {"task": "narrow", "rule": "bp", "accuracy": 90.0, "failure": None}
        units = {"a": good, "b": {**good, "accuracy": None, "failure": "it burst"}}
        assert spread_of(units, "narrow", "bp", "accuracy") == _LEAST
        check_page(table, {"units": units}, "| BP | 1 of 2 failed |")
        with pytest.raises(AssertionError):
            check_page(table, {"units": units}, "| BP | 90.00 (1) |")

    def test_of_a_measurement(self) -> None:
        study = reproductions()["multi-tangent"]
        assert isinstance(study.declaration, Measurement)
        settings = dataclasses.replace(study.settings(), parts=("sphere",), steps=3, seeds=1)
        results = plain(reproduce(study, settings).report())
        check_measurement(study.declaration, study.settings, results)
        results["units"]["sphere, backpropagation, seed 0"]["value"] *= 1.1
        with pytest.raises(AssertionError):
            check_measurement(study.declaration, study.settings, results)

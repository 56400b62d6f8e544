"""A table of trainings: what is trained, kept, read again, and shown."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import fdfa
from fdfa.errors import ConfigError
from fdfa.studies.reproduce import Reproduction, declared_in, reproduce
from fdfa.studies.reproduce.declaration import TrainingTable
from fdfa.studies.reproduce.findings import Findings
from fdfa.studies.reproduce.planned_runs import PlannedRun, TableSettings, planned_runs
from fdfa.studies.reproduce.scaling import Scale, scaled, seconds_of
from fdfa.studies.reproduce.starts import starts_by_column
from fdfa.studies.reproduce.step_costs import StepCosts, backward_path
from fdfa.studies.reproduce.table_findings import Cell, grid_of, target_expectations
from fdfa.studies.reproduce.table_pictures import path_panels, table_panels
from fdfa.studies.reproduce.workers import usable_cores, workers_for
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.runs import Run, recall
from fdfa.studies.train import train
from tests.studies.tables import SMALL, written

ALONE = TableSettings(workers=1, device="cpu")
NAMES = [
    *("narrow-bp-seed-0", "narrow-dfa-seed-0", "wide-bp-seed-0"),
    *("narrow-bp-seed-1", "narrow-dfa-seed-1", "wide-bp-seed-1"),
]
DIVERGING = """
[[rule]]
name = "wild"
label = "Wild"
method = "backpropagation"
training = { optimizer = "sgd", learning_rate = 1e30 }
model_options = { batch_norm = false }
tasks = ["narrow"]
"""
PUBLISHED = """
[[published]]
rule = "dfa"
task = "narrow"
value = 1.5
source = "Someone 2020"
tag = "code"
"""


def study_in(folder: Path, text: str = SMALL) -> Reproduction:
    return declared_in(written(folder, text))


def table_of(study: Reproduction) -> TrainingTable:
    assert isinstance(study.declaration, TrainingTable)
    return study.declaration


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def modified(out: Path) -> dict[str, int]:
    """When the trained weights of each run were written."""
    return {
        path.parent.name: path.stat().st_mtime_ns for path in out.glob("runs/*/model.safetensors")
    }


@pytest.fixture(autouse=True, scope="module")
def _no_pictures() -> Iterator[None]:
    """They take longer than these trainings; one slow test draws them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was made once, in ``out``."""
    place = tmp_path_factory.mktemp("study")
    reproduce(study_in(place), ALONE, out=place / "out")
    return place


class TestMade:
    def test_every_run_is_that_of_the_command_train(self, place: Path) -> None:
        """Weights to the last bit, and every file."""
        (planned, *_) = planned_runs(table_of(study_in(place)), ALONE, seeds=1)
        train(planned.config, out=place / "alone")
        mine = place / "out" / "runs" / planned.name
        assert (mine / "model.safetensors").read_bytes() == (
            place / "alone" / "model.safetensors"
        ).read_bytes()
        for name in ("results.json", "metrics.jsonl", "config.json"):
            assert (mine / name).read_text() == (place / "alone" / name).read_text()
        assert {path.name for path in mine.iterdir()} == {
            path.name for path in (place / "alone").iterdir()
        }

    def test_results_hold_every_run(self, place: Path) -> None:
        results = json.loads((place / "out" / "results.json").read_text())
        assert list(results["units"]) == NAMES
        for name, unit in results["units"].items():
            own = json.loads((place / "out" / "runs" / name / "results.json").read_text())["run"]
            assert unit["accuracy"] == pytest.approx(100 * own["test"]["accuracy"])
            assert (unit["failure"], unit["epochs"], unit["seed"]) == (None, 2, own["seed"])
            assert unit["seconds"] > 0

    def test_the_report_has_means_over_the_seeds(self, place: Path) -> None:
        report = (place / "out" / "report.md").read_text()
        accuracies = [
            100
            * json.loads(
                (place / "out" / "runs" / f"wide-bp-seed-{n}" / "results.json").read_text()
            )["run"]["test"]["accuracy"]
            for n in (0, 1)
        ]
        mean, deviation = statistics.fmean(accuracies), statistics.stdev(accuracies)
        assert f"| {mean:.2f} ± {deviation:.2f} (2) |" in report
        assert "```sh\nfdfa reproduce study small.toml\n```" in report
        assert "torch 2." in report
        assert "## Differences from the published set-up\n\n- Everything is smaller." in report
        assert "after 2 epochs" in report

    def test_the_same_call_reads_them(self, place: Path) -> None:
        before, lines = modified(place / "out"), list[str]()
        report = (place / "out" / "report.md").read_text()
        found = reproduce(study_in(place), ALONE, out=place / "out", told=lines.append)
        assert lines == ["6 of 6 runs were finished before"]
        assert modified(place / "out") == before
        assert (place / "out" / "report.md").read_text() == report
        assert [path.name for path in found.files] == ["config.json", "report.md", "results.json"]

    def test_a_part_of_it_is_read_from_the_whole(self, place: Path) -> None:
        before = modified(place / "out")
        chosen = dataclasses.replace(ALONE, tasks=("narrow",), seeds=1)
        found = reproduce(study_in(place), chosen, out=place / "out")
        assert list(found.units) == ["narrow-bp-seed-0", "narrow-dfa-seed-0"]
        assert found.differences == (
            "Everything is smaller.",
            "These runs have 2 epochs and 1 seed; the study declares 2 and 2.",
        )
        assert modified(place / "out") == before

    def test_other_runs_in_the_folder_are_refused_and_stay(self, place: Path) -> None:
        before = modified(place / "out")
        other = dataclasses.replace(ALONE, epochs=3)
        with pytest.raises(ConfigError, match="another training than this study's"):
            reproduce(study_in(place), other, out=place / "out")
        assert modified(place / "out") == before


class TestGoneOnWith:
    def test_runs_that_the_command_train_made_are_taken_over(self, tmp_path: Path) -> None:
        """The folder has runs before it has a config.json; where the data lie does not count."""
        study = study_in(tmp_path)
        cell = dataclasses.replace(ALONE, tasks=("narrow",), rules=("dfa",), seeds=2)
        one, _ = planned_runs(table_of(study), cell, seeds=2)
        elsewhere = dataclasses.replace(one.config.task, data_dir=str(tmp_path))
        config = dataclasses.replace(one.config, task=elsewhere)
        train(config, out=tmp_path / "out" / "runs" / one.name)
        before, lines = modified(tmp_path / "out"), list[str]()
        found = reproduce(study, cell, out=tmp_path / "out", told=lines.append)
        assert lines[0] == "1 of 2 runs were finished before"
        assert lines[1].startswith("[1/1] Narrow, DFA, seed 1: ")
        assert modified(tmp_path / "out") == {**modified(tmp_path / "out"), **before}
        assert found.units[one.name]["accuracy"] is not None

    def test_what_a_killed_process_left_beside_them_does_not_count(self, tmp_path: Path) -> None:
        """It was killed while it wrote its first config.json."""
        study, cell = study_in(tmp_path), dataclasses.replace(ALONE, rules=("dfa",), seeds=1)
        (one,) = planned_runs(table_of(study), cell, seeds=1)
        train(one.config, out=tmp_path / "out" / "runs" / one.name)
        (tmp_path / "out" / ".123.config.json").write_text("{")
        lines: list[str] = []
        reproduce(study, cell, out=tmp_path / "out", told=lines.append)
        assert lines == ["1 of 1 runs were finished before"]

    def test_runs_of_others_are_neither_overwritten_nor_taken_for_its_own(
        self, tmp_path: Path
    ) -> None:
        study, cell = study_in(tmp_path), dataclasses.replace(ALONE, rules=("dfa",), seeds=1)
        (one,) = planned_runs(table_of(study), cell, seeds=1)
        longer = dataclasses.replace(one.config.training, epochs=3)
        train(
            dataclasses.replace(one.config, training=longer),
            out=tmp_path / "out" / "runs" / one.name,
        )
        before = modified(tmp_path / "out")
        for overwrite in (False, True, True):
            with pytest.raises(ConfigError, match="another training than this study's"):
                reproduce(study, cell, out=tmp_path / "out", overwrite=overwrite)
        assert modified(tmp_path / "out") == before

    def test_after_an_interruption_the_rest_is_made(self, tmp_path: Path) -> None:
        lines: list[str] = []

        def interrupted(line: str) -> None:
            lines.append(line)
            if len(lines) == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            reproduce(study_in(tmp_path), ALONE, out=tmp_path / "out", told=interrupted)
        before = modified(tmp_path / "out")
        assert len(before) == 2
        reproduce(study_in(tmp_path), ALONE, out=tmp_path / "out", told=lines.append)
        assert lines[2] == "2 of 6 runs were finished before"
        assert {**modified(tmp_path / "out"), **before} == modified(tmp_path / "out")
        assert len(modified(tmp_path / "out")) == 6


def test_a_failed_run_is_shown_and_has_no_part_in_a_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_in(tmp_path, SMALL + DIVERGING + PUBLISHED)
    cell = dataclasses.replace(ALONE, tasks=("narrow",), rules=("dfa", "wild"))
    found = reproduce(study, cell, out=tmp_path / "out")
    grid, chosen_by = found.grids
    assert grid.heads == ("", "Narrow", "published")
    assert chosen_by.heads == ("", "Narrow")
    assert [row[1][-3:] for row in chosen_by.rows] == ["(2)", "led"]
    on_validation = {u["seed"]: u["validation"] for u in found.units.values() if u["rule"] == "dfa"}
    assert chosen_by.rows[0][1].startswith(f"{sum(on_validation.values()) / 2:.2f}")
    (_, dfa, published), (_, wild, missing) = grid.rows
    assert dfa.endswith("(2)")
    assert (wild, published, missing) == ("2 of 2 failed", "1.5 [1]", "")
    assert found.notes[0] == "[1] Someone 2020 (in its authors' code)"
    assert found.failed_runs == 2
    assert "the loss is" in found.units["narrow-wild-seed-1"]["failure"]

    lines: list[str] = []
    reproduce(study, cell, out=tmp_path / "out", told=lines.append)
    assert lines == ["4 of 4 runs were finished before"], "it is kept, not repeated"
    again = dataclasses.replace(cell, retry_failed=True)
    reproduce(study, again, out=tmp_path / "out", told=lines.append)
    assert lines[1] == "2 of 4 runs were finished before"
    assert "Wild, seed 0: failed" in lines[2]


class TestCells:
    def test_one_of_three_failed(self) -> None:
        """No mean: that of the two others would flatter the rule."""
        cell = Cell((98.0, 97.0), failed=1)
        assert cell.words == "1 of 3 failed"
        assert cell.spread is None

    def test_the_published_number_stands_beside_ours(self, tmp_path: Path) -> None:
        table = table_of(study_in(tmp_path, SMALL + PUBLISHED))
        cells = {("narrow", "bp"): Cell((98.0, 97.0), 0), ("narrow", "dfa"): Cell((90.0,), 0)}
        grid = grid_of(table, cells, epochs="2", words="scaled to 1 minutes")
        assert grid.rows == (("BP", "97.50 ± 0.71 (2)", ""), ("DFA", "90.00 (1)", "1.5 [1]"))
        assert grid.title.endswith("(runs); scaled to 1 minutes")

    @pytest.mark.parametrize(
        ("score", "within", "mine", "other", "met"),
        [
            ("accuracy", "1.0", (95.0, 97.0), (96.5, 97.5), True),  # 1.0 behind
            ("accuracy", "0.9", (95.0, 97.0), (96.5, 97.5), False),
            ("error", "1.0", (3.0, 3.0), (2.0, 2.0), True),
            ("error", "0.9", (3.0, 3.0), (2.0, 2.0), False),
            ("error", "0", (1.0, 1.0), (2.0, 2.0), True),  # better
            ("accuracy", '"spread"', (95.0, 97.0), (96.5, 97.5), True),  # 1.58 = |1.41, 0.71|
            ("accuracy", '"spread"', (94.0, 96.0), (96.5, 97.5), False),
        ],
    )
    def test_targets(
        self,
        score: str,
        within: str,
        mine: tuple[float, ...],
        other: tuple[float, ...],
        met: bool,
        tmp_path: Path,
    ) -> None:
        table = self._with_target(tmp_path, score, within)
        cells = {("narrow", "dfa"): Cell(mine, 0), ("narrow", "bp"): Cell(other, 0)}
        (found,) = target_expectations(table, cells, {}, whole=True)
        assert found.met is met
        (unjudged,) = target_expectations(table, cells, {}, whole=False)
        assert unjudged.met is None

    def test_a_target_with_a_failed_run_is_not_met(self, tmp_path: Path) -> None:
        for within in ("99", '"spread"'):
            table = self._with_target(tmp_path, "accuracy", within)
            cells = {("narrow", "dfa"): Cell((95.0,), 1), ("narrow", "bp"): Cell((95.0, 95.0), 0)}
            (found,) = target_expectations(table, cells, {}, whole=True)
            assert math.isnan(found.found)
            assert found.met is False
            assert "nan" not in found.limits
        assert (
            target_expectations(table, {("narrow", "dfa"): Cell((95.0,), 0)}, {}, whole=True) == ()
        )

    def test_one_seed_has_no_spread(self, tmp_path: Path) -> None:
        table = self._with_target(tmp_path, "accuracy", '"spread"')
        cells = {("narrow", "dfa"): Cell((95.0,), 0), ("narrow", "bp"): Cell((96.0, 97.0), 0)}
        (found,) = target_expectations(table, cells, {}, whole=False)
        assert (found.found, found.limits, found.verdict) == (1.5, "-", "-")

    def test_targets_on_the_costs_of_a_step(self, tmp_path: Path) -> None:
        more = "step_time = 1.0\nlayers = 2\n[costs]\n"
        table = self._with_target(tmp_path, "accuracy", f"5.0\n{more}")
        cells = {("narrow", "dfa"): Cell((95.0,), 0), ("narrow", "bp"): Cell((95.0,), 0)}
        costs = {"narrow": {"dfa": StepCosts(0.1, 1.01, 10, 2, 1)}}
        found = target_expectations(table, cells, costs, whole=True)
        assert [expectation.met for expectation in found] == [True, False, True]
        assert [expectation.found for expectation in found[1:]] == [1.01, 2]

    def _with_target(self, folder: Path, score: str, within: str) -> TrainingTable:
        text = SMALL.replace("seeds = 2", f'seeds = 2\nscore = "{score}"') + (
            f'[[target]]\nrule = "dfa"\nagainst = "bp"\ntask = "narrow"\nwithin = {within}\n'
        )
        return table_of(study_in(folder, text))


def test_a_curve_ends_where_one_of_its_runs_failed(place: Path) -> None:
    """A mean over the others would flatter the rule."""
    table = table_of(study_in(place))
    runs = planned_runs(table, dataclasses.replace(ALONE, rules=("dfa",)), seeds=2)
    (first, second) = (recall(RunFolder(place / "out" / "runs" / planned.name)) for planned in runs)
    assert first is not None
    assert second is not None
    failed = dataclasses.replace(second, epochs=second.epochs[:1], test=None, failure="it burst")

    def line(*made: Run) -> Any:
        folder = RunFolder(place)  # without a diagnosis
        panels = table_panels(table, list(zip(runs, made, strict=True)), lambda _: folder)
        return {epoch: value for panel in panels for epoch, value in panel.lines["DFA"]}

    whole = line(first, second)
    assert list(whole) == [1, 2]
    assert line(first, failed) == {1: whole[1]}
    nothing = dataclasses.replace(failed, epochs=())
    panels = table_panels(
        table, list(zip(runs, (first, nothing), strict=True)), lambda _: RunFolder(place)
    )
    assert panels == []


class TestCosts:
    @pytest.mark.parametrize(
        ("method", "options", "layers"),
        [
            *(("backpropagation", {}, 4), ("fa", {}, 4), ("fg-w", {}, 0), ("dfa", {}, 1)),
            *(("fdfa", {"relay": 1}, 2), ("fdfa", {"depth": 2}, 2)),
        ],
    )
    def test_how_far_an_error_travels_backwards(
        self, method: str, options: dict[str, Any], layers: int
    ) -> None:
        """Counted by hand: four linear layers, a block each."""
        net = [torch.nn.Linear(3, 3), torch.nn.Tanh()] * 3
        model = torch.nn.Sequential(*net, torch.nn.Linear(3, 2))
        learner = fdfa.wrap(method, model, **options)
        assert backward_path(learner, torch.ones(2, 3)).weight_layers == layers

    def test_they_are_measured_once_and_stand_in_report_and_results(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fdfa.studies.speed._ENOUGH_SECONDS", 0.0)
        study = study_in(tmp_path, SMALL + "[costs]\nrounds = 10\n")
        cell = dataclasses.replace(ALONE, tasks=("narrow",), seeds=1)
        lines: list[str] = []
        found = reproduce(study, cell, out=tmp_path / "out", told=lines.append)
        assert lines[0] == "Narrow: measuring the time of a step"
        *_, grid = found.grids
        assert [(row[0], row[3]) for row in grid.rows] == [("BP", "2"), ("DFA", "1")]
        assert grid.rows[0][2] == "1.00"
        again = reproduce(study, cell, out=tmp_path / "out", told=lines.append)
        assert lines.count(lines[0]) == 1
        assert again.grids == found.grids
        results = json.loads((tmp_path / "out" / "results.json").read_text())
        assert results["units"]["costs"]["narrow"]["dfa"]["weight_layers"] == 1
        assert "| BP | " in (tmp_path / "out" / "report.md").read_text()
        alone = dataclasses.replace(cell, rules=("dfa",))
        (_, _, mine) = reproduce(study, alone, out=tmp_path / "out").grids
        assert [row[0] for row in mine.rows] == ["DFA"]
        panels = path_panels(
            table_of(study),
            {("narrow", "bp"): Cell((96.0, 98.0), 0)},
            {"narrow": {"bp": StepCosts(0.1, 1.5, 10, 2, 1)}},
        )
        score, times = (panel.points["BP"][0] for panel in panels)
        assert score == pytest.approx((2, 97, 97 - 2**0.5, 97 + 2**0.5))
        assert times == (2, 1.5, 1.5, 1.5)

    def test_of_a_rule_that_has_changed_they_are_measured_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The study was interrupted before its first run, and its file edited."""
        monkeypatch.setattr("fdfa.studies.speed._ENOUGH_SECONDS", 0.0)
        cell = dataclasses.replace(ALONE, tasks=("narrow",), rules=("dfa",), seeds=1)
        monkeypatch.setattr("fdfa.studies.reproduce.table._trained", interrupted)
        layers = []
        for depth in (1, 1, 2):
            text = (SMALL + "[costs]\nrounds = 10\n").replace(
                'method = "dfa"', f'method = "fdfa"\noptions = {{ depth = {depth} }}'
            )
            with pytest.raises(KeyboardInterrupt):
                reproduce(study_in(tmp_path, text), cell, out=tmp_path / "out")
            kept = json.loads((tmp_path / "out" / "units.json").read_text())["narrow"]["dfa"]
            layers.append((kept["weight_layers"], kept["seconds"]))
        assert layers[0] == layers[1]
        assert [number for number, _ in layers] == [1, 1, 2]


class TestBudget:
    @pytest.fixture
    def cells(self, tmp_path: Path) -> list[PlannedRun]:
        return planned_runs(
            table_of(study_in(tmp_path)), dataclasses.replace(ALONE, epochs=100), seeds=1
        )

    @pytest.mark.parametrize(
        ("minutes", "seeds", "epochs"),
        [
            (1e9, 5, 100),  # never up
            (25.0, 5, 100),  # exactly: 5 seeds of 3 cells, 100 s each
            (12.5, 4, 62),
            (1.5, 2, 15),
            (0.01, 1, 1),  # one of both at least
        ],
    )
    def test_seeds_and_epochs_together(
        self, minutes: float, seeds: int, epochs: int, cells: list[PlannedRun]
    ) -> None:
        found = scaled(cells, [100.0] * 3, seeds=5, minutes=minutes)
        assert (found.seeds, max(1, int(100 * found.share + 1e-9))) == (seeds, epochs)
        if seeds == 5:
            assert found == Scale(5)
        else:
            words = f"{epochs} of 100 epochs, {seeds} of 5 seeds"
            assert found.words == f"scaled to {minutes:g} minutes: {words}"

    @pytest.mark.parametrize("minutes", [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 24.0])
    def test_it_is_kept_to(self, minutes: float, cells: list[PlannedRun]) -> None:
        found = scaled(cells, [100.0] * 3, seeds=5, minutes=minutes)
        epochs = int(100 * found.share + 1e-9)
        assert epochs >= 1
        assert found.seeds * 3 * 100.0 * epochs / 100 <= 60 * minutes + 1e-6

    def test_a_rule_with_fewer_seeds_takes_less(self, tmp_path: Path) -> None:
        """By hand: 5 + 1 + 5 runs of 100 s, and 3 + 1 + 3 of them where 3 seeds are left."""
        text = SMALL.replace('name = "dfa"', 'name = "dfa"\nseeds = 1').replace(
            "seeds = 2", "seeds = 5"
        )
        whole = dataclasses.replace(ALONE, epochs=100)
        cells = planned_runs(table_of(study_in(tmp_path, text)), whole, seeds=1)
        assert scaled(cells, [100.0] * 3, seeds=5, minutes=1100 / 60) == Scale(5)
        found = scaled(cells, [100.0] * 3, seeds=5, minutes=350 / 60)
        assert found.seeds == 3
        assert found.share == pytest.approx(350 / 700)

    @pytest.mark.parametrize(("every", "steps"), [(1, 1.0), (4, (9 + 1 + 1 + 1) / 4)])
    def test_steps_that_probe_count_as_often_as_they_come(
        self, every: int, steps: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By a clock that stands still but for the steps: 9 s with a probe in four, else 1 s."""
        clock, count = [0.0], itertools.count()

        def step(*_: object) -> None:
            clock[0] += 9.0 if every > 1 and next(count) % every == 0 else 1.0

        monkeypatch.setattr("fdfa.studies.reproduce.scaling.gradient_step", step)
        monkeypatch.setattr("fdfa.studies.reproduce.scaling.time.perf_counter", lambda: clock[0])
        text = SMALL.replace(
            'method = "dfa"', f'method = "fdfa"\noptions = {{ probe_every = {every} }}'
        )
        cell = dataclasses.replace(ALONE, tasks=("narrow",), rules=("dfa",))
        ((column,),) = starts_by_column(
            planned_runs(table_of(study_in(tmp_path, text)), cell, seeds=1)
        )
        run, start = column
        number = 2 * (len(start.data.train) + len(start.data.validation) / 3) / 256
        assert seconds_of(run.config, start) == pytest.approx(number * steps)

    def test_what_was_chosen_stays(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Measured once: whoever goes on, with more processes say, makes the same study."""
        calls: list[float] = []

        def slow(*_: object) -> float:
            calls.append(60.0)
            return calls[-1]

        monkeypatch.setattr("fdfa.studies.reproduce.table.seconds_of", slow)
        study = study_in(tmp_path)
        for workers, note in ((1, ""), (None, "On a quiet machine.")):
            settings = dataclasses.replace(ALONE, rules=("dfa",), workers=workers, note=note)
            found = reproduce(study, settings, out=tmp_path / "out", minutes=1)
        assert len(calls) == 1
        assert list(found.units) == ["narrow-dfa-seed-0", "narrow-dfa-seed-1"]
        assert {unit["epochs"] for unit in found.units.values()} == {1}
        assert "scaled to 1 minutes: 1 of 2 epochs, 2 of 2 seeds" in found.grids[0].title
        assert "scaled to 1 minutes" in (tmp_path / "out" / "report.md").read_text()
        kept = json.loads((tmp_path / "out" / "config.json").read_text())["reproduce"]
        assert kept["scale"]["seeds"] == 2
        assert found.caption[0].endswith("--rules dfa --budget minutes=1")


@pytest.mark.parametrize(
    ("asked", "jobs", "device", "expected"),
    [(3, 9, "cpu", 3), (3, 2, "cpu", 2), (None, 99, "cpu", usable_cores()), (None, 0, "cpu", 1)],
)
def test_as_many_processes_as_cores(
    asked: int | None, jobs: int, device: str, expected: int
) -> None:
    assert workers_for(asked, jobs=jobs, device=device) == expected


def test_on_a_gpu_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "fdfa.studies.reproduce.workers.chosen_device", lambda name: torch.device("cuda")
    )
    assert workers_for(None, jobs=9, device="auto") == 1
    assert workers_for(2, jobs=9, device="auto") == 2


def test_without_a_folder_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cell = dataclasses.replace(ALONE, tasks=("wide",), seeds=1)
    found: Findings = reproduce(study_in(tmp_path), cell)
    assert found.files == ()
    assert [path.name for path in tmp_path.iterdir()] == ["small.toml"]

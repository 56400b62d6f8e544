"""A study is one TOML file: what stands in it is what is trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from fdfa.studies.json_values import plain
from fdfa.studies.reproduce import declared_in, reproductions
from fdfa.studies.reproduce.declaration import BudgetStep, Measurement, TrainingTable
from fdfa.studies.reproduce.measuring import within_budget
from fdfa.studies.reproduce.multi_tangent import MultiTangentSettings
from fdfa.studies.reproduce.planned_runs import PlannedRun, TableSettings, planned_runs
from fdfa.studies.task import Task
from fdfa.studies.train import TrainConfig, spelled_out
from fdfa.training import TrainingSettings
from tests.studies.tables import SMALL, written

TABLES = [name for name, r in reproductions().items() if isinstance(r.declaration, TrainingTable)]


def small(folder: Path) -> TrainingTable:
    declaration = declared_in(written(folder)).declaration
    assert isinstance(declaration, TrainingTable)
    return declaration


def test_the_rule_counts_more_than_the_task_and_the_task_more_than_the_study(
    tmp_path: Path,
) -> None:
    runs = planned_runs(small(tmp_path), TableSettings(device="cpu"), seeds=2)
    assert [run.name for run in runs] == [
        *("narrow-bp-seed-0", "narrow-dfa-seed-0", "wide-bp-seed-0"),
        *("narrow-bp-seed-1", "narrow-dfa-seed-1", "wide-bp-seed-1"),
    ]
    assert [run.config.training.learning_rate for run in runs[:3]] == [2e-3, 3e-3, 1e-3]
    assert {run.config.training.epochs for run in runs} == {2}
    assert [run.config.task.model_options for run in runs[:3]] == [
        {"width": 8, "depth": 1, "batch_norm": True},
        {"width": 8, "depth": 1, "batch_norm": False},
        {"width": 16, "depth": 1, "batch_norm": True},
    ]
    assert [run.config.task.validation for run in runs[:3]] == [200, 200, 0]
    assert {(run.config.machine.threads, run.config.machine.device) for run in runs} == {(1, "cpu")}


def test_a_part_of_a_table(tmp_path: Path) -> None:
    runs = planned_runs(
        small(tmp_path), TableSettings(tasks=("narrow",), rules=("dfa",), epochs=7), seeds=1
    )
    assert [(run.title, run.config.training.epochs) for run in runs] == [("Narrow, DFA, seed 0", 7)]


@pytest.mark.parametrize("name", TABLES)
def test_every_declared_run_can_be_configured(name: str) -> None:
    table = reproductions()[name].declaration
    assert isinstance(table, TrainingTable)
    runs = planned_runs(table, TableSettings(), seeds=table.seeds)
    assert len(runs) == sum(min(table.seeds, row.seeds or table.seeds) for _, row in table.cells())
    assert len({run.name for run in runs}) == len(runs)
    assert all(sentence.endswith((".", ")")) for sentence in table.differences)


def test_every_summary_is_one_line_of_help() -> None:
    for study in reproductions().values():
        assert len(study.summary) <= 78
        assert study.source


def test_runs_of_fdfa_fc_are_those_of_the_command_train() -> None:
    """``fdfa train --data mnist --validation 0 --method fg-w --seed 2 --model-options ...``."""
    table = reproductions()["fdfa-fc"].declaration
    assert isinstance(table, TrainingTable)
    chosen = TableSettings(tasks=("mnist", "fashion-mnist"), rules=("fg-w", "dkp"), epochs=10)
    runs = {run.name: run.config for run in planned_runs(table, chosen, seeds=3)}
    for method, batch_norm, rate in (("fg-w", False, 1e-3), ("dkp", True, 1e-4)):
        for data in ("mnist", "fashion-mnist"):
            network = {"width": 800, "depth": 2, "batch_norm": batch_norm}
            typed = TrainConfig(
                task=Task(data=data, validation=0, model_options=network),
                training=TrainingSettings(epochs=10, batch_size=64, learning_rate=rate, decay=0.95),
                method=method,
                seed=2,
            )
            found, wanted = plain(runs[f"{data}-{method}-seed-2"]), plain(spelled_out(typed))
            for part in ("task", "training", "method", "options", "seed"):
                assert found[part] == wanted[part]
            assert found["records"]["diagnose"]["every"] == 469


def test_options_have_the_types_of_their_owners(tmp_path: Path) -> None:
    """A list of a TOML file is what a command line would have given."""
    text = written(tmp_path).read_text(encoding="utf-8")
    text = text.replace('method = "dfa"', 'method = "dfa"\noptions = { taps = ["relu1"] }')
    table = declared_in(written(tmp_path, text)).declaration
    assert isinstance(table, TrainingTable)
    run: PlannedRun = planned_runs(table, TableSettings(), seeds=1)[1]
    assert json.loads(json.dumps(plain(run.config.options)))["taps"] == ["relu1"]


class TestBudget:
    MEASUREMENT = Measurement(
        summary="",
        source="",
        measured_by="fdfa.studies.reproduce.multi_tangent_findings",
        budget=(
            BudgetStep(minutes=3, settings={"parts": ["sphere", "digits"]}),
            BudgetStep(minutes=1, settings={"parts": ["sphere"], "seeds": 2}),
        ),
    )

    @pytest.mark.parametrize(
        ("minutes", "parts", "seeds"),
        [(0.5, ("sphere",), 2), (1, ("sphere",), 2), (99, ("sphere", "digits"), 5)],
    )
    def test_the_longest_that_fits(self, minutes: float, parts: tuple[str], seeds: int) -> None:
        found = within_budget(self.MEASUREMENT, MultiTangentSettings(), minutes)
        assert (found.parts, found.seeds) == (parts, seeds)

    def test_what_was_asked_for_stays(self) -> None:
        found = within_budget(self.MEASUREMENT, MultiTangentSettings(seeds=9), 1)
        assert (found.parts, found.seeds) == (("sphere",), 9)

    def test_nothing_known_changes_nothing(self) -> None:
        unknown = dataclasses.replace(self.MEASUREMENT, budget=())
        assert within_budget(unknown, MultiTangentSettings(), 1) == MultiTangentSettings()

    @pytest.mark.parametrize("name", sorted(set(reproductions()) - set(TABLES)))
    def test_every_declared_budget_is_possible(self, name: str) -> None:
        study = reproductions()[name]
        assert isinstance(study.declaration, Measurement)
        for step in study.declaration.budget:
            assert within_budget(study.declaration, study.settings(), step.minutes)


def test_a_rule_may_have_fewer_seeds_than_the_others(tmp_path: Path) -> None:
    text = SMALL.replace('tasks = ["narrow"]', 'tasks = ["narrow"]\nseeds = 1')
    table = declared_in(written(tmp_path, text)).declaration
    assert isinstance(table, TrainingTable)
    names = [run.name for run in planned_runs(table, TableSettings(), seeds=2)]
    assert [name for name in names if "-dfa-" in name] == ["narrow-dfa-seed-0"]
    assert len([name for name in names if "-bp-" in name]) == 4

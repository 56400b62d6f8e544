"""A comparison that is interrupted, or goes wrong: what survives."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fdfa.errors import ConfigError, UnsupportedModelError
from fdfa.studies.compare import StudyInterrupted, compare
from fdfa.studies.results import Comparison
from fdfa.studies.resume import resume
from fdfa.studies.runs import StudyObserver
from fdfa.studies.setup import Machine, Records
from fdfa.studies.task import Task
from fdfa.studies.train import train
from fdfa.training import StepResult, Trainer, TrainingSettings
from tests.studies.comparisons import SMALL, Diary
from tests.studies.folders import assert_same_runs

pytestmark = pytest.mark.usefixtures("few_rounds")


@pytest.fixture(autouse=True, scope="module")
def _few_rounds() -> Iterator[None]:
    """Times of a step mean nothing here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fdfa.studies.speed._ENOUGH_SECONDS", 0.0)
        yield


def test_an_interruption_keeps_what_is_finished(
    finished: tuple[Comparison, Path, Diary], tmp_path: Path
) -> None:
    class Impatient(StudyObserver):
        def run_started(self, method: str, seed: int) -> None:
            if (method, seed) == ("fdfa", 6):
                raise KeyboardInterrupt

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt) as caught:
        compare(SMALL, out=out, observer=Impatient())
    assert isinstance(caught.value, StudyInterrupted)
    comparison = caught.value.comparison
    assert not comparison.complete
    assert [run.seed for run in comparison.runs] == [5, 5]
    for name in ("fdfa-seed-5", "backpropagation-seed-5"):
        assert_same_runs(out / "runs" / name, finished[1] / "runs" / name)
    assert not (out / "results.json").exists(), "half a comparison is taken for a whole one"


def test_an_interrupted_comparison_goes_on_where_it_was(
    finished: tuple[Comparison, Path, Diary], tmp_path: Path
) -> None:
    """In mid-epoch of its second run: the first is not trained again, the end is the same."""

    class Impatient(StudyObserver):
        def step_finished(self, trainer: Trainer, result: StepResult) -> None:
            if (trainer.learner.method, result.step) == ("backpropagation", 8):
                trainer.stop_requested = True

    class Counting(Diary):
        def step_finished(self, trainer: Trainer, result: StepResult) -> None:
            steps.append((trainer.learner.method, result.step))

    out, steps, diary = tmp_path / "run", [], Counting()
    with pytest.raises(StudyInterrupted):
        compare(SMALL, out=out, observer=Impatient())
    costs = (out / "costs.json").read_bytes()
    comparison = resume(out, observer=diary)
    assert isinstance(comparison, Comparison)
    assert steps[:4] == [("backpropagation", step) for step in (9, 10, 11, 12)]
    assert len(steps) == 4 + 2 * 12
    assert [entry for entry in diary.entries if isinstance(entry, tuple)] == [
        ("fdfa", 5),
        ("backpropagation", 5),
        ("fdfa", 6),
        ("backpropagation", 6),
    ]
    assert "costs" not in diary.entries
    assert (out / "costs.json").read_bytes() == costs
    for name in ("fdfa-seed-5", "backpropagation-seed-5", "fdfa-seed-6", "backpropagation-seed-6"):
        assert_same_runs(out / "runs" / name, finished[1] / "runs" / name)
    assert out / "results.json" in comparison.files
    assert comparison.report()["runs"] == finished[0].report()["runs"]
    timed = {"step_time": None, "step_memory": None}
    assert [dataclasses.replace(s, **timed) for s in comparison.summaries] == [
        dataclasses.replace(s, **timed) for s in finished[0].summaries
    ]
    for picture in ("learning_curves.png", "learning_curves.svg"):
        assert (out / picture).read_bytes() == (finished[1] / picture).read_bytes()


def test_runs_of_a_version_that_knew_fewer_settings_are_taken_over(
    finished: tuple[Comparison, Path, Diary], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished[1], out)
    (out / "results.json").unlink()
    place = out / "runs" / "fdfa-seed-6" / "config.json"
    written = json.loads(place.read_text())
    for record, unknown in (("task", "pixels"), ("training", "loss"), ("options", "noise")):
        del written["train"][record][unknown]
    place.write_text(json.dumps(written))
    before = (out / "runs" / "fdfa-seed-6" / "results.json").stat().st_mtime_ns
    assert resume(out).report()["runs"] == finished[0].report()["runs"]
    assert (out / "runs" / "fdfa-seed-6" / "results.json").stat().st_mtime_ns == before
    written["train"]["training"]["loss"] = "squared-error"
    place.write_text(json.dumps(written))
    (out / "results.json").unlink()
    with pytest.raises(ConfigError, match="fdfa-seed-6' holds a run with another training"):
        resume(out)


def test_a_run_that_fails_does_not_take_the_others_along(tmp_path: Path) -> None:
    """With so large a step the loss overflows at once."""
    wild = dataclasses.replace(
        SMALL,
        seeds=1,
        methods=("dfa", "backpropagation"),
        options={},
        task=Task(model_options={"width": 12, "depth": 1, "batch_norm": False}),
        training=TrainingSettings(epochs=2, optimizer="sgd", learning_rate=1e30),
    )
    comparison = compare(wild, out=tmp_path / "run")
    assert len(comparison.runs) == 2
    run = comparison.runs[0]
    assert run.failure is not None
    assert "the loss is" in run.failure
    assert run.test is None
    assert math.isnan(run.cosine)
    summary = comparison.summaries[0]
    assert (summary.finished, summary.failed, summary.test_accuracy) == (0, 1, None)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["runs"][0]["cosine"] is None
    assert "no epoch was finished" in comparison.notes[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ()}, "nothing to compare"),
        ({"methods": ("dfa", "dfa")}, "'dfa' is named twice"),
        ({"seeds": 0}, "seeds=0"),
        ({"timing_rounds": 9}, "timing_rounds=9"),
        ({"options": {"dfa": {}}}, "'dfa' takes no part"),
        ({"methods": ("fdfb",), "options": {}}, "Did you mean 'fdfa'"),
        ({"options": {"fdfa": {"feedback_rte": 1}}}, "Did you mean 'feedback_rate'"),
        ({"options": {"fdfa": {"feedback_rate": 2.0}}}, "feedback_rate=2.0"),
        (
            {
                "training": TrainingSettings(epochs=1, patience=1),
                "task": Task(validation=0, model_options={"width": 8}),
            },
            "patience=1",
        ),
        ({"training": TrainingSettings(epochs=1, batch_size=1)}, "at least 2"),
        ({"records": Records(log=("wandb",))}, "wandb"),
    ],
)
def test_a_mistake_is_found_before_anything_is_written(
    changes: dict[str, object], words: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"compare": {}, "environment": {}}')
    (tmp_path / "results.json").write_text("old")

    def run() -> None:
        compare(dataclasses.replace(SMALL, **changes), out=tmp_path, overwrite=True)

    with pytest.raises(ConfigError, match=words):
        run()
    assert (tmp_path / "results.json").read_text() == "old"


def test_an_impossible_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match="threads=0"):
        Machine(threads=0)


def test_a_network_that_cannot_be_cut_is_found_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"compare": {}, "environment": {}}')
    (tmp_path / "results.json").write_text("old")
    config = dataclasses.replace(SMALL, task=Task(model_options={"depth": 0}))
    with pytest.raises(UnsupportedModelError, match="no tap was found"):
        compare(config, out=tmp_path, overwrite=True)
    assert (tmp_path / "results.json").read_text() == "old"


def test_the_finished_run_of_another_configuration_is_not_taken_for_its_own(
    tmp_path: Path,
) -> None:
    """A folder runs/fdfa-seed-5 that someone put there."""
    other = dataclasses.replace(SMALL.run_of("fdfa", 5), training=TrainingSettings(epochs=1))
    train(other, out=tmp_path / "runs" / "fdfa-seed-5")
    before = (tmp_path / "runs" / "fdfa-seed-5" / "results.json").read_bytes()
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match=r"fdfa-seed-5|not empty"):
            compare(SMALL, out=tmp_path, overwrite=overwrite)
    assert (tmp_path / "runs" / "fdfa-seed-5" / "results.json").read_bytes() == before


def test_a_method_without_a_finished_run_is_known_as_such(tmp_path: Path) -> None:
    class Impatient(StudyObserver):
        def run_started(self, method: str, seed: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(StudyInterrupted) as caught:
        compare(SMALL, observer=Impatient())
    assert [s.finished for s in caught.value.comparison.summaries] == [0, 0]

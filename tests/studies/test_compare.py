"""A comparison: fair starts, honest numbers, whole files, and what survives when it goes wrong."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import fdfa
import fdfa.data
from fdfa.errors import ConfigError, UnsupportedModelError
from fdfa.studies.compare import CompareConfig, StudyInterrupted, compare
from fdfa.studies.results import Comparison, Spread
from fdfa.studies.resume import read_config, resume
from fdfa.studies.runs import Run, StudyObserver
from fdfa.studies.setup import Machine, Records, TrainConfig
from fdfa.studies.task import Task, build_network
from fdfa.studies.train import train
from fdfa.training import StepResult, Trainer, TrainingSettings
from tests.studies.folders import assert_same_runs

SMALL = CompareConfig(
    methods=("fdfa", "backpropagation"),
    options={"fdfa": {"probe_every": 2}},
    seeds=2,
    first_seed=5,
    timing_rounds=10,
    task=Task(model_options={"width": 12, "depth": 1}),
    training=TrainingSettings(epochs=2, batch_size=256, decay=0.5),
)


@pytest.fixture(autouse=True, scope="module")
def _few_rounds() -> Iterator[None]:
    """Times of a step mean nothing here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fdfa.studies.speed._ENOUGH_SECONDS", 0.0)
        yield


class Diary(StudyObserver):
    def __init__(self) -> None:
        self.entries: list[object] = []

    def measuring_speed(self) -> None:
        self.entries.append("speed")

    def run_started(self, method: str, seed: int) -> None:
        self.entries.append((method, seed))

    def run_finished(self, run: Run) -> None:
        self.entries.append(run)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path, Diary]:
    out, diary = tmp_path_factory.mktemp("compare") / "run", Diary()
    return compare(SMALL, out=out, observer=diary), out, diary


def test_every_method_from_every_seed(finished: tuple[Comparison, Path, Diary]) -> None:
    comparison, _, diary = finished
    pairs = [("fdfa", 5), ("backpropagation", 5), ("fdfa", 6), ("backpropagation", 6)]
    assert [(run.method, run.seed) for run in comparison.runs] == pairs
    heard = ["speed"]
    for pair, run in zip(pairs, comparison.runs, strict=True):
        heard += [pair, run]
    assert diary.entries == heard
    assert comparison.complete


def test_backpropagation_equals_a_loop_written_by_hand(
    finished: tuple[Comparison, Path, Diary],
) -> None:
    """Weights, order of examples and the one look at the test examples, without our loop."""
    run = finished[0].runs[3]
    data = fdfa.data.load("digits")
    model = build_network(SMALL.task, data, seed=6)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    order = torch.Generator().manual_seed(6)
    inputs, labels = data.train.inputs / 8.0 - 1, data.train.labels
    for _ in range(2):
        for index in torch.randperm(len(labels), generator=order).split(256):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs[index]), labels[index]).backward()
            optimizer.step()
        optimizer.param_groups[0]["lr"] *= 0.5
    model.eval()
    with torch.no_grad():
        outputs = model(data.test.inputs / 8.0 - 1)
    correct = (outputs.argmax(1) == data.test.labels).float().mean().item()
    assert run.test is not None
    assert run.test.accuracy == pytest.approx(correct, rel=1e-6)
    assert run.test.loss == pytest.approx(
        F.cross_entropy(outputs, data.test.labels).item(), rel=1e-4
    )


def test_methods_of_one_seed_start_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a method trains on weights that another one has changed already."""
    starts: dict[tuple[str, int], torch.Tensor] = {}

    study = importlib.import_module("fdfa.studies.compare")
    perform = study.perform

    def watched(config: TrainConfig, learner: fdfa.Estimator, *args: Any, **more: Any) -> Run:
        starts[config.method, config.seed] = copy.deepcopy(learner.model.linear1.weight.detach())
        return perform(config, learner, *args, **more)

    monkeypatch.setattr(study, "perform", watched)
    compare(SMALL)
    assert torch.equal(starts["fdfa", 5], starts["backpropagation", 5])
    assert torch.equal(starts["fdfa", 6], starts["backpropagation", 6])
    assert not torch.equal(starts["fdfa", 5], starts["fdfa", 6])


def test_summaries(finished: tuple[Comparison, Path, Diary]) -> None:
    comparison = finished[0]
    fdfa_summary, bp_summary = comparison.summaries
    runs = [run for run in comparison.runs if run.method == "fdfa"]
    accuracies = [run.test.accuracy for run in runs if run.test is not None]
    assert fdfa_summary.test_accuracy == Spread(
        statistics.fmean(accuracies), statistics.stdev(accuracies)
    )
    assert (fdfa_summary.finished, fdfa_summary.failed) == (2, 0)
    assert bp_summary.cosine is not None
    assert bp_summary.cosine.mean == pytest.approx(1, abs=1e-6)
    assert fdfa_summary.cosine is not None
    assert fdfa_summary.cosine.mean < 0.999
    assert bp_summary.step_time.ratio == 1
    assert fdfa_summary.step_time.ratio > 1


def test_the_cosine_is_the_mean_over_weight_matrices(
    finished: tuple[Comparison, Path, Diary],
) -> None:
    run = finished[0].runs[0]
    matrices = [run.alignment["linear1.weight"], run.alignment["output.weight"]]
    assert run.cosine == pytest.approx(statistics.fmean(matrices), rel=1e-12)
    assert set(run.alignment) > {"linear1.bias", "norm1.weight"}


def test_the_files(finished: tuple[Comparison, Path, Diary]) -> None:
    comparison, out, _ = finished
    assert {*comparison.files, out / "runs", out / ".lock"} == set(out.iterdir())
    pairs = ["fdfa-seed-5", "backpropagation-seed-5", "fdfa-seed-6", "backpropagation-seed-6"]
    assert {path.name for path in (out / "runs").iterdir()} == set(pairs)
    results = json.loads((out / "results.json").read_text())
    assert results == comparison.report()
    assert results["complete"] is True
    assert results["runs"][0]["epochs"] == 2
    assert json.loads((out / "speed.json").read_text())["fdfa"] == dataclasses.asdict(
        comparison.summaries[0].step_time
    )
    for pair, run, told in zip(pairs, comparison.runs, results["runs"], strict=True):
        own = out / "runs" / pair
        names = {path.name for path in own.iterdir()}
        assert names == {
            "config.json",
            "metrics.jsonl",
            "timings.jsonl",
            "model.safetensors",
            "results.json",
            "checkpoints",
        }
        lines = [json.loads(line) for line in (own / "metrics.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in lines] == [1, 2]
        last = run.epochs[1]
        assert last.validation is not None
        assert lines[-1]["validation"]["loss"] == last.validation.loss
        assert lines[-1]["train"]["loss"] == last.train.loss
        assert (lines[-1]["learning_rate"], lines[-1]["step"]) == (5e-4, 12)
        assert json.loads((own / "results.json").read_text())["run"] == told


def test_a_single_run_of_it_is_what_train_makes(
    finished: tuple[Comparison, Path, Diary], tmp_path: Path
) -> None:
    """From its own config.json: every bit, whatever else the comparison trained before it."""
    _, out, _ = finished
    own = out / "runs" / "fdfa-seed-6"
    config, _ = read_config(own)
    assert isinstance(config, TrainConfig)
    assert (config.method, config.seed, config.options["probe_every"]) == ("fdfa", 6, 2)
    train(config, out=tmp_path / "alone")
    assert_same_runs(tmp_path / "alone", own)


def test_the_configuration_reproduces_the_run(finished: tuple[Comparison, Path, Diary]) -> None:
    comparison, out, _ = finished
    saved = json.loads((out / "config.json").read_text())
    assert set(saved) == {"compare", "environment"}
    assert set(saved["environment"]) == {
        "fdfa",
        "torch",
        "python",
        "system",
        "device",
        "threads",
        "processes",
        "data_sha256",
        "git",
    }
    values = saved["compare"]
    assert values["options"]["fdfa"]["feedback_rate"] == 0.01, "a default is not spelled out"
    assert values["machine"] == {"threads": 1, "device": "cpu"}
    config, environment = read_config(out / "config.json")
    assert isinstance(config, CompareConfig)
    assert environment == saved["environment"]
    again = compare(config)
    for first, second in zip(comparison.runs, again.runs, strict=True):
        assert first.test == second.test
        assert first.alignment == second.alignment
        for epoch, same in zip(first.epochs, second.epochs, strict=True):
            assert dataclasses.replace(epoch, seconds=0) == dataclasses.replace(same, seconds=0)


def test_torch_is_left_as_it_was() -> None:
    class Watch(StudyObserver):
        def run_started(self, method: str, seed: int) -> None:
            used.append(torch.get_num_threads())

    used: list[int] = []
    state = torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        compare(dataclasses.replace(SMALL, seeds=1, methods=("fdfa",)), observer=Watch())
        assert used == [1], "a small network is faster, and far steadier, on one thread"
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert torch.equal(torch.get_rng_state(), state)


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
    speed = (out / "speed.json").read_bytes()
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
    assert "speed" not in diary.entries
    assert (out / "speed.json").read_bytes() == speed
    for name in ("fdfa-seed-5", "backpropagation-seed-5", "fdfa-seed-6", "backpropagation-seed-6"):
        assert_same_runs(out / "runs" / name, finished[1] / "runs" / name)
    assert out / "results.json" in comparison.files
    assert comparison.report()["runs"] == finished[0].report()["runs"]
    timed = {"step_time": None}
    assert [dataclasses.replace(s, **timed) for s in comparison.summaries] == [
        dataclasses.replace(s, **timed) for s in finished[0].summaries
    ]
    for picture in ("learning_curves.png", "learning_curves.svg"):
        assert (out / picture).read_bytes() == (finished[1] / picture).read_bytes()


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

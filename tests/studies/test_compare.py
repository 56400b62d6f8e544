"""A comparison: fair starts, honest numbers, whole files, and what survives when it goes wrong."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import fdfa
import fdfa.data
from fdfa.errors import ConfigError, UnsupportedModelError
from fdfa.studies.compare import CompareConfig, StudyInterrupted, compare
from fdfa.studies.results import Comparison, Spread
from fdfa.studies.runs import Run, StudyObserver
from fdfa.studies.task import Task, build_network
from fdfa.training import TrainingSettings

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
    for _ in range(2):
        for index in torch.randperm(len(data.train_labels), generator=order).split(256):
            optimizer.zero_grad()
            F.cross_entropy(model(data.train_inputs[index]), data.train_labels[index]).backward()
            optimizer.step()
        optimizer.param_groups[0]["lr"] *= 0.5
    model.eval()
    with torch.no_grad():
        outputs = model(data.test_inputs)
    correct = (outputs.argmax(1) == data.test_labels).float().mean().item()
    assert run.test is not None
    assert run.test.accuracy == pytest.approx(correct, rel=1e-6)
    assert run.test.loss == pytest.approx(
        F.cross_entropy(outputs, data.test_labels).item(), rel=1e-4
    )


def test_methods_of_one_seed_start_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a method trains on weights that another one has changed already."""
    starts: dict[tuple[str, int], torch.Tensor] = {}

    class Start(StudyObserver):
        def run_started(self, method: str, seed: int) -> None:
            self.key = (method, seed)

    from fdfa.studies import compare as study

    observer, perform = Start(), study.perform

    def watched(learner: fdfa.methods.Estimator, *args: object, **kwargs: object) -> Run:
        starts[observer.key] = copy.deepcopy(learner.model.linear1.weight.detach())
        return perform(learner, *args, **kwargs)

    monkeypatch.setattr(study, "perform", watched)
    compare(SMALL, observer=observer)
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
    assert sorted(comparison.files) == sorted(out.iterdir())
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 4 * 2
    assert [(line["method"], line["seed"], line["epoch"]) for line in lines[:3]] == [
        ("fdfa", 5, 1),
        ("fdfa", 5, 2),
        ("backpropagation", 5, 1),
    ]
    last = comparison.runs[3].epochs[1]
    assert last.validation is not None
    assert lines[-1]["validation"]["loss"] == last.validation.loss
    assert (lines[-1]["learning_rate"], lines[-1]["step"]) == (5e-4, 12)
    results = json.loads((out / "results.json").read_text())
    assert results == comparison.report()
    assert results["complete"] is True
    assert results["runs"][0]["epochs"] == 2


def test_the_configuration_reproduces_the_run(finished: tuple[Comparison, Path, Diary]) -> None:
    comparison, out, _ = finished
    saved = json.loads((out / "config.json").read_text())
    assert set(saved["environment"]) == {
        "fdfa",
        "torch",
        "python",
        "system",
        "threads",
        "data_sha256",
    }
    values = saved["compare"]
    assert values["options"]["fdfa"]["feedback_rate"] == 0.01, "a default is not spelled out"
    config = CompareConfig(
        **{
            **values,
            "methods": tuple(values["methods"]),
            "task": Task(**values["task"]),
            "training": TrainingSettings(**values["training"]),
        }
    )
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


def test_an_interruption_keeps_what_is_finished(tmp_path: Path) -> None:
    class Impatient(StudyObserver):
        def run_started(self, method: str, seed: int) -> None:
            if (method, seed) == ("fdfa", 6):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        compare(SMALL, out=tmp_path / "run", observer=Impatient())
    assert isinstance(caught.value, StudyInterrupted)
    comparison = caught.value.comparison
    assert [run.seed for run in comparison.runs] == [5, 5]
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["complete"] is False
    assert len(results["runs"]) == 2
    assert (tmp_path / "run" / "learning_curves.svg").exists()


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
        ({"threads": 0}, "threads=0"),
        ({"options": {"dfa": {}}}, "'dfa' takes no part"),
        ({"methods": ("fdfb",), "options": {}}, "Did you mean 'fdfa'"),
        ({"options": {"fdfa": {"feedback_rte": 1}}}, "Did you mean 'feedback_rate'"),
        ({"options": {"fdfa": {"feedback_rate": 2.0}}}, "feedback_rate=2.0"),
    ],
)
def test_a_mistake_is_found_before_anything_is_written(
    changes: dict[str, object], words: str, tmp_path: Path
) -> None:
    (tmp_path / "results.json").write_text("old")

    def run() -> None:
        compare(dataclasses.replace(SMALL, **changes), out=tmp_path, overwrite=True)

    with pytest.raises(ConfigError, match=words):
        run()
    assert (tmp_path / "results.json").read_text() == "old"


def test_a_network_that_cannot_be_cut_is_found_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("old")
    config = dataclasses.replace(SMALL, task=Task(model_options={"depth": 0}))
    with pytest.raises(UnsupportedModelError, match="no tap was found"):
        compare(config, out=tmp_path, overwrite=True)
    assert (tmp_path / "results.json").read_text() == "old"


def test_a_method_without_a_finished_run_is_known_as_such(tmp_path: Path) -> None:
    class Impatient(StudyObserver):
        def run_started(self, method: str, seed: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(StudyInterrupted) as caught:
        compare(SMALL, observer=Impatient())
    assert [s.finished for s in caught.value.comparison.summaries] == [0, 0]

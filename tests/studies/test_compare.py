"""A comparison: fair starts, honest numbers, whole files."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import fdfa
import fdfa.data
from fdfa.studies.compare import CompareConfig, compare
from fdfa.studies.network import build_network
from fdfa.studies.results import Comparison, Spread
from fdfa.studies.resume import read_config
from fdfa.studies.runs import Run, StudyObserver
from fdfa.studies.setup import TrainConfig
from fdfa.studies.train import train
from tests.studies.comparisons import SMALL, Diary
from tests.studies.folders import assert_same_runs

pytestmark = pytest.mark.usefixtures("few_rounds")


def test_every_method_from_every_seed(finished: tuple[Comparison, Path, Diary]) -> None:
    comparison, _, diary = finished
    pairs = [("fdfa", 5), ("backpropagation", 5), ("fdfa", 6), ("backpropagation", 6)]
    assert [(run.method, run.seed) for run in comparison.runs] == pairs
    heard = ["costs"]
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
    assert bp_summary.step_memory is not None
    assert bp_summary.step_memory.ratio == 1
    assert fdfa_summary.step_memory is not None
    assert fdfa_summary.step_memory.ratio > 1
    assert comparison.layers == ("linear1.weight", "output.weight")
    cosines = [run.alignment["linear1.weight"] for run in runs]
    assert fdfa_summary.cosines["linear1.weight"].mean == statistics.fmean(cosines)


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
    costs = json.loads((out / "costs.json").read_text())
    summary = comparison.summaries[0]
    assert costs["times"]["fdfa"] == dataclasses.asdict(summary.step_time)
    assert summary.step_memory is not None
    assert costs["memory"]["fdfa"] == dataclasses.asdict(summary.step_memory)
    assert costs["left_out"] == {}
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

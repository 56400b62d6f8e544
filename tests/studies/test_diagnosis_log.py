"""Diagnoses of a run while it trains: the lines of diagnosis.jsonl, and what they cost a run."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import fdfa.data
from fdfa.cli.parsing import parse
from fdfa.data import Augmentation, Examples
from fdfa.diagnostics import gradient_matches
from fdfa.engine.estimator import Estimator
from fdfa.errors import ConfigError
from fdfa.studies.compare import CompareConfig, compare
from fdfa.studies.diagnosis_log import fixed_batch
from fdfa.studies.learners import make_learner
from fdfa.studies.network import build_network
from fdfa.studies.preparation import prepared
from fdfa.studies.rehearsal import rehearse_study
from fdfa.studies.resume import read_config, resume
from fdfa.studies.runs import StudyObserver
from fdfa.studies.setup import Diagnose, Records, TrainConfig
from fdfa.studies.task import Task
from fdfa.studies.train import train
from fdfa.training import StepResult, Trainer, TrainingInterrupted, TrainingSettings
from tests.studies.folders import bits

CONFIG = TrainConfig(
    method="fdfa",
    seed=3,
    task=Task(model_options={"width": 12, "depth": 2}),
    training=TrainingSettings(epochs=2, batch_size=256),  # 6 steps an epoch
    records=Records(diagnose=Diagnose(every=4, examples=32)),
)
FILE = "diagnosis.jsonl"


class Stop(StudyObserver):
    """Ctrl-C after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        trainer.stop_requested = result.step == self.step


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(CONFIG, out=folder)
    return folder


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


def test_a_line_says_what_a_direct_call_finds(whole: Path) -> None:
    """After the last step the learner is that of the last checkpoint; nothing in it is random."""
    assert [(line["step"], line["epoch"]) for line in lines(whole)] == [(4, 1), (8, 2), (12, 2)]
    heard: list[Any] = []

    class Listen(StudyObserver):
        def step_finished(self, trainer: Trainer, result: StepResult) -> None:
            if result.step in (4, 8, 12) and isinstance(trainer.learner, Estimator):
                data = fdfa.data.load("digits")
                order = torch.randperm(200, generator=torch.Generator().manual_seed(3))[:32]
                ((x, y),) = data.validation.batches([order])
                heard.append(gradient_matches(trainer.learner, F.cross_entropy, x, y))

    train(dataclasses.replace(CONFIG, records=Records()), observer=Listen())
    for line, matches in zip(lines(whole), heard, strict=True):
        expected = {name: dataclasses.asdict(match) for name, match in matches.items()}
        assert line["parameters"] == expected
        assert 0 < expected["linear1.weight"]["angle"] < 180


def test_a_diagnosed_run_ends_as_one_that_is_not(whole: Path, tmp_path: Path) -> None:
    train(dataclasses.replace(CONFIG, records=Records()), out=tmp_path / "plain")
    left, right = bits(whole), bits(tmp_path / "plain")
    for found in (left, right):
        del found["config.json"]["records"]["diagnose"]
        del found["checkpoint callbacks"]
    assert left == right


@pytest.mark.parametrize(
    ("stop", "more"),
    [
        (4, b'{"step": 8'),
        *(
            pytest.param(stop, more, marks=pytest.mark.slow)
            for stop in (3, 5, 8, 11)
            for more in (b"", b'{"step": 8', b'{"step": 12}\n\xff\n')
        ),
    ],
)
def test_a_resumed_run_writes_the_same_lines(
    whole: Path, stop: int, more: bytes, tmp_path: Path
) -> None:
    with pytest.raises(TrainingInterrupted):
        train(CONFIG, out=tmp_path / "cut", observer=Stop(stop))
    with (tmp_path / "cut" / FILE).open("ab") as file:
        file.write(more)
    resume(tmp_path / "cut")
    assert (tmp_path / "cut" / FILE).read_bytes() == (whole / FILE).read_bytes()


def test_the_setting_comes_back_from_the_configuration(whole: Path, tmp_path: Path) -> None:
    config, _ = read_config(whole)
    assert config.records.diagnose == Diagnose(every=4, examples=32)
    content = json.loads((whole / "config.json").read_text())
    content["train"]["records"]["diagnose"]["every"] = 0
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"train\.records\.diagnose.*every=0"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], None),
        (["--diagnose"], Diagnose(every=100, examples=64)),
        (["--diagnose", "every=7"], Diagnose(every=7)),
        (["--diagnose", "examples=9", "every=2"], Diagnose(every=2, examples=9)),
        (["--diagnose", "none"], None),
    ],
)
def test_as_it_is_typed(words: list[str], expected: Diagnose | None) -> None:
    for command in ("train", "compare"):
        assert parse([command, *words]).records.diagnose == expected  # type: ignore[attr-defined]


def test_beside_a_configuration(whole: Path) -> None:
    argv = ["train", "--config", str(whole)]
    assert parse(argv).records.diagnose == CONFIG.records.diagnose  # type: ignore[attr-defined]
    assert parse([*argv, "--diagnose", "none"]).records.diagnose is None  # type: ignore[attr-defined]


def test_without_a_folder_there_is_nowhere_to_write() -> None:
    with pytest.raises(ConfigError, match="diagnose keeps its lines in the folder"):
        train(CONFIG)


def test_a_dry_run_tells(tmp_path: Path) -> None:
    found = rehearse_study(CONFIG, out=tmp_path / "new")
    assert found.diagnose == CONFIG.records.diagnose
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_every_run_of_a_comparison_has_its_own(tmp_path: Path) -> None:
    config = CompareConfig(
        methods=("backpropagation", "dfa"),
        seeds=2,
        timing_rounds=10,
        task=CONFIG.task,
        training=dataclasses.replace(CONFIG.training, epochs=1),
        records=CONFIG.records,
    )
    compare(config, out=tmp_path)
    for method in config.methods:
        for seed in (0, 1):
            (line,) = lines(tmp_path / "runs" / f"{method}-seed-{seed}")
            angle = line["parameters"]["linear2.weight"]["angle"]
            assert (angle < 1e-3) == (method == "backpropagation")


def test_sinks_get_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights & Biases by a stand-in: what a sink is told, in the order of the steps."""
    told: list[tuple[int, dict[str, float]]] = []

    class Record:
        def log(self, values: Mapping[str, float], step: int) -> None:
            told.append((step, dict(values)))

        def finish(self) -> None:
            told.append((-1, {}))

    package = types.ModuleType("wandb")
    package.util = types.SimpleNamespace(generate_id=lambda: "id")  # type: ignore[attr-defined]
    package.init = lambda **_: Record()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", package)
    records = dataclasses.replace(CONFIG.records, log=("wandb",))
    train(dataclasses.replace(CONFIG, records=records), out=tmp_path / "run")
    found = {
        step: values["diagnosis/angle/linear2.weight"]
        for step, values in told
        if "diagnosis/angle/linear2.weight" in values
    }
    expected = {
        line["step"]: line["parameters"]["linear2.weight"]["angle"]
        for line in lines(tmp_path / "run")
    }
    assert found == expected
    assert [step for step, _ in told] == [4, 6, 8, 12, 12, -1]


def test_the_batch_is_fixed_by_the_seed() -> None:
    with prepared(CONFIG.task, seed=0) as start:
        learner = make_learner("dfa", start.network, start.data, {})
        first = fixed_batch(learner, start.data, 20, seed=0)
        again = fixed_batch(learner, start.data, 20, seed=0)
        other = fixed_batch(learner, start.data, 20, seed=1)
        all_of_them = fixed_batch(learner, start.data, 5000, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert len(all_of_them[1]) == 200
    rows = {tuple(row.tolist()) for row in start.data.validation.first(200)[0].flatten(1)}
    assert {tuple(row.tolist()) for row in first[0].flatten(1)} <= rows


def test_without_validation_examples_it_is_of_the_training_part_as_it_is() -> None:
    data = fdfa.data.load("digits", validation=0).augmented(Augmentation(padding=2))
    learner = make_learner("dfa", build_network(CONFIG.task, data, seed=0), data, {})
    inputs, _ = fixed_batch(learner, data, 10, seed=0)
    assert isinstance(data.train, Examples)
    rows = {tuple(row.tolist()) for row in data.train.first(len(data.train))[0].flatten(1)}
    assert {tuple(row.tolist()) for row in inputs.flatten(1)} <= rows


def test_a_number_that_is_none_is_null(tmp_path: Path) -> None:
    """Maps that hardly learn are zero in float32: they give hidden layers no direction."""
    config = dataclasses.replace(CONFIG, options={"feedback_rate": 1e-300})
    train(config, out=tmp_path / "run")
    text = (tmp_path / "run" / FILE).read_text()
    assert "NaN" not in text
    assert lines(tmp_path / "run")[0]["parameters"]["linear1.weight"]["angle"] is None

"""Nothing is ever chosen on the test part: one place looks at it, once a run, when all is over."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fdfa.data
from fdfa.cli import main
from fdfa.data import Examples
from fdfa.studies import scoring
from fdfa.studies.compare import CompareConfig, StudyInterrupted, compare
from fdfa.studies.evaluate import evaluate_run
from fdfa.studies.preview import PreviewConfig, preview
from fdfa.studies.rehearsal import rehearse_study
from fdfa.studies.reproduce import declared_in, reproduce
from fdfa.studies.reproduce.planned_runs import TableSettings
from fdfa.studies.resume import resume
from fdfa.studies.runs import StudyObserver
from fdfa.studies.setup import TrainConfig
from fdfa.studies.task import Task
from fdfa.studies.train import train
from fdfa.training import EpochResult, StepResult, Trainer, TrainingInterrupted, TrainingSettings
from tests.studies.tables import SMALL as SMALL_STUDY
from tests.studies.tables import written

SOURCE = Path(scoring.__file__).parents[1]

COSTS = "[costs]\nrounds = 10\n\n[[task]]"
SMALL = Task(model_options={"width": 8, "depth": 1})
CONFIG = TrainConfig(task=SMALL, training=TrainingSettings(epochs=3, batch_size=256))


class Diary(StudyObserver):
    """What happened, in order: epochs, and looks at the test part."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def epoch_finished(self, trainer: Trainer, result: EpochResult) -> None:
        self.entries.append(f"epoch {result.epoch}")

    @property
    def looks(self) -> int:
        return self.entries.count("look")


class Locked(Examples):
    """Examples that are looked at nowhere but inside ``score_on``; their number is no secret.

    The checksum in ``config.json`` is of all parts, and moving them to a device looks at none.
    """

    scoring = False
    hashing = False

    def __getattribute__(self, name: str) -> Any:
        if name in ("inputs", "labels", "first", "batches", "normalization", "augmented"):
            allowed = Locked.scoring or Locked.hashing
            assert allowed, f"the test part was looked at outside score_on ({name})"
        return super().__getattribute__(name)

    def __len__(self) -> int:
        return len(super().__getattribute__("labels"))


@pytest.fixture
def diary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Diary]:
    """Every data set has a locked test part; who opens it is written down."""
    diary, load, real = Diary(), fdfa.data.load, scoring.score_on

    def locked(name: str, **options: Any) -> fdfa.data.Dataset:
        data = load(name, **options)
        test = Locked(data.test.inputs, data.test.labels, data.test.normalization)
        return dataclasses.replace(data, test=test)

    def open_for_hashing(self: fdfa.data.Dataset) -> str:
        Locked.hashing = True
        try:
            return checksum(self)
        finally:
            Locked.hashing = False

    def opened(
        model: nn.Module, data: fdfa.data.Dataset, *, part: scoring.Part, **more: Any
    ) -> Any:
        Locked.scoring = part == "test"
        if part == "test":
            diary.entries.append("look")
        try:
            return real(model, data, part=part, **more)
        finally:
            Locked.scoring = False

    checksum = fdfa.data.Dataset.checksum
    monkeypatch.setattr(fdfa.data, "load", locked)
    monkeypatch.setattr(fdfa.data.Dataset, "checksum", open_for_hashing)
    monkeypatch.setattr(Locked, "to", lambda self, device: self)
    monkeypatch.setattr(Locked, "__post_init__", lambda self: None)
    for module in ("runs", "evaluate"):
        monkeypatch.setattr(f"fdfa.studies.{module}.score_on", opened)
    yield diary
    assert not Locked.scoring
    assert not Locked.hashing


def test_the_lock_holds(diary: Diary) -> None:
    """Every way to the examples is shut, or the tests below would say nothing."""
    test = fdfa.data.load("digits").test
    assert len(test) == 300
    looks: list[Callable[[], object]] = [
        lambda: test.inputs,
        lambda: test.labels,
        lambda: test.first(1),
        lambda: list(test.batches([torch.arange(3)])),
    ]
    for look in looks:
        with pytest.raises(AssertionError, match="outside score_on"):
            look()
    assert diary.looks == 0


def test_train_looks_once_after_the_last_epoch(diary: Diary, tmp_path: Path) -> None:
    report = train(CONFIG, out=tmp_path / "run", observer=diary)
    assert diary.entries == ["epoch 1", "epoch 2", "epoch 3", "look"]
    assert report.run.test is not None


def test_patience_chooses_without_it(diary: Diary) -> None:
    """The epoch to go back to is that of the best validation accuracy."""
    patient = dataclasses.replace(
        CONFIG,
        training=dataclasses.replace(
            CONFIG.training, epochs=30, patience=1, learning_rate=1.0, optimizer="sgd"
        ),
    )
    report = train(patient, observer=diary)
    assert len(report.run.epochs) < 30
    assert diary.entries[-1] == "look"
    assert diary.looks == 1


def test_without_validation_examples_it_takes_their_place_nowhere(diary: Diary) -> None:
    bare = dataclasses.replace(CONFIG, task=dataclasses.replace(SMALL, validation=0))
    train(bare, observer=diary)
    assert diary.looks == 1


def test_a_run_that_fails_never_looks(diary: Diary) -> None:
    wild = dataclasses.replace(
        CONFIG,
        task=dataclasses.replace(SMALL, model_options={**SMALL.model_options, "batch_norm": False}),
        training=TrainingSettings(epochs=2, optimizer="sgd", learning_rate=1e30),
    )
    report = train(wild, observer=diary)
    assert report.run.failure is not None
    assert diary.looks == 0


def test_compare_looks_once_a_run(diary: Diary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fdfa.studies.speed._ENOUGH_SECONDS", 0.0)
    config = CompareConfig(
        methods=("dfa", "fdfa"),
        seeds=2,
        timing_rounds=10,
        task=SMALL,
        training=TrainingSettings(epochs=1, batch_size=256),
    )
    compare(config, observer=diary)
    assert diary.entries == ["epoch 1", "look"] * 4


class Impatient(Diary):
    """Asks for a stop after some step, once."""

    def __init__(self, entries: list[str], step: int) -> None:
        self.entries = entries
        self.step = step

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        trainer.stop_requested = result.step == self.step


def test_an_interruption_looks_never_and_resume_once(diary: Diary, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(TrainingInterrupted):
        train(CONFIG, out=out, observer=Impatient(diary.entries, 8))
    assert diary.entries == ["epoch 1"]
    with pytest.raises(TrainingInterrupted):
        resume(out, observer=Impatient(diary.entries, 15))
    assert diary.entries == ["epoch 1", "epoch 2"]
    resume(out, observer=diary)
    assert diary.entries == ["epoch 1", "epoch 2", "epoch 3", "look"]
    resume(out, observer=diary)
    assert diary.entries[4:] == [], "of a finished run the score is read"


def test_a_resumed_comparison_looks_once_a_run(
    diary: Diary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fdfa.studies.speed._ENOUGH_SECONDS", 0.0)
    config = CompareConfig(
        methods=("dfa", "backpropagation"),
        seeds=1,
        timing_rounds=10,
        task=SMALL,
        training=TrainingSettings(epochs=2, batch_size=512),
    )

    class Second(StudyObserver):
        def step_finished(self, trainer: Trainer, result: StepResult) -> None:
            trainer.stop_requested = (trainer.learner.method, result.step) == ("backpropagation", 2)

    with pytest.raises(StudyInterrupted):
        compare(config, out=tmp_path / "run", observer=Second())
    assert diary.entries == ["look"]
    resume(tmp_path / "run", observer=diary)
    assert diary.entries == ["look", "epoch 1", "epoch 2", "look"]


def test_a_study_looks_once_a_run_after_its_last_epoch(
    diary: Diary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that comes before or after it looks: budget, costs, rehearsal, report, going on."""
    monkeypatch.setattr("fdfa.studies.speed._ENOUGH_SECONDS", 0.0)
    monkeypatch.setattr("fdfa.studies.reproduce.table.StudyObserver", lambda: diary)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # no time for pictures
    study = declared_in(written(tmp_path, SMALL_STUDY.replace("[[task]]", COSTS, 1)))
    alone = TableSettings(workers=1, device="cpu", seeds=1)

    def stopped(line: str) -> None:
        if line.startswith("["):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reproduce(study, alone, out=tmp_path / "out", minutes=1e6, told=stopped)
    assert diary.entries == ["epoch 1", "epoch 2", "look"]
    reproduce(study, alone, out=tmp_path / "out", minutes=1e6)
    assert diary.entries == ["epoch 1", "epoch 2", "look"] * 3
    reproduce(study, alone, out=tmp_path / "out", minutes=1e6)
    assert diary.looks == 3


@pytest.mark.parametrize("part", ["test", "validation", "train"])
def test_evaluate_looks_where_it_is_told_to(
    part: scoring.Part, diary: Diary, tmp_path: Path
) -> None:
    train(CONFIG, out=tmp_path / "run")
    diary.entries.clear()
    evaluate_run(tmp_path / "run", part=part)
    assert diary.looks == (part == "test")


def test_what_is_done_before_a_training_never_looks(diary: Diary, tmp_path: Path) -> None:
    rehearse_study(CONFIG, out=tmp_path / "run")
    rehearse_study(CompareConfig(task=SMALL))
    preview(PreviewConfig(task=SMALL))
    assert main(["train", "--model-options", "width=8", "--dry-run", "--json"]) == 0
    assert main(["explain", "--model-options", "width=8", "--json"]) == 0
    assert diary.entries == []


def _mentions(source: Path) -> Sequence[tuple[int, str]]:
    """Where a file reads an attribute ``.test``."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    return [
        (node.lineno, ast.unparse(node))
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "test"
    ]


# What is called `test` and is a score, or the number of examples; and the one look.
KNOWN = {
    "studies/scoring.py": 1,
    "studies/data_sets.py": 1,  # how many there are
    "studies/page/found_runs.py": 5,  # a score
    "studies/rehearsal.py": 1,  # how many there are
    "studies/report.py": 1,  # a score
    "studies/reproduce/low_dimensional_feedback.py": 2,  # a score
    "studies/reproduce/table.py": 2,  # a score
    "studies/reproduce/table_findings.py": 2,  # a score
    "studies/results.py": None,  # scores
}


def test_no_other_line_of_the_source_reads_a_test_part() -> None:
    """A new one has to be thought about: it fails here until it is listed."""
    found = {}
    for source in SOURCE.rglob("*.py"):
        name = str(source.relative_to(SOURCE))
        if name.startswith("data/"):
            continue  # makes the parts
        if lines := _mentions(source):
            found[name] = len(lines)
    assert found.keys() <= KNOWN.keys()
    for name, count in found.items():
        assert KNOWN[name] in (None, count), name


def test_score_on_has_two_callers() -> None:
    callers = {
        str(source.relative_to(SOURCE))
        for source in SOURCE.rglob("*.py")
        if "score_on(" in source.read_text(encoding="utf-8")
    }
    assert callers == {"studies/scoring.py", "studies/runs.py", "studies/evaluate.py"}


def test_the_validation_part_is_the_same_whatever_the_seed_of_the_run(tmp_path: Path) -> None:
    """Cut out of the training part by a seed of its own: the checksum is over the split."""
    sums = set()
    for seed in (0, 1):
        out = tmp_path / str(seed)
        quick = dataclasses.replace(CONFIG, seed=seed, training=TrainingSettings(epochs=1))
        train(quick, out=out)
        sums.add((out / "config.json").read_text().partition('"data_sha256": "')[2][:64])
    assert len(sums) == 1

"""The lines that a training writes, and what becomes of them when it is cut, resumed or damaged."""

from __future__ import annotations

import builtins
import json
import os
import pathlib
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies

from fdfa.errors import CheckpointError, ConfigError
from fdfa.training import (
    Callback,
    Checkpoints,
    MetricsLog,
    StepResult,
    Trainer,
    TrainingInterrupted,
    TrainingSettings,
    capture,
    read_checkpoint,
    read_lines,
    restore,
)
from tests.training.networks import dense, points

SETTINGS = TrainingSettings(epochs=3, batch_size=8, schedule="cosine")  # 3 steps an epoch
FILES = ("metrics.jsonl", "timings.jsonl", "steps.jsonl")


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        trainer.stop_requested = result.step == self.step


def trained(folder: pathlib.Path, *, stop: int = 0, every: int | None = 1) -> tuple[Trainer, Any]:
    """To the end, or to a step; with a checkpoint there."""
    folder.mkdir(exist_ok=True)
    callbacks = [
        MetricsLog(folder, every_steps=every),
        StopAt(stop),
        Checkpoints(folder / "checkpoints", seconds=None),
    ]
    trainer = Trainer(dense(), SETTINGS, callbacks=callbacks)
    results: Any = None
    if stop:
        with pytest.raises(TrainingInterrupted):
            trainer.fit(points(), points(12))
    else:
        results = trainer.fit(points(), points(12))
    return trainer, results


def resumed(folder: pathlib.Path, *, every: int | None = 1) -> None:
    trainer = Trainer(dense(9), SETTINGS, callbacks=[MetricsLog(folder, every_steps=every)])
    restore(trainer, read_checkpoint(folder / "checkpoints"))
    trainer.fit(points(), points(12))


def lines(folder: pathlib.Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_lines_hold_what_was_measured_exactly(tmp_path: pathlib.Path) -> None:
    _, results = trained(tmp_path)
    assert lines(tmp_path, "metrics.jsonl") == [
        {
            "epoch": result.epoch,
            "step": 3 * result.epoch,
            "train": {"accuracy": result.train.accuracy, "loss": result.train.loss},
            "validation": {
                "accuracy": result.validation.accuracy,
                "loss": result.validation.loss,
            },
            "learning_rate": result.learning_rate,
        }
        for result in results
    ]
    timings = lines(tmp_path, "timings.jsonl")
    assert all(
        line.pop("peak_memory", 0) != 0 for line in timings
    )  # tests/training/test_peak_memory
    assert timings == [{"epoch": r.epoch, "seconds": r.seconds} for r in results]


def test_without_validation_there_is_none(tmp_path: pathlib.Path) -> None:
    Trainer(dense(), SETTINGS, callbacks=[MetricsLog(tmp_path)]).fit(points())
    assert [line["validation"] for line in lines(tmp_path, "metrics.jsonl")] == [None] * 3


@pytest.mark.parametrize("every", [None, 1, 2, 4, 100])
def test_lines_of_steps_on_demand(tmp_path: pathlib.Path, every: int | None) -> None:
    found: list[StepResult] = []

    class Listen(Callback):
        def step_finished(self, trainer: Trainer, result: StepResult) -> None:
            found.append(result)

    callbacks = [Listen(), MetricsLog(tmp_path, every_steps=every)]
    Trainer(dense(), SETTINGS, callbacks=callbacks).fit(points())
    if every is None:
        assert not (tmp_path / "steps.jsonl").exists()
        return
    assert lines(tmp_path, "steps.jsonl") == [
        {"step": r.step, "epoch": r.epoch, "loss": r.loss, "learning_rate": r.learning_rate}
        for r in found
        if r.step % every == 0
    ]


def test_the_same_training_writes_the_same_bytes(tmp_path: pathlib.Path) -> None:
    trained(tmp_path / "a")
    trained(tmp_path / "b")
    for name in ("metrics.jsonl", "steps.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("every", [0, -1, 2.5, True, "2"])
def test_a_number_of_steps_that_is_none_is_refused(tmp_path: pathlib.Path, every: Any) -> None:
    with pytest.raises(ConfigError, match=rf"every_steps={every!r}"):
        MetricsLog(tmp_path, every_steps=every)


@pytest.mark.parametrize(
    "more", [b"", b'{"epoch": 9', b'{"epoch": 3}\n{"epoch": 4}\n', b"\xff\n\n"]
)
@pytest.mark.parametrize("stop", [2, 3, 5, 6, 9])
def test_lines_after_the_checkpoint_are_taken_back(
    stop: int, more: bytes, tmp_path: pathlib.Path
) -> None:
    """Whole, cut or damaged: the files end as if the training had never been cut."""
    trained(tmp_path / "whole")
    trained(tmp_path / "cut", stop=stop)
    for name in FILES:
        with (tmp_path / "cut" / name).open("ab") as file:
            file.write(more)
    resumed(tmp_path / "cut")
    for name in ("metrics.jsonl", "steps.jsonl"):
        whole = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "cut" / name).read_bytes() == whole
    epochs = [line["epoch"] for line in lines(tmp_path / "cut", "timings.jsonl")]
    assert epochs == [1, 2, 3]


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_became_shorter_is_refused(name: str, tmp_path: pathlib.Path) -> None:
    trained(tmp_path, stop=5)
    path = tmp_path / name
    size = path.stat().st_size
    os.truncate(path, size - 1)
    text = rf"{name} has {size - 1} bytes, and had {size}"
    with pytest.raises(CheckpointError, match=text):
        resumed(tmp_path)
    assert path.stat().st_size == size - 1
    path.unlink()
    with pytest.raises(CheckpointError, match=rf"{name}"):
        resumed(tmp_path)


def test_a_refused_resume_takes_nothing_back(tmp_path: pathlib.Path) -> None:
    """One file is too short: lines of the others, also those after the checkpoint, stay."""
    trained(tmp_path, stop=5)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"epoch": 2}\n')
    os.truncate(tmp_path / "steps.jsonl", 3)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="steps"):
        resumed(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_lines_of_steps_can_be_asked_for_later_or_no_more(tmp_path: pathlib.Path) -> None:
    trained(tmp_path / "later", stop=5, every=None)
    resumed(tmp_path / "later", every=1)
    assert [line["step"] for line in lines(tmp_path / "later", "steps.jsonl")] == [6, 7, 8, 9]
    trained(tmp_path / "no more", stop=5, every=1)
    resumed(tmp_path / "no more", every=None)
    assert [line["epoch"] for line in lines(tmp_path / "no more", "metrics.jsonl")] == [1, 2, 3]


def test_a_new_training_starts_new_files(tmp_path: pathlib.Path) -> None:
    for name in FILES:
        (tmp_path / name).write_text("of an earlier one\n")
    Trainer(dense(), SETTINGS, callbacks=[MetricsLog(tmp_path, every_steps=3)]).fit(points())
    assert [line["epoch"] for line in lines(tmp_path, "metrics.jsonl")] == [1, 2, 3]
    assert [line["step"] for line in lines(tmp_path, "steps.jsonl")] == [3, 6, 9]


def test_lines_are_on_the_disk_before_a_checkpoint_counts_on_them(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut could leave a checkpoint whose lines are lost."""
    events: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.rename

    def watched_fsync(descriptor: int) -> None:
        path = pathlib.Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        events.append(("sync", path.name))
        fsync(descriptor)

    def watched_rename(source: Any, target: Any) -> None:
        events.append(("rename", pathlib.Path(target).name))
        rename(source, target)

    trainer = Trainer(dense(), SETTINGS, callbacks=[MetricsLog(tmp_path, every_steps=1)])
    trainer.fit(points())
    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "rename", watched_rename)
    Checkpoints(tmp_path / "checkpoints").write(trainer)
    published = events.index(("rename", "step-00000009"))
    for name in FILES:
        assert ("sync", name) in events[:published], name
        assert events.count(("sync", name)) == 1, "once is enough"
    assert ("sync", tmp_path.name) in events[:published], "the names of new files too"


def test_each_line_is_a_single_write(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that who reads meanwhile, or a kill, meets whole lines."""
    seen: list[bytes] = []

    class Watch(Callback):
        def epoch_finished(self, trainer: Trainer, result: Any) -> None:
            seen.append((tmp_path / "metrics.jsonl").read_bytes())

    Trainer(dense(), SETTINGS, callbacks=[MetricsLog(tmp_path), Watch()]).fit(points())
    assert [content.count(b"\n") for content in seen] == [1, 2, 3]
    assert all(content.endswith(b"\n") for content in seen)


def test_damaged_lines_are_skipped_and_counted(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"epoch": 1}\n{"epo\n\xff\xfe\n[1]\n3\n\n  \n{"epoch": 2}\r\n{"epoch": 3')
    assert read_lines(path) == ([{"epoch": 1}, {"epoch": 2}], 5)
    path.write_bytes(b"")
    assert read_lines(path) == ([], 0)
    path.write_bytes(b"[" * 100_000)
    assert read_lines(path) == ([], 1)


@hypothesis.given(
    cut=strategies.integers(0, 200),
    epochs=strategies.integers(0, 4),
    noise=strategies.binary(max_size=20),
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_cut_anywhere_all_whole_lines_are_read(
    tmp_path_factory: pytest.TempPathFactory, cut: int, epochs: int, noise: bytes
) -> None:
    path = tmp_path_factory.mktemp("lines") / "metrics.jsonl"
    whole = [json.dumps({"epoch": n, "loss": n / 3}).encode() + b"\n" for n in range(epochs)]
    content = b"".join(whole)[:cut]
    path.write_bytes(content + noise.replace(b"\n", b"") if cut < 40 else content)
    complete = content.count(b"\n")
    found, damaged = read_lines(path)
    assert found[:complete] == [{"epoch": n, "loss": n / 3} for n in range(complete)]
    assert len(found) - complete + damaged <= 1


def test_what_a_process_other_than_the_first_measures_is_not_written(
    tmp_path: pathlib.Path,
) -> None:
    from fdfa.training import Processes

    trainer = Trainer(dense(), SETTINGS, callbacks=[])
    trainer.processes = Processes(rank=1, count=2)
    log = MetricsLog(tmp_path, every_steps=1)
    log.training_started(trainer)
    log.step_finished(trainer, StepResult(1, 1, 0.5, 1.0, 0.1))
    assert list(tmp_path.iterdir()) == []
    assert log.state()


def test_the_same_numbers_with_and_without_the_log(tmp_path: pathlib.Path) -> None:
    """To write makes no difference to what is learned."""
    plain = dense()
    Trainer(plain, SETTINGS).fit(points(), points(12))
    logged, _ = trained(tmp_path)
    for key, value in plain.state_dict().items():
        assert torch.equal(logged.model.state_dict()[key], value)
    assert capture(logged).step == 9
    assert builtins.open is open

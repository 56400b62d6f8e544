"""Whatever happens while a checkpoint is written, there is a whole one: the old or the new."""

from __future__ import annotations

import errno
import os
import random
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fdfa.errors import CheckpointError
from fdfa.training.checkpoint import write_checkpoint
from fdfa.training.checkpoint_names import latest
from tests.training.checkpoint_cases import (
    example,
    example_step,
    found,
    new,
    prepared,
)
from tests.training.checkpoint_faults import (
    Interference,
    Process,
    at_each_operation,
    failing,
    interfere,
    killed_at,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks writers to kill them")

# What stands in the folder before (None: not even the folder), and the step that is written.
BEGINNINGS = {
    "nothing": (None, 60),
    "the one before": (30, 60),
    "one of the same step": (60, 60),
}


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses nothing that the kernel has: no need to wait for the disk here."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(params=BEGINNINGS.values(), ids=BEGINNINGS.keys())
def beginning(request: pytest.FixtureRequest) -> tuple[int | None, int]:
    return request.param  # type: ignore[no-any-return]


def assert_in_order(states: list[str], before: int | None) -> None:
    """First always the old one, from some operation on always the new one."""
    first = "none" if before is None else "before"
    turn = states.index("after")
    assert states == [first] * turn + ["after"] * (len(states) - turn)
    assert 20 < turn < len(states)  # and neither at once nor only at the very end


@pytest.mark.parametrize(
    "torn",
    [pytest.param(False, marks=pytest.mark.slow), True],
    ids=["before", "in the middle of"],
)
def test_killed_at_any_operation(
    tmp_path: Path, beginning: tuple[int | None, int], torn: bool
) -> None:
    before, step = beginning
    states = []

    def once(operation: int) -> bool:
        folder = prepared(tmp_path / str(operation) / "checkpoints", before)
        killed = killed_at(operation, lambda: new(folder, step), torn=torn)
        states.append(found(folder))
        # The next training goes on, at the same step or a later one, and puts things in order.
        newest = write_checkpoint(folder, example(step + operation % 2))
        assert example_step(folder) == step + operation % 2
        assert sorted(os.listdir(folder)) == [".lock", newest.name]
        return killed

    at_each_operation(once)
    assert_in_order(states, before)


@pytest.mark.parametrize(
    ("number", "for_good"),
    [(errno.ENOSPC, False), (errno.EIO, True)],
    ids=["full once", "broken for good"],
)
def test_failing_at_any_operation(
    tmp_path: Path, beginning: tuple[int | None, int], number: int, for_good: bool
) -> None:
    before, step = beginning
    error = OSError(number, os.strerror(number))
    states = []

    def once(operation: int) -> bool:
        folder = prepared(tmp_path / str(operation) / "checkpoints", before)
        descriptors = open_descriptors()
        happened, complaint = complaint_of(
            lambda: new(folder, step), failing(operation, error, for_good=for_good)
        )
        assert open_descriptors() == descriptors
        if complaint is None:  # nothing is lost: a note, or what a later writer can do
            assert found(folder) == "after"
        else:
            states.append(found(folder))
            assert str(folder) in str(complaint)
            assert complaint.__cause__ is error
            assert for_good or not half_written(folder, step)
        write_checkpoint(folder, example(step + 1))  # the lock is free, the folder usable
        assert example_step(folder) == step + 1
        assert len(os.listdir(folder)) == 2
        return happened >= operation

    at_each_operation(once)
    assert_in_order(states, before)


def complaint_of(
    work: Callable[[], None], act: Interference
) -> tuple[int, CheckpointError | KeyboardInterrupt | None]:
    """How many operations some work has under interference, and how it fails."""
    happened = 0

    def counting(count: int, name: str, args: tuple[Any, ...], do: Callable[[], Any]) -> Any:
        nonlocal happened
        happened = count
        return act(count, name, args, do)

    try:
        with interfere(counting):
            work()
    except (CheckpointError, KeyboardInterrupt) as complaint:
        return happened, complaint
    return happened, None


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


def half_written(folder: Path, step: int) -> list[str]:
    """What a writer of this step has left behind."""
    names = os.listdir(folder) if folder.exists() else []
    return [name for name in names if name.startswith(f".writing-step-{step:08d}")]


def test_interrupted_at_any_operation(tmp_path: Path, beginning: tuple[int | None, int]) -> None:
    """By Ctrl-C, which is no error to wrap."""
    before, step = beginning
    states = []

    def once(operation: int) -> bool:
        folder = prepared(tmp_path / str(operation), before)
        happened, complaint = complaint_of(
            lambda: new(folder, step), failing(operation, KeyboardInterrupt())
        )
        if complaint is None:
            assert found(folder) == "after"
        else:
            states.append(found(folder))
            assert isinstance(complaint, KeyboardInterrupt)
            assert not half_written(folder, step)
        return happened >= operation

    at_each_operation(once)
    assert_in_order([*states, "after"], before)


def training(folder: Path, told: int) -> None:
    """Writes checkpoints for ever; says each step into a pipe when it is safe."""
    newest = latest(folder)
    step = 0 if newest is None else example_step(folder)
    for number in range(10**6):
        step += number % 3 > 0  # some of them at the same step
        write_checkpoint(folder, example(step, size=1 + number % 3000))
        os.write(told, struct.pack("<q", step))


@pytest.mark.parametrize("kills", [30, pytest.param(1000, marks=pytest.mark.slow)])
def test_killed_at_random_moments(tmp_path: Path, kills: int) -> None:
    moments = random.Random(5)
    reached = 0
    for _ in range(kills):
        reading, told = os.pipe()
        with Process(lambda told=told: training(tmp_path, told)):  # type: ignore[misc]
            os.close(told)
            said = os.read(reading, 8) + os.read(reading, 8)  # however slow the disk, it gets on
            time.sleep(moments.uniform(0.0, 0.03))
        said += b"".join(iter(lambda reading=reading: os.read(reading, 1 << 16), b""))  # type: ignore[misc]
        os.close(reading)
        steps = [step for (step,) in struct.iter_unpack("<q", said)]
        step = example_step(tmp_path)
        assert step >= max([reached, *steps])
        assert step <= max([reached, *steps]) + 1
        reached = step
    assert reached >= kills


def test_a_reader_beside_a_writer_always_finds_a_whole_one(tmp_path: Path) -> None:
    reading, told = os.pipe()
    with Process(lambda: training(tmp_path, told)):
        os.close(told)
        os.read(reading, 8)
        step, deadline = 0, time.monotonic() + 30
        while step < 50:
            now = example_step(tmp_path)
            assert now >= step
            assert time.monotonic() < deadline
            step = now
    os.close(reading)

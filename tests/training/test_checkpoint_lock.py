"""One process at a time in a folder; a dead one holds nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fdfa.errors import CheckpointError
from fdfa.training import lock
from fdfa.training.checkpoint import write_checkpoint
from fdfa.training.lock import run_lock
from tests.training.checkpoint_cases import example, example_step
from tests.training.checkpoint_faults import Process, interfere

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks those who hold the lock")


class Holder(Process):
    """A process that holds the lock of a folder until it is told to let go, or killed."""

    def __init__(self, folder: Path) -> None:
        self._ready, ready = os.pipe()
        leave, self._leave = os.pipe()

        def hold() -> None:
            with run_lock(folder):
                os.write(ready, b"!")
                os.read(leave, 1)

        super().__init__(hold)

    def __enter__(self) -> Holder:
        super().__enter__()
        os.read(self._ready, 1)
        return self

    def let_go(self) -> None:
        os.write(self._leave, b"!")
        assert self.ended() == 0


def assert_held(folder: Path) -> str:
    with (
        pytest.raises(CheckpointError, match="another process is training in this folder") as error,
        run_lock(folder),
    ):
        pytest.fail("two at once")
    assert "Wait until it ends, stop it, or choose another folder." in str(error.value)
    return str(error.value)


def assert_free(folder: Path) -> None:
    with run_lock(folder):
        pass


def test_another_process_is_kept_out_and_told_by_whom(tmp_path: Path) -> None:
    with Holder(tmp_path) as holder:
        for _ in range(3):  # being refused takes nothing from the holder
            assert f"'{tmp_path}' is held by process {holder.number}." in assert_held(tmp_path)
        holder.let_go()
        assert_free(tmp_path)


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    for _ in range(5):
        with Holder(tmp_path):
            assert_held(tmp_path)
        # __exit__ killed it: kill -9, no clean-up
        assert_free(tmp_path)


def test_within_one_process_too(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        assert f"held by process {os.getpid()}." in assert_held(tmp_path)
        assert_held(tmp_path)
    assert_free(tmp_path)


def test_an_exception_lets_go(tmp_path: Path) -> None:
    with pytest.raises(KeyError), run_lock(tmp_path):
        raise KeyError
    assert_free(tmp_path)


def test_two_folders_are_two_locks(tmp_path: Path) -> None:
    with run_lock(tmp_path / "one"), run_lock(tmp_path / "two"), run_lock(tmp_path):
        pass


def test_the_number_of_the_holder_is_that_of_the_last(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("123456789\n" * 3)  # a longer note than the next
    with run_lock(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("note", [b"", b"\xff\xfe", b"x" * 10**6])
def test_any_note_in_the_file_is_survived(tmp_path: Path, note: bytes) -> None:
    with run_lock(tmp_path):
        (tmp_path / ".lock").write_bytes(note)
        assert len(assert_held(tmp_path)) < 400


def test_a_forked_child_that_leaves_the_block_does_not_end_the_lock(tmp_path: Path) -> None:
    with contextlib.ExitStack() as block:
        block.enter_context(run_lock(tmp_path))
        with Process(block.close) as child:  # it runs on to the end of the block, as forks may
            assert child.ended() == 0
        assert_held(tmp_path)
    assert_free(tmp_path)


def test_a_forked_child_does_not_prolong_the_lock(tmp_path: Path) -> None:
    with contextlib.ExitStack() as block:
        block.enter_context(run_lock(tmp_path))
        with Process(lambda: time.sleep(60)):  # has inherited the descriptor
            assert_held(tmp_path)
            block.close()
            assert_free(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with (
        pytest.raises(CheckpointError, match=r"cannot be held for this process.*choose another"),
        run_lock(tmp_path / "run" / "deeper"),
    ):
        pytest.fail("there is no folder")


def test_a_full_disk_takes_only_the_note(tmp_path: Path) -> None:
    def act(count: int, name: str, args: tuple[Any, ...], do: Callable[[], Any]) -> Any:
        if name in ("write", "ftruncate"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return do()

    with interfere(act), run_lock(tmp_path):
        assert "held by process (unknown)" in assert_held(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_a_file_system_without_locks_warns_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock, "_lock", refuse)
    with (
        pytest.warns(UserWarning, match="without locks: nothing keeps a second") as caught,
        run_lock(tmp_path),
    ):
        pass
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="without locks"):
        write_checkpoint(tmp_path, example(3))
    assert example_step(tmp_path) == 3


def test_another_failure_of_the_lock_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(lock, "_lock", fail)
    with pytest.raises(CheckpointError, match=r"\.lock' cannot be locked"), run_lock(tmp_path):
        pytest.fail("not locked")


def test_two_writers_at_once_in_one_folder(tmp_path: Path) -> None:
    """The second is refused, and harms nothing that the first is writing."""
    write_checkpoint(tmp_path, example(3))
    (tmp_path / ".writing-step-00000004-0a1b2c3d").mkdir()  # of the first, under way
    with Holder(tmp_path) as first:
        with pytest.raises(CheckpointError, match="another process is training in this folder"):
            write_checkpoint(tmp_path, example(4))
        assert (tmp_path / ".writing-step-00000004-0a1b2c3d").exists()
        assert example_step(tmp_path) == 3
        first.let_go()
    write_checkpoint(tmp_path, example(4))
    assert sorted(os.listdir(tmp_path)) == [".lock", "step-00000004"]

"""A disk that is full, writes short, syncs no folders or loses power; and no way round these."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fdfa.errors import CheckpointError
from fdfa.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from fdfa.training.checkpoint_names import latest
from tests.training.checkpoint_cases import (
    FILES,
    example,
    example_step,
    found,
    new,
    prepared,
)
from tests.training.checkpoint_faults import (
    Process,
    interfere,
)


@pytest.mark.parametrize("bytes_at_once", [1, 7, 4096])
def test_short_writes_are_completed(tmp_path: Path, bytes_at_once: int) -> None:
    def short(count: int, name: str, args: tuple[Any, ...], do: Callable[[], Any]) -> Any:
        if name == "write":
            return do.func(args[0], args[1][:bytes_at_once])  # type: ignore[attr-defined]
        return do()

    with interfere(short):
        write_checkpoint(tmp_path, example(60))
    assert example_step(tmp_path) == 60


def test_a_really_full_disk(tmp_path: Path) -> None:
    """The kernel's own short writes and errors, by a limit on the size of files."""
    folder = prepared(tmp_path, 30)
    big = Checkpoint(**{**vars(example(60)), "model": example(60, size=4000).model})

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (7001, 7001))
        said = "step 60 could not be written .*File too large.*Check the disk"
        with pytest.raises(CheckpointError, match=said):
            write_checkpoint(folder, big)

    with Process(limited) as writer:
        assert writer.ended() == 0
    assert found(folder) == "before"
    assert sorted(os.listdir(folder)) == [".lock", "step-00000030"]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "No space left on device. .* Free some space on the disk and resume."),
        (errno.EACCES, "Make the folder writable and resume"),
        (errno.EROFS, "read-only: choose a folder on another"),
        (errno.EIO, "Check the disk, and resume"),
    ],
)
def test_what_to_do_about_a_failing_disk(tmp_path: Path, number: int, remedy: str) -> None:
    error = OSError(number, os.strerror(number))

    def act(count: int, name: str, args: tuple[Any, ...], do: Callable[[], Any]) -> Any:
        if name == "fsync":
            raise error
        return do()

    with interfere(act), pytest.raises(CheckpointError, match=f"step 60 .*{remedy}"):
        write_checkpoint(tmp_path, example(60))


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(CheckpointError, match=r"step 60 could not be written to '.*checkpoints'"):
        write_checkpoint(tmp_path / "run" / "checkpoints", example(60))
    with pytest.raises(CheckpointError, match="cannot be searched for checkpoints"):
        read_checkpoint(tmp_path / "run")


def test_file_systems_that_sync_no_folders_are_no_obstacle(tmp_path: Path) -> None:
    def act(count: int, name: str, args: tuple[Any, ...], do: Callable[[], Any]) -> Any:
        if name == "fsync" and os.path.isdir(f"/proc/self/fd/{args[0]}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        return do()

    with interfere(act):
        write_checkpoint(tmp_path, example(60))
    assert example_step(tmp_path) == 60


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the paths of descriptors")
@pytest.mark.parametrize("before", [None, 30, 60])
def test_the_disk_has_it_all_before_names_change(tmp_path: Path, before: int | None) -> None:
    """What survives a power cut: contents and names only once they were synced.

    The journal of operations is replayed on a model of a disk: a file's bytes are safe from its
    ``fsync`` until its next write; a name is safe from the ``fsync`` of its folder on.
    """
    folder = prepared(tmp_path / "run" / "checkpoints", before)
    old = latest(folder)
    unsafe: set[str] = (
        set()
    )  # files with bytes, and folders with names, that a power cut would take
    turns: Counter[str] = Counter()

    def act(count: int, name: str, args: tuple[Any, ...], do: Callable[[], Any]) -> Any:
        path = (
            os.readlink(f"/proc/self/fd/{args[0]}")
            if isinstance(args[0], int)
            else os.path.abspath(args[0])
            if not do.keywords  # type: ignore[attr-defined]
            else "inside a folder that was hidden before"
        )
        inside = str(folder)
        if name == "write":
            unsafe.add(path)
        elif name == "fsync":
            unsafe.discard(path)
        elif name == "mkdir":
            result = do()
            unsafe.add(os.path.dirname(path))
            return result
        elif name == "open" and args[1] & os.O_CREAT:
            unsafe.add(os.path.dirname(path))
        elif name == "rename" and ".writing" in path:
            turns["appears"] += 1
            assert not [each for each in unsafe if each.startswith(path)]
            unsafe.add(inside)
        elif name in ("rename", "unlink", "rmdir") and old and path.startswith(str(old)):
            turns["old one goes"] += 1
            assert inside not in unsafe
        return do()

    with interfere(act):
        new(folder, 60)
    assert turns == ({"appears": 1} if old is None else {"appears": 1, "old one goes": 1})
    assert {path for path in unsafe if not path.startswith(str(folder))} == set()


@pytest.mark.skipif(sys.platform != "linux", reason="the events are those of POSIX")
def test_no_operation_escapes_the_tests(tmp_path: Path) -> None:
    """Python's own audit sees no more changes of the disk than the tests interfere with."""
    folder = prepared(tmp_path, 30)
    names = {
        "open": "open", "os.rename": "rename", "os.mkdir": "mkdir", "os.rmdir": "rmdir",
        "os.remove": "unlink", "os.truncate": "ftruncate", "os.link": "link",
        "os.symlink": "symlink",
    }  # fmt: skip

    def audited() -> None:
        seen: Counter[str] = Counter()
        met: Counter[str] = Counter()

        def hook(event: str, args: tuple[Any, ...]) -> None:
            if event in names and str(tmp_path) in str(args[0]) + str(folder):
                seen[names[event]] += 1

        def act(count: int, name: str, args: tuple[Any, ...], do: Callable[[], Any]) -> Any:
            met[name] += 1
            return do()

        sys.addaudithook(hook)
        with interfere(act):
            seen.clear()
            new(folder, 60)
            events = Counter(seen)
        del met["write"], met["fsync"], met["close"]  # of which there are no events
        assert events == met, (events, met)
        assert events["open"] > len(FILES)

    with Process(audited) as writer:
        assert writer.ended() == 0

"""The disk as an adversary: every operation that changes it can be the last one, or fail."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

__all__ = [
    "CHANGING",
    "Interference",
    "Process",
    "at_each_operation",
    "failing",
    "interfere",
    "killed_at",
]

# All through which this library, `pathlib` and `shutil` change a disk; reading changes nothing.
CHANGING = (
    "close",
    "fsync",
    "ftruncate",
    "link",
    "mkdir",
    "open",
    "remove",
    "rename",
    "replace",
    "rmdir",
    "symlink",
    "truncate",
    "unlink",
    "write",
)
# Takes the number of an operation (from 1), its name, its arguments, and what does it.
Interference = Callable[[int, str, tuple[Any, ...], Callable[[], Any]], Any]


@contextlib.contextmanager
def interfere(act: Interference) -> Iterator[None]:
    """Inside, each operation of this thread goes through ``act``."""
    real = {name: getattr(os, name) for name in CHANGING}
    count, thread = 0, threading.get_ident()

    def call(name: str, *args: Any, **options: Any) -> Any:
        nonlocal count
        do = functools.partial(real[name], *args, **options)
        if threading.get_ident() != thread:
            return do()
        count += 1
        return act(count, name, args, do)

    for name in CHANGING:
        setattr(os, name, functools.partial(call, name))
    try:
        yield
    finally:
        for name, function in real.items():
            setattr(os, name, function)


class Process:
    """A process of its own that does some work; killed at the latest when the block is left."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.work = work
        self._status: int | None = None

    def __enter__(self) -> Process:
        self.number = os.fork()
        if not self.number:
            status = 1
            try:
                self.work()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)  # no clean-up, which is the parent's
        return self

    def ended(self) -> int:
        """Wait for its end: its exit status, or -9 if it was killed."""
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.number, 0)[1])
        return self._status

    def __exit__(self, *error: object) -> None:
        if self._status is None:
            os.kill(self.number, signal.SIGKILL)
            self.ended()


def killed_at(operation: int, work: Callable[[], None], *, torn: bool = False) -> bool:
    """Does the work in a process that is killed just before one of its operations.

    Args:
        operation: its number, from 1.
        work: what to do.
        torn: whether half of the operation is done, if it is a write.

    Returns:
        Whether it was killed; if not, the work has fewer operations, and is done.
    """

    def act(count: int, name: str, args: tuple[Any, ...], do: Callable[[], Any]) -> Any:
        if count == operation:
            if torn and name == "write":
                do.func(args[0], args[1][: len(args[1]) // 2])  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # the signal comes
        return do()

    def killed_work() -> None:
        with interfere(act):
            work()

    with Process(killed_work) as writer:
        status = writer.ended()
    assert status in (0, -signal.SIGKILL), "the work failed by itself"
    return status != 0


def at_each_operation(once: Callable[[int], bool]) -> int:
    """Calls it with 1, 2, ... until it says that there was no such operation; says how many."""
    operation = 1
    while once(operation):
        operation += 1
        assert operation < 500, "there is no end to it"
    return operation - 1


def failing(operation: int, error: BaseException, *, for_good: bool = False) -> Interference:
    """Raises the error in place of one operation, or of that and all later ones.

    What is closed is closed all the same: so does Linux when it reports an error of that.
    """

    def act(count: int, name: str, args: tuple[Any, ...], do: Callable[[], Any]) -> Any:
        fails = count >= operation if for_good else count == operation
        if name == "close" and not isinstance(error, OSError):
            return do()  # Ctrl-C comes before or after, not from it
        if not fails or name == "close":
            result = do()
        if fails:
            raise error
        return result

    return act

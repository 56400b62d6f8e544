"""``python -m fdfa ...`` in processes of their own, to be killed, stopped, and looked at.

A forking server has imported torch and drawn a picture once, so that each starts in a tenth of a
second; what it forks is a process as the shell starts it: own signals, own streams, own exit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import random
import runpy
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fdfa.training import latest
from tests.training.checkpoint_faults import Interference, interfere

__all__ = ["Done", "Program", "cut_and_resumed", "fdfa", "finished_again", "operations_of"]

_PRELOADED = ("fdfa.cli", "fdfa.studies.plots", "tests.cli.preloaded", "tests.cli.processes")


@dataclasses.dataclass(frozen=True)
class Done:
    """How a process ended: its exit status, or minus the signal, and what it wrote."""

    status: int
    out: str
    err: str


class Program:
    """``fdfa ARGV``, running; killed at the latest when the block is left.

    Args:
        *argv: what stands behind ``fdfa``.
        cwd: where it stands; also takes the files with its streams.
        kill_at: the process dies, as of ``kill -9``, before this disk operation, counted from 1.
        fail_at: number of the disk operation, or the first of all later ones, that fails.
        environment: changes.
    """

    _count = itertools.count()

    def __init__(
        self,
        *argv: object,
        cwd: Path,
        kill_at: int | None = None,
        fail_at: tuple[int, int] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(_PRELOADED))
        number = next(self._count)
        self.streams = [cwd / f".{name}-{number}" for name in ("out", "err")]
        self.process = context.Process(
            target=_child,
            args=([str(a) for a in argv], cwd, self.streams, kill_at, fail_at, environment or {}),
        )

    def __enter__(self) -> Program:
        self.process.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        for path in self.streams:
            path.unlink(missing_ok=True)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def wait_for(self, happened: Callable[[], object], *, seconds: float = 30.0) -> None:
        """Wait until something has happened, while it runs."""
        limit = time.monotonic() + seconds
        while not happened():
            assert self.process.is_alive(), f"it ended too early: {self.done()}"
            assert time.monotonic() < limit, "it never happened"
            time.sleep(0.001)

    def done(self, seconds: float = 60.0) -> Done:
        """Wait for its end."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, "it does not end"
        texts = [path.read_text() if path.exists() else "" for path in self.streams]
        return Done(self.process.exitcode, *texts)


def fdfa(*argv: object, cwd: Path, **options: Any) -> Done:
    """Run a command to its end."""
    with Program(*argv, cwd=cwd, **options) as program:
        return program.done()


def operations_of(*argv: object, cwd: Path) -> int:
    """How many operations on the disk a command makes."""
    done = fdfa(*argv, cwd=cwd, environment={"FDFA_TEST_COUNT": "1"})
    assert done.status == 0, done.err
    return int(done.err.rpartition("operations: ")[2])


def finished_again(start: list[object], folder: Path, *, cwd: Path, **options: Any) -> Done:
    """Go on with what is in the folder; or start, where no run has come to be in it."""
    begun = (folder / "config.json").exists()
    return fdfa(*(["resume", folder, "--quiet"] if begun else start), cwd=cwd, **options)


def cut_and_resumed(
    start: list[object], folder: Path, *, cwd: Path, cuts: int, operations: int, seed: int
) -> list[int]:
    """Kill a command at a random operation, go on, kill that again; at last let it end.

    Args:
        start: the command, with ``--out folder``.
        folder: of the run.
        cwd: where it stands.
        cuts: how often it is killed, at most.
        operations: that the whole command makes.
        seed: of the moments.

    Returns:
        The step of the checkpoint that each cut left; 0 for none.
    """
    chance, steps = random.Random(seed), []
    while len(steps) < cuts:
        at = operations // 5 + chance.randint(0, operations // 3)  # mostly behind a checkpoint
        done = finished_again(start, folder, cwd=cwd, kill_at=at)
        if done.status == 0:
            break
        assert done.status == -signal.SIGKILL, done.err
        found = [latest(place) for place in sorted(folder.rglob("checkpoints"))]
        steps.append(max((int(path.name[5:13]) for path in found if path is not None), default=0))
    done = finished_again(start, folder, cwd=cwd)
    assert done.status == 0, done.err
    return steps


def _child(
    argv: list[str],
    cwd: Path,
    streams: list[Path],
    kill_at: int | None,
    fail_at: tuple[int, int] | None,
    environment: Mapping[str, str],
) -> None:
    """The process, from here to its end."""
    os.chdir(cwd)
    os.environ.update({"COLUMNS": "80", "OMP_NUM_THREADS": "1", **environment})
    for number, path in enumerate(streams, 1):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
    sys.argv = ["fdfa", *argv]
    status = 1
    with _interference(kill_at, fail_at) as count:
        try:
            runpy.run_module("fdfa", run_name="__main__")
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    if "FDFA_TEST_COUNT" in environment:
        print(f"operations: {count()}", file=sys.stderr)
    sys.stdout.flush()
    os._exit(status)


@contextlib.contextmanager
def _interference(
    kill_at: int | None, fail_at: tuple[int, int] | None
) -> Iterator[Callable[[], int]]:
    last = 0

    def act(count: int, name: str, args: tuple[Any, ...], do: Callable[[], Any]) -> Any:
        nonlocal last
        last = count
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if fail_at is not None and count >= fail_at[0] and name in ("open", "write", "mkdir"):
            raise OSError(fail_at[1], os.strerror(fail_at[1]))
        return do()

    acting: Interference = act
    with interfere(acting):
        yield lambda: last

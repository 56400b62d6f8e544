"""Runs spread over processes: one thread each, and none where one at a time is asked for."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import fdfa.errors
from fdfa.errors import FDFAError
from fdfa.studies.devices import chosen_device
from fdfa.studies.json_values import plain
from fdfa.studies.kept_runs import kept_run
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.runs import StudyObserver
from fdfa.studies.setup import TrainConfig

__all__ = ["make_runs", "usable_cores", "workers_for"]

Jobs = Mapping[Path, TrainConfig]


def usable_cores() -> int:
    """Cores that this process may use.

    Returns:
        How many.

    Example:
        >>> usable_cores() > 0
        True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def workers_for(asked: int | None, *, jobs: int, device: str) -> int:
    """How many processes train at the same time.

    Args:
        asked: by the user; None leaves the choice to this function.
        jobs: that there are.
        device: where they train, as torch writes devices, or auto.

    Returns:
        One for each usable core, since each takes one thread; on a GPU one; never more than jobs.

    Example:
        >>> workers_for(None, jobs=1, device="cpu")
        1
    """
    chosen = asked or (usable_cores() if chosen_device(device).type == "cpu" else 1)
    return max(1, min(chosen, jobs))


def make_runs(
    jobs: Jobs,
    *,
    workers: int,
    observer: StudyObserver,
    finished: Callable[[Path], None],
) -> None:
    """Make every run, each in its folder.

    Args:
        jobs: configurations by folder, in the order in which they are begun.
        workers: processes; with one, the runs are made in this one.
        observer: is told of the steps of runs that are made in this process.
        finished: is called with the folder of a run that is finished.

    Raises:
        FDFAError: why a run could not begin, or could not be kept; others wrote checkpoints.
        ChildProcessError: if a process ended of itself.
        KeyboardInterrupt: after Ctrl-C, when every process has written its checkpoint.
    """
    if workers == 1:
        for path, config in jobs.items():
            kept_run(RunFolder(path), config, observer=observer)
            finished(path)
        return
    with _Crew(workers).working() as crew:
        futures = {crew.submit(path, config): path for path, config in jobs.items()}
        for future in concurrent.futures.as_completed(futures):
            future.result()
            finished(futures[future])


class _Crew:
    """Processes that make runs, each served by a thread of this one."""

    def __init__(self, count: int) -> None:
        self.mine = threading.local()
        self.processes: list[subprocess.Popen[str]] = []
        self.threads = concurrent.futures.ThreadPoolExecutor(count, initializer=self._hire)

    @contextlib.contextmanager
    def working(self) -> Iterator[_Crew]:
        """At the end, however it comes, no process is left: each may finish its step."""
        try:
            yield self
        finally:
            self.threads.shutdown(wait=False, cancel_futures=True)
            try:
                self._dismiss()
            except BaseException:  # a second Ctrl-C: no time for checkpoints
                for process in self.processes:
                    process.kill()
                raise

    def submit(self, path: Path, config: TrainConfig) -> concurrent.futures.Future[None]:
        """To whichever process is free next."""
        return self.threads.submit(self._make, path, config)

    def _hire(self) -> None:
        # Ctrl-C reaches every process of a terminal, and one that only just starts would die of it:
        # it inherits that this thread leaves the signal to the study.
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        self.mine.process = subprocess.Popen(
            [sys.executable, "-m", "fdfa.studies.reproduce.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            encoding="utf-8",
        )
        self.processes.append(self.mine.process)

    def _make(self, path: Path, config: TrainConfig) -> None:
        process: subprocess.Popen[str] = self.mine.process
        orders, answers = _streams(process)
        with contextlib.suppress(BrokenPipeError):  # then it has ended, and there is no answer
            print(json.dumps({"folder": str(path), "config": plain(config)}), file=orders)
            orders.flush()
        line = answers.readline()
        if not line:
            raise ChildProcessError(
                f"the process that trained in '{path}' ended with status {process.wait()}, as "
                "one does that takes too much memory. The same command goes on. Give --workers 1 "
                "to make one run at a time."
            )
        answer = json.loads(line)
        if "interrupted" in answer:
            raise KeyboardInterrupt
        if "error" in answer:
            ours = getattr(fdfa.errors, answer["error"], None)
            if ours is None:
                raise FDFAError(
                    f"the run in '{path}' cannot go on ({answer['error']}: {answer['text']}). "
                    "Remedy that, and give the same command: it goes on."
                )
            raise ours(answer["text"])

    def _dismiss(self) -> None:
        for process in self.processes:
            with contextlib.suppress(BrokenPipeError):
                _streams(process)[0].close()
        for process in self.processes:
            process.wait()
        self.threads.shutdown()  # which read the last answers
        for process in self.processes:
            _streams(process)[1].close()


def _streams(process: subprocess.Popen[str]) -> Sequence[IO[str]]:
    """Where orders go, and where answers come from."""
    assert process.stdin is not None  # noqa: S101  # both are pipes
    assert process.stdout is not None  # noqa: S101
    return process.stdin, process.stdout

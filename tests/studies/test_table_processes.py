"""A table over several processes: killed at any moment, it goes on, and nothing runs on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fdfa.studies.json_values import plain
from fdfa.studies.reproduce import worker
from fdfa.studies.reproduce.workers import make_runs
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.runs import StudyObserver, recall
from fdfa.studies.setup import TrainConfig
from fdfa.studies.task import Task
from fdfa.studies.train import spelled_out
from fdfa.training import TrainingSettings, latest
from tests.studies.tables import SMALL, written

QUICK = TrainConfig(
    task=Task(model_options={"width": 8, "depth": 1}),
    method="dfa",
    training=TrainingSettings(epochs=2, batch_size=256),
)


class TestWorker:
    """One job after the other, in this process."""

    def job(self, folder: Path, config: TrainConfig = QUICK) -> dict[str, Any]:
        return {"folder": str(folder), "config": plain(spelled_out(config))}

    def test_told_to_stop_it_keeps_a_checkpoint_and_the_next_goes_on(self, tmp_path: Path) -> None:
        stop = threading.Event()
        assert worker._answer(self.job(tmp_path / "whole"), stop) == {}
        stop.set()
        assert worker._answer(self.job(tmp_path / "cut"), stop) == {"interrupted": "yes"}
        assert latest(tmp_path / "cut" / "checkpoints") is not None
        assert recall(RunFolder(tmp_path / "cut")) is None
        stop.clear()
        assert worker._answer(self.job(tmp_path / "cut"), stop) == {}
        for name in ("model.safetensors", "metrics.jsonl", "results.json"):
            assert (tmp_path / "cut" / name).read_bytes() == (
                tmp_path / "whole" / name
            ).read_bytes()

    def test_what_a_step_raises_is_a_failed_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not the end of the study: the others go on."""

        def burst(*_: object) -> None:
            raise RuntimeError("out of memory")

        monkeypatch.setattr("fdfa.studies.train.rehearse", lambda *_: None)
        monkeypatch.setattr("fdfa.training.learning.Learning.take", burst, raising=True)
        assert worker._answer(self.job(tmp_path / "run"), threading.Event()) == {}
        run = recall(RunFolder(tmp_path / "run"))
        assert run is not None
        assert run.failure == "RuntimeError: out of memory"

    def test_what_stands_in_the_way_is_answered(self, tmp_path: Path) -> None:
        other = dataclasses.replace(QUICK, seed=1)
        assert worker._answer(self.job(tmp_path / "run"), threading.Event()) == {}
        answer = worker._answer(self.job(tmp_path / "run", other), threading.Event())
        assert answer["error"] == "ConfigError"
        assert "holds a run with another seed than this study's" in answer["text"]

    def test_a_line_is_a_job_and_their_end_an_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import io
        import queue

        monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\n"))
        jobs: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        stop = threading.Event()
        worker._listen(jobs, stop)
        assert [jobs.get() for _ in range(3)] == ["one\n", "two\n", None]
        assert stop.is_set()


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs a signal mask")
def test_ctrl_c_does_not_end_a_process_that_only_just_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the interpreter does before it has read a line of ours, this one minds the signal."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nread job\nkill -INT $$\necho '{}'\nread job\n")
    program.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(program))
    done: list[Path] = []
    jobs = {tmp_path / "run": QUICK}
    make_runs(jobs, workers=2, observer=StudyObserver(), finished=done.append)
    assert done == [tmp_path / "run"]


LONG = SMALL.replace("epochs = 2, batch_size = 256", "epochs = 25, batch_size = 32")
RUNS = 6


class Study:
    """``fdfa reproduce study``, in processes of its own that stand in ``place``."""

    def __init__(self, place: Path, out: str) -> None:
        self.place, self.out = place, place / out
        self.words = [
            *(sys.executable, "-m", "fdfa", "reproduce", "study", "small.toml"),
            *("--out", out, "--workers", "2", "--device", "cpu"),
        ]

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            self.words,
            cwd=self.place,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()  # which closes its streams

    def finished(self) -> dict[str, int]:
        """When each finished run was finished."""
        return {
            path.parent.name: path.stat().st_mtime_ns
            for path in self.out.glob("runs/*/results.json")
        }

    def made(self) -> str:
        """To its end: what it said."""
        with self.running() as process:
            _, said = process.communicate(timeout=180)
        assert process.returncode == 0, said
        return said


def standing_in(place: Path) -> list[int]:
    """Processes whose working directory it is."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cwd").readlink() == place:
                found.append(int(entry.name))
    return found


def wait_for(happened: Callable[[], object], *, seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < limit, "it never happened"
        time.sleep(0.01)


def same_results(mine: Path, other: Path) -> None:
    """But for the times."""
    found, wanted = (
        json.loads((out / "results.json").read_text())["units"] for out in (mine, other)
    )
    for unit in (*found.values(), *wanted.values()):
        assert unit.pop("seconds") > 0
    assert found == wanted
    for weights in other.glob("runs/*/model.safetensors"):
        own = mine / "runs" / weights.parent.name / weights.name
        assert own.read_bytes() == weights.read_bytes(), weights.parent.name


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("undisturbed").resolve()
    written(place, LONG)
    assert f"[{RUNS}/{RUNS}]" in Study(place, "out").made()
    return place / "out"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
class TestProcesses:
    def test_killed_at_some_moments_it_goes_on(self, tmp_path: Path, undisturbed: Path) -> None:
        """No finished run is made again, and no process runs on without its study."""
        place = tmp_path.resolve()
        written(place, LONG)
        study = Study(place, "out")
        for runs, steps in ((0, 1), (1, 0), (3, 2)):
            before = study.finished()
            assert len(before) <= runs
            with study.running() as process:
                wait_for(lambda runs=runs: len(study.finished()) >= runs)
                wait_for(lambda: list(study.out.glob("runs/*/metrics.jsonl")))
                time.sleep(0.1 * steps)
                process.kill()
                process.wait()
                wait_for(lambda: not standing_in(place), seconds=20)
            after = study.finished()
            assert before.items() <= after.items(), "a finished run was made again"
            assert len(after) < RUNS, "killed too late to show anything"
        done = study.finished()
        said = study.made()
        assert f"{len(done)} of {RUNS} runs were finished before" in said
        assert done.items() <= study.finished().items()
        same_results(study.out, undisturbed)

    def test_ctrl_c_leaves_checkpoints_and_nothing_running(
        self, tmp_path: Path, undisturbed: Path
    ) -> None:
        place = tmp_path.resolve()
        written(place, LONG)
        study = Study(place, "out")
        with study.running() as process:
            wait_for(study.finished)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
            _, said = process.communicate(timeout=60)
            assert process.returncode == 130, said
            assert standing_in(place) == []
        assert "Interrupted. The same command goes on." in said
        assert "Traceback" not in said
        begun = [path.parent for path in study.out.glob("runs/*/config.json")]
        unfinished = [run for run in begun if not (run / "results.json").exists()]
        assert unfinished
        assert all(latest(run / "checkpoints") is not None for run in unfinished)
        study.made()
        same_results(study.out, undisturbed)

    def test_processes_make_what_one_does(self, tmp_path: Path, undisturbed: Path) -> None:
        place = tmp_path.resolve()
        written(place, LONG)
        study = Study(place, "out")
        study.words[study.words.index("2")] = "1"
        study.made()
        same_results(study.out, undisturbed)

    def test_one_process_that_dies_stops_the_study_and_is_named(self, tmp_path: Path) -> None:
        place = tmp_path.resolve()
        written(place, LONG)
        study = Study(place, "out")
        with study.running() as process:
            wait_for(lambda: list(study.out.glob("runs/*/metrics.jsonl")))
            (victim, *_) = [number for number in standing_in(place) if number != process.pid]
            os.kill(victim, signal.SIGKILL)
            _, said = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "ended with status -9" in " ".join(said.replace("│", " ").split())
        assert standing_in(place) == []

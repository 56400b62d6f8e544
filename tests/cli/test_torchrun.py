"""Two processes that ``torchrun`` would start: one run, one folder, one voice."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fdfa.training import latest, read_checkpoint
from tests.cli.processes import Done, Program, operations_of
from tests.studies.folders import assert_same_runs

pytestmark = pytest.mark.distributed

TRAIN = ["train", "--epochs", "2", "--batch-size", "128", "--checkpoint-steps", "4"]
TRAIN += ["--model-options", "width=8", "depth=1", "--log-steps", "1", "--method", "fdfa"]


@contextlib.contextmanager
def both(*argv: object, cwd: Path, kill_at: int | None = None) -> Iterator[list[Program]]:
    """The command in two processes that know of each other; the first may be killed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    programs = [
        Program(
            *argv,
            cwd=cwd,
            kill_at=kill_at if rank == 0 else None,
            environment={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(program) for program in programs]


def ended(*argv: object, cwd: Path) -> list[Done]:
    with both(*argv, cwd=cwd) as programs:
        return [program.done() for program in programs]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Done]]:
    """A run of two processes that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    return folder / "run", ended(*TRAIN, "--out", folder / "run", cwd=folder)


def test_two_processes_write_one_folder_and_one_of_them_speaks(
    whole: tuple[Path, list[Done]],
) -> None:
    out, (first, second) = whole
    assert (first.status, second.status) == (0, 0)
    assert "fdfa: test accuracy" in first.out
    assert "epoch 2/2" in first.err
    assert second.out == ""
    assert "epoch" not in second.err
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 11), (2, 22)]
    environment = json.loads((out / "config.json").read_text())["environment"]
    assert environment["processes"] == 2
    assert read_checkpoint(out / "checkpoints").values["processes"] == 2


@pytest.mark.parametrize("how", ["asked to stop", "killed"])
def test_a_run_of_two_processes_goes_on(
    how: str, whole: tuple[Path, list[Done]], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    argv = [*TRAIN, "--out", out]
    if how == "killed":
        moment = operations_of(*TRAIN, "--out", tmp_path / "counted", cwd=tmp_path) // 2
        with both(*argv, cwd=tmp_path, kill_at=moment) as (first, _second):
            assert first.done().status == -signal.SIGKILL
    else:
        with both(*argv, cwd=tmp_path) as (first, second):
            first.wait_for(lambda: latest(out / "checkpoints") is not None)
            second.send(signal.SIGTERM)  # one of them is enough
            done = [first.done(), second.done()]
        assert [each.status for each in done] == [130, 130]
        assert f"fdfa resume {out}" in " ".join(done[0].err.split())
    assert 0 < read_checkpoint(out / "checkpoints").step < 22
    done = ended("resume", out, cwd=tmp_path)
    assert [each.status for each in done] == [0, 0], done[0].err
    assert_same_runs(out, whole[0])


def test_one_process_cannot_go_on_with_what_two_began(
    whole: tuple[Path, list[Done]], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with both(*TRAIN, "--out", out, cwd=tmp_path) as (first, second):
        first.wait_for(lambda: latest(out / "checkpoints") is not None)
        for program in (first, second):
            program.send(signal.SIGKILL)
        first.done()
    with Program("resume", out, cwd=tmp_path) as alone:
        done = alone.done()
    assert done.status == 2
    print(done.err)
    assert "--nproc-per-node 2" in done.err
    assert done.err.count("╭") == 1


def test_a_comparison_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    for done in ended("compare", "--epochs", "1", "--out", out, cwd=tmp_path):
        assert done.status == 2
    assert not out.exists()


@pytest.mark.slow
def test_torchrun_itself(whole: tuple[Path, list[Done]], tmp_path: Path) -> None:
    """As it is typed; and a folder that is in use is refused to all of its processes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", "-m", "fdfa", *TRAIN, "--out", "run"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 1
    assert_same_runs(tmp_path / "run", whole[0])

"""A run cut anywhere loses nothing: killed, stopped, resumed, it ends as the one that was not."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fdfa as library
from fdfa.cli import main
from fdfa.data import registry
from fdfa.training import latest, read_checkpoint
from tests.cli.processes import Program, cut_and_resumed, fdfa, finished_again, operations_of
from tests.methods import NAMES
from tests.studies.folders import assert_same_comparisons, assert_same_runs, runs_of

SMALL = ["--batch-size", "256", "--model-options", "width=8", "depth=1", "--checkpoint-steps", "4"]
TRAIN = ["train", *SMALL, "--epochs", "3"]
COMPARE = ["compare", *SMALL, "--epochs", "2", "--seeds", "2", "--timing-rounds", "10"]
# Everything at once that has a state of its own, or a random number.
RICH = [
    *("--patience", "1", "--augment", "crop", "flip", "--log-steps", "2", "--accumulate", "2"),
    *("--schedule", "cosine", "--warmup-epochs", "0.5", "--clip-norm", "1", "--optimizer", "sgd"),
    *("--learning-rate", "0.5", "--validation", "50", "--epochs", "9"),
]


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Disk operations of a whole run: so many moments there are."""
    folder = tmp_path_factory.mktemp("counted")
    return operations_of(*TRAIN, "--out", folder / "run", cwd=folder)


def words(text: str) -> str:
    """The text of a panel without its frame and line breaks."""
    return " ".join(text.replace("│", " ").split())


def whole(argv: list[str], out: Path) -> Path:
    """The same, never interrupted, in this process."""
    assert main([*argv, "--quiet", "--json", "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize(
    "method",
    [pytest.param(n, marks=() if n == "fdfa" else pytest.mark.slow) for n in library.methods()],
)
def test_a_run_killed_again_and_again_ends_as_one_that_was_not(
    method: str, counted: int, tmp_path: Path
) -> None:
    argv = [*TRAIN, "--method", method]
    expected = whole(argv, tmp_path / "whole")
    out = tmp_path / "cut"
    steps = cut_and_resumed(
        [*argv, "--out", out, "--quiet"], out, cwd=tmp_path, cuts=3, operations=counted, seed=1
    )
    assert len(steps) > 1
    assert 0 < max(steps) < 18, f"the cuts fell at {steps}"
    assert_same_runs(out, expected)


def test_whatever_has_a_state_of_its_own_goes_on_as_well(counted: int, tmp_path: Path) -> None:
    argv = [*SMALL, *RICH]
    expected = whole(["train", *argv], tmp_path / "whole")
    epochs = len((expected / "metrics.jsonl").read_text().splitlines())
    assert 1 < epochs < 9, "patience did not run out: the case says less than it should"
    out = tmp_path / "cut"
    start = ["train", *argv, "--out", out, "--quiet"]
    steps = cut_and_resumed(start, out, cwd=tmp_path, cuts=3, operations=counted, seed=2)
    assert len(steps) > 1
    assert 0 < max(steps) < 6 * epochs, f"the cuts fell at {steps}"
    assert_same_runs(out, expected)


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path: Path) -> None:
    argv = [*TRAIN[:-1], "1", "--checkpoint-steps", "100"]
    expected = whole(argv, tmp_path / "whole")
    out = tmp_path / "cut"
    with Program(*argv, "--out", out, "--log-steps", "1", cwd=tmp_path) as program:
        program.wait_for(lambda: (out / "steps.jsonl").exists())
        program.send(signal.SIGKILL)
        assert program.done().status == -signal.SIGKILL
    assert latest(out / "checkpoints") is None
    assert fdfa("resume", out, cwd=tmp_path).status == 0
    for name in ("model.safetensors", "metrics.jsonl", "results.json"):
        assert (out / name).read_bytes() == (expected / name).read_bytes()


def test_what_is_left_of_a_start_that_was_killed_is_in_nobodys_way(tmp_path: Path) -> None:
    """Killed at each moment until there is a config.json: the same command can be typed again."""
    out, argv = tmp_path / "run", [*TRAIN[:-1], "1", "--quiet", "--out"]
    for operation in range(1, 40):
        done = fdfa(*argv, out, cwd=tmp_path, kill_at=operation)
        assert done.status == -signal.SIGKILL, done.err
        if (out / "config.json").exists():
            break
    assert (out / "config.json").exists()
    assert operation > 3
    assert fdfa("resume", out, cwd=tmp_path).status == 0


def test_a_comparison_killed_again_and_again(tmp_path: Path) -> None:
    """Runs that were finished are not touched again, and the time of a step is measured once."""
    argv = [*COMPARE, "--methods", "dfa", "backpropagation"]
    expected = whole(argv, tmp_path / "whole")
    out = tmp_path / "cut"
    start = [*argv, "--out", out, "--quiet"]
    finished: dict[Path, tuple[int, bytes]] = {}
    chance = random.Random(3)
    for _ in range(4):
        done = finished_again(start, out, cwd=tmp_path, kill_at=chance.randint(100, 400))
        assert done.status in (0, -signal.SIGKILL), done.err
        for path, before in finished.items():
            assert (path.stat().st_mtime_ns, path.read_bytes()) == before
        for path in [*out.glob("runs/*/results.json"), *out.glob("costs.json")]:
            for kept in (path, path.with_name("model.safetensors")):
                if kept.exists():
                    finished[kept] = kept.stat().st_mtime_ns, kept.read_bytes()
    assert len(finished) > 1
    assert finished_again(start, out, cwd=tmp_path).status == 0
    assert len(runs_of(out)) == 4
    assert_same_comparisons(out, expected)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_stops_a_training_between_two_steps(
    number: signal.Signals, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    argv = [*TRAIN[:-1], "1000", "--checkpoint-steps", "10000", "--log-steps", "1", "--out", out]
    with Program(*argv, cwd=tmp_path) as program:
        program.wait_for(lambda: (out / "steps.jsonl").exists())
        program.send(number)
        done = program.done()
    assert done.status == 130
    step = read_checkpoint(out / "checkpoints").step
    assert step == len((out / "steps.jsonl").read_text().splitlines())
    said = words(done.err)
    assert f"Interrupted: after step {step}. `fdfa resume {out}` goes on." in said
    assert "Traceback" not in done.err
    assert done.out == ""


def test_two_runs_into_one_folder_at_once(tmp_path: Path) -> None:
    """The second is told, whatever it wants, and changes nothing."""
    out = tmp_path / "run"
    argv = [*TRAIN[:-1], "1000", "--out", out, "--quiet"]
    with Program(*argv, cwd=tmp_path) as first:
        first.wait_for(lambda: latest(out / "checkpoints") is not None)
        config = (out / "config.json").read_bytes()
        for second in ([*argv, "--overwrite"], ["resume", str(out)]):
            done = fdfa(*second, cwd=tmp_path)
            assert done.status == 1
            said = words(done.err)
            assert f"is held by process {first.process.pid}" in said
            assert done.err.count("╭") == 1
        done = fdfa(*argv, cwd=tmp_path)
        assert done.status == 2
        assert "is not empty" in words(done.err)
        assert first.process.is_alive()
        first.send(signal.SIGINT)
        assert first.done().status == 130
    assert (out / "config.json").read_bytes() == config
    read_checkpoint(out / "checkpoints")


@pytest.mark.parametrize("moment", ["first", "later"])
def test_a_full_disk_is_one_panel_and_the_old_checkpoint_is_whole(
    moment: str, counted: int, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    at = 1 if moment == "first" else counted * 2 // 3
    done = fdfa(*TRAIN, "--out", out, "--quiet", cwd=tmp_path, fail_at=(at, errno.ENOSPC))
    assert done.status == 1
    assert "No space left on device" in words(done.err)
    assert done.err.count("╭") == 1
    assert "Traceback" not in done.err
    if moment == "later":
        assert 0 < read_checkpoint(out / "checkpoints").step < 18
        assert fdfa("resume", out, cwd=tmp_path).status == 0  # there is room again
        assert_same_runs(out, whole(TRAIN, tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.parametrize("method", NAMES)
def test_killed_at_every_seventh_operation(method: str, tmp_path: Path) -> None:
    """Each run is killed once and resumed once; all moments there are, in steps of seven."""
    argv = [*TRAIN, "--method", method]
    counted = operations_of(*argv, "--out", tmp_path / "counted", cwd=tmp_path)
    expected = whole(argv, tmp_path / "whole")
    for operation in range(1 + list(library.methods()).index(method), counted, 7):
        out = tmp_path / f"cut-{operation}"
        start = [*argv, "--out", out, "--quiet"]
        assert fdfa(*start, cwd=tmp_path, kill_at=operation).status == -signal.SIGKILL
        assert finished_again(start, out, cwd=tmp_path).status == 0
        try:
            assert_same_runs(out, expected)
        except AssertionError as error:
            raise AssertionError(f"killed at operation {operation}: {error}") from None


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_comparison_killed_at_random_moments(seed: int, tmp_path: Path) -> None:
    argv = [*COMPARE, "--methods", *library.methods(), "--log-steps", "5"]
    expected = whole(argv, tmp_path / "whole")
    out = tmp_path / "cut"
    start = [*argv, "--out", out, "--quiet"]
    operations = operations_of(*argv, "--out", tmp_path / "counted", cwd=tmp_path)
    cut_and_resumed(start, out, cwd=tmp_path, cuts=8, operations=operations, seed=seed)
    assert_same_comparisons(out, expected)


def killed_by_the_clock(start: list[str], out: Path, *, kills: int, longest: float) -> list[int]:
    """``python -m fdfa`` as the shell starts it, killed at random times; the steps it came to.

    Mostly the clock runs from the first step: to import torch is not what is tested.
    """
    chance, steps = random.Random(4), []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for kill in range(kills + 1):
        begun = (out / "config.json").exists()
        argv = ["resume", str(out), "--quiet"] if begun else [*start, "--quiet"]
        process = subprocess.Popen(
            [sys.executable, "-m", "fdfa", *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        if kill < kills:
            if kill % 4:
                _until_it_grows(out / "steps.jsonl", process)
            else:
                _until_held(out / ".lock", process)
            time.sleep(chance.uniform(0, longest))
            process.kill()
        _, said = process.communicate(timeout=600)
        if kill < kills:
            assert process.returncode == -signal.SIGKILL, f"it was too fast: {steps}, {said}"
            saved = latest(out / "checkpoints") is not None
            steps.append(read_checkpoint(out / "checkpoints").step if saved else 0)
    assert process.returncode == 0, said
    return steps


def _until_held(lock: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the process has taken the lock: its number stands in the file."""
    limit = time.monotonic() + 120
    while not lock.exists() or lock.read_text().strip() != str(process.pid):
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.005)


def _until_it_grows(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a step has written a line: at its start a resumed run only takes some back."""
    limit, before = time.monotonic() + 120, 10**9
    while (size := path.stat().st_size if path.exists() else 0) <= before:
        assert process.poll() is None
        assert time.monotonic() < limit
        before = size
        time.sleep(0.002)


@pytest.mark.slow
def test_killed_by_the_clock(tmp_path: Path) -> None:
    argv = ["train", "--epochs", "40", "--checkpoint-steps", "5", "--log-steps", "3"]
    expected = whole(argv, tmp_path / "whole")
    out = tmp_path / "cut"
    steps = killed_by_the_clock([*argv, "--out", str(out)], out, kills=6, longest=0.4)
    assert len(set(steps)) > 2, f"the cuts fell at {steps}"
    assert_same_runs(out, expected)


@pytest.mark.slow
def test_fdfa_on_mnist_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    """The paper's setting, but for the width; needs MNIST in FDFA_DATA."""
    if registry.located(registry.describe("mnist")) is None:
        pytest.skip("MNIST is neither in $FDFA_DATA nor in the cache")
    argv = ["train", "--data", "mnist", "--method", "fdfa", "--epochs", "4"]
    argv += ["--checkpoint-steps", "20", "--model-options", "width=128", "--log-steps", "10"]
    expected = whole(argv, tmp_path / "whole")
    out = tmp_path / "cut"
    steps = killed_by_the_clock([*argv, "--out", str(out)], out, kills=20, longest=0.8)
    assert len(set(steps)) > 12, f"the cuts fell at {steps}"
    assert_same_runs(out, expected)

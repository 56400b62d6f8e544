"""The command as the shell starts it: entry points, streams, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fdfa.training import read_checkpoint

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}


def fdfa(*argv: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fdfa", *argv],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
        timeout=120,
        **options,
    )


def test_import_fdfa_brings_neither_command_line_nor_pictures() -> None:
    """And the command line brings no pictures: matplotlib alone takes half a second."""
    code = (
        "import sys, fdfa\n"
        "early = {'tyro', 'rich', 'matplotlib', 'fdfa.studies'} & set(sys.modules)\n"
        "import fdfa.cli\n"
        "print(early, 'matplotlib' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stdout == "set() False\n"


def test_the_module_answers_and_separates_its_streams() -> None:
    listed = fdfa("methods", "--json")
    assert listed.returncode == 0
    assert json.loads(listed.stdout)[0]["name"] == "backpropagation"
    wrong = fdfa("compare", "--data", "digitz")
    assert wrong.returncode == 2
    assert wrong.stdout == ""
    assert "Did you mean 'digits'?" in wrong.stderr


@pytest.mark.slow
def test_the_installed_command_runs_the_first_example(tmp_path: Path) -> None:
    """Exactly the line of the README, with fewer epochs: nothing but plain lines in a file."""
    command = Path(sys.executable).with_name("fdfa")
    argv = "compare --data digits --methods backpropagation dfa fdfa --epochs 2 --seeds 3"
    done = subprocess.run(
        [command, *argv.split(), "--out", "runs/first"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=tmp_path,
        check=True,
        timeout=300,
    )
    assert "\x1b" not in done.stdout + done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("[")]) == 9
    assert done.stdout.splitlines()[-1].startswith("Written to runs/first: config.json,")
    metrics = list((tmp_path / "runs" / "first" / "runs").glob("*/metrics.jsonl"))
    assert len(metrics) == 3 * 3
    assert all(len(path.read_text().splitlines()) == 2 for path in metrics)


@pytest.mark.slow
def test_ctrl_c_leaves_what_is_finished(tmp_path: Path) -> None:
    argv = ["compare", "--methods", "dfa", "fdfa", "--epochs", "40", "--seeds", "50"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fdfa", *argv, "--out", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stderr is not None
    assert process.stdout is not None
    for line in process.stderr:
        if line.startswith("[2/100]"):
            break
    process.send_signal(signal.SIGINT)
    shown, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "of 100 runs were finished" in said
    assert f"`fdfa resume {tmp_path / 'run'}` goes on." in " ".join(said.split())
    assert "Traceback" not in said
    assert " fdfa " in shown
    runs = [path for path in (tmp_path / "run" / "runs").iterdir() if path.is_dir()]
    assert len([run for run in runs if (run / "results.json").exists()]) >= 2
    for run in runs:
        lines = (run / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [*range(1, len(lines) + 1)]
        read_checkpoint(run / "checkpoints")  # of the one that was interrupted, too
    hidden = [path for path in (tmp_path / "run").rglob(".*") if path.name != ".lock"]
    assert not hidden


def test_a_reader_that_leaves_early_is_no_error() -> None:
    """``fdfa methods | head``: no complaint about a broken pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "fdfa", "methods"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        check=False,
        timeout=120,
    )
    os.close(writing)
    assert done.stderr == ""

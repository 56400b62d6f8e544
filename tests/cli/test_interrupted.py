"""Commands that Ctrl-C stops."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch

from fdfa.cli import main
from fdfa.training import StepResult, Trainer, read_checkpoint
from tests.cli.typed import COMPARE, QUICK, Capture, words
from tests.studies.folders import assert_same_comparisons, assert_same_runs


def interrupting(monkeypatch: pytest.MonkeyPatch, at: int, *, gently: bool = True) -> None:
    """Ctrl-C after so many steps of the process; a second one at once if not gently."""
    steps = 0

    def step_finished(self: object, trainer: Trainer, result: StepResult) -> None:
        nonlocal steps
        steps += 1
        if steps == at:
            signal.raise_signal(signal.SIGINT)
            if not gently:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("fdfa.studies.progress.PlainProgress.step_finished", step_finished)


def test_an_interrupted_comparison_shows_what_it_has_and_ends_with_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    out = tmp_path / "run"
    argv = [*COMPARE, "--methods", "backpropagation", "fdfa", "--out", str(out)]
    with monkeypatch.context() as patch:
        interrupting(patch, at=6 + 2)
        assert main(argv) == 130
    captured = capsys.readouterr()
    assert "Interrupted: 1 of 2 runs were finished" in words(captured.err)
    assert f"`fdfa resume {out}` goes on." in words(captured.err)
    assert " backpropagation " in captured.out
    assert read_checkpoint(out / "runs" / "fdfa-seed-0" / "checkpoints").step == 2
    assert main(["resume", str(out)]) == 0
    captured = capsys.readouterr()
    assert " fdfa " in captured.out
    assert json.loads((out / "results.json").read_text())["complete"] is True
    assert main([*argv[:-1], str(tmp_path / "whole"), "--quiet"]) == 0
    assert_same_comparisons(out, tmp_path / "whole")


@pytest.mark.parametrize("gently", [True, False], ids=["once", "twice"])
def test_an_interrupted_training_ends_with_130(
    gently: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """In mid-epoch, with a checkpoint written; a second Ctrl-C waits for none."""
    threads = torch.get_num_threads()
    out = tmp_path / "run"
    argv = ["train", *QUICK, "--epochs", "3", "--checkpoint-steps", "3", "--out", str(out)]
    with monkeypatch.context() as patch:
        interrupting(patch, at=11, gently=gently)
        assert main(argv) == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    if gently:
        assert f"Interrupted: after step 11. `fdfa resume {out}` goes on." in words(captured.err)
    assert "Interrupted" in captured.err
    assert "Traceback" not in captured.err
    assert read_checkpoint(out / "checkpoints").step == (11 if gently else 9)
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 1
    assert torch.get_num_threads() == threads
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert main(["resume", str(out)]) == 0
    assert main([*argv[:-1], str(tmp_path / "whole"), "--quiet"]) == 0
    assert_same_runs(out, tmp_path / "whole")


def test_without_a_folder_an_interruption_says_that_nothing_was_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    interrupting(monkeypatch, at=2)
    assert main(["train", *QUICK]) == 130
    assert "Interrupted: after step 2. Nothing was kept: --out FOLDER would have." in words(
        capsys.readouterr().err
    )

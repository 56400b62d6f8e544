"""Peak memory, against memory that the test itself takes and gives back."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from fdfa.training import Callback, EpochResult, MetricsLog, StepResult, Trainer, TrainingSettings
from fdfa.training.peak_memory import count_peak_anew, peak_memory
from tests.training.networks import dense, points

MEBIBYTE = 2**20
TAKEN = 128 * MEBIBYTE
CPU = torch.device("cpu")

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how much it was")


class Hungry(Callback):
    """Fills much memory for a moment, in the second epoch alone."""

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        if result.epoch == 2:
            torch.ones(TAKEN, dtype=torch.uint8)  # gone before the next line


@linux
def test_what_was_given_back_still_counts(tmp_path: Path) -> None:
    callbacks = [Hungry(), MetricsLog(tmp_path)]
    Trainer(dense(), TrainingSettings(epochs=3, batch_size=8), callbacks=callbacks).fit(points())
    lines = [json.loads(line) for line in (tmp_path / "timings.jsonl").read_text().splitlines()]
    first, second, third = (line["peak_memory"] for line in lines)
    assert 0.9 * TAKEN < second - first < 1.5 * TAKEN
    assert second <= third < second + 0.1 * TAKEN


@linux
def test_a_new_training_counts_anew() -> None:
    """Where the system lets a process forget its peak; else the peak is that of the process."""
    torch.ones(TAKEN, dtype=torch.uint8)
    before = peak_memory(CPU)
    count_peak_anew(CPU)
    after = peak_memory(CPU)
    assert before is not None
    assert after is not None
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        assert after >= before
    else:
        assert after < before - 0.9 * TAKEN


@linux
def test_where_the_system_says_nothing_nothing_is_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fdfa.training.peak_memory._PROCESS", tmp_path)
    count_peak_anew(CPU)
    assert peak_memory(CPU) is None
    (tmp_path / "status").write_text("Name:\tpython\n")
    assert peak_memory(CPU) is None
    (tmp_path / "status").write_text("VmPeak:\t 9 kB\nVmHWM:\t  5 kB\nVmRSS:\t 3 kB\n")
    assert peak_memory(CPU) == 5 * 1024
    assert peak_memory(torch.device("meta")) is None


@pytest.mark.gpu
def test_on_a_gpu_its_tensors_count() -> None:
    device = torch.device("cuda")
    torch.ones(TAKEN, dtype=torch.uint8, device=device)
    count_peak_anew(device)
    low = peak_memory(device)
    torch.ones(TAKEN, dtype=torch.uint8, device=device)
    high = peak_memory(device)
    assert low is not None
    assert high is not None
    assert high - low == TAKEN


def test_a_line_of_timings_has_all_that_never_comes_again(tmp_path: Path) -> None:
    class Keep(Callback):
        results: list[EpochResult] = []  # noqa: RUF012

        def epoch_finished(self, trainer: Trainer, result: EpochResult) -> None:
            self.results.append(result)

    callbacks = [Keep(), MetricsLog(tmp_path)]
    Trainer(dense(), TrainingSettings(epochs=1, batch_size=8), callbacks=callbacks).fit(points())
    (line,) = map(json.loads, (tmp_path / "timings.jsonl").read_text().splitlines())
    assert set(line) == {"epoch", "seconds", "peak_memory"}
    assert (line["epoch"], line["seconds"]) == (1, Keep.results[0].seconds)
    assert "peak_memory" not in (tmp_path / "metrics.jsonl").read_text()

"""Folders of runs written by hand: what a training would leave, with numbers of the test's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from fdfa.studies.json_values import plain
from fdfa.studies.setup import CompareConfig, TrainConfig
from fdfa.studies.task import Task
from fdfa.training import TrainingSettings

__all__ = ["COSINES", "comparison", "curve", "run", "write_lines"]

COSINES = {"first.weight": 0.25, "first.bias": 0.9, "last.weight": 0.75, "last.bias": 1.0}


def curve(*accuracies: float | None, start: float = 2.0) -> list[dict[str, Any]]:
    """Lines of ``metrics.jsonl`` with these validation accuracies and losses that halve."""
    return [
        {
            "epoch": number,
            "step": 10 * number,
            "train": {"accuracy": 0.5, "loss": start / 2**number},
            "validation": {"accuracy": accuracy, "loss": 2 * start / 2**number},
            "learning_rate": 0.1,
        }
        for number, accuracy in enumerate(accuracies, 1)
    ]


def run(
    folder: Path,
    method: str = "fdfa",
    seed: int = 0,
    *,
    lines: Sequence[Mapping[str, Any]] = (),
    test: float | None = 0.5,
    failure: str | None = None,
    data: str = "digits",
    model: str = "fully-connected",
    checksum: str = "0" * 64,
    options: Mapping[str, Any] | None = None,
    training: TrainingSettings | None = None,
    peak: int | None = 2**20,
) -> Path:
    """A run; unfinished with ``test=None`` and no failure."""
    folder.mkdir(parents=True)
    lines = lines or curve(0.25, 0.5, 0.75)
    settings = training or TrainingSettings(epochs=len(lines))
    config = TrainConfig(
        method=method,
        seed=seed,
        task=Task(data=data, model=model),
        training=settings,
        options=options or {},
    )
    environment = {"torch": "2.13.0", "data_sha256": checksum, "git": None}
    (folder / "config.json").write_text(
        json.dumps({"train": plain(config), "environment": environment})
    )
    write_lines(folder / "metrics.jsonl", lines)
    timings = [{"epoch": line["epoch"], "seconds": 0.5 * line["epoch"]} for line in lines]
    if peak is not None:
        timings = [{**line, "peak_memory": peak * line["epoch"]} for line in timings]
    write_lines(folder / "timings.jsonl", timings)
    if test is None and failure is None:
        return folder
    result = {
        "method": method,
        "seed": seed,
        "epochs": len(lines),
        "test": None if test is None else {"accuracy": test, "loss": 1 - test},
        "alignment": COSINES if test is not None else {},
        "cosine": 0.5 if test is not None else None,
        "failure": failure,
    }
    (folder / "results.json").write_text(json.dumps({"parameters": 9, "run": result}))
    if test is not None:
        weights = {n: torch.zeros((2, 2) if "weight" in n else (2,)) for n in COSINES}
        save_file(weights, folder / "model.safetensors")
    return folder


def comparison(folder: Path, accuracies: Mapping[str, Sequence[float]]) -> Path:
    """A comparison: by method, the test accuracy of each seed."""
    folder.mkdir(parents=True)
    config = CompareConfig(methods=tuple(accuracies), seeds=max(map(len, accuracies.values())))
    (folder / "config.json").write_text(
        json.dumps({"compare": plain(config), "environment": {"torch": "2.13.0"}})
    )
    times = {
        m: {"seconds": 0.001, "ratio": 1.0 + n, "rounds": 20} for n, m in enumerate(accuracies)
    }
    memory = {m: {"standing": 1024, "step": 1024, "ratio": 1.0} for m in accuracies}
    (folder / "costs.json").write_text(
        json.dumps({"times": times, "memory": memory, "left_out": {}})
    )
    for method, tests in accuracies.items():
        for seed, test in enumerate(tests):
            lines = curve(test / 2, test - 0.01 * seed, test)
            run(folder / "runs" / f"{method}-seed-{seed}", method, seed, lines=lines, test=test)
    return folder


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))

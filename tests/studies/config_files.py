"""A configuration without a default in it, and ways into what is written of one."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fdfa.studies.setup import Machine, Records, TrainConfig
from fdfa.studies.task import Task
from fdfa.training import TrainingSettings

__all__ = ["UNUSUAL", "Json", "Path_", "at", "changed", "keys", "saved"]

Json = Any
Path_ = tuple[str | int, ...]

# No value is its default, so that none can be lost unseen.
UNUSUAL = TrainConfig(
    method="fdfa",
    options={"feedback_rate": 0.05, "probe_every": 2, "noise": "rademacher", "taps": ("relu1",)},
    seed=11,
    task=Task(
        validation=100,
        augment=("crop",),
        pixels="unit",
        model_options={"width": 9, "depth": 2, "batch_norm": False},
    ),
    training=TrainingSettings(
        epochs=3,
        batch_size=128,
        accumulate=2,
        optimizer="sgd",
        learning_rate=0.02,
        schedule="cosine",
        decay=0.9,
        warmup_epochs=0.5,
        momentum=0.8,
        weight_decay=1e-4,
        clip_norm=3.0,
        patience=2,
        precision="bfloat16",
        loss="squared-error",
    ),
    records=Records(checkpoint_seconds=33.0, checkpoint_steps=7, log_steps=3),
    machine=Machine(threads=1, device="cpu"),
)


def keys(content: Json, above: Path_ = ()) -> Iterator[Path_]:
    """The way to every key."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield (*above, key)
            yield from keys(value, (*above, key))


def at(content: Json, way: Path_) -> Json:
    for key in way:
        content = content[key]
    return content


def changed(content: Json, way: Path_, value: Json) -> Json:
    content = copy.deepcopy(content)
    at(content, way[:-1])[way[-1]] = value
    return content


def saved(folder: Path, content: Json) -> Path:
    path = folder / "mine.json"
    path.write_text(json.dumps(content))
    return path

"""The training loop: knows estimators by their contract alone."""

from __future__ import annotations

from fdfa.training.loop import (
    EpochResult,
    Examples,
    NonFiniteLossError,
    Observer,
    Score,
    Trainer,
    evaluate,
)
from fdfa.training.settings import TrainingSettings

__all__ = [
    "EpochResult",
    "Examples",
    "NonFiniteLossError",
    "Observer",
    "Score",
    "Trainer",
    "TrainingSettings",
    "evaluate",
]

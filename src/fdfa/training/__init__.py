"""The training loop: knows estimators by their contract alone."""

from __future__ import annotations

from fdfa.errors import NonFiniteLossError
from fdfa.training.loop import (
    EpochResult,
    Examples,
    Observer,
    Score,
    Trainer,
    evaluate,
)
from fdfa.training.modes import eval_mode, start_training
from fdfa.training.settings import TrainingSettings

__all__ = [
    "EpochResult",
    "Examples",
    "NonFiniteLossError",
    "Observer",
    "Score",
    "Trainer",
    "TrainingSettings",
    "eval_mode",
    "evaluate",
    "start_training",
]

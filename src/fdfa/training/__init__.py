"""The training loop and its checkpoints: they know estimators by their contract alone."""

from __future__ import annotations

from fdfa.errors import NonFiniteLossError
from fdfa.training.callbacks import Callback, EpochResult, StepResult
from fdfa.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from fdfa.training.checkpoint_names import latest
from fdfa.training.evaluation import ExampleSource, LossFunction, Score, evaluate
from fdfa.training.line_files import LineFiles, read_lines
from fdfa.training.metrics import MetricsLog
from fdfa.training.modes import eval_mode, start_training
from fdfa.training.processes import Processes
from fdfa.training.saving import Checkpoints
from fdfa.training.settings import TrainingSettings
from fdfa.training.sinks import LogTo, Sink, TensorBoard, WeightsAndBiases
from fdfa.training.trainer import Trainer, TrainingInterrupted
from fdfa.training.trainer_state import capture, restore, restore_learner

__all__ = [
    "Callback",
    "Checkpoint",
    "Checkpoints",
    "EpochResult",
    "ExampleSource",
    "LineFiles",
    "LogTo",
    "LossFunction",
    "MetricsLog",
    "NonFiniteLossError",
    "Processes",
    "Score",
    "Sink",
    "StepResult",
    "TensorBoard",
    "Trainer",
    "TrainingInterrupted",
    "TrainingSettings",
    "WeightsAndBiases",
    "capture",
    "eval_mode",
    "evaluate",
    "latest",
    "read_checkpoint",
    "read_lines",
    "restore",
    "restore_learner",
    "start_training",
    "write_checkpoint",
]

"""Networks and callbacks that remember what a trainer gives them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fdfa.data import Examples
from fdfa.training import Callback, EpochResult, StepResult, Trainer
from tests.training.networks import points

__all__ = ["Listener", "Recorder", "examples", "network"]


def examples(count: int = 22) -> Examples:
    return points(count, torch.float32)


def network() -> nn.Sequential:
    """Dropout and batch norm beside the layers."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)
    )


class Recorder(nn.Module):
    """Remembers the batches that it is given; learns nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.batches: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.batches.append(x.clone())
        return torch.cat([x[:, :1] * 0 + self.weight, -x[:, :2] * 0], dim=1)


class Listener(Callback):
    """Remembers what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.steps: list[StepResult] = []
        self.epochs: list[EpochResult] = []

    def training_started(self, trainer: Trainer) -> None:
        self.heard.append("started")

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        self.heard.append("step")
        self.steps.append(result)

    def epoch_finished(self, trainer: Trainer, result: EpochResult) -> None:
        self.heard.append("epoch")
        self.epochs.append(result)

    def training_finished(self, trainer: Trainer) -> None:
        self.heard.append("finished")

    def training_interrupted(self, trainer: Trainer) -> None:
        self.heard.append("interrupted")

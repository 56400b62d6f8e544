"""How far a training is: what has to survive from one step to the next beside the weights."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from fdfa.training.evaluation import Score
from fdfa.training.processes import Processes

__all__ = ["Best", "Progress"]


@dataclasses.dataclass
class Progress:
    """Epochs and steps done, and the sums of the running epoch.

    Attributes:
        epoch: epochs finished.
        step: optimiser steps taken.
        steps_in_epoch: of them in the running epoch.
        in_epoch: whether an epoch has been started and not finished.
        order_state: of the generator of orders, before it drew the running epoch's.
        examples: that the running epoch has.
        seen: examples learned in the running epoch, by this process.
        loss: sum of their losses.
        correct: how many were right, as a tensor: to read it would wait for the device.
    """

    epoch: int = 0
    step: int = 0
    steps_in_epoch: int = 0
    in_epoch: bool = False
    order_state: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))
    examples: int = 0
    seen: int = 0
    loss: float = 0.0
    correct: Tensor = dataclasses.field(default_factory=lambda: torch.zeros((), dtype=torch.int64))

    def start_epoch(self, order_state: Tensor, device: torch.device, *, examples: int) -> None:
        """Set the sums to 0.

        Args:
            order_state: of the generator that will draw the order of the examples.
            device: where examples are counted.
            examples: that the epoch has, over all processes.
        """
        self._clear(device)
        self.in_epoch, self.order_state, self.examples = True, order_state, examples

    def _clear(self, device: torch.device) -> None:
        self.steps_in_epoch, self.examples, self.seen, self.loss = 0, 0, 0, 0.0
        self.correct = torch.zeros((), dtype=torch.int64, device=device)

    def count(self, outputs: Tensor, labels: Tensor, loss: float) -> None:
        """Add a batch to the sums.

        Args:
            outputs: (n, K).
            labels: (n,).
            loss: mean over the batch.
        """
        self.seen += len(labels)
        self.loss += loss * len(labels)
        self.correct += (outputs.detach().argmax(dim=1) == labels).sum()

    def score(self, processes: Processes) -> Score:
        """Mean over the examples of the running epoch, of all processes.

        Args:
            processes: who counted.

        Returns:
            The score.
        """
        sums = torch.tensor(
            [self.seen, self.loss, self.correct.item()],
            dtype=torch.float64 if self.correct.device.type != "mps" else torch.float32,
            device=self.correct.device,
        )
        seen, loss, correct = processes.sum(sums).tolist()
        return Score(accuracy=correct / seen, loss=loss / seen)

    def finish_epoch(self) -> None:
        """Count the running epoch."""
        self.epoch += 1
        self.in_epoch = False
        self._clear(self.correct.device)


@dataclasses.dataclass(frozen=True)
class Best:
    """The learner after the epoch of the best validation accuracy.

    Attributes:
        epoch: its number.
        accuracy: 0 to 1.
        state: copy of the learner's state dict.
    """

    epoch: int
    accuracy: float
    state: dict[str, Tensor]

    @classmethod
    def of(cls, learner: nn.Module, *, epoch: int, accuracy: float) -> Best:
        """What a learner is now.

        Args:
            learner: is copied.
            epoch: number of the epoch.
            accuracy: after it.

        Returns:
            The copy.
        """
        state = {key: value.detach().clone() for key, value in learner.state_dict().items()}
        return cls(epoch, accuracy, state)

"""When a training stops early, and which weights it keeps."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

import fdfa
from fdfa.data import Examples
from fdfa.errors import ConfigError
from fdfa.training import Callback, EpochResult, Trainer, TrainingSettings
from tests.training.cuts import assert_same_bits
from tests.training.listening import examples, network
from tests.training.raw import copies


class Scripted(nn.Module):
    """Right on so many of 8 validation examples, epoch by epoch, whatever it learns."""

    def __init__(self, right: Sequence[int], steps_an_epoch: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("passes", torch.tensor(0))
        self.right, self.steps_an_epoch = right, steps_an_epoch

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.passes += 1
            return self.weight.expand(len(x), 2)
        right = self.right[int(self.passes) // self.steps_an_epoch - 1]
        first = torch.arange(len(x)) < right  # all labels are 0
        return torch.stack([first.float(), 1 - first.float()], dim=1)


def stops_by_hand(right: Sequence[int], patience: int, epochs: int) -> tuple[int, int]:
    """The last epoch that is trained, and the one whose weights are kept."""
    for last in range(1, epochs + 1):
        best = max(range(1, last + 1), key=lambda epoch: (right[epoch - 1], -epoch))
        if last - best >= patience:
            return last, best
    return epochs, best


@pytest.mark.parametrize("patience", [1, 2, 3, 9])
@pytest.mark.parametrize(
    "right",
    [
        (3, 3, 3, 3, 3, 3, 3, 3),  # never better
        (0, 0, 0, 0, 0, 0, 0, 0),
        (1, 2, 3, 4, 5, 6, 7, 8),  # always better
        (8, 7, 6, 5, 4, 3, 2, 1),
        (4, 5, 5, 5, 6, 5, 5, 5),  # as good is not better
        (4, 6, 5, 6, 5, 7, 6, 5),
        (5, 4, 4, 6, 4, 4, 4, 8),
    ],
)
def test_patience_by_hand(right: tuple[int, ...], patience: int) -> None:
    zeros = Examples(torch.zeros(8, 1), torch.zeros(8, dtype=torch.long))
    learner = Scripted(right, steps_an_epoch=2)
    settings = TrainingSettings(epochs=8, batch_size=4, patience=patience, learning_rate=0.1)
    after: list[Tensor] = []

    class Keep(Callback):
        def epoch_finished(self, trainer: Trainer, result: EpochResult) -> None:
            after.append(learner.weight.detach().clone())

    trainer = Trainer(learner, settings, callbacks=[Keep()])
    results = trainer.fit(zeros, zeros)
    last, best = stops_by_hand(right, patience, 8)
    assert [result.epoch for result in results] == list(range(1, last + 1))
    assert [result.validation.accuracy * 8 for result in results] == list(right[:last])
    assert trainer.best.epoch == best
    assert trainer.best.accuracy == right[best - 1] / 8
    assert torch.equal(learner.weight, after[best - 1])
    assert learner.passes == 2 * best
    assert trainer.finished
    assert trainer.fit(zeros, zeros) == ()


def test_best_of_a_real_training_has_all_of_its_state() -> None:
    """Statistics, feedback and step counter too, and later training does not reach into them."""
    learner = fdfa.FDFA(network(), seed=5, feedback_rate=0.3)
    settings = TrainingSettings(epochs=12, batch_size=8, learning_rate=0.3, patience=4)
    states: list[dict[str, Tensor]] = []

    class Keep(Callback):
        def epoch_finished(self, trainer: Trainer, result: EpochResult) -> None:
            states.append(copies(learner))

    torch.manual_seed(0)
    results = Trainer(learner, settings, callbacks=[Keep()]).fit(examples(), examples(12))
    accuracies = [result.validation.accuracy for result in results]
    best = accuracies.index(max(accuracies))
    assert 0 < best < len(results) - 1, "the case tests nothing"
    assert len(results) in (12, best + 1 + 4)
    assert_same_bits(learner.state_dict(), states[best])


def test_patience_needs_something_to_wait_for() -> None:
    settings = TrainingSettings(epochs=2, batch_size=8, patience=1)
    empty = Examples(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    for validation in (None, empty):
        with pytest.raises(ConfigError, match="patience=1 waits"):
            Trainer(network(), settings).fit(examples(), validation)


def test_without_patience_the_last_weights_are_kept() -> None:
    zeros = Examples(torch.zeros(8, 1), torch.zeros(8, dtype=torch.long))
    learner = Scripted((8, 1, 1), steps_an_epoch=2)
    trainer = Trainer(learner, TrainingSettings(epochs=3, batch_size=4))
    trainer.fit(zeros, zeros)
    assert learner.passes == 6
    assert trainer.best is None

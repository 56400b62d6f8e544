"""The training loop against one written by hand, and what it does when things go wrong."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fdfa
from fdfa.training import (
    EpochResult,
    Examples,
    NonFiniteLossError,
    Observer,
    Trainer,
    TrainingSettings,
    evaluate,
)


def examples(count: int = 22) -> Examples:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, 4, generator=generator)
    return Examples(inputs, (inputs.sum(1) > 0).long())


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


class Recorder(nn.Module):
    """Remembers the batches that it is given; learns nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.batches: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.batches.append(x.clone())
        return torch.cat([x[:, :1] * 0 + self.weight, -x[:, :1] * 0], dim=1)


@pytest.mark.parametrize("method", ["backpropagation", "dfa", "fdfa"])
def test_equals_a_loop_written_by_hand(method: str) -> None:
    """Bit for bit: order of the examples, decay, optimiser, gradients cleared between steps."""
    data, model = examples(), network()
    twin = copy.deepcopy(model)
    learner, raw = fdfa.wrap(method, model, seed=5), fdfa.wrap(method, twin, seed=5)
    settings = TrainingSettings(epochs=3, batch_size=8, learning_rate=0.01, decay=0.5)

    results = Trainer(learner, settings, seed=7).fit(data, data)

    optimizer = torch.optim.Adam(twin.parameters(), lr=0.01)
    order = torch.Generator().manual_seed(7)
    losses = []
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = 0.01 * 0.5**epoch
        raw.train()
        indices = torch.randperm(22, generator=order)
        for start in (0, 8, 16):
            index = indices[start : start + 8]
            optimizer.zero_grad()
            loss = F.cross_entropy(raw(data.inputs[index]), data.labels[index])
            loss.backward()
            optimizer.step()
            losses.append((loss.item(), len(index)))
    raw.eval()
    with torch.no_grad():
        validation = F.cross_entropy(raw(data.inputs), data.labels).item()
    for key, value in twin.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key
    assert [r.learning_rate for r in results] == pytest.approx([0.01, 0.005, 0.0025], rel=1e-12)
    assert [r.step for r in results] == [3, 6, 9]
    last = sum(loss * count for loss, count in losses[-3:]) / 22
    assert results[-1].train.loss == pytest.approx(last, rel=1e-12)
    assert results[-1].validation is not None
    assert results[-1].validation.loss == pytest.approx(validation, rel=1e-6)


def test_every_example_once_an_epoch_in_a_new_order() -> None:
    data, learner = examples(), Recorder()
    Trainer(learner, TrainingSettings(epochs=2, batch_size=8)).fit(data)
    assert [len(batch) for batch in learner.batches] == [8, 8, 6] * 2
    first, second = torch.cat(learner.batches[:3]), torch.cat(learner.batches[3:])
    for epoch in (first, second):
        assert torch.equal(epoch.sort(dim=0).values, data.inputs.sort(dim=0).values)
    assert not torch.equal(first, second)
    assert not torch.equal(first, data.inputs)


def test_a_single_example_at_the_end_is_left_out() -> None:
    """Batch norm would refuse it in the last step of every epoch."""
    learner = Recorder()
    Trainer(learner, TrainingSettings(epochs=1, batch_size=7)).fit(examples(22))
    assert [len(batch) for batch in learner.batches] == [7, 7, 7]


def test_batches_of_one_are_used_where_asked_for() -> None:
    learner = Recorder()
    Trainer(learner, TrainingSettings(epochs=1, batch_size=1)).fit(examples(3))
    assert len(learner.batches) == 3


def test_the_order_does_not_touch_torchs_random_numbers() -> None:
    before = torch.get_rng_state()
    Trainer(Recorder(), TrainingSettings(epochs=1)).fit(examples())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_its_step(bad: float) -> None:
    model, data = network(), examples(24)
    calls = 0

    def loss_function(y: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        loss = F.cross_entropy(y, labels)
        if calls == 5:  # the second step of the second epoch
            kept.update(copy.deepcopy(dict(model.named_parameters())))
            return loss * bad
        return loss

    kept: dict[str, torch.Tensor] = {}
    trainer = Trainer(model, TrainingSettings(epochs=3, batch_size=8), loss_function=loss_function)
    finished: list[EpochResult] = []
    with pytest.raises(NonFiniteLossError, match=rf"the loss is {bad} at step 5 \(epoch 2\)"):
        finished.extend(trainer.epochs(data))
    assert [result.epoch for result in finished] == [1]
    assert all(torch.equal(p, kept[name]) for name, p in model.named_parameters())


def test_observers_hear_every_step_and_epoch() -> None:
    class Listener(Observer):
        def __init__(self) -> None:
            self.heard: list[tuple[int, float] | EpochResult] = []

        def step_finished(self, epoch: int, share: float) -> None:
            self.heard.append((epoch, share))

        def epoch_finished(self, result: EpochResult) -> None:
            self.heard.append(result)

    listener = Listener()
    settings = TrainingSettings(epochs=2, batch_size=11)
    results = Trainer(Recorder(), settings, observers=[listener]).fit(examples())
    assert listener.heard == [(1, 0.5), (1, 1.0), results[0], (2, 0.5), (2, 1.0), results[1]]


def test_fit_goes_on_where_it_was_interrupted() -> None:
    data, whole, halves = examples(), network(), network()
    settings = TrainingSettings(epochs=4, batch_size=8)
    Trainer(whole, settings).fit(data)
    trainer = Trainer(halves, settings)
    steps = trainer.epochs(data)
    next(steps)
    next(steps)
    steps.close()
    assert [result.epoch for result in trainer.fit(data)] == [3, 4]
    assert torch.equal(whole[0].weight, halves[0].weight)


def test_evaluate_by_hand_whatever_the_batches() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    labels = torch.tensor([0, 0, 1])
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(1)) + math.log1p(math.exp(3))) / 3
    for batch_size in (1, 2, 3):
        score = evaluate(nn.Identity(), Examples(logits, labels), batch_size=batch_size)
        assert score.accuracy == pytest.approx(1 / 3, rel=1e-12)
        assert score.loss == pytest.approx(expected, rel=1e-6)


def test_evaluate_leaves_modes_and_statistics_alone() -> None:
    model = network()
    model[1].eval()  # frozen batch norm inside a model that trains
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    evaluate(model, examples())
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("method", ["backpropagation", "fdfa"])
def test_a_frozen_batch_norm_stays_frozen(method: str) -> None:
    model = network()
    learner = fdfa.wrap(method, model)
    model[1].eval()
    Trainer(learner, TrainingSettings(epochs=2, batch_size=8)).fit(examples(), examples())
    assert learner.training
    assert [module.training for module in model] == [True, False, True, True]
    assert model[1].num_batches_tracked == 0


def test_a_learner_in_eval_mode_is_put_into_training_mode() -> None:
    learner = fdfa.FDFA(network()).eval()
    Trainer(learner, TrainingSettings(epochs=2, batch_size=11)).fit(examples(), examples())
    assert all(module.training for module in learner.modules())
    assert learner.steps == 4


def test_evaluate_restores_modes_after_an_error() -> None:
    model = network()
    with pytest.raises(RuntimeError):
        evaluate(model, Examples(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)))
    assert all(module.training for module in model.modules())


def test_nothing_to_evaluate_is_an_error() -> None:
    with pytest.raises(ValueError, match="no examples"):
        evaluate(nn.Identity(), Examples(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)))

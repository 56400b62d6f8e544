"""The trainer against loops written by hand, and what it does with modes, ends and odd sizes."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fdfa
from fdfa.data import Examples
from fdfa.errors import ConfigError
from fdfa.training import (
    Callback,
    EpochResult,
    StepResult,
    Trainer,
    TrainingInterrupted,
    TrainingSettings,
)
from tests.methods import PARAMETERS, Case
from tests.training.cuts import assert_same_bits, everything, optimizer_tensors
from tests.training.networks import dense, pictures, points
from tests.training.raw import copies, train_by_hand


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


# ----- Equal to a loop written by hand, bit for bit.

OPTIMIZERS: dict[str, tuple[dict[str, Any], Callable[[Any], torch.optim.Optimizer]]] = {
    "adam": ({}, lambda p: torch.optim.Adam(p)),
    "adam-decayed": ({"weight_decay": 0.1}, lambda p: torch.optim.Adam(p, weight_decay=0.1)),
    "adamw": (
        {"optimizer": "adamw", "weight_decay": 0.1},
        lambda p: torch.optim.AdamW(p, weight_decay=0.1),
    ),
    "adamw-plain": ({"optimizer": "adamw"}, lambda p: torch.optim.AdamW(p, weight_decay=0.0)),
    "sgd": (
        {"optimizer": "sgd", "momentum": 0.5, "weight_decay": 0.1},
        lambda p: torch.optim.SGD(p, momentum=0.5, weight_decay=0.1),
    ),
    "rmsprop": (
        {"optimizer": "rmsprop", "weight_decay": 0.1},
        lambda p: torch.optim.RMSprop(p, weight_decay=0.1),
    ),
}
# With 3 steps in each of 3 epochs.
RATES: dict[str, tuple[dict[str, Any], list[float]]] = {
    "constant": ({}, [1.0] * 9),
    "decay": ({"decay": 0.5}, [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]),
    "warm-up": ({"warmup_epochs": 4 / 3}, [0.25, 0.5, 0.75, *[1.0] * 6]),
    "cosine": (
        {"schedule": "cosine"},
        [math.cos(math.pi / 18 * step) ** 2 for step in range(9)],  # = (1 + cos(pi s / 9)) / 2
    ),
    "cosine-after-warm-up": (
        {"schedule": "cosine", "warmup_epochs": 1.0},
        [1 / 3, 2 / 3, 1, *(math.cos(math.pi / 12 * step) ** 2 for step in range(6))],
    ),
    "cosine-decay-warm-up": (
        {"schedule": "cosine", "warmup_epochs": 1.0, "decay": 0.5},
        [
            *(1 / 3, 2 / 3, 1),
            *(0.5 ** (1 + step // 3) * math.cos(math.pi / 12 * step) ** 2 for step in range(6)),
        ],
    ),
}


def assert_equals_by_hand(
    learner: nn.Module,
    twin: nn.Module,
    settings: TrainingSettings,
    optimizer: torch.optim.Optimizer,
    *,
    rates: Sequence[float] | None = None,
    data: Examples | None = None,
    **by_hand: Any,
) -> Trainer:
    """The rates are those expected to rounding; all else is equal to the last bit."""
    data = data or examples()
    listener = Listener()
    torch.manual_seed(0)
    trainer = Trainer(learner, settings, seed=7, callbacks=[listener])
    results = trainer.fit(data)
    generator = torch.get_rng_state()
    used = [step.learning_rate for step in listener.steps]
    steps = len(used) // settings.epochs
    if rates is not None:
        assert used == pytest.approx([settings.learning_rate * factor for factor in rates])
    torch.manual_seed(0)
    losses = train_by_hand(
        twin,
        data,
        optimizer,
        rates=[used[start : start + steps] for start in range(0, len(used), steps)],
        batch_size=settings.batch_size,
        seed=7,
        **by_hand,
    )
    assert_same_bits(learner.state_dict(), twin.state_dict())
    assert_same_bits(optimizer_tensors(trainer.optimizer), optimizer_tensors(optimizer))
    assert torch.equal(torch.get_rng_state(), generator)
    assert [step.loss for step in listener.steps] == pytest.approx(losses, rel=1e-12)
    assert [r.learning_rate for r in results] == used[steps - 1 :: steps]
    return trainer


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("method", fdfa.methods())
def test_each_optimizer(method: str, name: str) -> None:
    fields, make = OPTIMIZERS[name]
    learner, twin = (fdfa.wrap(method, network(), seed=5) for _ in range(2))
    settings = TrainingSettings(epochs=3, batch_size=8, learning_rate=0.01, **fields)
    assert_equals_by_hand(learner, twin, settings, make(twin.parameters()))


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("method", fdfa.methods())
def test_each_schedule(method: str, name: str) -> None:
    fields, factors = RATES[name]
    learner, twin = (fdfa.wrap(method, network(), seed=5) for _ in range(2))
    settings = TrainingSettings(epochs=3, batch_size=8, learning_rate=0.02, **fields)
    optimizer = torch.optim.Adam(twin.parameters())
    assert_equals_by_hand(learner, twin, settings, optimizer, rates=factors)


@pytest.mark.parametrize("case", PARAMETERS, ids=str)
@pytest.mark.parametrize(
    ("fields", "by_hand"),
    [
        ({"clip_norm": 0.05}, {"clip": 0.05}),
        ({"accumulate": 3}, {"parts": 3}),
        ({"precision": "bfloat16"}, {"precision": torch.bfloat16}),
        ({"precision": "float16", "clip_norm": 0.05}, {"precision": torch.float16, "clip": 0.05}),
    ],
    ids=["clipped", "accumulated", "bfloat16", "float16-clipped"],
)
def test_clipping_parts_and_precision(
    case: Case, fields: dict[str, Any], by_hand: dict[str, Any]
) -> None:
    learner, twin, plain = (case.wrap(network()) for _ in range(3))
    settings = TrainingSettings(epochs=2, batch_size=8, optimizer="sgd", **fields)
    optimizer = torch.optim.SGD(twin.parameters(), momentum=0.9)
    assert_equals_by_hand(learner, twin, settings, optimizer, **by_hand)
    torch.manual_seed(0)
    others = TrainingSettings(epochs=2, batch_size=8, optimizer="sgd")
    Trainer(plain, others, seed=7).fit(examples())
    assert not torch.equal(plain.model[0].weight, twin.model[0].weight), "it makes no difference"


@pytest.mark.parametrize("name", ["backpropagation", "dfa"])
@pytest.mark.parametrize("parts", [2, 3, 5])
def test_a_batch_in_parts_is_the_whole_batch_to_rounding(name: str, parts: int) -> None:
    """Parts of unequal sizes too: 8 is no multiple of 3."""
    whole, divided = (fdfa.wrap(name, dense(), seed=5) for _ in range(2))
    for learner, accumulate in ((whole, 1), (divided, parts)):
        settings = TrainingSettings(
            epochs=3, batch_size=8, accumulate=accumulate, learning_rate=0.02, clip_norm=0.5
        )
        results = Trainer(learner, settings, seed=7).fit(points())
        assert results[-1].step == 9
    for key, value in whole.model.state_dict().items():
        torch.testing.assert_close(divided.model.state_dict()[key], value, rtol=1e-9, atol=1e-12)


def test_a_batch_in_parts_is_really_divided() -> None:
    learner = Recorder()
    settings = TrainingSettings(epochs=1, batch_size=8, accumulate=3)
    Trainer(learner, settings, seed=7).fit(examples())
    assert [len(batch) for batch in learner.batches] == [3, 3, 2, 3, 3, 2, 2, 2, 2]


def test_two_groups_keep_their_own_rates() -> None:
    """Schedule and decay multiply the rate that each group started with."""

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        groups = [
            {"params": model[0].parameters(), "lr": 0.1},
            {"params": model[4].parameters(), "lr": 0.001, "weight_decay": 0.1},
        ]
        return torch.optim.SGD(groups, momentum=0.5)

    model, twin, listener = network(), network(), Listener()
    settings = TrainingSettings(epochs=3, batch_size=8, schedule="cosine", decay=0.5)
    torch.manual_seed(0)
    trainer = Trainer(model, settings, seed=7, optimizer=optimizer(model), callbacks=[listener])
    results = trainer.fit(examples())

    mine, order = optimizer(twin), torch.Generator().manual_seed(7)
    torch.manual_seed(0)
    for epoch in range(3):
        indices = torch.randperm(22, generator=order)
        for number in range(3):
            step = 3 * epoch + number
            factor = 0.5**epoch * (0.5 * (1 + math.cos(math.pi * (step / 9))))
            mine.param_groups[0]["lr"], mine.param_groups[1]["lr"] = 0.1 * factor, 0.001 * factor
            batch = indices[8 * number : 8 * number + 8]
            mine.zero_grad()
            outputs = twin(examples().inputs[batch])
            nn.functional.cross_entropy(outputs, examples().labels[batch]).backward()
            mine.step()
    assert_same_bits(model.state_dict(), twin.state_dict())
    assert torch.equal(model[1].weight, torch.ones(8)), "batch norm is in no group"
    assert results[-1].learning_rate == listener.steps[-1].learning_rate
    assert listener.steps[0].learning_rate == 0.1


@pytest.mark.parametrize("case", PARAMETERS, ids=str)
def test_frozen_layers_stay_what_they_are(case: Case) -> None:
    model, twin = dense(), dense()
    for each in (model, twin):
        each[2].requires_grad_(requires_grad=False)
    learner, raw = case.wrap(model), case.wrap(twin)
    settings = TrainingSettings(epochs=2, batch_size=8, weight_decay=0.1, clip_norm=0.1)
    optimizer = torch.optim.Adam(twin.parameters(), weight_decay=0.1)
    assert_equals_by_hand(learner, raw, settings, optimizer, data=points(), clip=0.1)
    assert torch.equal(model[2].weight, dense()[2].weight)
    assert not torch.equal(model[0].weight, dense()[0].weight)


def test_training_scores_are_means_over_the_examples_as_they_were_learned() -> None:
    """Also where one example is left out."""
    data, model, twin = points(22), dense(), dense()
    results = Trainer(model, TrainingSettings(epochs=2, batch_size=7), seed=7).fit(data)
    order, optimizer = torch.Generator().manual_seed(7), torch.optim.Adam(twin.parameters())
    for result in results:
        losses, right = [], 0
        for batch in torch.randperm(22, generator=order).split(7)[:3]:
            outputs = twin(data.inputs[batch])
            loss = nn.functional.cross_entropy(outputs, data.labels[batch], reduction="none")
            losses += loss.tolist()
            right += int((outputs.argmax(1) == data.labels[batch]).sum())
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()
        assert result.train.accuracy == right / 21
        assert result.train.loss == pytest.approx(sum(losses) / 21, rel=1e-12)


# ----- Early stop.


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


# ----- Which examples, in which order.


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


def test_order_and_augmentation_do_not_touch_torchs_random_numbers() -> None:
    before = torch.get_rng_state()
    learner = nn.Sequential(nn.Flatten(), nn.Linear(32, 3))
    torch.set_rng_state(before)
    Trainer(learner, TrainingSettings(epochs=1)).fit(pictures())
    assert torch.equal(torch.get_rng_state(), before)


def test_augmentation_and_order_come_from_the_seed_alone() -> None:
    def inputs(seed: int, world: int) -> Tensor:
        learner = Recorder()
        torch.manual_seed(world)
        flat = nn.Sequential(nn.Flatten(), learner)
        Trainer(flat, TrainingSettings(epochs=2, batch_size=8), seed=seed).fit(pictures())
        return torch.cat(learner.batches)

    assert torch.equal(inputs(1, world=1), inputs(1, world=2))
    assert not torch.equal(inputs(1, world=1), inputs(2, world=1))


def test_too_few_examples_for_the_parts_are_refused() -> None:
    settings = TrainingSettings(batch_size=8, accumulate=4)
    with pytest.raises(ConfigError, match=r"3 training examples are too few .* with 4 part"):
        Trainer(network(), settings).fit(examples(3))
    Trainer(Recorder(), dataclasses.replace(settings, epochs=1)).fit(examples(4))


# ----- Modes, ends, interruptions.


@pytest.mark.parametrize("method", ["backpropagation", "fdfa"])
def test_a_frozen_batch_norm_stays_frozen(method: str) -> None:
    model = network()
    learner = fdfa.wrap(method, model)
    model[1].eval()
    Trainer(learner, TrainingSettings(epochs=2, batch_size=8)).fit(examples(), examples())
    assert learner.training
    assert [module.training for module in model] == [True, False, True, True, True]
    assert model[1].num_batches_tracked == 0


def test_a_learner_in_eval_mode_is_put_into_training_mode() -> None:
    learner = fdfa.FDFA(network()).eval()
    Trainer(learner, TrainingSettings(epochs=2, batch_size=11)).fit(examples(), examples())
    assert all(module.training for module in learner.modules())
    assert learner.steps == 4


def test_a_model_with_several_outputs() -> None:
    class Pair(nn.Module):
        def __init__(self, several: bool) -> None:
            super().__init__()
            self.body = dense(dtype=torch.float32)
            self.several = several

        def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
            return {"inputs": x, "logits": self.body(x)} if self.several else self.body(x)

    def loss_function(outputs: Tensor | dict[str, Tensor], labels: Tensor) -> Tensor:
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs
        return nn.functional.cross_entropy(logits, labels)

    settings = TrainingSettings(epochs=2, batch_size=8)
    found = []
    for several in (True, False):
        output = "logits" if several else None
        learner = fdfa.wrap("fdfa", Pair(several), output=output, seed=1)
        trainer = Trainer(learner, settings, loss_function=loss_function)
        results = trainer.fit(examples(), examples(12))
        found.append((learner, [(result.train, result.validation) for result in results]))
    assert_same_bits(found[0][0].state_dict(), found[1][0].state_dict())
    assert found[0][1] == found[1][1]


def test_callbacks_hear_everything_in_order() -> None:
    listeners = [Listener(), Listener()]
    settings = TrainingSettings(epochs=2, batch_size=11)
    results = Trainer(Recorder(), settings, callbacks=listeners).fit(examples())
    for listener in listeners:
        epoch = ["step", "step", "epoch"]
        assert listener.heard == ["started", *epoch, *epoch, "finished"]
        assert listener.epochs == list(results)
        assert [(s.epoch, s.step, s.share) for s in listener.steps] == [
            (1, 1, 0.5),
            (1, 2, 1.0),
            (2, 3, 0.5),
            (2, 4, 1.0),
        ]


def test_fit_goes_on_where_the_epochs_were_left() -> None:
    data, whole, halves = examples(), network(), network()
    settings = TrainingSettings(epochs=4, batch_size=8)
    torch.manual_seed(0)
    Trainer(whole, settings).fit(data)
    torch.manual_seed(0)
    trainer = Trainer(halves, settings)
    steps = trainer.epochs(data)
    next(steps)
    next(steps)
    steps.close()
    assert [result.epoch for result in trainer.fit(data)] == [3, 4]
    assert_same_bits(halves.state_dict(), whole.state_dict())


@pytest.mark.parametrize("step", range(1, 7))
def test_stopped_between_two_steps_and_going_on_in_the_same_process(step: int) -> None:
    class StopAt(Listener):
        def step_finished(self, trainer: Trainer, result: StepResult) -> None:
            super().step_finished(trainer, result)
            trainer.stop_requested = result.step == step

    whole, stopped = (fdfa.FDFA(network(), seed=1) for _ in range(2))
    settings = TrainingSettings(epochs=2, batch_size=8)
    torch.manual_seed(0)
    first = Trainer(whole, settings)
    results = first.fit(examples(), examples())
    expected = everything(first)

    torch.manual_seed(0)
    stop = StopAt()
    trainer = Trainer(stopped, settings, callbacks=[stop])
    with pytest.raises(TrainingInterrupted) as caught:
        trainer.fit(examples(), examples())
    assert caught.value.step == trainer.progress.step == step
    assert isinstance(caught.value, KeyboardInterrupt), "what catches Exception must not eat it"
    assert stop.heard[-2:] == ["step", "interrupted"]
    assert "finished" not in stop.heard
    left = trainer.fit(examples(), examples())
    assert_same_bits(everything(trainer), expected)
    for result, other in zip(left, results[-len(left) :], strict=True):
        assert dataclasses.replace(result, seconds=0) == dataclasses.replace(other, seconds=0)


def test_nothing_is_left_to_do_after_the_last_epoch() -> None:
    trainer = Trainer(network(), TrainingSettings(epochs=1, batch_size=8))
    assert not trainer.finished
    assert len(trainer.fit(examples())) == 1
    before = copies(trainer.learner)
    assert trainer.finished
    assert trainer.fit(examples()) == ()
    assert_same_bits(trainer.learner.state_dict(), before)


def test_a_copy_of_a_learner_is_trained_alike() -> None:
    learner = fdfa.FDFA(network(), seed=1)
    twin = copy.deepcopy(learner)
    for each in (learner, twin):
        torch.manual_seed(0)
        Trainer(each, TrainingSettings(epochs=2, batch_size=8), seed=3).fit(examples())
    assert_same_bits(twin.state_dict(), learner.state_dict())


def test_the_model_is_what_the_learner_holds() -> None:
    model = network()
    assert Trainer(model, TrainingSettings()).model is model
    assert Trainer(fdfa.DFA(model), TrainingSettings()).model is model


def test_seconds_are_wall_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=2.5)
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    results = Trainer(Recorder(), TrainingSettings(epochs=2)).fit(examples(), examples())
    assert [result.seconds for result in results] == [2.5, 2.5]

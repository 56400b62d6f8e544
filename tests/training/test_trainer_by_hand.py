"""The trainer against loops written by hand, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from fdfa.data import Examples
from fdfa.training import Trainer, TrainingSettings
from tests.methods import NAMES, PARAMETERS, Case, wrap_by_name
from tests.training.cuts import assert_same_bits, optimizer_tensors
from tests.training.listening import Listener, Recorder, examples, network
from tests.training.networks import dense, points
from tests.training.raw import train_by_hand

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
@pytest.mark.parametrize("method", NAMES)
def test_each_optimizer(method: str, name: str) -> None:
    fields, make = OPTIMIZERS[name]
    learner, twin = (wrap_by_name(method, network(), seed=5) for _ in range(2))
    settings = TrainingSettings(epochs=3, batch_size=8, learning_rate=0.01, **fields)
    assert_equals_by_hand(learner, twin, settings, make(twin.parameters()))


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("method", NAMES)
def test_each_schedule(method: str, name: str) -> None:
    fields, factors = RATES[name]
    learner, twin = (wrap_by_name(method, network(), seed=5) for _ in range(2))
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
    whole, divided = (wrap_by_name(name, dense(), seed=5) for _ in range(2))
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
    optimizer = torch.optim.Adam(raw.parameters(), weight_decay=0.1)
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

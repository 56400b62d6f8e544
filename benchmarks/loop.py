"""What the training loop adds to a loop written by hand, and how long it waits for data.

Both loops train the same learner on the same batches of MNIST, in one process, turn by turn: a turn
is so many steps. The raw loop holds the inputs normalised, as a script of one's own would.
"""

from __future__ import annotations

import contextlib
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from promises import Promise
from torch.nn import functional as F

import fdfa
import fdfa.data
import fdfa.models
from fdfa.training import Callback, Checkpoints, MetricsLog, Trainer, TrainingSettings

STEPS, ROUNDS, BATCH, RATE = 60, 25, 64, 1e-4


class Turns(Callback):
    """Takes the time of every turn."""

    def __init__(self, other: Callable[[], float]) -> None:
        self.other = other
        self.mine: list[float] = []
        self.others: list[float] = []
        self.began = 0.0

    def training_started(self, trainer: Trainer) -> None:
        self.began = time.perf_counter()

    def step_finished(self, trainer: Trainer, result: Any) -> None:
        if result.step % STEPS == 0:
            self.mine.append(time.perf_counter() - self.began)
            self.others.append(self.other())
            trainer.stop_requested = len(self.mine) == ROUNDS
            self.began = time.perf_counter()


def measure() -> Sequence[Promise]:
    """The loop with its records, against a raw loop; and the share of data in a step.

    Returns:
        One promise each.
    """
    data = fdfa.data.load("mnist", validation=0)
    torch.manual_seed(0)
    model = fdfa.models.build("fully-connected", image=(1, 28, 28), classes=10)
    overheads = []
    for method, options in (("fdfa", {"noise": "rademacher"}), ("backpropagation", {})):
        raw = fdfa.wrap(method, copy.deepcopy(model), seed=0, **options)
        ours = fdfa.wrap(method, copy.deepcopy(model), seed=0, **options)
        overheads.append((method, *_turns(ours, raw, data)))
    share = _data_share(data, statistics.median(overheads[0][2]) / STEPS)
    promises = [
        Promise(
            f"loop / raw loop, {method}, with metrics and checkpoints",
            statistics.median(a / b for a, b in zip(mine[2:], others[2:], strict=True)),
            most=1.03,
        )
        for method, mine, others in overheads
    ]
    return [*promises, Promise("share of data in an FDFA step, batch 64", share, most=0.05)]


def _turns(ours: fdfa.Estimator, raw: fdfa.Estimator, data: fdfa.data.Dataset) -> Any:
    steps = _raw_steps(raw, data)

    def other() -> float:
        began = time.perf_counter()
        for _ in range(STEPS):
            next(steps)
        return time.perf_counter() - began

    turns = Turns(other)
    settings = TrainingSettings(epochs=100, batch_size=BATCH, learning_rate=RATE)
    with tempfile.TemporaryDirectory() as folder:
        records = [MetricsLog(folder), Checkpoints(Path(folder) / "checkpoints")]
        with contextlib.suppress(KeyboardInterrupt):
            Trainer(ours, settings, callbacks=[turns, *records]).fit(data.train)
    return turns.mine, turns.others


def _raw_steps(learner: fdfa.Estimator, data: fdfa.data.Dataset) -> Iterator[None]:
    """A loop as anyone writes it; each step also reads its loss, as one does to print it."""
    inputs, labels = data.train.first(len(data.train))
    optimizer = torch.optim.Adam(learner.parameters(), lr=RATE)
    order = torch.Generator().manual_seed(0)
    learner.train()
    while True:
        total, correct = 0.0, 0
        for index in torch.randperm(len(labels), generator=order).split(BATCH):
            x, y = inputs[index], labels[index]
            optimizer.zero_grad()
            outputs = learner(x)
            loss = F.cross_entropy(outputs, y)
            loss.backward()
            optimizer.step()
            total += loss.item()
            correct += (outputs.detach().argmax(1) == y).sum()
            yield


def _data_share(data: fdfa.data.Dataset, step: float) -> float:
    """Time to prepare a batch, in the cold, relative to a step."""
    taken = []
    trash = torch.empty(16 * 2**20 // 4)
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
    batches = data.train.batches(order.split(BATCH))
    for _ in range(400):
        trash.add_(1)  # the weights of a step push the pictures out of the caches, too
        began = time.perf_counter()
        next(batches)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) / step

"""A training that is cut, and goes on elsewhere, ends in the same bits as one that never was.

Cut after every single step and every epoch; see ``cuts.py`` for what is compared.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import fdfa
from fdfa.data import StreamedExamples
from fdfa.training import (
    Callback,
    StepResult,
    Trainer,
    TrainingInterrupted,
    TrainingSettings,
    capture,
    restore,
)
from tests.methods import CASES, PARAMETERS, Case, wrap_by_name
from tests.training.cuts import (
    Make,
    assert_resumes,
    assert_same_bits,
    everything,
    scramble,
    through_the_disk,
)
from tests.training.networks import busy, dense, pictures, points

SETTINGS = TrainingSettings(epochs=2, batch_size=5, learning_rate=0.02)
CUTS = [*(f"step {n}" for n in range(11)), "epoch 1", "epoch 2"]
MIDDLE = ["step 3", "step 5", "epoch 1", "step 7"]


def busy_trainer(case: Case, **fields: Any) -> Make:
    """Everything about it comes from the number that it is made with."""
    settings = dataclasses.replace(SETTINGS, **fields)

    def make(number: int, callbacks: Sequence[Callback]) -> Trainer:
        learner = case.wrap(busy(number), seed=number)
        return Trainer(learner, settings, seed=number, callbacks=callbacks)

    return make


def dense_trainer(
    optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer], dtype: torch.dtype
) -> Make:
    def make(number: int, callbacks: Sequence[Callback]) -> Trainer:
        learner = fdfa.FDFA(dense(number, dtype), seed=number, feedback_rate=0.3)
        return Trainer(
            learner,
            SETTINGS,
            seed=number,
            callbacks=callbacks,
            optimizer=optimizer(learner.parameters()),
        )

    return make


@pytest.mark.parametrize("case", PARAMETERS, ids=str)
def test_cut_at_every_step(case: Case, tmp_path: pathlib.Path) -> None:
    """Adam, cosine with warm-up, patience; batch norm, dropout, augmentation; 4 left over."""
    make = busy_trainer(case, schedule="cosine", warmup_epochs=0.7, patience=2)
    kept = assert_resumes(make, pictures(), pictures(12, augmented=False), tmp_path)
    assert sorted(kept) == sorted(CUTS)


SETUPS: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
    "sgd": {"optimizer": "sgd", "weight_decay": 0.1},
    "sgd without momentum": {"optimizer": "sgd", "momentum": 0.0},
    "rmsprop": {"optimizer": "rmsprop", "decay": 0.5},
    "clipped": {"clip_norm": 0.1},
    "accumulated": {"accumulate": 2},
    "bfloat16": {"precision": "bfloat16"},
    "float16": {"precision": "float16"},  # its first steps overflow: the scale is halved
}


@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize("case", [case for case in CASES if "momentum" in str(case)], ids=str)
def test_with_these_settings(case: Case, setup: str, tmp_path: pathlib.Path) -> None:
    make = busy_trainer(case, **SETUPS[setup])
    assert_resumes(make, pictures(), None, tmp_path, at=MIDDLE)


OPTIMIZERS: dict[str, Callable[[Iterable[Tensor]], torch.optim.Optimizer]] = {
    "adam-amsgrad": lambda p: torch.optim.Adam(p, lr=0.02, amsgrad=True),
    "rmsprop-centered": lambda p: torch.optim.RMSprop(p, lr=0.02, centered=True, momentum=0.5),
    "sgd-nesterov": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.5, nesterov=True),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.02),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.02),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.02, initial_accumulator_value=0.1),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.02),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.02),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=0.5),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.02),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.02, t0=4),
}


# In these types PyTorch keeps some of their numbers in another one than the weights.
MIXED = [
    (name, dtype)
    for name in ("nadam", "adafactor", "asgd")
    for dtype in (torch.float64, torch.bfloat16)
]


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, torch.float32) for name in OPTIMIZERS), *MIXED], ids=str
)
def test_with_an_optimizer_of_ones_own(
    name: str, dtype: torch.dtype, tmp_path: pathlib.Path
) -> None:
    make = dense_trainer(OPTIMIZERS[name], dtype)
    assert_resumes(make, points(dtype=dtype), None, tmp_path, at=["step 1", "step 5", "step 7"])


def test_with_groups_of_parameters_and_a_frozen_layer(tmp_path: pathlib.Path) -> None:
    def make(number: int, callbacks: Sequence[Callback]) -> Trainer:
        model = dense(number)
        model[0].requires_grad_(requires_grad=False)
        groups = [
            {"params": model[4].parameters(), "lr": 0.1, "weight_decay": 0.1},
            {"params": [*model[2].parameters(), *model[0].parameters()]},
        ]
        optimizer = torch.optim.AdamW(groups, lr=0.01)
        settings = dataclasses.replace(SETTINGS, schedule="cosine")
        learner = fdfa.FDFA(model, seed=number)
        return Trainer(learner, settings, seed=number, callbacks=callbacks, optimizer=optimizer)

    assert_resumes(make, points(), points(12), tmp_path, at=MIDDLE)


class Wobbling(nn.Module):
    """A user's layer that draws from a generator of its own choice."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        return x * (0.5 + self.draw()) if self.training else x


DRAWS: dict[str, Callable[[], float]] = {
    "torch": lambda: torch.rand(()).item(),
    "python": random.random,
    "python-normal": lambda: random.gauss(0, 0.1),  # keeps every second number for later
    "numpy": np.random.random_sample,
    "numpy-normal": lambda: 0.1 * np.random.standard_normal(),  # noqa: NPY002
}


# The generators of a model are nobody's but the trainer's: one method shows it quickly.
OWN_GENERATORS = [
    pytest.param(name, marks=() if name == "fdfa" else pytest.mark.slow) for name in fdfa.methods()
]


@pytest.mark.parametrize("draws", DRAWS)
@pytest.mark.parametrize("method", OWN_GENERATORS)
def test_where_the_model_draws_from(method: str, draws: str, tmp_path: pathlib.Path) -> None:
    """Those of a fresh learner are where those of the old one were, though it plans anew."""

    def make(number: int, callbacks: Sequence[Callback]) -> Trainer:
        model = dense(number)
        model[1] = nn.Sequential(model[1], Wobbling(DRAWS[draws]))
        learner = wrap_by_name(method, model, seed=number)
        return Trainer(learner, SETTINGS, seed=number, callbacks=callbacks)

    assert_resumes(make, points(), points(12), tmp_path, at=MIDDLE)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_with_examples_that_are_read_ahead(workers: int, tmp_path: pathlib.Path) -> None:
    """What was read for steps that were not taken makes no difference."""
    whole = pictures()
    source = TensorDataset(whole.inputs, whole.labels)
    streamed = dataclasses.replace(
        StreamedExamples.of(source, whole.labels, workers=workers),
        normalization=whole.normalization,
        augmentation=whole.augmentation,
    )
    make = busy_trainer(next(case for case in CASES if str(case) == "fdfa-momentum"))
    assert_resumes(make, streamed, None, tmp_path, at=MIDDLE)


def test_plain_module_without_a_learner(tmp_path: pathlib.Path) -> None:
    def make(number: int, callbacks: Sequence[Callback]) -> Trainer:
        return Trainer(busy(number), SETTINGS, seed=number, callbacks=callbacks)

    assert_resumes(make, pictures(), None, tmp_path)


def test_cut_twice(tmp_path: pathlib.Path) -> None:
    """A resumed training can be cut again: nothing is remembered relative to the start."""
    case = next(case for case in CASES if str(case) == "fdfa-momentum")
    make = busy_trainer(case, patience=2)
    train, validation = pictures(), pictures(12, augmented=False)

    class StopAt(Callback):
        def __init__(self, step: int) -> None:
            self.step = step

        def step_finished(self, trainer: Trainer, result: StepResult) -> None:
            trainer.stop_requested = result.step == self.step

    scramble(0)
    whole = make(0, [])
    whole.fit(train, validation)
    expected = everything(whole)

    scramble(0)
    trainer = make(0, [StopAt(2)])
    for number, step in enumerate((4, 5, 6, 9), 1):
        with pytest.raises(TrainingInterrupted):
            trainer.fit(train, validation)
        checkpoint = through_the_disk(trainer, tmp_path / str(number))
        scramble(number)
        trainer = make(number, [StopAt(step)])
        restore(trainer, checkpoint)
    with pytest.raises(TrainingInterrupted):
        trainer.fit(train, validation)
    trainer.fit(train, validation)
    assert_same_bits(everything(trainer), expected)


def resumes_on(threads: int, names: Sequence[str], folder: pathlib.Path) -> None:
    root = pathlib.Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.training.threads", str(threads), str(folder), *names]
    # Threads that wait must not spin: on a machine that others use it takes ten times as long.
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(names)


@pytest.mark.slow
def test_on_two_threads(tmp_path: pathlib.Path) -> None:
    resumes_on(2, ["backpropagation-default", "fdfa-momentum"], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_every_case_with_wide_layers_on(threads: int, tmp_path: pathlib.Path) -> None:
    resumes_on(threads, [str(case) for case in CASES], tmp_path)


@pytest.mark.parametrize("case", PARAMETERS, ids=str)
def test_the_order_of_the_entries_makes_no_difference(case: Case) -> None:
    """A file may give them in any: processes that order their buffers differently mix them up."""
    trainer = Trainer(case.wrap(busy(1)), SETTINGS)
    trainer.fit(pictures())
    checkpoint = capture(trainer)
    found = []
    for turn in (list, lambda entries: list(reversed(list(entries)))):
        turned = dataclasses.replace(
            checkpoint,
            model=dict(turn(checkpoint.model.items())),
            state=dict(turn(checkpoint.state.items())),
        )
        again = Trainer(case.wrap(busy(2), seed=2), SETTINGS)
        restore(again, turned)
        found.append([name for name, _ in again.learner.named_buffers()])
    assert found[0] == found[1]

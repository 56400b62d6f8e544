"""Two processes: the trainer learns what one process learns, resumes, stops and fails together."""

from __future__ import annotations

import functools
import gc
import math
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from fdfa.data import Examples
from fdfa.errors import CheckpointError, ConfigError, NonFiniteLossError
from fdfa.training import (
    Callback,
    Checkpoints,
    MetricsLog,
    Processes,
    StepResult,
    Trainer,
    TrainingInterrupted,
    TrainingSettings,
    read_checkpoint,
    restore,
)
from tests.integration.parts import FAST, SLOW
from tests.integration.ranks import RANKS, check, gathered, same_on_all_ranks
from tests.methods import CASES
from tests.training.cuts import assert_resumes, assert_same_bits, scramble
from tests.training.networks import busy, dense, pictures, points

BY_NAME = {str(case): case for case in CASES}

# Rules with maps, and without taps.
RESUMED = ("fdfa-momentum", "fg-w-normal")


def collected(function: Callable[..., None]) -> Callable[..., None]:
    """Leaves no trainer to the garbage: one that outlives its process group can hang or abort."""

    @functools.wraps(function)
    def settled(*arguments: Any) -> None:
        try:
            function(*arguments)
        finally:
            gc.collect()

    return settled


@contextmanager
def shared_folder(rank: int) -> Iterator[pathlib.Path]:
    """The same folder for all."""
    made = tempfile.mkdtemp() if rank == 0 else ""
    folder = pathlib.Path(gathered(made)[0])
    try:
        yield folder
        gathered(None)  # nobody reads it any more
    finally:
        if rank == 0:
            shutil.rmtree(folder, ignore_errors=True)


class Alone(Trainer):
    """A trainer that knows of no other process: what one process alone learns."""

    def __init__(self, *args: Any, **options: Any) -> None:
        present = Processes.present
        Processes.present = classmethod(lambda cls: cls())  # type: ignore[method-assign]
        try:
            super().__init__(*args, **options)
        finally:
            Processes.present = present  # type: ignore[method-assign]
        if isinstance(self.learner, fdfa.Estimator):
            self.learner.alone = True


# Number of examples, settings. What is left over at the end is never so little that two processes
# leave it out and one alone does not.
SETUPS: dict[str, tuple[int, dict[str, Any]]] = {
    "even": (24, {"batch_size": 6}),
    "odd": (26, {"batch_size": 7}),  # 4 and 3 examples; 5 are left over: 3 and 2
    "uneven end": (24, {"batch_size": 10}),
    "parts": (29, {"batch_size": 10, "accumulate": 2}),  # 9 are left over: 3 and 2, 2 and 2
    "clipped": (
        21,
        {"batch_size": 7, "clip_norm": 0.1, "schedule": "cosine", "warmup_epochs": 1.0},
    ),
}


@check(*SETUPS)
@collected
def two_processes_learn_what_one_learns(rank: int, name: str) -> None:
    """Means over examples, not over processes; scores and rates are the same too."""
    count, fields = SETUPS[name]
    settings = TrainingSettings(epochs=2, learning_rate=0.02, **fields)
    for method in ("backpropagation", "dfa", "drtp"):
        found = []
        for kind in (Trainer, Alone):
            learner = fdfa.wrap(method, dense(), seed=5)
            trainer = kind(learner, settings, seed=7)
            found.append((learner, trainer.fit(points(count), points(12))))
        (together, results), (alone, others) = found
        same_on_all_ranks(dict(together.state_dict()))
        for key, value in alone.model.state_dict().items():
            torch.testing.assert_close(
                together.model.state_dict()[key], value, rtol=1e-9, atol=1e-10
            )
        assert [r.step for r in results] == [r.step for r in others]
        for result, other in zip(results, others, strict=True):
            assert math.isclose(result.train.loss, other.train.loss, rel_tol=1e-9)
            assert result.train.accuracy == other.train.accuracy
            assert math.isclose(result.validation.loss, other.validation.loss, rel_tol=1e-9)
            assert result.learning_rate == other.learning_rate
        assert len(set(gathered(tuple((r.train, r.validation) for r in results)))) == 1


@check(1, 2)
@collected
def two_processes_learn_where_the_first_block_rests(rank: int, accumulate: int) -> None:
    """In some steps its parameters get no gradient, or only in the first part of the batch."""
    settings = TrainingSettings(epochs=1, batch_size=8, accumulate=accumulate)
    learner = fdfa.FDFA(dense(), first_block_every=2, relay=accumulate - 1, seed=5)
    start = {name: value.clone() for name, value in learner.named_parameters()}
    Trainer(learner, settings, seed=7).fit(points(24), points(12))
    same_on_all_ranks(dict(learner.state_dict()))
    assert not any(torch.equal(start[name], value) for name, value in learner.named_parameters())


@check(*RESUMED, slow=[name for name in (*FAST, *SLOW) if name not in RESUMED])
@collected
def resumes_under_two_processes(rank: int, name: str) -> None:
    """Batch norm, dropout, augmentation, patience; cut within an epoch and at its end."""
    settings = TrainingSettings(epochs=2, batch_size=6, learning_rate=0.02, patience=2)

    def make(number: int, callbacks: Sequence[Callback]) -> Trainer:
        learner = BY_NAME[name].wrap(busy(number), seed=number)
        trainer = Trainer(learner, settings, seed=number, callbacks=callbacks)
        scramble(100 * number + rank)  # each has dropout masks of its own
        return trainer

    with shared_folder(rank) as folder:
        mine = folder / f"rank{rank}"
        assert_resumes(
            make,
            pictures(20),
            pictures(12, augmented=False),
            mine,
            at=["step 2", "step 5"],
            checkpoints=folder / "checkpoints",
        )
        if rank != 0:
            assert not list(mine.glob("*/metrics.jsonl")), "only the first process writes"


@check()
@collected
def the_end_is_the_same_everywhere(rank: int) -> None:
    """Also statistics of batch norm and, with patience, the best weights."""
    for patience in (None, 1):
        settings = TrainingSettings(epochs=4, batch_size=6, patience=patience, learning_rate=0.3)
        learner = fdfa.FDFA(busy(), seed=1)
        trainer = Trainer(learner, settings)
        torch.manual_seed(rank)
        trainer.fit(pictures(20), pictures(12, augmented=False))
        same_on_all_ranks(dict(learner.state_dict()))


@check()
@collected
def another_number_of_processes_cannot_resume(rank: int) -> None:
    settings = TrainingSettings(epochs=1, batch_size=6)
    with shared_folder(rank) as folder:
        trainer = Trainer(dense(), settings, callbacks=[Checkpoints(folder)])
        trainer.fit(points(12))
        gathered(None)
        with pytest.raises(
            CheckpointError, match=r"by 2 process\(es\) and this training has 1.*per-n"
        ):
            restore(Alone(dense(), settings), read_checkpoint(folder))


@check()
@collected
def a_state_of_one_process_that_is_missing_is_named(rank: int) -> None:
    settings = TrainingSettings(epochs=1, batch_size=6)
    with shared_folder(rank) as folder:
        Trainer(dense(), settings, callbacks=[Checkpoints(folder)]).fit(points(12))
        gathered(None)
        whole = read_checkpoint(folder)
        for name in [name for name in whole.state if name.startswith("process1.")]:
            whole = read_checkpoint(folder)
            del whole.state[name]
            with pytest.raises(CheckpointError, match=name):
                restore(Trainer(dense(), settings), whole)


class On(Callback):
    """Does something after a step, on one rank."""

    def __init__(self, rank: int, step: int, action: Callable[[Trainer], None]) -> None:
        self.rank, self.step, self.action = rank, step, action

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        if (trainer.processes.rank, result.step) == (self.rank, self.step):
            self.action(trainer)


@check(0, 1)
@collected
def a_stop_on_one_stops_both(rank: int, asked: int) -> None:
    """At the same step, with a checkpoint from which both go on."""

    def ask(trainer: Trainer) -> None:
        trainer.stop_requested = True

    settings = TrainingSettings(epochs=8, batch_size=6)  # 4 steps an epoch
    with shared_folder(rank) as folder:
        callbacks = [On(asked, 5, ask), Checkpoints(folder, seconds=None)]
        trainer = Trainer(dense(), settings, callbacks=callbacks)
        with pytest.raises(TrainingInterrupted) as caught:
            trainer.fit(points(24))
        (step,) = set(gathered(caught.value.step))
        assert 5 <= step <= 5 + 16
        whole = Trainer(dense(), settings)
        whole.fit(points(24))
        again = Trainer(dense(9), settings, callbacks=[Checkpoints(folder)])
        restore(again, read_checkpoint(folder))
        assert again.progress.step == step
        again.fit(points(24))
        assert_same_bits(again.model.state_dict(), whole.model.state_dict())


@check()
@collected
def the_clock_of_the_first_decides(rank: int) -> None:
    """Checkpoints by time: clocks that differ must not make one wait for the other."""
    settings = TrainingSettings(epochs=2, batch_size=6)
    with shared_folder(rank) as folder:
        for seconds in (1e-9 if rank == 0 else 1e9, 1e9 if rank == 0 else 1e-9):
            callbacks = [Checkpoints(folder / str(seconds < 1), seconds=seconds)]
            Trainer(dense(), settings, callbacks=callbacks).fit(points(24))


@check()
@collected
def too_few_examples_are_refused_by_all(rank: int) -> None:
    with pytest.raises(
        ConfigError, match=r"batch_size=3 is too small for 2 process\(es\) with 2 part"
    ):
        Trainer(dense(), TrainingSettings(batch_size=3, accumulate=2))
    with pytest.raises(ConfigError, match="1 training examples are too few for 2 process"):
        Trainer(dense(), TrainingSettings(batch_size=4)).fit(points(1))


@check()
@collected
def validation_that_is_not_finite_stops_both(rank: int) -> None:
    """Only the first process measures; the others learn of it."""
    inputs = points(12).inputs.clone()
    inputs[0] = math.nan
    trainer = Trainer(dense(), TrainingSettings(epochs=1, batch_size=6))
    with pytest.raises(NonFiniteLossError, match="validation loss"):
        trainer.fit(points(24), Examples(inputs, points(12).labels))


@check(0, 1)
@collected
def metrics_are_of_all_processes(rank: int, seed: int) -> None:
    """The line of an epoch is the same as that of one process, whoever had which example."""
    settings = TrainingSettings(epochs=1, batch_size=24, learning_rate=1e-9)
    with shared_folder(rank) as folder:
        trainer = Trainer(dense(), settings, seed=seed, callbacks=[MetricsLog(folder)])
        (result,) = trainer.fit(points(24))
        outputs = dense()(points(24).inputs)
        expected = F.cross_entropy(outputs, points(24).labels).item()
        assert math.isclose(result.train.loss, expected, rel_tol=1e-12)
        right = (outputs.argmax(1) == points(24).labels).double().mean().item()
        assert result.train.accuracy == right


@check(0, 1)
@collected
def a_loss_that_is_not_finite_on_one_does_not_hang(rank: int, bad: int) -> None:
    """It is named where it arose, and the other process does not wait for ever."""

    def loss_function(outputs: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(outputs, labels)
        return loss * math.nan if rank == bad and trainer.progress.step == 2 else loss

    model: nn.Module = dense()
    settings = TrainingSettings(epochs=2, batch_size=6)
    trainer = Trainer(model, settings, loss_function=loss_function)
    started = time.monotonic()
    expected = NonFiniteLossError if rank == bad else (RuntimeError, NonFiniteLossError)
    with pytest.raises(expected) as caught:
        trainer.fit(points(24))
    assert time.monotonic() - started < 15
    if rank == bad:
        assert "at step 3 (epoch 1)" in str(caught.value)
        assert "in the loss function" in str(caught.value)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


assert RANKS == 2

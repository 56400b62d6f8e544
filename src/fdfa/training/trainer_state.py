"""All that a training is made of, as a checkpoint; and back, bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fdfa.engine.estimator import Estimator
from fdfa.engine.random_state import capture_random_state, restore_random_state
from fdfa.errors import CheckpointError, NonFiniteLossError, briefly
from fdfa.training.agreement import (
    Entries,
    check_kind,
    check_shapes,
    matched_callbacks,
    shapes,
)
from fdfa.training.checkpoint import Checkpoint
from fdfa.training.non_finite import not_finite
from fdfa.training.optimizer_state import (
    capture_optimizer,
    check_optimizer,
    restore_optimizer,
)
from fdfa.training.progress import Best, Progress
from fdfa.training.trainer import Trainer

__all__ = ["capture", "restore", "restore_learner"]


def capture(trainer: Trainer) -> Checkpoint:
    """Everything that the rest of a training depends on, between two steps.

    In a process group all of its processes call it together.

    Args:
        trainer: is not changed.

    Returns:
        The checkpoint; its tensors may be those that the trainer goes on to change.

    Raises:
        NonFiniteLossError: if a weight, a feedback map or the like is not finite: what is saved
            could not be trained on.
        CheckpointError: if something cannot be saved: a state that is no tensor.
    """
    if (what := not_finite(trainer.learner, trainer.optimizer, unset=trainer.unset)) is not None:
        raise NonFiniteLossError(
            f"{what} is not finite after step {trainer.progress.step}. No checkpoint is written: "
            "the last good one stays. Lower the learning rate, or shorten gradients with clip_norm."
        )
    groups, optimizer = capture_optimizer(trainer.optimizer)
    state = {
        **_prefixed("learner", _own_state(trainer.learner)),
        **_prefixed("optimizer", optimizer),
        "generator.order": trainer.order_generator.get_state(),
        "generator.augmentation": trainer.augmentation_generator.get_state(),
    }
    if trainer.progress.in_epoch:
        state["generator.order_of_epoch"] = trainer.progress.order_state
    for rank, own in enumerate(trainer.processes.gathered(_of_this_process(trainer))):
        state |= _prefixed(f"process{rank}", own)
    best = trainer.best
    if best is not None:
        state |= _prefixed("best", best.state)
    values = {
        "entries": sorted(state),
        "settings": _decisive(trainer),
        "method": getattr(trainer.learner, "method", None),
        "processes": trainer.processes.count,
        "epoch": trainer.progress.epoch,
        "step": trainer.progress.step,
        "steps_in_epoch": trainer.progress.steps_in_epoch,
        "in_epoch": trainer.progress.in_epoch,
        "examples": trainer.progress.examples,
        "best": None if best is None else {"epoch": best.epoch, "accuracy": best.accuracy},
        "optimizer": {
            "kind": type(trainer.optimizer).__name__,
            "groups": groups,
            "shapes": shapes(trainer.optimizer),
            "rates": trainer.learning.rates,
        },
        "scaler": trainer.learning.scaler.state_dict(),
        "callbacks": [
            {"kind": type(callback).__name__, "state": dict(callback.state())}
            for callback in trainer.callbacks
        ],
    }
    model = _tensors(trainer.model.state_dict(), owner="the model")
    return Checkpoint(model=model, state=state, values=values, step=trainer.progress.step)


def restore(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Make a fresh trainer go on where a checkpoint was written.

    Args:
        trainer: made with the same arguments as the one that was saved. (Options of the method are
            not compared: they are not in its state.)
        checkpoint: from :func:`capture`, perhaps in another process.

    Raises:
        CheckpointError: if the checkpoint lacks something, or is of something else; it says what.
            Nothing is changed then, unless only the optimiser's parameters are not those that
            were saved.
    """
    state, values = Entries(checkpoint.state), Entries(checkpoint.values)
    # First whatever can be wrong, then what changes the trainer: the learner checks itself.
    _check(trainer, state, values)
    optimizer = Entries(values.take("optimizer"))
    check_optimizer(trainer.optimizer, optimizer.take("groups"))
    check_kind("learning_rate", optimizer.take("rates"), trainer.learning.rates)
    matched = matched_callbacks(trainer, values.take("callbacks"))
    best = _restored_best(state, values.take("best"))
    own = state.below(f"process{trainer.processes.rank}")
    sums, scaler = own.take("sums"), Entries(values.take("scaler"))
    for name in trainer.learning.scaler.state_dict():
        scaler.require(name)
    _load_learner(trainer.learner, checkpoint.model, dict(state.below("learner")))
    check_shapes(optimizer.take("shapes"), trainer.optimizer)
    restore_optimizer(trainer.optimizer, optimizer["groups"], dict(state.below("optimizer")))
    _restore_progress(trainer.progress, trainer.learning.device, state, values, sums)
    trainer.learning.scaler.load_state_dict(scaler)
    trainer.best = best
    for callback, its in matched:
        callback.restore(its)
    trainer.order_generator.set_state(state.take("generator.order"))
    trainer.augmentation_generator.set_state(state.take("generator.augmentation"))
    restore_random_state({name: value for name, value in own.items() if name != "sums"})


def restore_learner(learner: nn.Module, checkpoint: Checkpoint) -> None:
    """Bring a learner to where it was when a checkpoint was written, without going on to train.

    Args:
        learner: freshly made, as the one that was saved.
        checkpoint: from :func:`capture`, perhaps in another process.

    Raises:
        CheckpointError: if the checkpoint is of another method or model, or lacks something.

    Example:
        >>> from fdfa.training import TrainingSettings
        >>> saved = capture(Trainer(nn.Linear(2, 2), TrainingSettings()))
        >>> model = nn.Linear(2, 2)
        >>> restore_learner(model, saved)
        >>> torch.equal(model.weight, saved.model["weight"])
        True
    """
    method = Entries(checkpoint.values).take("method")
    check_kind("method", method, getattr(learner, "method", None))
    own = dict(Entries(checkpoint.state).below("learner"))
    _load_learner(learner, checkpoint.model, own)


def _check(trainer: Trainer, state: Entries, values: Entries) -> None:
    """Whether it is all there, and of a training like this one."""
    for name in ("epoch", "step", "steps_in_epoch", "in_epoch", "examples"):
        values.require(name)
    for entry in values.take("entries"):
        state.require(entry)
    count = values.take("processes")
    if count != trainer.processes.count:
        raise CheckpointError(
            f"the checkpoint was written by {count} process(es) and this training has "
            f"{trainer.processes.count}: every process has random numbers of its own. Resume it "
            f"with as many (torchrun --nproc-per-node {count})."
        )
    check_kind("method", values.take("method"), getattr(trainer.learner, "method", None))
    optimizer = Entries(values.take("optimizer"))
    check_kind("optimizer", optimizer.take("kind"), type(trainer.optimizer).__name__)
    saved = Entries(values.take("settings"))
    for name, value in _decisive(trainer).items():
        check_kind(name, saved.take(name), value)


def _decisive(trainer: Trainer) -> dict[str, Any]:
    """The settings that may not change in mid-training."""
    settings = dataclasses.asdict(trainer.settings)
    free = ("epochs", "patience", "optimizer", "learning_rate")
    decisive = {name: value for name, value in settings.items() if name not in free}
    if settings["schedule"] != "constant":  # where the end is makes a difference from the start
        decisive["epochs"] = settings["epochs"]
    return decisive


def _of_this_process(trainer: Trainer) -> dict[str, Tensor]:
    """What differs among processes: random numbers, and the sums of the running epoch."""
    progress = trainer.progress
    sums = [progress.seen, progress.loss, progress.correct.item()]
    return {**capture_random_state(), "sums": torch.tensor(sums, dtype=torch.float64)}


def _restore_progress(
    progress: Progress, device: torch.device, state: Entries, values: Entries, sums: Tensor
) -> None:
    progress.epoch, progress.step = values.take("epoch"), values.take("step")
    progress.in_epoch = values.take("in_epoch")
    if progress.in_epoch:
        order = state.take("generator.order_of_epoch")
        progress.start_epoch(order, device, examples=values.take("examples"))
        progress.steps_in_epoch = values.take("steps_in_epoch")
        seen, progress.loss, correct = sums.tolist()
        progress.seen = int(seen)
        progress.correct += int(correct)


def _own_state(learner: nn.Module) -> dict[str, Tensor]:
    """What a learner has beside the model."""
    if not isinstance(learner, Estimator):
        return {}
    own = {k: v for k, v in learner.state_dict().items() if not k.startswith("model.")}
    return _tensors(own, owner="the learner")


def _load_learner(learner: nn.Module, model: Mapping[str, Tensor], own: dict[str, Tensor]) -> None:
    entries: dict[str, Any] = dict(model)
    if not isinstance(learner, Estimator):
        for name in learner.state_dict():  # torch itself would forgive a lacking counter
            if name not in entries:
                raise CheckpointError(
                    f"the checkpoint does not fit this model: it lacks '{name}'. Resume it with "
                    "the model that was trained."
                )
    else:
        entries = {**_prefixed("model", model), **own}
    try:
        learner.load_state_dict(entries)
    except CheckpointError:
        raise
    except RuntimeError as error:  # a plain module: torch's own words name every entry
        raise CheckpointError(
            f"the checkpoint does not fit this model ({briefly(error)}). Resume it with the model "
            "that was trained."
        ) from error


def _restored_best(state: Entries, best: Mapping[str, Any] | None) -> Best | None:
    if best is None:
        return None
    known = Entries(best)
    return Best(known.take("epoch"), known.take("accuracy"), dict(state.below("best")))


def _tensors(entries: Mapping[str, Any], *, owner: str) -> dict[str, Tensor]:
    for name, value in entries.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{owner} keeps '{name}' as {type(value).__name__} in its state dict, which no "
                "checkpoint without pickle can hold. Keep it as a buffer, or encode it as a uint8 "
                "tensor in get_extra_state()."
            )
    return {name: value.detach() for name, value in entries.items()}


def _prefixed(prefix: str, entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in entries.items()}

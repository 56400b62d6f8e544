"""A training as one writes it by hand: the oracle for the trainer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fdfa.data import Examples
from fdfa.engine.estimator import Estimator

__all__ = ["copies", "train_by_hand"]


def train_by_hand(
    module: nn.Module,
    examples: Examples,
    optimizer: torch.optim.Optimizer,
    *,
    rates: Sequence[Sequence[float]],
    batch_size: int,
    seed: int,
    parts: int = 1,
    clip: float | None = None,
    precision: torch.dtype | None = None,
    after_epoch: Callable[[int], None] = lambda epoch: None,
) -> list[float]:
    """Trains with given learning rates; the mean loss of each step.

    Args:
        module: a learner or a plain module.
        examples: without augmentation or normalization.
        optimizer: its groups all get the rate of the step.
        rates: of each step, epoch by epoch.
        batch_size: of every step but the last of an epoch.
        seed: of the order.
        parts: of a batch, one after the other.
        clip: the longest gradient.
        precision: of autocast; float16 with scaled gradients.
        after_epoch: is called with each epoch's number, from 1.
    """
    order = torch.Generator().manual_seed(seed)
    scaler = torch.amp.GradScaler("cpu", enabled=precision == torch.float16)
    criterion = cross_entropy
    if isinstance(module, Estimator):
        criterion = module.criterion(cross_entropy)
    losses = []
    for epoch, epoch_rates in enumerate(rates, 1):
        module.train()
        indices = torch.randperm(len(examples.labels), generator=order)
        for number, rate in enumerate(epoch_rates):
            batch = indices[number * batch_size : (number + 1) * batch_size]
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            mean = 0.0
            for part in batch.tensor_split(parts):
                with _autocast(precision):
                    loss = criterion(module(examples.inputs[part]), examples.labels[part])
                share = len(part) / len(batch)
                scaler.scale(loss * share if parts > 1 else loss).backward()
                mean += loss.item() * share
            if clip is not None:
                scaler.unscale_(optimizer)
                held = [p for group in optimizer.param_groups for p in group["params"]]
                torch.nn.utils.clip_grad_norm_(held, clip)
            scaler.step(optimizer)
            scaler.update()
            losses.append(mean)
        after_epoch(epoch)
    return losses


def _autocast(precision: torch.dtype | None) -> contextlib.AbstractContextManager[object]:
    return contextlib.nullcontext() if precision is None else torch.autocast("cpu", precision)


def copies(module: nn.Module) -> dict[str, Tensor]:
    """Copies of a state dict."""
    return {name: value.clone() for name, value in module.state_dict().items()}

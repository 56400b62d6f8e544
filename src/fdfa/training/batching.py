"""Which examples are learned in which step, by which process, in which part of it."""

from __future__ import annotations

from collections.abc import Sized
from typing import NamedTuple

import torch
from torch import Tensor

from fdfa.errors import ConfigError
from fdfa.training.processes import Processes
from fdfa.training.settings import TrainingSettings

__all__ = ["Step", "check_batch_size", "check_examples", "epoch_steps"]


class Step(NamedTuple):
    """One optimiser step.

    Attributes:
        parts: indices that this process learns one after the other, int64 (n,).
        examples: how many all parts of all processes have together.
    """

    parts: list[Tensor]
    examples: int


def epoch_steps(
    order: Tensor, *, batch_size: int, parts: int = 1, rank: int = 0, processes: int = 1
) -> list[Step]:
    """The steps of an epoch, each a list of parts, as this process has to take them.

    What is left over at the end makes a smaller step, unless some part of it would be a single
    example (or none), which batch norm cannot use: then it is left out.

    Args:
        order: int64 (N,), the examples in the order in which they are learned.
        batch_size: examples in one step, over all processes and parts.
        parts: that each process learns one after the other.
        rank: number of this process.
        processes: how many share each step.

    Returns:
        The steps.

    Example:
        >>> [step.parts for step in epoch_steps(torch.arange(7), batch_size=3)]
        [[tensor([0, 1, 2])], [tensor([3, 4, 5])]]
        >>> epoch_steps(torch.arange(8), batch_size=8, parts=2, rank=1, processes=2)
        [Step(parts=[tensor([1, 3]), tensor([5, 7])], examples=8)]
    """
    batches = list(torch.split(order, batch_size))
    shares = parts * processes
    if len(batches) > 1 and len(batches[-1]) < 2 * shares and len(batches[-1]) < batch_size:
        del batches[-1]
    if shares == 1:
        return [Step([batch], len(batch)) for batch in batches]
    return [
        Step([part for part in batch[rank::processes].tensor_split(parts) if len(part)], len(batch))
        for batch in batches
    ]


def check_batch_size(settings: TrainingSettings, processes: Processes) -> None:
    """Refuse batches that cannot be shared.

    Args:
        settings: how to train.
        processes: that share each batch.

    Raises:
        ConfigError: if a part would have no example.
    """
    if settings.batch_size < settings.accumulate * processes.count:
        raise ConfigError(
            f"batch_size={settings.batch_size!r} is too small for {processes.count} process(es) "
            f"with {settings.accumulate} part(s) each. Give at least one example each."
        )


def check_examples(
    settings: TrainingSettings,
    processes: Processes,
    train: Sized,
    validation: Sized | None,
) -> None:
    """Refuse examples with which the settings can do nothing.

    Args:
        settings: how to train.
        processes: that share each batch.
        train: examples to learn from.
        validation: examples to measure on.

    Raises:
        ConfigError: if ``patience`` has nothing to be measured on, or there are too few examples
            for so many processes.
    """
    if settings.patience is not None and not validation:
        raise ConfigError(
            f"patience={settings.patience!r} waits for a better validation accuracy, and there are "
            "no validation examples. Give some, or leave patience out."
        )
    if len(train) < settings.accumulate * processes.count:
        raise ConfigError(
            f"{len(train)} training examples are too few for {processes.count} process(es) "
            f"with {settings.accumulate} part(s) each. Give at least one example each."
        )

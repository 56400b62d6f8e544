"""The only place that looks at test examples."""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn
from torch.nn import functional as F

from fdfa.data.dataset import Dataset
from fdfa.errors import ConfigError, unknown_name
from fdfa.training import LossFunction, Score, evaluate

__all__ = ["Part", "score_on"]

Part = Literal["test", "validation", "train"]


def score_on(
    model: nn.Module,
    data: Dataset,
    *,
    part: Part,
    batch_size: int = 256,
    loss_function: LossFunction = F.cross_entropy,
) -> Score:
    """How well a network does on a part of a data set.

    Training and everything that chooses see the other parts alone; a run calls this once for the
    test part, when nothing is left to choose.

    Args:
        model: a learner or a plain module.
        data: in three parts.
        part: which one.
        batch_size: examples in one forward pass.
        loss_function: (outputs, labels) to the mean loss of a batch.

    Returns:
        The score.

    Raises:
        ConfigError: if the part is unknown, or holds no examples.

    Example:
        >>> import fdfa.data, fdfa.models, torch
        >>> digits = fdfa.data.load("digits")
        >>> network = fdfa.models.build("fully-connected", image=(1, 8, 8), classes=10, width=8)
        >>> 0 <= score_on(network, digits, part="test").accuracy <= 1
        True
    """
    if part not in get_args(Part):
        raise ConfigError(unknown_name("part", str(part), get_args(Part)))
    examples = {"test": data.test, "validation": data.validation, "train": data.train}[part]
    if not len(examples):
        raise ConfigError(
            f"part={part!r}: data set {data.name!r} has no {part} examples. Name another part."
        )
    return evaluate(model, examples, batch_size=batch_size, loss_function=loss_function)

"""Loss functions by name: what a classifier's outputs and the labels cost."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from torch import Tensor
from torch.nn import functional as F

from fdfa.training.evaluation import LossFunction

__all__ = ["LOSSES"]


def _binary_cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Of K sigmoid units, summed over them: its gradient is ``(sigmoid(y) - t) / N``."""
    targets = F.one_hot(labels, outputs.shape[1]).to(outputs.dtype)
    loss = F.binary_cross_entropy_with_logits(outputs, targets, reduction="sum")
    return loss / len(outputs)


def _squared_error(outputs: Tensor, labels: Tensor) -> Tensor:
    """Half of it, summed over K linear units: its gradient is ``(y - t) / N``."""
    targets = F.one_hot(labels, outputs.shape[1]).to(outputs.dtype)
    return F.mse_loss(outputs, targets, reduction="sum") / (2 * len(outputs))


# What TrainingSettings.loss may be. Targets t are one-hot; means over the N examples of a batch.
LOSSES: Final[Mapping[str, LossFunction]] = MappingProxyType(
    {
        "cross-entropy": F.cross_entropy,
        "binary-cross-entropy": _binary_cross_entropy,
        "squared-error": _squared_error,
    }
)

"""Statistical claims, entry by entry: so many standard errors from what it should be."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["deviation", "mean_deviation", "variance_deviation"]

LIMIT = 4.0  # standard errors; seeds are fixed, so a passing test stays one


def deviation(estimate: Tensor, truth: Tensor | float, standard_error: Tensor | float) -> float:
    """The largest distance of an entry from the truth, in standard errors."""
    return ((estimate - truth).abs() / standard_error).max().item()


def mean_deviation(draws: Tensor, truth: Tensor | float) -> float:
    """How far the mean over the first dimension is from the truth, by the draws' own spread."""
    return deviation(draws.mean(0), truth, draws.std(0) / len(draws) ** 0.5)


def variance_deviation(draws: Tensor, truth: Tensor | float) -> float:
    """How far the variance over the first dimension is from the truth."""
    centred = draws - draws.mean(0)
    variance = centred.square().mean(0)
    fourth = centred.pow(4).mean(0)
    return deviation(variance, truth, ((fourth - variance.square()) / len(draws)).sqrt())


def cosine(a: Tensor, b: Tensor) -> float:
    """Of two tensors as vectors."""
    return torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).item()

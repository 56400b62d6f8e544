"""Every figure of a diagnosis from all draws at once, kept in a list, by textbook formulas."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn

from fdfa.engine.estimator import Estimator

__all__ = ["Figures", "Kept", "WatchedTanh", "figures", "keep_draws"]


@dataclasses.dataclass
class Kept:
    """Gradients of parameters and at taps, by name: the exact ones, and one list of draws each."""

    exact: dict[str, Tensor]
    exact_credits: dict[str, Tensor]
    draws: dict[str, list[Tensor]]
    credits: dict[str, list[Tensor]]


def keep_draws(
    learner: Estimator, loss_function: Any, x: Tensor, target: Tensor, draws: int
) -> Kept:
    """``backward()`` on a copy for each draw; the first is the learner's own next step."""
    exact, exact_credits = _backward(copy.deepcopy(learner.model), loss_function, x, target)
    kept = Kept(exact, exact_credits, {name: [] for name in exact}, {})
    for number in range(draws):
        twin = copy.deepcopy(learner)
        twin.redraw = number
        found, credits = _backward(twin, loss_function, x, target)
        for name, gradient in found.items():
            kept.draws[name].append(gradient)
        for name, credit in credits.items():
            kept.credits.setdefault(name, []).append(credit)
    return kept


def _backward(
    module: nn.Module, loss_function: Any, x: Tensor, target: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gradients as a user finds them, and those that hooks on activations see."""
    ruled = isinstance(module, Estimator)
    model = module.model if ruled else module
    module.zero_grad()
    state = torch.get_rng_state()
    loss = module.criterion(loss_function) if ruled else loss_function
    loss(module(x), target).backward()
    torch.set_rng_state(state)
    found = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    credits = {
        name: layer.seen
        for name, layer in model.named_modules()
        if isinstance(layer, WatchedTanh) and layer.seen is not None
    }
    return found, credits


class WatchedTanh(nn.Tanh):
    """A hook of the user's own, where the activation is made, sees the gradient that it gets."""

    seen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The activation."""
        h = x.tanh()
        if h.requires_grad:
            h.register_hook(lambda gradient: setattr(self, "seen", gradient))
        return h


@dataclasses.dataclass
class Figures:
    """As in ``GradientQuality``; means over draws with their standard errors."""

    exact_norm: float
    cosine: tuple[float, float]
    angle: tuple[float, float]
    norm_ratio: tuple[float, float]
    error: tuple[float, float]
    squared_bias: float
    variance: float
    signal_to_noise: float
    cosine_of_mean: float
    component_bias: list[float]
    component_variance: list[float]


def figures(exact: Tensor, draws: list[Tensor]) -> Figures:
    """Number by number."""
    g = exact.flatten().tolist()
    rows = [draw.flatten().tolist() for draw in draws]
    R = len(rows)
    mean = [math.fsum(column) / R for column in zip(*rows, strict=True)]
    variances = [
        math.fsum((value - m) ** 2 for value in column) / (R - 1)
        for column, m in zip(zip(*rows, strict=True), mean, strict=True)
    ]
    bias = [m - value for m, value in zip(mean, g, strict=True)]
    V = math.fsum(variances)
    signal = _dot(mean, mean) - V / R
    cosines = [_cosine(row, g) for row in rows if any(row)]
    noiseless = all(row == rows[0] for row in rows)
    return Figures(
        exact_norm=math.sqrt(_dot(g, g)),
        cosine=_mean_and_error(cosines),
        angle=_mean_and_error([math.degrees(math.acos(c)) for c in cosines]),
        norm_ratio=_mean_and_error([math.sqrt(_dot(row, row) / _dot(g, g)) for row in rows]),
        error=_mean_and_error(
            [math.fsum((a - b) ** 2 for a, b in zip(row, g, strict=True)) for row in rows]
        ),
        squared_bias=_dot(bias, bias) - V / R,
        variance=V,
        signal_to_noise=math.inf if noiseless else signal / V,
        cosine_of_mean=_dot(mean, g) / math.sqrt(_dot(g, g) * signal) if signal > 0 else math.nan,
        component_bias=bias,
        component_variance=variances,
    )


def _dot(a: list[float], b: list[float]) -> float:
    return math.fsum(p * q for p, q in zip(a, b, strict=True))


def _cosine(a: list[float], b: list[float]) -> float:
    return max(-1.0, min(1.0, _dot(a, b) / math.sqrt(_dot(a, a) * _dot(b, b))))


def _mean_and_error(values: list[float]) -> tuple[float, float]:
    if not values:
        return math.nan, math.nan
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    spread = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(spread / len(values))

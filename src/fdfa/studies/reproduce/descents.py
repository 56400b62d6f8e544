"""Plain gradient descent by any learning rule: on a function, and of a small network on digits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa.data
from fdfa.engine.random_state import random_state_of
from fdfa.methods import wrap
from fdfa.studies.reproduce.surfaces import Surface

__all__ = ["digits_descent", "surface_descent"]

_BATCH = 64


def surface_descent(
    surface: Surface,
    method: str,
    options: Mapping[str, Any],
    *,
    rate: float,
    steps: int,
    patience: int,
) -> dict[str, Any]:
    """Go down a function.

    Args:
        surface: at its start; it is moved.
        method: the learning rule.
        options: of it.
        rate: length of a step for a gradient of length 1.
        steps: at most.
        patience: stop after so many steps in a row, none of which went down.

    Returns:
        The lowest ``value``, the number of ``steps``, and step and value on the ``path``.

    Example:
        >>> from fdfa.studies.reproduce.surfaces import Sphere
        >>> found = surface_descent(
        ...     Sphere(2), "backpropagation", {}, rate=0.25, steps=2, patience=9
        ... )
        >>> found["path"]
        [(0, 2.0), (1, 0.5), (2, 0.125)]
    """
    learner = wrap(method, surface, **options)
    optimizer = torch.optim.SGD(learner.parameters(), lr=rate)
    nothing = surface.point.new_zeros(1, 1)
    lowest, last, patient = math.inf, math.inf, patience
    path, marked = [], _marks(steps)
    for step in range(steps + 1):
        optimizer.zero_grad()
        output = learner(nothing)
        value = output.item()
        lowest = min(lowest, value)
        if step in marked:
            path.append((step, value))
        patient = patient - 1 if value >= last else patience
        last = value
        if step == steps or patient == 0 or not math.isfinite(value):
            break
        output.sum().backward()
        optimizer.step()
    return {"value": lowest, "steps": step, "path": path}


def digits_descent(
    method: str, options: Mapping[str, Any], *, rate: float, steps: int
) -> dict[str, Any]:
    """Train 64-32-10 with ReLU on pixels from 0 to 1, batches of 64 drawn anew in every step.

    Args:
        method: the learning rule.
        options: of it.
        rate: of plain SGD.
        steps: how many.

    Returns:
        The loss over all training examples at the end as ``value``, ``steps``, and on the ``path``.
    """
    data = fdfa.data.load("digits", validation=0).train
    inputs, labels = data.first(len(data))
    pixels = (inputs.flatten(1) + 1) / 2
    with random_state_of(0):
        network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    learner = wrap(method, network, **options)
    optimizer = torch.optim.SGD(learner.parameters(), lr=rate)
    drawn = torch.Generator().manual_seed(0)
    path, marked = [(0, _loss(network, pixels, labels))], _marks(steps)
    for step in range(1, steps + 1):
        batch = torch.randint(len(pixels), (_BATCH,), generator=drawn)
        optimizer.zero_grad()
        F.cross_entropy(learner(pixels[batch]), labels[batch]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step in marked:
            path.append((step, _loss(network, pixels, labels)))
    return {"value": path[-1][1], "steps": steps, "path": path}


def _loss(network: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return F.cross_entropy(network(inputs), labels).item()


def _marks(steps: int) -> set[int]:
    """Steps of which a picture shows the value: at equal distances on a logarithmic axis."""
    return {0, steps, *(round(steps ** (place / 60)) for place in range(60))}

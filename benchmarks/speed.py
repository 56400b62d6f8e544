"""Forward and backward time relative to backpropagation, interleaved in one process."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from networks import networks
from promises import Promise
from torch.nn import functional as F

import fdfa

# (floor, aim) for the fully connected network and for the CNN
CASES: dict[str, tuple[str, dict[str, Any], tuple[float, float | None], tuple[float, float | None]]]
CASES = {
    "DFA": ("dfa", {}, (0.90, None), (0.86, None)),
    "FDFA, every step, Rademacher": ("fdfa", {"noise": "rademacher"}, (1.45, 1.20), (1.30, 1.12)),
    "FDFA, every step, normal": ("fdfa", {}, (1.45, None), (1.30, None)),
    "FDFA, one step in eight, Rademacher": (
        "fdfa",
        {"noise": "rademacher", "probe_every": 8},
        (0.98, 0.88),
        (0.92, 0.84),
    ),
}
STEPS = 8  # a round times this many steps of each, so that one step in eight probes once


def measure(rounds: int = 25) -> Sequence[Promise]:
    """Ratios of median step times; the median ratio of rounds is printed beside them.

    Args:
        rounds: of all cases in turn.

    Returns:
        One promise a case and network.
    """
    promises = []
    for column, (name, (model, inputs, targets)) in enumerate(networks().items()):
        learners = {"BP": fdfa.wrap("backpropagation", copy.deepcopy(model))}
        for case, (method, options, *_) in CASES.items():
            learners[case] = fdfa.wrap(method, copy.deepcopy(model), **options)
        times = _interleaved(learners, inputs, targets, rounds)
        reference = statistics.median(times["BP"])
        print(f"  {name}: backpropagation {reference * 1e3:.2f} ms a step, {rounds} rounds")
        for case, (_, _, *bounds) in CASES.items():
            pairs = [a / b for a, b in zip(times[case], times["BP"], strict=True)]
            spread = statistics.quantiles(pairs, n=4)
            floor, aim = bounds[column]
            ratio = statistics.median(times[case]) / reference
            what = f"{name}: {case} [{spread[0]:.2f}, {spread[2]:.2f}]"
            promises.append(Promise(what, ratio, most=floor, aim=aim))
    return promises


def _interleaved(
    learners: dict[str, fdfa.Estimator], inputs: torch.Tensor, targets: torch.Tensor, rounds: int
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in learners}
    for counted in range(-2, rounds):
        for name, learner in learners.items():
            start = time.perf_counter()
            for _ in range(STEPS):
                for parameter in learner.parameters():
                    parameter.grad = None
                F.cross_entropy(learner(inputs), targets).backward()
            if counted >= 0:
                times[name].append((time.perf_counter() - start) / STEPS)
    return times

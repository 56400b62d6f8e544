"""What a step of each rule costs, beside what its count of matrix products says it should.

Backpropagation on a plain PyTorch model is the measure: it takes 3 products a layer, one less in
the first. Times are the process's own CPU time on one thread, so that other programs count for
little. Batches are small (64): going once over a weight costs about half a product.
"""

from __future__ import annotations

import copy
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from networks import BATCH
from promises import Promise
from torch import nn
from torch.nn import functional as F

import fdfa
from fdfa.engine.probes import draw_noise

# Products a weight takes part in at each step, and how many of them the first layer is spared.
COUNTS: dict[str, tuple[float, float]] = {
    "backpropagation": (3, 1),
    "dfa": (2, 0),
    "adfa": (2, 0),
    "drtp": (2, 0),
    "ifa": (4, 1),
    "pepita": (3, 0),
    "dkp": (2, 0),
    "fdfa": (3, 1),
    "fdfa-cv": (3, 1),
    "fg-a": (3, 1),
    "grape": (3, 1),
    "opzo": (2, 0),
    "fa": (3, 1),
    "usf": (3, 1),
    "brsf": (3, 1),
    "frsf": (3, 1),
    "kolen-pollack": (3, 1),
    "ldfa": (3, 1),
    "weight-mirror": (5, 3),
    "fg-w": (3, 1),
    "multi-tangent": (9, 4),  # 1 + 2 k for k = 4 tangents
    "multi-tangent-a": (9, 4),
    "ldfa-direct": (2, 0),
    "pseudo-zeroth-order": (2, 0),
    "l-bp": (3, 3),  # and 2 in the heads
    "lg-fg-a": (3, 1),  # and 2 in the heads
    "spsa": (3, 0),  # two moved passes, and the one whose output is returned
}
# Options other than a method's own, each beside the defaults.
VARIANTS: dict[str, dict[str, Any]] = {
    "weight-mirror": {"noise": "rademacher"},
    "fg-w": {"noise": "rademacher"},
    "multi-tangent": {"tangents": "rademacher"},
    "spsa": {"noise": "rademacher"},
    "fdfa": {"noise": "rademacher"},
}
LOCAL = ("l-bp", "lg-fg-a")  # learn from heads that the model is given
MOST = 1.5
TURN = 3


def measure(rounds: int = 20, only: Sequence[str] = (), batch: int = BATCH) -> Sequence[Promise]:
    """Ratios of median step times (forward, loss, backward) to backpropagation's, and to the count.

    Args:
        rounds: of all rules in turn.
        only: these methods; by default all.
        batch: samples a step.

    Returns:
        One line a rule: its time relative to backpropagation's, divided by its count's.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model, inputs, targets = _dense(batch)
    weights = [p.numel() for p in model.parameters() if p.dim() >= 2]
    steps = {"plain PyTorch": _step(copy.deepcopy(model), inputs, targets)}
    for name in only or fdfa.methods():
        for label, options in _variants(name):
            copied: nn.Module = copy.deepcopy(model)
            if name in LOCAL:
                copied = fdfa.LocalHeads(copied, inputs)
            learner = fdfa.wrap(name, copied, seed=0, **options)
            steps[label] = _step(learner, inputs, targets)
    parts = _parts_of_a_step(weights)
    times = _interleaved({**steps, **parts}, rounds)
    torch.set_num_threads(threads)
    plain = statistics.median(times.pop("plain PyTorch"))
    print(
        f"  batch {batch}, one thread: plain PyTorch {plain * 1e3:.2f} ms a step;"
        f" {rounds} rounds of {TURN} steps"
    )
    print(f"  {'rule':32s} {'time / BP':>9s} {'count / BP':>10s}")
    promises = []
    for label, taken in times.items():
        ratio = statistics.median(taken) / plain
        count = COUNTS.get(label.split(",")[0])
        if count is None:
            print(f"  {label:32s} {ratio:9.2f}")
            continue
        expected = _products(weights, *count) / _products(weights, *COUNTS["backpropagation"])
        print(f"  {label:32s} {ratio:9.2f} {expected:10.2f}")
        promises.append(Promise(f"{label}: measured / count", ratio / expected, most=MOST))
    return promises


def _dense(batch: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """784-800-800-800-10: linear layers and ReLU, nothing else."""
    torch.manual_seed(0)
    widths = (784, 800, 800, 800, 10)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    return model, torch.randn(batch, widths[0]), torch.randint(widths[-1], (batch,))


def _parts_of_a_step(weights: Sequence[int]) -> dict[str, Callable[[], None]]:
    """What a rule may have to do beside its products, for all weights: the bounds from below."""
    generator = torch.Generator()

    def draw(noise: Literal["normal", "rademacher"]) -> Callable[[], None]:
        def drawn() -> None:
            for count in weights:
                draw_noise(noise, (count,), torch.float32, generator)

        return drawn

    tensors = [torch.randn(count) for count in weights]

    def scale() -> None:
        for tensor in tensors:
            tensor.mul(0.5)

    return {
        "(a normal number a weight)": draw("normal"),
        "(a sign a weight)": draw("rademacher"),
        "(a pass over the weights)": scale,
    }


def _variants(name: str) -> list[tuple[str, dict[str, Any]]]:
    options = VARIANTS.get(name)
    extra = [] if options is None else [(f"{name}, {next(iter(options.values()))}", options)]
    return [(name, {}), *extra]


def _products(weights: Sequence[int], all_layers: float, spared: float) -> float:
    return all_layers * sum(weights) - spared * weights[0]


def _step(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> Callable[[], None]:
    is_learner = isinstance(model, fdfa.Estimator)
    criterion = model.criterion(F.cross_entropy) if is_learner else F.cross_entropy

    def step() -> None:
        for parameter in model.parameters():
            parameter.grad = None
        criterion(model(inputs), targets).backward()

    return step


def _interleaved(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            for number in range(-2, TURN):  # the first ones bring its weights back into the caches
                start = time.process_time()
                step()
                if number >= 0:
                    times[name].append(time.process_time() - start)
    return times

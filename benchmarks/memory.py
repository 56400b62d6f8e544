"""Peak memory of one step: of the tensors alone, and of a whole process for a large network."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import torch
from networks import networks
from promises import Promise
from torch.nn import functional as F

import fdfa

CASES: dict[str, tuple[str, dict[str, Any], float]] = {
    "DFA": ("dfa", {}, 1.05),
    "FDFA probing, Rademacher": ("fdfa", {"noise": "rademacher"}, 1.6),
    "FDFA probing, normal": ("fdfa", {}, 1.6),
}

ALEXNET = """
import resource, torch, fdfa, fdfa.models
torch.set_num_threads(2)
model = fdfa.models.build("alexnet", image=(3, 64, 64), classes=200)
learner = fdfa.FDFA(model)
optimizer = torch.optim.SGD(learner.parameters(), lr=1e-3)
for _ in range(2):
    optimizer.zero_grad()
    x, y = torch.randn(64, 3, 64, 64), torch.randint(0, 200, (64,))
    torch.nn.functional.cross_entropy(learner(x), y).backward()
    optimizer.step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def measure() -> Sequence[Promise]:
    """Peak of a step above what stood before it, feedback maps too, over backpropagation's.

    Returns:
        One promise a case and network.
    """
    promises = []
    for name, (model, inputs, targets) in networks().items():
        reference = _peak(fdfa.wrap("backpropagation", copy.deepcopy(model)), inputs, targets)
        print(f"  {name}: backpropagation {reference / 2**20:.1f} MiB")
        for case, (method, options, bound) in CASES.items():
            learner = fdfa.wrap(method, copy.deepcopy(model), **options)
            peak = _peak(learner, inputs, targets)
            promises.append(Promise(f"{name}: {case}", peak / reference, most=bound))
    return promises


def measure_alexnet() -> Sequence[Promise]:
    """Peak resident memory of a process that takes FDFA steps with AlexNet, 200 classes, batch 64.

    Returns:
        One promise.
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ALEXNET], capture_output=True, text=True, check=True
    )
    return [Promise("AlexNet, 64 x 64, FDFA step, whole process (GiB)", float(done.stdout), most=4)]


def _peak(learner: fdfa.Estimator, inputs: torch.Tensor, targets: torch.Tensor) -> int:
    """Largest sum of live allocations during one step, from the allocator's own events."""

    def step() -> None:
        for parameter in learner.parameters():
            parameter.grad = None
        F.cross_entropy(learner(inputs), targets).backward()

    for _ in range(2):  # feedback maps and tables are there before the step that counts
        step()
    for parameter in learner.parameters():
        parameter.grad = None
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak

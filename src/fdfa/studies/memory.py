"""Peak memory of a training step, from the allocator's own events."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gc
import os
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from fdfa.engine.estimator import Estimator
from fdfa.studies.speed import probing_period
from fdfa.studies.trial_step import gradient_step
from fdfa.training import start_training

__all__ = ["StepMemory", "step_memory"]


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """Memory of one step, without the optimiser's state, which is the same for all methods.

    Attributes:
        standing: bytes that stand from step to step: weights, buffers, what the method keeps.
        step: the largest sum of bytes that live beside them at one moment of a step: activations,
            tangents, gradients.
        ratio: of the two together, to the reference.
    """

    standing: int
    step: int
    ratio: float

    @property
    def peak(self) -> int:
        """All of it, in bytes."""
        return self.standing + self.step


def step_memory(
    learners: Mapping[str, Estimator], inputs: Tensor, labels: Tensor, *, reference: str
) -> dict[str, StepMemory | None]:
    """Measure every learner over one probing period; the learners are left as they are.

    Tensors count, and what torch's operators allocate on their way. On a CUDA device the numbers
    are those of ``torch.cuda``; on any other but the CPU nobody counts.

    Args:
        learners: by name.
        inputs: of one batch, the same for all; where the learners are.
        labels: of the batch.
        reference: name of the learner that counts as 1.

    Returns:
        Name to memory; None on a device that does not count.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> learners = {"backpropagation": fdfa.Backpropagation(model)}
        >>> batch = torch.ones(16, 4), torch.zeros(16, dtype=torch.long)
        >>> step_memory(learners, *batch, reference="backpropagation")["backpropagation"].standing
        232
    """
    measured = _MEASURED.get(inputs.device.type)
    if measured is None:
        return dict.fromkeys(learners)
    found = {name: measured(learner, inputs, labels) for name, learner in learners.items()}
    one = sum(found[reference])
    return {
        name: StepMemory(standing, step, (standing + step) / one)
        for name, (standing, step) in found.items()
    }


def _measured_on_cpu(learner: Estimator, inputs: Tensor, labels: Tensor) -> tuple[int, int]:
    """Bytes that stand, and the most that a step adds, from the events of the allocator."""
    with (
        _kineto_silent(),
        _nothing_collected(),
        torch.autograd.profiler.profile(profile_memory=True) as profile,
    ):
        # The copy is made inside, so that whatever is freed was seen when it was allocated.
        for step in _steps(copy.deepcopy(learner), inputs, labels):
            with torch.autograd.profiler.record_function(_STEP):
                step()
    recorded = profile.kineto_results.events()
    live = standing = added = 0
    started = False
    for event in sorted(recorded, key=lambda event: event.start_ns()):
        if event.name() == _STEP:
            started, standing = True, live
        elif event.name() == "[memory]":
            live += event.nbytes()
            added = max(added, live - standing) if started else 0
    return standing, added


def _measured_on_cuda(learner: Estimator, inputs: Tensor, labels: Tensor) -> tuple[int, int]:
    """The same as the allocator of the device counts it."""
    torch.cuda.synchronize(inputs.device)
    before = torch.cuda.memory_allocated(inputs.device)
    standing = added = 0
    for step in _steps(copy.deepcopy(learner), inputs, labels):
        torch.cuda.synchronize(inputs.device)
        torch.cuda.reset_peak_memory_stats(inputs.device)
        standing = torch.cuda.memory_allocated(inputs.device)
        step()
        torch.cuda.synchronize(inputs.device)
        added = max(added, torch.cuda.max_memory_allocated(inputs.device) - standing)
    return standing - before, added


_MEASURED = {"cpu": _measured_on_cpu, "cuda": _measured_on_cuda}
_STEP = "fdfa: a step that counts"


def _steps(learner: Estimator, inputs: Tensor, labels: Tensor) -> Iterator[Callable[[], None]]:
    """The steps of one probing period, each without gradients of the one before."""
    start_training(learner)
    for _ in range(2):  # feedback and tables are there before the steps that count
        gradient_step(learner, inputs, labels)
    for _ in range(probing_period(learner)):
        for parameter in learner.parameters():
            parameter.grad = None
        yield lambda: gradient_step(learner, inputs, labels)


@contextlib.contextmanager
def _nothing_collected() -> Iterator[None]:
    """What others left behind is not freed meanwhile: the allocator would not know it."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@contextlib.contextmanager
def _kineto_silent() -> Iterator[None]:
    """Kineto, below torch's profiler, else says on the error stream when it starts and stops."""
    before = os.environ.get(_KINETO)
    os.environ[_KINETO] = "99"
    try:
        yield
    finally:
        del os.environ[_KINETO]
        if before is not None:
            os.environ[_KINETO] = before


_KINETO = "KINETO_LOG_LEVEL"

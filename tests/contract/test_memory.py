"""Nothing accumulates: memory is flat over 1,000 steps, and no part of a step outlives it."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest
import torch
from torch import Tensor

from fdfa.engine.estimator import Estimator
from tests.contract.networks import batch, dense
from tests.contract.steps import backward, summed
from tests.methods import FAST_CASES, Case


def _tensors() -> int:
    gc.collect()
    # type(), not isinstance(): the latter asks lazy proxies for their class and wakes them up
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


def _assert_flat(learner: Estimator) -> None:
    """Neither tensors nor other Python objects grow over 1,000 steps.

    Counted in blocks of the interpreter's allocator; a single small object kept a step would be
    1,000.
    """
    data = [batch(number, size=2) for number in range(4)]

    def run(steps: int) -> None:
        for step in range(steps):
            backward(learner, data[step % 4])

    run(300)  # until the allocator has its pools
    tensors, blocks = _tensors(), sys.getallocatedblocks()
    run(1000)
    assert _tensors() <= tensors  # fewer: what an earlier test left has gone
    assert sys.getallocatedblocks() - blocks < 500


def test_memory_is_flat_over_a_thousand_steps() -> None:
    """That of the rule with the most to keep; all the others are slow tests."""
    fdfa_case = next(case for case in FAST_CASES if case.info.name == "fdfa")
    _assert_flat(fdfa_case.wrap(dense()))


@pytest.mark.slow
def test_memory_is_flat_in_every_case(case: Case) -> None:
    _assert_flat(case.wrap(dense()))


class _Witness:
    """Lives as long as the graph that holds it as a hook."""

    def __call__(self, gradient: Tensor) -> None:
        """Looks on."""


def _watched_step(learner: Estimator, *, with_backward: bool) -> list[weakref.ref[_Witness]]:
    """One step with a witness on the graph of the first block and one on the output's."""
    witnesses = [_Witness(), _Witness()]

    def watch(_module: object, _args: object, output: Tensor) -> None:
        if output.requires_grad:  # not so in the passes of a finite difference
            output.register_hook(witnesses[0])

    handle = learner.model[0].register_forward_hook(watch)
    output = learner(batch(1)[0])
    handle.remove()
    output.register_hook(witnesses[1])
    if with_backward:
        summed(output).backward()
    return [weakref.ref(witness) for witness in witnesses]


def test_no_graph_outlives_its_step(case: Case) -> None:
    """Graph and activations are freed by reference counts alone, as the plain model's are.

    A cycle would keep them until the collector comes round.
    """
    learner = case.wrap(dense())
    backward(learner, batch(0))
    gc.disable()
    try:
        for with_backward in (True, False):
            left = _watched_step(learner, with_backward=with_backward)
            assert [witness() for witness in left] == [None, None]
    finally:
        gc.enable()


def test_first_step_leaves_no_graph_either(case: Case) -> None:
    """The pass that finds the taps records a whole graph: it must let go of it."""
    learner = case.wrap(dense())
    left = _watched_step(learner, with_backward=True)
    gc.collect()
    assert [witness() for witness in left] == [None, None]


def test_what_stays_is_the_methods_state_and_the_gradients(first_case: Case) -> None:
    """A first step adds the gradients and the entries of the method's own, no other tensor."""
    learner = first_case.wrap(dense())
    data = batch(0)
    before = _tensors()
    backward(learner, data)
    grown = _tensors() - before
    new = sum(parameter.grad is not None for parameter in learner.parameters())
    new += len(list(learner.buffers())) - len(list(learner.model.buffers()))
    assert grown <= new + 1  # a table of signs, once a process, where probes are drawn as bits


def test_dropped_learner_is_freed(first_case: Case) -> None:
    """Sweeps make hundreds of learners round new models."""
    learner = first_case.wrap(dense())
    backward(learner, batch(0))
    gone = weakref.ref(learner), weakref.ref(learner.model)
    del learner
    gc.collect()
    assert [reference() for reference in gone] == [None, None]
    assert torch.is_grad_enabled()

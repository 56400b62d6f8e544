"""A step, and a step that fails, leave nothing behind.

No hook, no replaced forward, no open dual level.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn

from fdfa.engine.estimator import Estimator
from tests.contract.networks import batch, busy
from tests.contract.steps import (
    assert_same_bits,
    backward,
    cross_entropy,
    gradients,
    own_state,
    snapshot,
    summed,
)
from tests.methods import Case


class _Trap(nn.Module):
    """Does nothing, or raises when it is armed, in the middle of a forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.armed: BaseException | None = None
        self.after = 0  # passes that still go well

    def forward(self, x: Tensor) -> Tensor:
        if self.armed is not None:
            if not self.after:
                raise self.armed
            self.after -= 1
        return x * 1.0


class _Stop(BaseException):
    """As KeyboardInterrupt: no ``except Exception`` sees it."""


def _trapped() -> nn.Sequential:
    """The trap sits behind batch norm and a first tap: both have happened when it springs."""
    model = busy()
    return nn.Sequential(*model[:6], _Trap(), *model[6:])


def _registered(learner: nn.Module) -> list[tuple[Any, ...]]:
    """What stands in the dictionaries of every module but tensors.

    Hooks, attributes, replaced methods.
    """
    return [
        (
            name,
            sorted(module.__dict__),
            list(module._buffers),
            [id(buffer) for buffer in module._buffers.values()],
            [len(value) for key, value in sorted(module.__dict__.items()) if key.endswith("hooks")],
        )
        for name, module in learner.named_modules()
    ]


def _assert_clean(learner: Estimator, before: list[tuple[Any, ...]]) -> None:
    assert _registered(learner.model) == before
    assert not any("forward" in module.__dict__ for module in learner.modules())
    with fwAD.dual_level():  # raises where another level is open
        pass


def test_a_step_leaves_nothing_on_the_model(case: Case) -> None:
    learner = case.wrap(busy())
    before = _registered(learner.model)
    for number in range(2):
        output = learner(batch(number)[0])
        _assert_clean(learner, before)
        summed(output).backward()
        _assert_clean(learner, before)


@pytest.mark.parametrize("steps", [0, 2], ids=["before the first step", "later"])
@pytest.mark.parametrize("place", [2, 3, 4], ids=["ReLU", "dropout", "linear"])
def test_a_users_own_forward_is_called(case: Case, steps: int, place: int) -> None:
    """A ``forward`` put on an instance counts from the next pass on; and it stays there."""
    learner, plain = case.wrap(busy()), busy()
    for number in range(steps):
        torch.default_generator.manual_seed(number)
        summed(learner(batch(number)[0])).backward()
        torch.default_generator.manual_seed(number)
        plain(batch(number)[0])
    for model in (learner.model, plain):
        inner = model[place].forward
        model[place].forward = lambda x, inner=inner: 2 * inner(x)
    put = learner.model[place].forward
    for number in range(2):
        torch.default_generator.manual_seed(number)
        expected = plain(batch(number)[0])
        torch.default_generator.manual_seed(number)
        output = learner(batch(number)[0])
        assert_same_bits(output, expected)
        summed(output).backward()
        assert learner.model[place].__dict__["forward"] is put


@pytest.mark.parametrize(
    "error",
    [ValueError("mine"), RuntimeError("mine"), NotImplementedError("mine"), _Stop("mine")],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_in_forward_arrives_as_it_is(first_case: Case, error: BaseException) -> None:
    """The very object: a probe must not mistake a user's error for a missing derivative."""
    learner = first_case.wrap(_trapped())
    backward(learner, batch(0))
    before = _registered(learner.model)
    learner.model[6].armed = error
    with pytest.raises(type(error)) as caught:
        learner(batch(1)[0])
    assert caught.value is error
    assert caught.value.__cause__ is None
    _assert_clean(learner, before)


@pytest.mark.parametrize("after", [0, 1, 2], ids=["pass 1", "pass 2", "pass 3"])
@pytest.mark.parametrize("taught", [False, True], ids=["new", "trained"])
def test_an_exception_in_forward_leaves_nothing(case: Case, after: int, taught: bool) -> None:
    """Whichever pass it breaks off: the search for taps, a difference, the one that learns.

    Batch-norm statistics are at most those of one pass, what was learned is as it was, and the next
    step works.
    """
    learner = case.wrap(_trapped())
    if taught:
        backward(learner, batch(0))
    before = _registered(learner.model)
    held, own = snapshot(learner.model), own_state(learner)
    trap = learner.model[6]
    trap.armed, trap.after = ValueError("mine"), after
    sprung = False
    try:
        learner(batch(1)[0])
    except ValueError:
        sprung = True
    assert sprung or after  # with fewer passes than that, the trap never springs
    _assert_clean(learner, before)
    trap.armed = None
    assert learner.model[5].num_batches_tracked - held["5.num_batches_tracked"] in (0, 1)
    if taught:
        assert_same_bits(own_state(learner), own)
    learner.zero_grad()
    backward(learner, batch(2))
    found = gradients(learner)
    assert len(found) == len(list(learner.model.parameters()))
    assert all(gradient.isfinite().all() for gradient in found.values())
    _assert_clean(learner, before)


def test_an_exception_in_backward_leaves_nothing(case: Case) -> None:
    """The user's hook on the output raises: the step is lost, the next one is not."""
    learner = case.wrap(busy())
    backward(learner, batch(0))
    before, own = _registered(learner.model), own_state(learner)

    def refuse(gradient: Tensor) -> None:
        raise ValueError("mine")

    x, target = batch(1)
    output = learner(x)
    output.register_hook(refuse)
    with pytest.raises(ValueError, match="mine"):
        cross_entropy(output, target).backward()
    _assert_clean(learner, before)
    assert_same_bits(own_state(learner), own)
    learner.zero_grad()
    backward(learner, batch(2))
    assert len(gradients(learner)) == len(list(learner.model.parameters()))


def test_a_refused_model_is_left_alone(case: Case) -> None:
    """A model that cannot be cut is an error that changes nothing on it."""

    class ClassNumbers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = busy()

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x).argmax(dim=1)

    learner = case.wrap(ClassNumbers())
    before, held = _registered(learner.model), snapshot(learner)
    with pytest.raises(ValueError, match=r"dtype torch\.int64"):
        learner(batch(0)[0])
    _assert_clean(learner, before)
    if not case.info.exact:  # found out before the pass that learns
        assert_same_bits(snapshot(learner), held)

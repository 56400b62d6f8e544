"""NaN and Inf: passed on as autograd would, and never into what the method has learned."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.contract.networks import batch, dense
from tests.contract.steps import (
    assert_same_bits,
    backward,
    cross_entropy,
    fresh_gradients,
    gradients,
    own_state,
    summed,
    train,
)
from tests.methods import Case

NAN, INF = float("nan"), float("inf")


def _all_finite(tensors: dict[str, Tensor]) -> bool:
    return all(tensor.isfinite().all() for tensor in tensors.values())


@pytest.mark.parametrize("value", [NAN, INF])
def test_loss_that_is_not_finite(case: Case, value: float) -> None:
    """Every gradient says so.

    The method's state has learned what it would have with any other loss.
    """
    learner, twin = case.wrap(dense()), case.wrap(dense())
    for each in (learner, twin):
        backward(each, batch(0))
    learner.zero_grad()
    x, target = batch(1)
    (cross_entropy(learner(x), target) * value).backward()
    backward(twin, (x, target))
    assert not any(gradient.isfinite().all() for gradient in gradients(learner).values())
    assert _all_finite(own_state(learner))
    if not case.error_teaches:
        assert_same_bits(own_state(learner), own_state(twin))


def test_loss_that_is_nan_in_the_first_step(case: Case) -> None:
    """Where maps are still zero: NaN times zero is NaN, not zero."""
    learner = case.wrap(dense())
    (summed(learner(batch(0)[0])) * NAN).backward()
    assert all(gradient.isnan().any() for gradient in gradients(learner).values())
    assert _all_finite(own_state(learner))
    assert _all_finite(fresh_gradients(learner, batch(1)))


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("steps", [0, 4], ids=["first step", "later step"])
def test_input_that_is_not_finite(case: Case, value: float, steps: int) -> None:
    """A derivative that is NaN teaches nothing, and the learner goes on unharmed.

    (An infinite input may have a finite derivative, where a tanh saturates: that may teach.)
    """
    learner = case.wrap(dense())
    train(learner, [batch(number) for number in range(steps)])
    before = own_state(learner)
    x, target = batch(8)
    x[2, 3] = value
    learner.zero_grad()
    backward(learner, (x, target))
    # a difference over a saturated tanh is finite, and no gradient multiplies it by the input
    if value is NAN or not (case.info.redrawn and case.by_difference):
        assert not _all_finite(gradients(learner))
    assert _all_finite(own_state(learner))
    taught_by_the_pass = case.info.probes or case.batch_teaches or not case.info.learns
    if before and value is NAN and taught_by_the_pass:
        after = own_state(learner)  # the first step adds maps
        assert_same_bits({key: after[key] for key in before}, before)
    learner.zero_grad()
    for number in range(5):
        found = fresh_gradients(learner, batch(number))
    assert _all_finite(found)
    assert _all_finite(own_state(learner))


class _Cliff(nn.Module):
    """Finite everywhere, with a forward derivative that is infinite at zero, and a switch."""

    def __init__(self) -> None:
        super().__init__()
        self.steep = False

    def forward(self, x: Tensor) -> Tensor:
        return (x * 0).sqrt() if self.steep else x * 1.0


def test_forward_derivative_that_is_not_finite(case: Case) -> None:
    """The output is finite, its derivative is not: a map must not move, nor a later step suffer."""
    model = dense()
    learner = case.wrap(nn.Sequential(*model[:6], _Cliff(), model[6]))
    train(learner, [batch(number) for number in range(4)])
    before = own_state(learner)
    cliff = learner.model[6]
    cliff.steep = True
    x, target = batch(8)
    output = learner(x)
    assert output.isfinite().all()
    learner.zero_grad()
    cross_entropy(output, target).backward()
    assert _all_finite(own_state(learner))
    # a finite difference is finite on either side; what asks for no derivative learns as ever
    derives = case.info.probes and not case.by_difference and not case.noisy
    if derives or not case.info.learns:
        assert_same_bits(own_state(learner), before)
    cliff.steep = False
    assert _all_finite(fresh_gradients(learner, batch(9)))


def test_frozen_feedback_and_nan_micro_batch(case: Case) -> None:
    """One bad micro-batch spoils the gradients of its own step alone, as with autograd."""
    learner = case.wrap(dense())
    backward(learner, batch(0))
    twin = copy.deepcopy(learner)
    x, target = batch(1)
    (cross_entropy(learner(x), target) * NAN).backward()
    backward(twin, (x, target))
    after, expected = fresh_gradients(learner, batch(2)), fresh_gradients(twin, batch(2))
    assert _all_finite(after)
    if not case.error_teaches:
        assert_same_bits(after, expected)


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_anomaly_detection(case: Case) -> None:
    """It changes nothing where all is well, and finds the NaN that a loss sends back."""
    learner, twin = case.wrap(dense()), case.wrap(dense())
    with torch.autograd.detect_anomaly(check_nan=True):
        for number in range(2):
            found = fresh_gradients(learner, batch(number))
    for number in range(2):
        expected = fresh_gradients(twin, batch(number))
    assert_same_bits(found, expected)
    with (
        torch.autograd.detect_anomaly(check_nan=True),
        pytest.raises(RuntimeError, match="returned nan values"),
    ):
        summed(learner(batch(2)[0]) * NAN).backward()
    assert _all_finite(own_state(learner))

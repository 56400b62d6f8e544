"""``loss.backward()`` fills and accumulates ``.grad`` as autograd does."""

from __future__ import annotations

import copy

import torch

from tests.contract.networks import batch, busy, dense
from tests.contract.steps import (
    added,
    assert_close_to_rounding,
    assert_same_bits,
    backward,
    cross_entropy,
    fresh_gradients,
    gradients,
    own_state,
    train,
)
from tests.methods import Case


def test_fills_every_gradient_like_its_parameter(case: Case) -> None:
    """Same shape, dtype and layout.

    Also on the second step, where the feedback is no longer zero.
    """
    learner = case.wrap(busy())
    for number in range(2):
        backward(learner, batch(number))
        for name, parameter in learner.model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.shape == parameter.shape
            assert parameter.grad.dtype == parameter.dtype
            assert parameter.grad.stride() == parameter.stride()
            assert not parameter.grad.requires_grad


def test_hidden_layers_get_credit(case: Case) -> None:
    """Were the credit lost on its way, every other claim on gradients would hold for zeros."""
    learner = case.wrap(dense())
    backward(learner, batch(0))
    for name, gradient in fresh_gradients(learner, batch(1)).items():
        assert gradient.any(), name


def test_exact_methods_equal_autograd_and_others_do_not(case: Case) -> None:
    learner, plain = case.wrap(dense()), dense()
    for number in range(2):
        ours, true = fresh_gradients(learner, batch(number)), fresh_gradients(plain, batch(number))
    if case.info.exact:
        assert_same_bits(ours, true)
    else:
        assert not torch.allclose(ours["0.weight"], true["0.weight"], rtol=1e-3)


def test_last_layer_is_exact(case: Case) -> None:
    """The output error is exact, so what lies behind the last tap has its true gradient."""
    learner, plain = case.wrap(dense()), dense()
    for number in range(2):
        ours, true = fresh_gradients(learner, batch(number)), fresh_gradients(plain, batch(number))
        for name in ("6.weight", "6.bias"):
            assert_same_bits(ours[name], true[name])


def test_two_backward_calls_add(case: Case) -> None:
    learner = case.wrap(dense())
    twin = copy.deepcopy(learner)
    backward(learner, batch(0))
    backward(learner, batch(1))
    expected = added(fresh_gradients(twin, batch(0)), fresh_gradients(twin, batch(1)))
    assert_same_bits(gradients(learner), expected)


def test_adds_to_gradients_that_are_there(case: Case) -> None:
    """A user's own ``.grad`` is added to, not replaced."""
    learner = case.wrap(dense())
    twin = copy.deepcopy(learner)
    for parameter in learner.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    backward(learner, batch(0))
    alone = fresh_gradients(twin, batch(0))
    assert_same_bits(gradients(learner), {key: 1 + value for key, value in alone.items()})


def test_micro_batches_equal_the_full_batch(steady_case: Case) -> None:
    """With the feedback held still, the gradients of a batch's parts add up to the whole's."""
    learner = steady_case.wrap_taught_once(dense())
    backward(learner, batch(0))
    x, target = batch(1, size=8)
    whole = fresh_gradients(learner, (x, target))
    learner.zero_grad()
    for part in (slice(0, 2), slice(2, 8)):
        share = (part.stop - part.start) / 8
        (cross_entropy(learner(x[part]), target[part]) * share).backward()
    assert_close_to_rounding(gradients(learner), whole)


def test_several_forwards_before_one_backward(case: Case) -> None:
    """Each pass keeps its own taps.

    A learner that remembered only the last pass would mix them up.
    """
    learner = case.wrap_taught_once(dense())
    backward(learner, batch(0))
    steps = learner.steps
    expected = added(fresh_gradients(learner, batch(1)), fresh_gradients(learner, batch(2, size=4)))
    learner.steps = steps  # the same probes again
    learner.zero_grad()
    (x1, target1), (x2, target2) = batch(1), batch(2, size=4)
    first, second = learner(x1), learner(x2)
    (cross_entropy(first, target1) + cross_entropy(second, target2)).backward()
    assert_close_to_rounding(gradients(learner), expected)


def test_several_forwards_all_teach(case: Case) -> None:
    """The passes of one backward teach in the order in which autograd reaches them.

    The last one first.
    """
    learner, twin = case.wrap(dense()), case.wrap(dense())
    (x1, target1), (x2, target2) = batch(1), batch(2, size=4)
    (cross_entropy(learner(x1), target1) + cross_entropy(learner(x2), target2)).backward()
    first, second = twin(x1), twin(x2)
    cross_entropy(second, target2).backward()
    cross_entropy(first, target1).backward()
    assert_same_bits(own_state(learner), own_state(twin))
    assert learner.steps == 2


def test_forward_without_backward_teaches_nothing(case: Case) -> None:
    """A pass whose loss is dropped leaves the method's state alone."""
    learner = case.wrap(dense())
    backward(learner, batch(0))
    before = own_state(learner)
    learner(batch(1)[0])
    assert_same_bits(own_state(learner), before)


def test_credit_is_what_was_known_before_the_step(case: Case) -> None:
    """What a step teaches is for the next one: its own credit is a still twin's."""
    learner = case.wrap(dense())
    still = case.wrap_taught_once(dense()) if case.info.learns else case.wrap(dense())
    train(learner, [batch(number) for number in range(4)])  # so that the next one probes
    if case.varying:  # a credit with a probe needs it in the twin, too
        still = copy.deepcopy(learner)
        still.alone = True
    else:
        still.load_state_dict(learner.state_dict())
    assert_same_bits(fresh_gradients(learner, batch(5)), fresh_gradients(still, batch(5)))
    moved = [(value != own_state(still)[key]).any() for key, value in own_state(learner).items()]
    assert any(moved) == case.info.learns


def test_autograd_grad_equals_backward(case: Case) -> None:
    learner = case.wrap(dense())
    backward(learner, batch(0))
    twin = copy.deepcopy(learner)
    expected = fresh_gradients(learner, batch(1))
    x, target = batch(1)
    found = torch.autograd.grad(cross_entropy(twin(x), target), list(twin.model.parameters()))
    assert_same_bits(dict(zip(expected, found, strict=True)), expected)
    assert_same_bits(own_state(twin), own_state(learner))


def test_autograd_grad_of_one_parameter(case: Case) -> None:
    """Autograd prunes what was not asked for.

    What was asked for must not change, nor what is taught.
    """
    for name in ("0.weight", "2.bias", "6.weight"):
        learner = case.wrap(dense())
        backward(learner, batch(0))
        twin = copy.deepcopy(learner)
        expected = fresh_gradients(learner, batch(1))
        x, target = batch(1)
        (found,) = torch.autograd.grad(
            cross_entropy(twin(x), target), [twin.model.get_parameter(name)]
        )
        assert_same_bits(found, expected[name])
        assert_same_bits(own_state(twin), own_state(learner))


def test_backward_twice_teaches_once(case: Case) -> None:
    """``retain_graph=True``.

    The second backward call adds gradients and leaves the feedback where it is.
    """
    learner = case.wrap(dense())
    backward(learner, batch(0))
    x, target = batch(1)
    loss = cross_entropy(learner(x), target)
    loss.backward(retain_graph=True)
    taught, first = own_state(learner), gradients(learner)
    loss.backward()
    assert_same_bits(own_state(learner), taught)
    assert any((gradients(learner)[key] != first[key]).any() for key in first)


def test_backward_twice_adds_twice(case: Case) -> None:
    learner = case.wrap_taught_once(dense())
    backward(learner, batch(0))
    learner.zero_grad()
    x, target = batch(1)
    loss = cross_entropy(learner(x), target)
    loss.backward(retain_graph=True)
    once = gradients(learner)
    loss.backward()
    assert_same_bits(gradients(learner), added(once, once))


def test_scaled_loss_scales_gradients_exactly(case: Case) -> None:
    """By a power of two, to the last bit: credits are linear in the output error.

    The feedback does not notice.
    """
    learner = case.wrap(dense(torch.float32))
    backward(learner, batch(0, dtype=torch.float32))
    twin = copy.deepcopy(learner)
    x, target = batch(1, dtype=torch.float32)
    expected = fresh_gradients(learner, (x, target))
    twin.zero_grad()
    (cross_entropy(twin(x), target) * 2**16).backward()
    assert_same_bits({key: value / 2**16 for key, value in gradients(twin).items()}, expected)
    if not case.batch_teaches:
        assert_same_bits(own_state(twin), own_state(learner))


def test_output_may_be_changed_in_place(case: Case) -> None:
    """As the plain model's: ``logits /= temperature`` is everyday code."""
    learner, twin = case.wrap(dense()), case.wrap(dense())
    for each in (learner, twin):
        backward(each, batch(0))
    x, target = batch(1)
    learner.zero_grad()
    logits = learner(x)
    logits /= 2
    cross_entropy(logits, target).backward()
    twin.zero_grad()
    cross_entropy(twin(x) / 2, target).backward()
    assert_same_bits(gradients(learner), gradients(twin))


def test_input_may_need_a_gradient(case: Case) -> None:
    """The first block's input gets what the first block's credit says.

    Weights do not change by it.
    """
    learner = case.wrap(dense())
    backward(learner, batch(0))
    twin = copy.deepcopy(learner)
    x, target = batch(1)
    expected = fresh_gradients(learner, (x, target))
    x.requires_grad_()
    assert_same_bits(fresh_gradients(twin, (x, target)), expected)
    assert x.grad is not None
    assert x.grad.any()


def test_batch_sizes_may_change(case: Case) -> None:
    """The last batch of an epoch is smaller, down to one sample; then the full size comes again."""
    learner = case.wrap(dense())
    train(learner, [batch(0, size=6), batch(1, size=1), batch(2, size=4), batch(3, size=6)])
    assert all(gradient.isfinite().all() for gradient in gradients(learner).values())
    assert learner.steps == 4

"""What one step of FDFA must leave behind, and when."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from tests.oracles.lessons import Observed, classify
from tests.oracles.perturbed import explicit_jacobians, jacobian_products

TAPS = ["1", "3"]


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3)
    ).double()


def batch(samples: int = 8) -> tuple[Tensor, Tensor]:
    return torch.randn(samples, 5).double(), torch.randint(3, (samples,))


def watch_tangents(model: nn.Sequential) -> dict[str, Tensor]:
    """Records the tangents that enter the modules behind the taps, by the user's own pre-hooks."""
    seen: dict[str, Tensor] = {}
    for place in (2, 3, 4):

        def keep(module: nn.Module, args: tuple[Tensor], name: str = str(place)) -> None:
            tangent = fwAD.unpack_dual(args[0]).tangent
            if tangent is not None:
                seen[name] = tangent.detach().clone()

        model[place].register_forward_pre_hook(keep)
    return seen


@pytest.mark.parametrize("noise", ["normal", "rademacher"])
def test_rate_one_leaves_the_mean_of_d_p(noise: str) -> None:
    """Jhat = d^T p / N with p read off the tangents in flight and d from explicit Jacobians."""
    model = network()
    x, target = batch()
    jacobians = explicit_jacobians(copy.deepcopy(model), TAPS, x)
    seen = watch_tangents(model)
    learner = fdfa.FDFA(model, taps=TAPS, feedback_rate=1.0, noise=noise)
    classify(learner, x, target)
    p1 = seen["2"]
    slope = (model[2](model[1](model[0](x))) > 0).double()
    p2 = seen["4"] - slope * (p1 @ model[2].weight.T)  # what the second tap added
    d = jacobian_products(jacobians, [p1, p2])
    for tap, p in zip(TAPS, (p1, p2), strict=True):
        expected = torch.zeros(3, p.shape[1]).double()
        for n in range(len(x)):
            expected += torch.outer(d[n], p[n]) / len(x)
        torch.testing.assert_close(
            learner.feedback[tap].weight, expected, rtol=1e-10, atol=1e-12, msg=tap
        )


def test_the_tangents_in_flight_are_the_perturbations_of_the_lesson() -> None:
    """Fails if the correlation uses another draw than the one that was added to the tangent."""
    model = network()
    x, target = batch()
    slope = (model[2](model[1](model[0](x))) > 0).double()
    seen = watch_tangents(model)
    learner = Observed(model, taps=TAPS)
    classify(learner, x, target)
    assert torch.equal(seen["2"], learner.p[0])
    torch.testing.assert_close(seen["4"] - slope * seen["3"], learner.p[1], rtol=1e-10, atol=1e-12)


def test_a_vanishing_rate_is_dfa_with_the_same_maps() -> None:
    """Rate 0 is DFA, with random maps too; 1e-30 is lost in rounding, so equal to the last bit."""
    x, target = batch()
    plain = network()
    dfa = fdfa.DFA(copy.deepcopy(plain), taps=TAPS)
    learner = fdfa.FDFA(plain, taps=TAPS, feedback_rate=1e-30)
    dfa.plan(x), learner.plan(x)
    learner.feedback.load_state_dict(dfa.feedback.state_dict())
    for _ in range(3):
        classify(dfa, x, target)
        classify(learner, x, target)
    for ours, theirs in zip(learner.parameters(), dfa.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)
        assert ours.grad.any()


def test_zero_maps_give_hidden_blocks_no_credit_and_the_last_block_its_exact_gradient() -> None:
    model = network()
    x, target = batch()
    plain = copy.deepcopy(model)
    F.cross_entropy(plain(x), target).backward()
    classify(fdfa.FDFA(model, taps=TAPS), x, target)
    assert not any(p.grad.any() for p in model[:4].parameters())
    assert all(
        torch.equal(p.grad, q.grad)
        for p, q in zip(model[4].parameters(), plain[4].parameters(), strict=True)
    )


def test_credit_uses_the_map_from_before_the_step() -> None:
    """Stale by one step on purpose: the new map is correlated with this step's p."""
    model = network()
    x, target = batch()
    learner = fdfa.FDFA(model, taps=["3"], feedback_rate=1.0)
    learner.plan(x)
    old = torch.randn(3, 6).double()
    learner.feedback["3"].weight.copy_(old)
    y = classify(learner, x, target)
    e = (y.softmax(1) - F.one_hot(target, 3)) / len(x)
    a = model[2](model[1](model[0](x)))
    expected = (e @ old * (a > 0)).T @ model[1](model[0](x))
    torch.testing.assert_close(model[2].weight.grad, expected, rtol=1e-10, atol=1e-14)
    assert (learner.feedback["3"].weight - old).norm() > 0.1


@pytest.mark.parametrize("update", ["momentum", "innovation"])
def test_a_forward_pass_teaches_once_however_often_its_error_arrives(update: str) -> None:
    """Backward twice through one forward pass, then a forward pass alone: one lesson, then none."""
    model = network()
    x, target = batch()
    learner = fdfa.FDFA(model, taps=TAPS, feedback_rate=0.5, feedback_update=update)
    loss = F.cross_entropy(learner(x), target)
    assert not any(learner.feedback[tap].weight.any() for tap in TAPS)  # not before the error
    loss.backward(retain_graph=True)
    once = [learner.feedback[tap].weight.clone() for tap in TAPS]
    assert all(B.any() for B in once)
    loss.backward()
    learner(x)
    assert all(
        torch.equal(learner.feedback[tap].weight, B) for tap, B in zip(TAPS, once, strict=True)
    )


def test_two_forward_passes_before_one_backward_teach_twice() -> None:
    model = network()
    x, target = batch()
    learner = fdfa.FDFA(model, taps=TAPS, feedback_rate=0.5, seed=1)
    (F.cross_entropy(learner(x), target) + F.cross_entropy(learner(x), target)).backward()
    both = learner.feedback["1"].weight.clone()

    lessons = []
    for step in (0, 1):
        single = fdfa.FDFA(copy.deepcopy(model), taps=TAPS, feedback_rate=1.0, seed=1)
        single.steps = step
        classify(single, x, target)
        lessons.append(single.feedback["1"].weight)
    # autograd runs the pass made last first; either order is the exponential average of both
    orders = [0.25 * a + 0.5 * b for a, b in (lessons, lessons[::-1])]
    assert any(torch.allclose(both, B, rtol=1e-10, atol=1e-13) for B in orders)


def test_each_step_and_each_process_draws_its_own_perturbation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the seed says them all: the same learner made again repeats them."""

    def tangents(*ranks: int) -> list[Tensor]:
        torch.default_generator.manual_seed(0)
        model = network()
        seen = watch_tangents(model)
        learner = fdfa.FDFA(model, taps=TAPS, seed=5)
        drawn = []
        for rank in ranks:
            monkeypatch.setattr("fdfa.engine.estimator.process_rank", lambda rank=rank: rank)
            learner(batch()[0])
            drawn.append(seen["2"].clone())
        return drawn

    first, second, other_rank = tangents(0, 0, 1)
    _, same, on_rank_zero = tangents(1, 0, 0)
    assert not torch.equal(first, second)
    assert torch.equal(second, same)
    assert not torch.equal(other_rank, on_rank_zero)


@pytest.mark.parametrize("update", ["momentum", "innovation", "adam"])
@pytest.mark.parametrize("backward_inside", [False, True])
def test_autocast_leaves_the_map_and_its_lesson_in_float32(
    update: str, backward_inside: bool
) -> None:
    """The derivative is measured in bfloat16 (8 bits); the product with p and the sum are not."""
    model = network().float()
    x, target = batch(4000)
    learner = Observed(
        model,
        taps=TAPS,
        feedback_rate=1.0,
        feedback_update=update,
        noise="rademacher",  # exact in bfloat16
    )
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(learner(x.float()), target)
        if backward_inside:
            loss.backward()
    if not backward_inside:
        loss.backward()
    for tap, p in zip(TAPS, learner.p, strict=True):
        B = learner.feedback[tap].weight
        assert B.dtype == torch.float32
        if update != "adam":  # from a zero map both updates leave the lesson itself
            expected = learner.d.double().T @ p.double() / len(x)
            torch.testing.assert_close(B.double(), expected, rtol=1e-5, atol=1e-6)
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())

"""A diagnosis of every method against all of its draws, kept and put together by hand."""

from __future__ import annotations

import copy
import gc
import math
import random
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

import fdfa
from fdfa.diagnostics import (
    ComponentQuality,
    Estimate,
    GradientQuality,
    alignment,
    credit_errors,
    diagnose,
)
from fdfa.engine.estimator import Estimator
from tests.contract.networks import batch as busy_batch
from tests.contract.networks import busy
from tests.diagnostics.brute_force import Figures, WatchedTanh, figures, keep_draws
from tests.methods import CASES, Case, marked

DRAWS = 7  # odd: one draw has no partner

EVERY_METHOD = [marked(case) for case in CASES]
FIRST_CASES = [marked(case) for case in CASES if case.id == case.info.cases[0][0]]


def tiny() -> nn.Sequential:
    torch.default_generator.manual_seed(3)
    return nn.Sequential(
        nn.Linear(3, 4), WatchedTanh(), nn.Linear(4, 3), WatchedTanh(), nn.Linear(3, 2)
    ).double()


def batch(number: int = 0, size: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(size, 3, generator=generator, dtype=torch.float64)
    return x, torch.randint(2, (size,), generator=generator)


def taught(case: Case, model: nn.Module, steps: int = 2) -> Estimator:
    """Its maps hold something, its window too; and its next step is one that probes."""
    learner = case.wrap(model)
    for number in range(steps):
        x, target = batch(number) if model[0].in_features == 3 else busy_batch(number)
        learner.criterion(F.cross_entropy)(learner(x), target).backward()
    learner.zero_grad()
    return learner


def assert_equal(found: GradientQuality, wanted: Figures) -> None:
    close = {"rel": 1e-8, "abs": 1e-12, "nan_ok": True}
    assert found.exact_norm == pytest.approx(wanted.exact_norm, **close)
    for name in ("cosine", "norm_ratio", "error"):
        value, error = getattr(wanted, name)
        assert getattr(found, name).value == pytest.approx(value, **close), name
        assert getattr(found, name).standard_error == pytest.approx(error, **close), name
    # near 0 and 180 degrees the arc cosine magnifies rounding
    assert found.angle.value == pytest.approx(wanted.angle[0], rel=1e-6, abs=1e-5, nan_ok=True)
    scale = wanted.exact_norm**2
    assert found.variance.value == pytest.approx(wanted.variance, rel=1e-8, abs=1e-12 * scale)
    assert found.squared_bias.value == pytest.approx(
        wanted.squared_bias, rel=1e-8, abs=1e-12 * scale
    )
    assert found.bias.value == pytest.approx(
        math.sqrt(max(0, wanted.squared_bias)), rel=1e-6, abs=1e-6 * wanted.exact_norm
    )
    assert found.signal_to_noise.value == pytest.approx(wanted.signal_to_noise, rel=1e-7)
    assert found.cosine_of_mean.value == pytest.approx(
        min(max(wanted.cosine_of_mean, -1.0), 1.0), rel=1e-7, nan_ok=True
    )


@pytest.mark.parametrize("case", EVERY_METHOD, ids=str)
def test_equal_to_all_draws_put_together_by_hand(case: Case) -> None:
    learner, (x, target) = taught(case, tiny()), batch(9)
    kept = keep_draws(learner, F.cross_entropy, x, target, DRAWS)

    found = diagnose(learner, F.cross_entropy, [(x, target)], draws=DRAWS, components=True)

    assert list(found.parameters) == list(kept.draws)
    whole = torch.cat([g.flatten() for g in kept.exact.values()])
    for name, quality in found.parameters.items():
        wanted = figures(kept.exact[name], kept.draws[name])
        assert_equal(quality, wanted)
        assert quality.components is not None
        assert quality.components.bias.shape == kept.exact[name].shape
        assert quality.components.bias.flatten().tolist() == pytest.approx(
            wanted.component_bias, rel=1e-8, abs=1e-12
        )
        assert quality.components.variance.flatten().tolist() == pytest.approx(
            wanted.component_variance, rel=1e-8, abs=1e-14
        )
        one_probe = whole.dot(whole) * kept.exact[name].numel() + kept.exact[name].square().sum()
        assert_probes(quality, one_probe.item())
    together = [
        torch.cat([one.flatten() for one in each])
        for each in zip(*kept.draws.values(), strict=True)
    ]
    assert found.whole is not None
    assert_equal(found.whole, figures(whole, together))
    assert_probes(found.whole, ((len(whole) + 1) * whole.dot(whole)).item())
    assert found.whole.deterministic == all(torch.equal(one, together[0]) for one in together)
    assert (found.batches, found.left_out, found.non_finite) == (1, 0, 0)


def assert_probes(quality: GradientQuality, one_probe: float) -> None:
    if quality.error.value == 0:
        assert quality.effective_probes.value == math.inf
    else:
        assert quality.effective_probes.value == pytest.approx(one_probe / quality.error.value)


@pytest.mark.parametrize("case", FIRST_CASES, ids=str)
def test_credits_are_what_hooks_on_the_tapped_activations_see(case: Case) -> None:
    learner, (x, target) = taught(case, tiny()), batch(9)
    kept = keep_draws(learner, F.cross_entropy, x, target, DRAWS)

    found = diagnose(learner, F.cross_entropy, [(x, target)], draws=DRAWS).taps

    tapped = isinstance(learner, fdfa.engine.tapped.TappedEstimator)
    assert sorted(found) == (["1", "3"] if tapped else [])
    q = torch.cat([kept.exact_credits[name] for name in found], 1) if found else None
    for name, quality in found.items():
        exact = kept.exact_credits[name]
        assert_equal(quality, figures(exact, kept.credits[name]))
        one_probe = sum(
            exact.shape[1] * q[n].dot(q[n]) + exact[n].dot(exact[n]) for n in range(len(x))
        )
        assert_probes(quality, one_probe.item())


@pytest.mark.parametrize("case", FIRST_CASES, ids=str)
def test_nothing_is_left_behind(case: Case) -> None:
    learner = taught(case, busy())
    x, target = busy_batch(9)
    learner.criterion(F.cross_entropy)(learner(x), target).backward()
    before = copy.deepcopy(learner.state_dict())
    gradients = [None if p.grad is None else p.grad.clone() for p in learner.parameters()]
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    inner = dict(vars(learner))

    def stream() -> Iterator[tuple[Tensor, Tensor]]:
        """A loader that draws its order, as torch's does."""
        order = torch.randperm(len(x))
        yield x[order], target[order]

    diagnose(learner, F.cross_entropy, stream(), draws=3)

    after = learner.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    for parameter, gradient in zip(learner.parameters(), gradients, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(parameter.grad, gradient)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    assert vars(learner).keys() == inner.keys()
    assert (learner.alone, learner.redraw, learner.training) == (False, 0, True)


def test_every_registered_method_is_among_them() -> None:
    assert {case.info.name for case in CASES} == set(fdfa.methods())


def test_every_batch_has_noise_of_its_own() -> None:
    """Else the errors at two batches would be one and the same, and the interval too narrow."""
    learner, one = fdfa.ForwardGradient(tiny(), seed=1), batch(1)
    kept = keep_draws(learner, F.cross_entropy, *one, 18)
    for name, draws in kept.draws.items():
        halves = [figures(kept.exact[name], half) for half in (draws[:9], draws[9:])]
        found = diagnose(learner, F.cross_entropy, [one, one], draws=9).parameters[name]
        for figure in ("cosine", "error"):
            assert getattr(found, figure).value == pytest.approx(
                sum(getattr(half, figure)[0] for half in halves) / 2, rel=1e-9
            )


def test_several_batches_are_averaged() -> None:
    learner = fdfa.ForwardGradient(tiny(), seed=1)
    batches = [batch(1), batch(2, size=7), batch(3)]
    each = []  # each where it stands: the noise is that of its place
    for place, one in enumerate(batches):
        blank = (one[0] * math.nan, one[1])
        each.append(diagnose(learner, F.cross_entropy, [blank] * place + [one], draws=9).whole)
    found = diagnose(learner, F.cross_entropy, batches, draws=9).whole

    def mean(name: str) -> float:
        return sum(getattr(one, name).value for one in each) / 3

    for name in ("cosine", "angle", "norm_ratio", "error", "variance", "squared_bias"):
        assert getattr(found, name).value == pytest.approx(mean(name), rel=1e-10), name
        parts = [getattr(one, name).standard_error ** 2 for one in each]
        error = math.sqrt(sum(parts)) / 3
        assert getattr(found, name).standard_error == pytest.approx(error, rel=1e-10), name
    signals = sum(one.signal_to_noise.value * one.variance.value for one in each)
    noises = sum(one.variance.value for one in each)
    assert found.signal_to_noise.value == pytest.approx(signals / noises)
    squares = sum(one.exact_norm**2 for one in each) / 3
    assert found.exact_norm == pytest.approx(math.sqrt(squares))
    assert found.effective_probes.value == pytest.approx(
        (found.size + 1) * squares / found.error.value
    )
    assert found.draws == 27


def test_components_of_several_batches() -> None:
    learner = fdfa.ForwardGradient(tiny(), seed=1)
    batches = [batch(1), batch(2)]

    def of(chosen: list[tuple[Tensor, Tensor]]) -> ComponentQuality:
        found = diagnose(learner, F.cross_entropy, chosen, draws=9, components=True)
        return found.parameters["2.weight"].components

    blank = (batches[0][0] * math.nan, batches[0][1])  # left out, but the second stays the second
    first, second, both = of(batches[:1]), of([blank, batches[1]]), of(batches)
    assert_close(both.bias, (first.bias + second.bias) / 2)
    assert_close(both.variance, (first.variance + second.variance) / 2)
    # Student's t at 95 % with 8, and with 16, degrees of freedom
    single, double = 2.306, 2.120
    wanted = (first.bias_reach.square() + second.bias_reach.square()).sqrt() / 2 * double / single
    assert_close(both.bias_reach, wanted, rtol=1e-3, atol=0)
    standard_error = (first.variance / 9).sqrt()
    assert_close(first.bias_reach, standard_error * single, rtol=1e-3, atol=0)


def test_an_exact_rule() -> None:
    found = diagnose(fdfa.Backpropagation(tiny()), F.cross_entropy, [batch(1), batch(2)], draws=4)
    for quality in (found.whole, *found.parameters.values()):
        assert quality.deterministic
        assert quality.bias == quality.variance == Estimate(0.0, 0.0, 0.0, 0.0)
        assert quality.effective_probes.value == quality.signal_to_noise.value == math.inf
        assert quality.cosine.low == pytest.approx(1, rel=1e-12)
    assert found.taps == {}


def test_one_draw_invents_no_spread() -> None:
    found = diagnose(fdfa.ForwardGradient(tiny(), seed=1), F.cross_entropy, [batch()], draws=1)
    for name in ("bias", "squared_bias", "variance", "signal_to_noise", "cosine_of_mean"):
        assert math.isnan(getattr(found.whole, name).value), name
    for name in ("cosine", "angle", "norm_ratio", "error", "effective_probes"):
        estimate = getattr(found.whole, name)
        assert math.isfinite(estimate.value), name
        assert math.isnan(estimate.low), name
        assert math.isnan(estimate.standard_error), name
    assert not found.whole.deterministic


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    learner = fdfa.ForwardGradient(tiny(), seed=1)
    calls = []

    def failing(y: Tensor, target: Tensor) -> Tensor:
        """The first call is the exact pass of the first batch, then come its four draws."""
        calls.append(None)
        return F.cross_entropy(y, target) * (math.nan if len(calls) in {3, 6} else 1.0)

    found = diagnose(learner, failing, [batch(1), batch(2), batch(3)], draws=4)

    assert (found.batches, found.left_out, found.non_finite) == (2, 1, 1)
    assert found.whole.draws == 7
    assert math.isfinite(found.whole.bias.value)
    nothing = diagnose(learner, lambda y, t: (y * math.nan).sum(), [batch(1)])
    assert (nothing.whole, nothing.parameters, nothing.left_out) == (None, {}, 1)


def test_frozen_and_idle_parameters() -> None:
    model = tiny()
    model[0].weight.requires_grad_(False)
    model.register_parameter("idle", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    found = diagnose(fdfa.DFA(model), F.cross_entropy, [batch()], draws=3)
    assert list(found.parameters) == ["idle", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"]
    idle = found.parameters["idle"]
    assert math.isnan(idle.cosine.value)
    assert (idle.exact_norm, idle.bias.value, idle.variance.value) == (0, 0, 0)


def test_a_tap_whose_block_learns_nothing_is_left_out() -> None:
    model = tiny()
    model[0].requires_grad_(False)
    found = diagnose(fdfa.DFA(model), F.cross_entropy, [batch()], draws=2)
    assert list(found.taps) == ["3"]


def test_several_inputs_under_no_grad() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 2), nn.Linear(2, 2)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.second(F.relu(self.first(a + b)))

    (a, target), (b, _) = batch(), batch(1)
    with torch.no_grad():
        found = diagnose(fdfa.DFA(Sum().double()), F.cross_entropy, [((a, b), target)], draws=2)
    assert found.parameters["second.weight"].cosine.value == pytest.approx(1, rel=1e-12)


class Keeping(nn.Tanh):
    """A module that keeps what it made, for the user to look at."""

    def forward(self, x: Tensor) -> Tensor:
        self.last = super().forward(x)
        return self.last


def test_a_model_that_keeps_an_activation() -> None:
    model = nn.Sequential(nn.Linear(3, 4), Keeping(), nn.Linear(4, 2)).double()
    learner, (x, target) = fdfa.DFA(model), batch()
    F.cross_entropy(learner(x), target).backward()
    kept = model[1].last
    assert not kept.is_leaf
    exact = diagnose(learner, F.cross_entropy, [(x, target)], draws=2).parameters["2.weight"]
    assert exact.cosine.value == pytest.approx(1, rel=1e-12)
    assert alignment(learner, F.cross_entropy, x, target)["2.weight"] == pytest.approx(1)
    assert list(credit_errors(learner, F.cross_entropy, x, target)) == ["1"]
    assert model[1].last is kept


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_loss_that_fails_leaves_nothing_behind(error: type[BaseException]) -> None:
    learner, (x, target) = fdfa.wrap("fg-a", busy(), seed=1), busy_batch(9)
    F.cross_entropy(learner(x), target).backward()
    before, torch_state = copy.deepcopy(learner.state_dict()), torch.get_rng_state()
    inner = dict(vars(learner))
    calls = 0

    def failing(y: Tensor, target: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        torch.rand(1)
        if calls == 3:  # in the second draw
            raise error
        return F.cross_entropy(y, target)

    with pytest.raises(error):
        diagnose(learner, failing, [(x, target)], draws=3)
    after = learner.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert vars(learner).keys() == inner.keys()
    assert torch.is_grad_enabled()
    assert not any("forward" in vars(module) for module in learner.modules())


def test_memory_does_not_grow_with_the_draws() -> None:
    learner, held = fdfa.ForwardGradient(tiny(), seed=1), {}

    def counting(y: Tensor, target: Tensor) -> Tensor:
        held["calls"] = held.get("calls", 0) + 1
        if held["calls"] in {10, 60}:
            gc.collect()
            tensors = [o for o in gc.get_objects() if issubclass(type(o), Tensor)]
            held[held["calls"]] = sum(tensor.numel() for tensor in tensors)
        return F.cross_entropy(y, target)

    diagnose(learner, counting, [batch()], draws=60, components=True)
    assert held[60] == held[10] > 0


def test_train_mode_batch_norm_counts_what_travels_across_samples() -> None:
    """The exact credit is backpropagation's; a rule that goes sample by sample gives its own part.

    The bias is then minus what every sample's activation does to the outputs of the others.
    """
    model = nn.Sequential(
        nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)
    ).double()
    x, target = batch(4)
    learner = fdfa.wrap("fg-a", model, taps=["1"], seed=2)
    behind = copy.deepcopy(model[2:])
    h = copy.deepcopy(model[:2])(x).detach()
    J = torch.autograd.functional.jacobian(behind, h)  # (N, K, N, units)
    y = behind(h)
    (e,) = torch.autograd.grad(F.cross_entropy(y, target), y)
    every = torch.einsum("nk,nkmi->mi", e, J)
    own = torch.einsum("nk,nkni->ni", e, J)
    missing = (every - own).norm().item()
    assert missing > 0.5 * own.norm()  # else there were nothing to see

    found = diagnose(learner, F.cross_entropy, [(x, target)], draws=250).taps["1"]

    assert found.exact_norm == pytest.approx(every.norm().item(), rel=1e-10)
    assert abs(found.bias.value - missing) < 4 * found.bias.standard_error
    assert found.bias.standard_error < 0.25 * missing


def test_noise_in_the_output_is_the_rules_own() -> None:
    """OPZO's single-point form learns from a noisy output: that is so on a copy, too."""
    learner = fdfa.wrap("opzo", tiny(), form="single-point", noise_scale=0.3, seed=1)
    x, target = batch()
    F.cross_entropy(learner(x), target).backward()
    kept = keep_draws(learner, F.cross_entropy, x, target, 5)
    found = diagnose(learner, F.cross_entropy, [(x, target)], draws=5)
    assert not found.whole.deterministic
    assert_equal(
        found.parameters["4.weight"], figures(kept.exact["4.weight"], kept.draws["4.weight"])
    )

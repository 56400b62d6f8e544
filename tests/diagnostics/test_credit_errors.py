"""The parts of a credit's error on given maps, against loops over samples."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from fdfa.diagnostics import CreditError, Watch, credit_errors, feedback_errors
from fdfa.diagnostics.credit_parts import credit_error, explainable_share
from fdfa.diagnostics.jacobian_moments import measure_moments
from fdfa.diagnostics.jacobians import OpenTaps, open_learner
from tests.oracles.statistics import LIMIT, mean_deviation


def network(*, norm: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs in (3, 5):
        layers += [nn.Linear(inputs, 5), *([nn.BatchNorm1d(5)] if norm else []), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(5, 3)).double()


def batch(size: int = 8) -> tuple[Tensor, Tensor]:
    return torch.randn(size, 3, dtype=torch.float64), torch.randint(3, (size,))


def with_random_maps(learner: fdfa.Estimator, x: Tensor) -> None:
    learner.plan(x)
    for name in learner.feedback.names():
        learner.feedback[name].weight.normal_()


class ByHand:
    """e, q, the own blocks and Jbar at a tap of a ``Sequential``, one derivative at a time."""

    def __init__(self, model: nn.Sequential, place: int, x: Tensor, targets: Tensor) -> None:
        h = model[: place + 1](x).detach().requires_grad_()
        y = model[place + 1 :](h)
        loss = F.cross_entropy(y, targets)
        (self.e,) = torch.autograd.grad(loss, y, retain_graph=True)
        (self.q,) = torch.autograd.grad(loss, h, retain_graph=True)
        self.J = torch.stack(
            [
                torch.stack([torch.autograd.grad(one, h, retain_graph=True)[0][n] for one in y[n]])
                for n in range(len(y))
            ]
        )  # (N, K, |h|)
        self.own = torch.stack([self.e[n] @ self.J[n] for n in range(len(y))])

    def sampling(self, v: Tensor, rows: list[int]) -> float:
        """What the mean of these rows' Jacobians misses of the mean of all, seen by errors v."""
        J = self.J[rows]
        rest = J - J.mean(0)
        seen = sum((v[n] @ rest[m]).square().sum() for n in range(len(v)) for m in range(len(J)))
        return (seen / ((len(J) - 1) * len(J))).item()


def energy(rows: Tensor) -> float:
    return rows.square().sum().item()


@pytest.mark.parametrize("norm", [False, True], ids=["apart", "batch norm"])
@pytest.mark.parametrize("rank", [None, 2], ids=["whole", "projected"])
def test_given_maps_against_loops(norm: bool, rank: int | None) -> None:
    model, (x, targets) = network(norm=norm), batch()
    learner = fdfa.DFA(model, rank=rank)
    with_random_maps(learner, x)

    found = credit_errors(learner, F.cross_entropy, x, targets, samples=4)

    rows = [0, 2, 4, 6]
    for tap, error in found.items():
        hand = ByHand(copy.deepcopy(model), int(tap), x, targets)
        e, q, own, mean = hand.e[rows], hand.q[rows], hand.own[rows], hand.J[rows].mean(0)
        B = learner.feedback[tap].weight
        P = torch.eye(3).double() if rank is None else learner.projection.weight
        z = e @ P.T @ P  # what the map sees of e
        whole = energy(q)
        on_map = energy(e @ P.T @ B - z @ mean) - hand.sampling(z, rows)
        left = energy((z - e) @ mean) - hand.sampling(z - e, rows)
        spread = energy(e @ mean - own) + hand.sampling(e, rows)
        expected = {
            "map": on_map / whole,
            "lag": on_map / whole,  # fixed maps have no noise
            "projection": left / whole,
            "spread": spread / whole,
            "coupling": energy(own - q) / whole,
            "total": energy(e @ P.T @ B - q) / whole,
        }
        assert {name: getattr(error, name) for name in expected} == pytest.approx(
            expected, rel=1e-9, abs=1e-12
        )
        assert error.noise == 0
        assert (error.coupling > 1e-3) == (norm and tap == "2")
        assert (error.projection > 1e-3) == (rank is not None)
        parts = error.map + error.projection + error.spread + error.coupling + error.interaction
        assert parts == pytest.approx(error.total, rel=1e-12)
        assert error.cosine == pytest.approx(
            F.cosine_similarity((e @ P.T @ B).flatten(), q.flatten(), dim=0).item()
        )
        effective = P.T @ B
        assert error.feedback.relative**2 == pytest.approx(
            energy(effective - mean) / energy(mean), rel=1e-9
        )
        assert error.feedback.cosine == pytest.approx(
            F.cosine_similarity(effective.flatten(), mean.flatten(), dim=0).item()
        )
        assert error.feedback.sampling**2 == pytest.approx(
            hand.sampling(torch.eye(3).double(), rows) / energy(mean), rel=1e-8, abs=1e-12
        )
    assert feedback_errors(learner, x, samples=4) == {t: c.feedback for t, c in found.items()}


def test_interaction_is_twice_the_inner_product() -> None:
    model, (x, targets) = network(), batch()
    learner = fdfa.DFA(model)
    with_random_maps(learner, x)
    error = credit_errors(learner, F.cross_entropy, x, targets)["1"]
    hand = ByHand(model, 1, x, targets)
    mean = hand.J.mean(0)
    a = hand.e @ (learner.feedback["1"].weight - mean)
    b = hand.e @ mean - hand.own
    assert error.interaction == pytest.approx(2 * (a * b).sum().item() / energy(hand.q), rel=1e-9)


def test_the_total_is_the_error_of_what_the_learner_hands_out() -> None:
    """The credit seen by a block: with the exact one it makes up the gradient of its bias."""
    model = network()
    x, targets = (rows.repeat_interleave(2, 0) for rows in batch(1))
    learner = fdfa.DFA(model)
    with_random_maps(learner, x)
    error = credit_errors(learner, F.cross_entropy, x, targets)["1"]
    gradients = []
    for net in (learner, model):
        loss = F.cross_entropy(net(x), targets)
        gradients.append(torch.autograd.grad(loss, model[0].bias)[0])
    slope = 1 - torch.tanh(model[0](x[0])).square()
    given, exact = (gradient / slope for gradient in gradients)  # summed over two equal samples
    assert error.total == pytest.approx(energy(given - exact) / energy(exact), rel=1e-9)


def test_positions_of_sequences_are_samples() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, targets = torch.randn(3, 2, 3, dtype=torch.float64), torch.randn(3, 2, 2).double()
    learner = fdfa.DFA(model, sample_dims=2)
    with_random_maps(learner, x)
    error = credit_errors(learner, F.mse_loss, x, targets)["1"]
    plain = fdfa.DFA(model)
    flat = x.flatten(0, 1)
    plain.plan(flat)
    plain.feedback["1"].weight.copy_(learner.feedback["1"].weight)
    assert error == credit_errors(plain, F.mse_loss, flat, targets.flatten(0, 1))["1"]


def test_random_signs_have_no_bias() -> None:
    """Every part of it, over 300 draws of the signs."""
    model, (x, targets) = network(norm=True), batch()
    learner = fdfa.DFA(model)
    with_random_maps(learner, x)
    exact = credit_errors(learner, F.cross_entropy, x, targets)["2"]
    hand = ByHand(copy.deepcopy(model), 2, x, targets)
    names = ["map", "spread", "coupling", "interaction"]
    drawn = []
    with open_learner(learner, x) as opened:
        taps = OpenTaps(opened.run, 1, None)
        for seed in range(300):
            error = credit_error(
                learner.feedback["2"].weight,
                None,
                measure_moments(taps, hand.e, exact=False, seed=seed)[0],
                e=hand.e,
                exact_credit=hand.q,
                noise=None,
                explainable=0.0,
            )
            drawn.append([getattr(error, name) for name in names])
    truth = torch.tensor([getattr(exact, name) for name in names]).double()
    draws = torch.tensor(drawn).double()
    assert draws.std(0).min() > 1e-3
    assert mean_deviation(draws, truth) < LIMIT
    quick = credit_errors(learner, F.cross_entropy, x, targets, exact=False)["2"]
    assert quick.spread != exact.spread
    assert quick.total == exact.total


def test_left_out_samples_against_fits_without_them() -> None:
    e, q = torch.randn(9, 3).double(), torch.randn(9, 4).double()
    e[:, 2] = -e[:, 0] - e[:, 1]  # as cross-entropy has it: one dimension less
    missed = 0.0
    for n in range(9):
        others = [m for m in range(9) if m != n]
        fitted = torch.linalg.pinv(e[others]) @ q[others]
        missed += energy(q[n] - e[n] @ fitted)
    assert explainable_share(e, q) == pytest.approx(1 - missed / energy(q), rel=1e-9)
    assert explainable_share(e, e @ torch.randn(3, 4).double()) == pytest.approx(1)
    assert math.isnan(explainable_share(e[:2], q[:2]))


@pytest.mark.parametrize(
    ("method", "options", "known"),
    [
        ("fdfa", {}, True),
        ("fdfa", {"feedback_update": "innovation", "noise": "rademacher"}, True),
        ("fdfa", {"feedback_update": lambda maps: torch.optim.Adam(maps, lr=0.1)}, False),
        ("fdfa", {"average_over": "active"}, False),
        ("fdfa", {"feedback_rate": "adaptive"}, False),
        ("dkp", {}, False),
        ("grape", {}, False),
        ("opzo", {}, False),
        ("adfa", {}, True),
    ],
)
def test_noise_is_told_where_a_formula_has_it(
    method: str, options: dict[str, Any], known: bool
) -> None:
    model, (x, targets) = network(), batch()
    learner = fdfa.wrap(method, model, **options)
    F.cross_entropy(learner(x), targets).backward()
    for error in credit_errors(learner, F.cross_entropy, x, targets).values():
        assert math.isnan(error.noise) == math.isnan(error.lag) == (not known)
        if known:
            assert error.noise + error.lag == pytest.approx(error.map, rel=1e-12)
        assert math.isfinite(error.map + error.spread + error.total + error.feedback.relative)


def test_without_error_there_is_nothing_to_divide() -> None:
    model, (x, _) = network(), batch()
    learner = fdfa.DFA(model)
    error = credit_errors(learner, lambda y, t: (y * 0).sum(), x, None)["1"]
    numbers = [v for name, v in vars(error).items() if name != "feedback"]
    assert all(map(math.isnan, numbers))
    assert math.isfinite(error.feedback.relative)


def test_a_network_that_has_burst_has_no_numbers() -> None:
    """A training that is watched goes on, and its plots have a gap."""
    model, (x, targets) = network(), batch()
    model[0].weight.data[0, 0] = math.nan
    learner = fdfa.FDFA(model)
    seen = Watch(learner, F.cross_entropy, x, targets).observe()
    assert list(seen.taps) == ["1", "3"]
    for error in seen.taps.values():
        assert all(map(math.isnan, (error.total, error.spread, error.cosine, error.explainable)))


def test_no_tap_no_error() -> None:
    model, (x, targets) = network(), batch()
    learner = fdfa.FDFA(model, taps=[])
    assert credit_errors(learner, F.cross_entropy, x, targets) == {}
    assert feedback_errors(learner, x) == {}


@pytest.mark.parametrize("learned", [False, True], ids=["fresh", "after a step"])
@pytest.mark.parametrize("exact", [False, True])
def test_nothing_is_left_behind(learned: bool, exact: bool) -> None:
    model = nn.Sequential(
        nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.ReLU(), nn.Linear(6, 3)
    ).double()
    learner, (x, targets) = fdfa.FDFA(model, rank=2, learn_p=True), batch()
    if learned:
        F.cross_entropy(learner(x), targets).backward()
    before = copy.deepcopy(learner.state_dict())
    gradients = [None if p.grad is None else p.grad.clone() for p in learner.parameters()]
    modules = [name for name, _ in learner.named_modules()]
    torch_state, python_state = torch.get_rng_state(), random.getstate()

    found = credit_errors(learner, F.cross_entropy, x, targets, exact=exact)

    assert isinstance(found["3"], CreditError)
    after = learner.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert modules == [name for name, _ in learner.named_modules()]
    for p, gradient in zip(learner.parameters(), gradients, strict=True):
        assert (p.grad is None) if gradient is None else torch.equal(p.grad, gradient)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert python_state == random.getstate()
    assert not any("forward" in module.__dict__ for module in learner.modules())

"""Direct feedback of an error on r dimensions: naive loops, limits that are known, its memory."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from fdfa.errors import UnsupportedModelError
from tests.oracles.naive import NaiveNetwork, dense_network
from tests.oracles.statistics import LIMIT, mean_deviation
from tests.oracles.test_naive_loop import TAPS, WIDTHS, batches, documented_probe
from tests.oracles.test_probed_credit import ERROR, Draws, curved

CLOSE = {"rtol": 1e-9, "atol": 1e-11}
OUTPUTS = WIDTHS[-1]


def assert_same_weights(model: nn.Module, naive: NaiveNetwork) -> None:
    for ours, theirs in zip(model.parameters(), naive.parameters(), strict=True):
        torch.testing.assert_close(ours.detach(), theirs.detach(), **CLOSE)


@pytest.mark.parametrize("method", ["dfa", "fdfa", "dkp"])
@pytest.mark.parametrize("learn_p", [False, True])
def test_trains_as_the_naive_loop(method: str, learn_p: bool) -> None:
    """Whose maps are P^T B: what r rows hold, seen by all outputs."""
    rank, rate, turn = 2, 0.2, 0.3
    options: dict[str, dict[str, Any]] = {
        "dfa": {},
        "fdfa": {"feedback_rate": rate},
        "dkp": {"feedback_rate": rate, "decay": 0.1, "feedback_update": "sgd", "start": "uniform"},
    }
    model = dense_network(*WIDTHS)
    naive = NaiveNetwork(model)
    projection = {"rank": rank, "learn_p": learn_p, "projection_rate": turn}
    learner = fdfa.wrap(method, model, seed=3, **options[method], **projection)
    learner.plan(torch.randn(12, WIDTHS[0]).double())
    P = learner.projection.weight.clone()
    torch.testing.assert_close(P @ P.T, torch.eye(rank).double(), **CLOSE)
    maps = [learner.feedback[tap].weight.clone() for tap in TAPS]
    assert [B.shape[0] for B in maps] == [rank] * 3
    ours, theirs = (torch.optim.SGD(net.parameters(), lr=0.3) for net in (model, naive))
    for step, (x, target) in enumerate(batches(6)):
        ours.zero_grad()
        F.cross_entropy(learner(x), target).backward()
        ours.step()
        probe = documented_probe("normal", len(x), 3, step) if method == "fdfa" else None
        h, e = _seen(naive, x, target)
        means = naive.train_step(x, target, [P.T @ B for B in maps], probe)
        theirs.step()
        for number, B in enumerate(maps):
            if means is not None:
                B.copy_((1 - rate) * B + rate * P @ means[number])
            elif method == "dkp":
                z = torch.stack([P @ error for error in e])
                B.copy_(B - rate * (z.T @ h[number] + 0.1 * B))
        if learn_p:
            C = sum(torch.outer(error, error) for error in e) / e.square().sum()
            P = P + turn * (P @ C - P @ C @ P.T @ P)
        assert_same_weights(model, naive)
        torch.testing.assert_close(learner.projection.weight, P, **CLOSE)
        for tap, B in zip(TAPS, maps, strict=True):
            torch.testing.assert_close(learner.feedback[tap].weight, B, **CLOSE)


def _seen(naive: NaiveNetwork, x: Tensor, target: Tensor) -> tuple[list[Tensor], Tensor]:
    """Activations at the taps and the output error, running statistics untouched."""
    h, taps = x, []
    for block in naive.blocks:
        h = F.batch_norm(h @ block.W.T, None, None, block.gamma, block.beta, training=True).relu()
        taps.append(h.detach())
    y = h @ naive.W.T + naive.b
    (e,) = torch.autograd.grad(F.cross_entropy(y, target), y)
    return taps, e


@pytest.mark.parametrize(
    "options",
    [
        {"feedback_rate": 0.3},
        {"feedback_rate": 0.1, "feedback_update": "innovation"},
        {"feedback_rate": 0.3, "credit": "unbiased", "coefficient": 0.5},
    ],
    ids=["momentum", "innovation", "unbiased"],
)
def test_on_all_dimensions_it_is_the_rule_without_a_projection(options: dict[str, Any]) -> None:
    """Maps start at zero; from there on P turns everything alike."""
    model = dense_network(*WIDTHS)
    twin = copy.deepcopy(model)
    learners = fdfa.FDFA(model, seed=3, rank=10**6, **options), fdfa.FDFA(twin, seed=3, **options)
    for x, target in batches(5):
        for learner in learners:
            learner.zero_grad()
            F.cross_entropy(learner(x), target).backward()
            torch.optim.SGD(learner.parameters(), lr=0.2).step()
        for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, **CLOSE)


def test_errors_of_a_softmax_need_one_dimension_less_than_classes() -> None:
    """They sum to zero: where P spans all such, nothing is lost."""
    model = dense_network(*WIDTHS)
    twin = copy.deepcopy(model)
    learner = fdfa.FDFA(model, seed=3, feedback_rate=0.3, rank=OUTPUTS - 1)
    full = fdfa.FDFA(twin, seed=3, feedback_rate=0.3)
    learner.plan(torch.randn(12, WIDTHS[0]).double())
    zero_sum = torch.linalg.svd(torch.ones(1, OUTPUTS).double()).Vh[1:]
    learner.projection.weight.copy_(zero_sum)
    for x, target in batches(4):
        for each in (learner, full):
            each.zero_grad()
            F.cross_entropy(each(x), target).backward()
        for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, **CLOSE)
    assert learner.feedback["5"].weight.numel() < full.feedback["5"].weight.numel()


def test_an_unbiased_credit_stays_unbiased() -> None:
    """What the projection drops, the probe still measures: here more than half of the error."""
    draws = Draws(curved(), ["1", "4"], ERROR, coefficient=0.8, rank=1)
    draws.learner.projection.weight.copy_(torch.tensor([[1.0, 0.0]]))
    for tap in draws.taps:
        nn.init.normal_(draws.learner.feedback[tap].weight)
    P = draws.learner.projection.weight
    credits = draws.credits()
    assert mean_deviation(credits, draws.truth) < LIMIT
    # as if the slope, too, were that of the projected error
    wrong = torch.cat([ERROR @ P.T @ P @ J for J in draws.jacobians])
    assert mean_deviation(credits, wrong) > LIMIT


def test_the_running_coefficient_is_that_of_what_the_maps_carry() -> None:
    """b* = <q, e P^T B> / |e P^T B|^2, q the whole credit."""
    draws = Draws(curved(), ["1", "4"], ERROR, coefficient="running", rank=1, feedback_rate=1e-12)
    P = draws.learner.projection.weight.copy_(torch.tensor([[1.0, 0.0]]))
    for tap, J in zip(draws.taps, draws.jacobians, strict=True):
        draws.learner.feedback[tap].weight.copy_(ERROR @ J / ERROR[0])  # makes up for P
    draws.learner.feedback["1"].weight.mul_(2)
    foreseen = ERROR @ P.T @ draws.maps()
    draws.credits()
    best = (draws.truth @ foreseen / foreseen.square().sum()).item()
    assert abs(draws.learner.coefficient.value() - best) < 0.05
    projected = torch.cat([ERROR @ P.T @ P @ J for J in draws.jacobians])
    assert abs((projected @ foreseen / foreseen.square().sum()).item() - best) > 0.1


CLASSES, HIDDEN = 1000, 1024


def many_classes() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Linear(32, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES)
    )


def examples(count: int) -> tuple[Tensor, Tensor]:
    centres = torch.randn(CLASSES, 32, generator=torch.Generator().manual_seed(1))
    target = torch.randint(CLASSES, (count,))
    return centres[target] + 0.3 * torch.randn(count, 32), target


def test_a_thousand_classes_train_within_a_limit_that_refuses_the_dense_map() -> None:
    limit = 2**20
    x, target = examples(256)
    dense = fdfa.FDFA(many_classes(), feedback_size_limit=limit)
    with pytest.raises(UnsupportedModelError, match=r"1000 x 1024 numbers, 3\.906 MiB.*rank="):
        dense(x)
    model = many_classes()
    learner = fdfa.FDFA(model, feedback_size_limit=limit, rank=64, feedback_rate=0.1, seed=5)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(30):
        x, target = examples(256)
        optimizer.zero_grad()
        loss = F.cross_entropy(learner(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    exact = copy.deepcopy(model)
    for net in (learner, exact):
        net.zero_grad()
        F.cross_entropy(net(x), target).backward()
    ours, theirs = (net[0].weight.grad.flatten() for net in (model, exact))
    assert F.cosine_similarity(ours, theirs, dim=0) > 0.05  # noise: 0.006


def allocated(learner: fdfa.Estimator) -> int:
    """Largest sum of live allocations in a learner's first step, by the allocator's events."""
    x, target = examples(16)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        F.cross_entropy(learner(x), target).backward()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def test_the_memory_that_a_projection_saves_is_that_of_the_map(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A dense map and its first correlation, against their projected kin and P."""
    # A process asks for it when it profiles for the first time, and never again.
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    dense, projected = (
        allocated(fdfa.FDFA(many_classes(), seed=5, **options)) for options in ({}, {"rank": 64})
    )
    map_saved = 4 * (CLASSES * HIDDEN - 64 * (CLASSES + HIDDEN))
    assert dense - projected > 0.9 * map_saved

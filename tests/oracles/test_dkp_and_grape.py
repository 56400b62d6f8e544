"""Direct Kolen-Pollack and GrAPE against naive loops and what can be said exactly of them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from tests.oracles.naive import NaiveNetwork, dense_network
from tests.oracles.statistics import cosine
from tests.oracles.test_naive_loop import TAPS, WIDTHS, assert_same, batches, documented_probe


def test_the_last_map_approaches_the_read_out_as_kolen_and_pollack_say() -> None:
    """Under the same SGD and decay, B - W shrinks by (1 - eta lam) a step, whatever the data."""
    eta, lam = 0.2, 0.3
    model = nn.Sequential(
        nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3, bias=False)
    ).double()
    learner = fdfa.wrap(
        "dkp", model, feedback_update="sgd", feedback_rate=eta, decay=lam, start="uniform", seed=1
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=eta, weight_decay=lam)
    learner.plan(torch.randn(4, 5).double())
    maps = learner.feedback["3"], learner.feedback["1"]
    apart = maps[0].weight - model[4].weight.detach()
    below = maps[1].weight.clone()
    for step in range(1, 21):
        optimizer.zero_grad()
        F.cross_entropy(learner(torch.randn(4, 5).double()), torch.randint(3, (4,))).backward()
        optimizer.step()
        now = maps[0].weight - model[4].weight.detach()
        torch.testing.assert_close(now, (1 - eta * lam) ** step * apart, rtol=1e-10, atol=1e-12)
    assert (maps[1].weight - below).norm() > 0.01
    # The check can fail: without the maps' decay, or with another error, the two go apart.
    assert (now - apart).norm() > 0.1 * apart.norm()


@pytest.mark.parametrize("update", ["sgd", "adam"])
@pytest.mark.parametrize("start", ["zero", "uniform"])
def test_dkp_trains_as_the_naive_loop(update: str, start: str) -> None:
    rate, decay = 0.05, 0.01
    model = dense_network(*WIDTHS)
    naive = NaiveNetwork(model)
    learner = fdfa.wrap(
        "dkp",
        model,
        feedback_rate=rate,
        decay=decay,
        feedback_update=update,
        start=start,
        seed=3,
    )
    learner.plan(torch.randn(12, WIDTHS[0]).double())
    maps = [learner.feedback[tap].weight.clone() for tap in TAPS]
    kind = torch.optim.SGD if update == "sgd" else torch.optim.Adam
    teachers = [kind([B], lr=rate) for B in maps]
    ours, theirs = (torch.optim.SGD(m.parameters(), lr=0.3) for m in (model, naive))
    for x, target in batches(8):
        ours.zero_grad()
        F.cross_entropy(learner(x), target).backward()
        ours.step()
        h, e = activations(naive, x, target)
        naive.train_step(x, target, maps)
        theirs.step()
        for B, tapped, teacher in zip(maps, h, teachers, strict=True):
            step = sum(torch.outer(e[n], tapped[n]) for n in range(len(x)))
            B.grad = step + decay * B
            teacher.step()
            B.grad = None
    assert_same(learner, naive, maps)


def activations(naive: NaiveNetwork, x: Tensor, target: Tensor) -> tuple[list[Tensor], Tensor]:
    """What a pass over the naive network taps, and its output error."""
    h, tapped = x, []
    for block in naive.blocks:
        a = h @ block.W.T
        z = (a - a.mean(0)) / (a.var(0, correction=0) + 1e-5).sqrt()
        h = (z * block.gamma + block.beta).clamp(min=0).detach()
        tapped.append(h)
    y = (h @ naive.W.T + naive.b).detach().requires_grad_()
    (e,) = torch.autograd.grad(F.cross_entropy(y, target), y)
    return tapped, e


@pytest.mark.parametrize("every", [1, 3])
def test_grape_trains_as_the_naive_loop(every: int) -> None:
    """The cosine's gradient by autograd, and rows of length 1."""
    rate, seed = 0.2, 17
    model = dense_network(*WIDTHS)
    naive = NaiveNetwork(model)
    learner = fdfa.wrap("grape", model, feedback_rate=rate, probe_every=every, seed=seed)
    learner.plan(torch.randn(12, WIDTHS[0]).double())
    maps = [learner.feedback[tap].weight.clone() for tap in TAPS]
    ours, theirs = (torch.optim.SGD(m.parameters(), lr=0.3) for m in (model, naive))
    for step, (x, target) in enumerate(batches(8)):
        ours.zero_grad()
        F.cross_entropy(learner(x), target).backward()
        ours.step()
        probe = documented_probe("normal", len(x), seed, step) if step % every == 0 else None
        means = naive.train_step(x, target, maps, probe)
        theirs.step()
        maps = (
            maps
            if means is None
            else [turned(*pair, rate) for pair in zip(maps, means, strict=True)]
        )
    assert_same(learner, naive, maps)


def turned(B: Tensor, Jhat: Tensor, rate: float) -> Tensor:
    leaf = B.clone().requires_grad_()
    loss = 1 - F.cosine_similarity(leaf.flatten(), Jhat.flatten(), dim=0)
    (gradient,) = torch.autograd.grad(loss, leaf)
    moved = B - rate * gradient
    return moved / moved.norm(dim=1, keepdim=True)


def test_grape_turns_towards_the_read_out() -> None:
    """Frozen weights, rows of the read-out of one length: the map comes to point as it does."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    W = F.normalize(model[2].weight.detach())
    model[2].weight.data.copy_(W)
    learner = fdfa.wrap("grape", model, feedback_rate=0.05, noise="rademacher", seed=3)
    learner.plan(torch.randn(32, 4).double())
    before = cosine(learner.feedback["1"].weight, W)
    for _ in range(300):
        learner(torch.randn(32, 4).double()).sum().backward()
    assert before < 0.5
    assert cosine(learner.feedback["1"].weight, W) > 0.95


def test_grape_is_exact_on_one_step_in_so_many() -> None:
    model = dense_network(*WIDTHS)
    plain = copy.deepcopy(model)
    learner = fdfa.wrap("grape", model, exact_every=3, seed=3)
    for step, (x, target) in enumerate(batches(7)):
        taught = [learner.feedback[tap].weight.clone() for tap in TAPS] if step else []
        for module, call in ((model, learner), (plain, plain)):
            module.zero_grad()
            F.cross_entropy(call(x), target).backward()
        exact = step % 3 == 2
        assert torch.equal(model[0].weight.grad, plain[0].weight.grad) == exact
        for tap, B in zip(TAPS, taught, strict=False):
            assert torch.equal(learner.feedback[tap].weight, B) == exact

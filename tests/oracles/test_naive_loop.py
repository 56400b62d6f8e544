"""Several optimisation steps against the naive loop, on Linear-BN-ReLU networks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fdfa
from fdfa.engine.probes import Probe
from tests.oracles.lessons import classify
from tests.oracles.naive import NaiveNetwork, dense_network

WIDTHS = (6, 9, 8, 7, 4)
TAPS = ["2", "5", "8"]  # the ReLUs; taps="auto" must find them
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3),
}


@pytest.fixture(autouse=True, params=[True, False], ids=["all at once", "one by one"])
def _credits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small credits are worked out together, large ones each when its block is about to run."""
    monkeypatch.setattr("fdfa.engine.credit._AT_ONCE", 2**40 if request.param else 0)


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    """The last one smaller: a mean over the wrong N would show."""
    sizes = [12] * (count - 1) + [5]
    return [(torch.randn(n, WIDTHS[0]).double(), torch.randint(WIDTHS[-1], (n,))) for n in sizes]


def assert_same(learner: fdfa.FDFA | fdfa.DFA, naive: NaiveNetwork, maps: list[Tensor]) -> None:
    for ours, theirs in zip(learner.model.parameters(), naive.parameters(), strict=True):
        torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-10, atol=1e-12)
    for tap, B in zip(TAPS, maps, strict=True):
        torch.testing.assert_close(learner.feedback[tap].weight, B, rtol=1e-10, atol=1e-12)
    for number, block in enumerate(naive.blocks):
        norm = learner.model[3 * number + 1]
        torch.testing.assert_close(norm.running_mean, block.running_mean, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(norm.running_var, block.running_var, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_dfa_trains_as_the_naive_loop(optimizer: str) -> None:
    model = dense_network(*WIDTHS)
    naive, learner = NaiveNetwork(model), fdfa.DFA(model, seed=3)
    learner.plan(torch.randn(12, WIDTHS[0]).double())
    assert learner.feedback.names() == TAPS
    maps = [learner.feedback[tap].weight.clone() for tap in TAPS]
    ours = OPTIMIZERS[optimizer](model.parameters())
    theirs = OPTIMIZERS[optimizer](naive.parameters())
    for x, target in batches(8):
        ours.zero_grad()
        classify(learner, x, target)
        ours.step()
        naive.train_step(x, target, maps)
        theirs.step()
    assert_same(learner, naive, maps)


@pytest.mark.parametrize("noise", ["normal", "rademacher"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("every", [1, 3])
def test_fdfa_trains_as_the_naive_loop(every: int, optimizer: str, noise: str) -> None:
    rate, seed = 0.3, 17
    model = dense_network(*WIDTHS)
    naive = NaiveNetwork(model)
    learner = fdfa.FDFA(model, feedback_rate=rate, probe_every=every, noise=noise, seed=seed)
    maps = [torch.zeros(WIDTHS[-1], width).double() for width in WIDTHS[1:-1]]
    ours = OPTIMIZERS[optimizer](model.parameters())
    theirs = OPTIMIZERS[optimizer](naive.parameters())
    for step, (x, target) in enumerate(batches(8)):
        ours.zero_grad()
        classify(learner, x, target)
        ours.step()
        probe = documented_probe(noise, len(x), seed, step) if step % every == 0 else None
        means = naive.train_step(x, target, maps, probe)
        theirs.step()
        if means is not None:  # after the step: its credits came from the old maps
            maps = [(1 - rate) * B + rate * mean for B, mean in zip(maps, means, strict=True)]
    assert learner.feedback.names() == TAPS
    assert all(B.norm() > 0.1 for B in maps)
    assert_same(learner, naive, maps)


def documented_probe(noise: str, samples: int, seed: int, step: int) -> list[Tensor]:
    """The perturbations of (seed, step, rank 0), as the probe's docstring promises them."""
    shapes = [(samples, width) for width in WIDTHS[1:-1]]
    count = len(shapes)
    return Probe(noise=noise).draw(
        shapes, [torch.float64] * count, [torch.device("cpu")] * count, seed, step, 0
    )

"""A first block that learns in one pass of several: there as always, between them not at all."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from fdfa.diagnostics import alignment


def gradients(first_block_every: int, relay: int, width: int) -> list[dict[str, Tensor | None]]:
    """Of four passes, from the same weights and probes."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 6), nn.ReLU()),
        *(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 3)),
    )
    learner = fdfa.FDFA(
        copy.deepcopy(model), relay=relay, first_block_every=first_block_every, seed=1
    )
    found = []
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(64, 5, generator=generator)
        learner.zero_grad()
        F.cross_entropy(learner(x), torch.arange(64) % 3).backward()
        found.append({name: p.grad for name, p in learner.model.named_parameters()})
    return found


@pytest.mark.parametrize("relay", [0, 1, 2, 9])
@pytest.mark.parametrize("width", [6, 5000])  # credits at once, and one by one
def test_it_gets_the_same_gradient_in_its_passes_and_none_between(relay: int, width: int) -> None:
    always, seldom = gradients(1, relay, width), gradients(3, relay, width)
    for step, (usual, rare) in enumerate(zip(always, seldom, strict=True)):
        for name, gradient in usual.items():
            resting = step % 3 and name.startswith("0.")
            assert (rare[name] is None) if resting else torch.equal(rare[name], gradient), name
    assert all(always[3][name].any() for name in always[3])


@pytest.mark.parametrize("relay", [0, 1])
def test_it_never_rests_where_it_alone_learns(relay: int) -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    model[2:].requires_grad_(False)
    learner = fdfa.FDFA(model, taps=["1", "3"], first_block_every=9, relay=relay)
    for _ in range(3):
        learner.zero_grad()
        learner(torch.randn(4, 5)).sum().backward()
    assert model[0].weight.grad is not None
    assert model[0].weight.grad.any()


def test_a_copy_that_is_looked_at_has_every_gradient() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    learner = fdfa.FDFA(model, first_block_every=7)
    for _ in range(2):
        learner(torch.ones(4, 5)).sum().backward()
    found = alignment(learner, F.cross_entropy, torch.randn(4, 5), torch.tensor([0, 1, 2, 0]))
    assert set(found) == {"0.weight", "0.bias", "2.weight", "2.bias"}

"""Kolen-Pollack: B by the paper's own update, and how it comes to the weight."""

from __future__ import annotations

import torch

from tests.oracles.exchanged import (
    feedback,
    network,
    wrap,
)


def test_kolen_pollack_is_the_papers_under_sgd() -> None:
    """B by its own update, and B - W = (1 - eta lam)^t (B_0 - W_0)."""
    eta, lam = 0.1, 0.3
    model = network()
    learner = wrap("kolen-pollack", model, decay=eta * lam)
    optimizer = torch.optim.SGD(model.parameters(), lr=eta, weight_decay=lam)
    learner(torch.randn(2, 4).double())
    names = ["2.weight", "4.weight"]
    B = {name: feedback(learner, name) for name in names}
    start = {name: B[name] - model.get_parameter(name).detach() for name in names}
    for step in range(1, 21):
        optimizer.zero_grad()
        learner(torch.randn(7, 4).double()).square().mean().backward()
        for name in names:
            B[name] = (1 - eta * lam) * B[name] - eta * model.get_parameter(name).grad
        optimizer.step()
        for name in names:
            ours = feedback(learner, name)
            torch.testing.assert_close(ours, B[name], rtol=1e-12, atol=1e-14)
            apart = ours - model.get_parameter(name).detach()
            expected = (1 - eta * lam) ** step * start[name]
            torch.testing.assert_close(apart, expected, rtol=1e-12, atol=1e-14)

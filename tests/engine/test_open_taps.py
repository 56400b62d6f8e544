"""The pass whose output is differentiated by all taps, against a network written out by hand."""

from __future__ import annotations

import torch
from torch import nn

from fdfa.engine.open_taps import open_pass
from fdfa.engine.taps import plan_taps


def network() -> nn.Sequential:
    """The second tap is the first activation's output, which the next one overwrites in place."""
    return nn.Sequential(
        nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)
    ).double()


def test_derivatives_pass_through_later_taps() -> None:
    model, x = network(), torch.randn(6, 3, dtype=torch.float64)
    plan = plan_taps(model, (x,), {}, taps=["1", "2"])
    e = torch.randn(6, 2, dtype=torch.float64)

    run = open_pass(model, plan, (x,), {}, output=None, sample_dims=1)
    found = torch.autograd.grad(run.output, run.offsets, e)

    W2, W3 = model[2].weight, model[4].weight
    a = torch.tanh(x @ model[0].weight.T + model[0].bias) @ W2.T + model[2].bias
    behind_2 = (e @ W3) * (a > 0)
    expected = [behind_2 @ W2, behind_2]
    assert torch.equal(run.output, model(x))
    for seen, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(seen, wanted, rtol=1e-12, atol=0)


def test_the_output_is_found_within_what_the_model_returns() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"hidden": x.sum(1), "logits": self.network(x)}

    model, x = Named(), torch.randn(6, 3, dtype=torch.float64)
    plan = plan_taps(model, (x,), {}, output="logits")
    run = open_pass(model, plan, (x,), {}, output="logits", sample_dims=1)
    assert run.returned["logits"] is run.output
    assert [offset.shape for offset in run.offsets] == [tap.shape for tap in plan.taps]

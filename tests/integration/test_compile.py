"""``learner.compile()`` and ``torch.compile(learner)``: the same numbers, no graph break."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fdfa

BOTH = pytest.param("both", marks=pytest.mark.slow)
CASES = [
    ("dfa", {}),
    ("adfa", {}),
    ("ifa", {}),
    ("drtp", {}),
    ("fdfa", {}),
    pytest.param("fdfa", {"noise": "rademacher", "probe_every": 2}, marks=pytest.mark.slow),
]


def _network() -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (4, 8):
        layers += [nn.Linear(width, 8), nn.BatchNorm1d(8), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(8, 3))


def _step(learner: fdfa.Estimator, call: Any, x: torch.Tensor) -> None:
    criterion = learner.criterion(F.cross_entropy)
    criterion(call(x), torch.zeros(len(x), dtype=torch.long)).backward()


# torch.jit.script is deprecated, and Dynamo and forward-mode AD still use it (torch 2.13)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("how", ["learner.compile()", "torch.compile(learner)", BOTH])
@pytest.mark.parametrize(("method", "options"), CASES)
def test_compiled_steps_are_the_eager_ones(method: str, options: dict[str, Any], how: str) -> None:
    """Gradients and feedback agree, also when the batch gets smaller."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = _network()
    eager = fdfa.wrap(method, copy.deepcopy(model), seed=1, **options)
    compiled = fdfa.wrap(method, copy.deepcopy(model), seed=1, **options)
    if how != "torch.compile(learner)":
        compiled.compile(backend="aot_eager")
    call = compiled
    if how != "learner.compile()":
        call = torch.compile(compiled, backend="aot_eager")
    for samples in (6, 6, 6, 4):
        x = torch.randn(samples, 4)
        for learner, run in ((eager, eager), (compiled, call)):
            learner.zero_grad()
            _step(learner, run, x)
        for p, q in zip(eager.parameters(), compiled.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-7)
    maps = zip(eager.feedback.buffers(), compiled.feedback.buffers(), strict=True)
    for b, c in maps:
        torch.testing.assert_close(b, c, rtol=1e-5, atol=1e-7)
        assert b.any()
    if how == "learner.compile()":
        assert not torch._dynamo.utils.counters["graph_break"]

"""Tangents of layers along their own weights, against torch's forward AD and by count."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import fdfa
from fdfa.engine.intercept import Interception
from fdfa.engine.weight_rules import forwards_with_rules

LAYERS = {
    "linear": (nn.Linear(4, 3), (5, 4)),
    "linear over positions": (nn.Linear(4, 3), (5, 2, 4)),
    "linear without bias": (nn.Linear(4, 3, bias=False), (5, 4)),
    "conv1d": (nn.Conv1d(2, 3, 3, padding=1), (5, 2, 6)),
    "conv2d": (nn.Conv2d(4, 6, 3, stride=2, groups=2), (5, 4, 7, 7)),
    "conv2d, reflected": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (5, 2, 6, 6)),
    "conv3d": (nn.Conv3d(1, 2, 2, bias=False), (5, 1, 3, 3, 3)),
}


def tangent(layer: nn.Module, x: Tensor, moved: dict[str, Tensor], rules: bool) -> Any:
    """Output and tangent, parameters and input moved as named."""
    with fwAD.dual_level():
        dual = fwAD.make_dual(x, moved["input"]) if "input" in moved else x
        for name, parameter in list(layer._parameters.items()):
            if name in moved:
                delattr(layer, name)
                setattr(layer, name, fwAD.make_dual(parameter.detach(), moved[name]))
        with Interception(forwards_with_rules(layer) if rules else {}):
            y = fwAD.unpack_dual(layer(dual))
        return y.primal.clone(), None if y.tangent is None else y.tangent.clone()


@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize(
    "names",
    [(), ("weight",), ("bias",), ("input",), ("weight", "bias"), ("weight", "bias", "input")],
    ids=lambda names: " ".join(names) or "nothing",
)
def test_tangent_is_that_of_torch(case: str, names: tuple[str, ...]) -> None:
    layer, shape = LAYERS[case]
    x = torch.randn(shape).double()
    found = {}
    directions = {name: torch.randn_like(p).double() for name, p in layer.named_parameters()}
    directions["input"] = torch.randn_like(x)
    moved = {name: directions[name] for name in names if name in directions}
    for rules in (True, False):
        twin = type(layer).__new__(type(layer))
        twin.__dict__ = {**layer.__dict__, "_parameters": dict(layer._parameters)}
        twin._parameters = {
            name: None if p is None else nn.Parameter(p.detach().double())
            for name, p in layer._parameters.items()
        }
        found[rules] = tangent(twin, x, moved, rules)
    assert torch.equal(found[True][0], found[False][0])
    if not moved:
        assert found[True][1] is None
    else:
        torch.testing.assert_close(found[True][1], found[False][1], rtol=1e-12, atol=1e-12)


class _Products(TorchDispatchMode):
    """Counts matrix products by the numbers that they multiply."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name().split(".")[0] in ("aten::mm", "aten::addmm"):
            self.count += 1
        return func(*args, **(kwargs or {}))


def test_a_forward_gradient_takes_three_products_a_layer_and_two_in_the_first() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))
    learner = fdfa.wrap("fg-w", model)
    with _Products() as products:
        loss = learner(torch.randn(3, 4)).sum()
    loss.backward()
    assert products.count == 3 * 3 - 1


def test_tangents_side_by_side_are_those_one_after_another(monkeypatch: Any) -> None:
    """A hook has them go one after another: it would see what ``vmap`` makes of a tensor."""
    passes = 0
    forward = nn.Sequential.forward

    def counted(self: nn.Sequential, x: Tensor) -> Tensor:
        nonlocal passes
        passes += 1
        return forward(self, x)

    monkeypatch.setattr(nn.Sequential, "forward", counted)
    model = nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.GELU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(16, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3)),
    ).double()
    x = torch.randn(5, 1, 6, 6).double()
    found = []
    for hooked in (False, True):
        learner = fdfa.wrap("multi-tangent", model, seed=3)
        passes = 0
        if hooked:
            model[0].register_forward_hook(lambda module, args, y: None)
        model.zero_grad()
        y = learner(x)
        assert passes == (4 if hooked else 1)
        y.square().sum().backward()
        found.append([y.detach(), *(p.grad.clone() for p in model.parameters())])
    assert torch.equal(found[0][0], found[1][0])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)

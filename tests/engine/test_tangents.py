"""Every tangent rule, against forward AD of the plain module and against central differences.

A probe perturbs the input of one module and measures the derivative of its output.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator

import pytest
import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn

import fdfa
from fdfa.engine.tangent_rules import RULES, TangentRule
from fdfa.engine.tangents import rule_for
from tests.engine.tangent_cases import CASES, ready
from tests.oracles.lessons import Observed

IMAGES = [name for name, case in CASES.items() if len(case.shape) == 4]
NO_RULE = TangentRule(lambda *args: pytest.fail("a type without a rule"))


class Source(nn.Module):
    """Its weight is its output, so that a tap there perturbs any tensor that we like."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = nn.Parameter(x.clone(memory_format=torch.preserve_format))

    def forward(self, batch: Tensor) -> Tensor:
        return self.x * 1


class Scale(nn.Module):
    """Multiplies by one: its output needs a gradient where its input did not."""

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=like.dtype))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Measured:
    """What a probe measured behind a module.

    Args:
        module: kept as it is.
        x: its input.
        needs_gradient: whether the input needs a gradient; right behind a tap it does not.
        as_functions: whether the network is written out or a ``Sequential``, where tensors are
            handed from one module to the next.
    """

    def __init__(
        self, module: nn.Module, x: Tensor, *, needs_gradient: bool, as_functions: bool = False
    ) -> None:
        layers = [Source(x), *([Scale(x)] if needs_gradient else []), module, Scale(x)]
        self.model = Written(layers) if as_functions else nn.Sequential(*layers)
        tap = "layers.0" if as_functions else "0"
        self.learner = Observed(self.model, taps=[tap], seed=3)  # leaves modules' modes alone
        torch.default_generator.manual_seed(1)
        self.y = self.learner(torch.zeros(len(x), 1))
        weights = torch.linspace(-1, 1, self.y.numel(), dtype=self.y.dtype).view_as(self.y)
        (self.y * weights).sum().backward()
        self.p = self.learner.p[0]
        self.dy = self.learner.d.view_as(self.y)


class Written(nn.Module):
    """Calls its layers itself, and holds on to what they return."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for layer in self.layers:
            values.append(layer(values[-1]))
        return values[-1]


def spread(name: str) -> Tensor:
    """Distinct values in float64, so that no difference steps over a kink."""
    shape = CASES[name].shape
    count = torch.Size(shape).numel()
    return ((torch.randperm(count).double() + 0.37) / count * 4 - 2).view(shape)


def reference(module: nn.Module, x: Tensor, p: Tensor) -> Tensor:
    """The derivative along p by forward AD of the plain module, in float64."""
    module = copy.deepcopy(module).double()
    torch.default_generator.manual_seed(1)
    with fwAD.dual_level():
        y = module(fwAD.make_dual(x.double().clone(), p.double().clone()))
        return fwAD.unpack_dual(y).tangent.detach()


def difference(module: nn.Module, x: Tensor, p: Tensor, step: float = 1e-6) -> Tensor:
    """The derivative from two plain passes."""
    sides = []
    for sign in (step, -step):
        torch.default_generator.manual_seed(1)
        with torch.no_grad():
            sides.append(copy.deepcopy(module)(x + sign * p))
    return (sides[0] - sides[1]) / (2 * step)


@contextlib.contextmanager
def counted(kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Counts how often this type's rule is applied; a fall back to dual numbers is exact too."""
    rule, uses = RULES.get(kind, NO_RULE), []

    def tangent(*args: object) -> Tensor:
        uses.append(1)
        return rule.tangent(*args)

    with monkeypatch.context() as patch:
        if rule is not NO_RULE:
            patch.setitem(RULES, kind, dataclasses.replace(rule, tangent=tangent))
        yield uses


def test_every_rule_has_a_case() -> None:
    modules = [case.make() for case in CASES.values()]
    assert set(RULES) == {type(module) for module in modules if rule_for(module)}


@pytest.mark.parametrize("frozen", [False, True], ids=["trainable", "frozen"])
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", CASES)
def test_rule_is_forward_ad_and_the_central_difference(
    name: str, train: bool, frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64 to rounding and in float32, for inputs that need a gradient and others."""
    module = ready(name).double().train(train).requires_grad_(not frozen)
    x = spread(name)
    for dtype, close in ((torch.float64, 1e-10), (torch.float32, 2e-5)):
        for needs_gradient in (True, False):
            own, plain = (copy.deepcopy(module).to(dtype) for _ in range(2))
            with counted(type(module), monkeypatch) as uses:
                seen = Measured(own, x.to(dtype), needs_gradient=needs_gradient)
            if rule_for(own) is not None:
                assert bool(uses) == (needs_gradient or not CASES[name].reads_graph)
            exact = reference(module, x, seen.p)
            torch.testing.assert_close(seen.dy.double(), exact, rtol=close, atol=close)
            if dtype == torch.float64:
                by_difference = difference(module, x, seen.p)
                torch.testing.assert_close(seen.dy, by_difference, rtol=1e-6, atol=1e-7)
            torch.default_generator.manual_seed(1)
            assert torch.equal(seen.y, plain(x.to(dtype) * 1))  # the plain module's very output
            for ours, theirs in zip(own.buffers(), plain.buffers(), strict=True):
                assert torch.equal(ours, theirs)


@pytest.mark.parametrize("needs_gradient", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_tensors_that_are_kept_carry_the_same_tangents(name: str, needs_gradient: bool) -> None:
    """Dual numbers between modules, or tensors handed over with the tangent beside them."""
    results = []
    for as_functions in (False, True):
        torch.default_generator.manual_seed(0)
        module, x = ready(name).double(), spread(name)
        results.append(
            Measured(module, x, needs_gradient=needs_gradient, as_functions=as_functions)
        )
    torch.testing.assert_close(results[0].dy, results[1].dy, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_a_pass_without_a_probe(name: str) -> None:
    """What a rule reads off the graph must leave it whole."""
    grads = []
    for every in (1, 2):
        torch.default_generator.manual_seed(0)
        module, x = ready(name).double(), spread(name)
        learner = fdfa.FDFA(
            nn.Sequential(Source(x), Scale(x), module, Scale(x)), taps=["0"], probe_every=every
        )
        learner.steps = 1  # a step that probes, and one that does not
        torch.default_generator.manual_seed(1)
        learner(torch.zeros(len(x), 1)).square().sum().backward()
        grads.append([p.grad for p in learner.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize(
    ("name", "needs_gradient"),
    # torch 2.13 crashes the process on the one left out: test_tangents_in_models.py
    [(n, g) for n in IMAGES for g in (True, False) if g or "group norm" not in n],
)
def test_channels_last(name: str, needs_gradient: bool) -> None:
    """A perturbation is drawn contiguous, whatever the strides of the tapped tensor."""
    module = ready(name).double()
    plain = copy.deepcopy(module)
    last = {"memory_format": torch.channels_last}
    x = spread(name).contiguous(**last)
    seen = Measured(module.to(**last), x, needs_gradient=needs_gradient)
    exact = reference(plain, x.contiguous(), seen.p)
    torch.testing.assert_close(seen.dy, exact, rtol=1e-10, atol=1e-10)
    torch.default_generator.manual_seed(1)
    assert torch.equal(seen.y, plain.to(**last)(x))


@pytest.mark.parametrize("needs_gradient", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_autocast_to_bfloat16(name: str, needs_gradient: bool) -> None:
    """The derivative is as exact as bfloat16 lets it be, the output that of the plain module."""
    module, x = ready(name), spread(name).float()
    plain = copy.deepcopy(module)
    with torch.autocast("cpu", torch.bfloat16):
        seen = Measured(module, x, needs_gradient=needs_gradient)
        torch.default_generator.manual_seed(1)
        assert torch.equal(seen.y, plain(x * 1))
    exact = reference(plain, x, seen.p)
    assert (seen.dy.double() - exact).norm() < 0.02 * exact.norm() + 1e-12


@pytest.mark.parametrize("frozen", [False, True], ids=["trainable", "frozen"])
@pytest.mark.parametrize("name", [name for name in CASES if "pool 3d" not in name])
def test_whole_model_in_bfloat16(name: str, frozen: bool) -> None:
    """No kernel complains about mixed dtypes."""
    module = ready(name).bfloat16().requires_grad_(not frozen)
    plain, x = copy.deepcopy(module), spread(name).bfloat16()
    for needs_gradient in (True, False):
        seen = Measured(module, x, needs_gradient=needs_gradient)
        if "dropout" not in name:  # whose mask depends on the dtype
            exact = reference(plain, x, seen.p.bfloat16())
            assert (seen.dy.double() - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("name", CASES)
def test_saved_tensor_hooks_are_not_called_by_the_forward_pass(name: str) -> None:
    """Under a user's hooks: exact, and nothing is unpacked before its time."""
    module, x = ready(name).double(), spread(name)
    plain = copy.deepcopy(module)
    learner = Observed(nn.Sequential(Source(x), Scale(x), module, Scale(x)), taps=["0"])
    unpacked = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: tensor, lambda tensor: (unpacked.append(1), tensor)[1]
    ):
        torch.default_generator.manual_seed(1)
        y = learner(torch.zeros(len(x), 1))
    assert not unpacked
    y.sum().backward()
    exact = reference(plain, x, learner.p[0])
    torch.testing.assert_close(learner.d.view_as(y), exact, rtol=1e-10, atol=1e-10)
    with torch.autograd.graph.save_on_cpu():
        seen = Measured(copy.deepcopy(plain), x, needs_gradient=True)
    exact = reference(plain, x, seen.p)
    torch.testing.assert_close(seen.dy, exact, rtol=1e-10, atol=1e-10)

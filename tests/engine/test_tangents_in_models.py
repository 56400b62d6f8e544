"""Tangents on their way through whole models: hooks, layers without a rule, what is kept."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

import fdfa
from fdfa.errors import ProbeError
from tests.oracles.lessons import Observed, assert_exact_probe
from tests.oracles.perturbed import explicit_jacobians, jacobian_products


class Functional(nn.Module):
    """A network of functions without a rule, and a function of the user's in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = self.between(F.layer_norm(self.a(x), (6,)))
        return F.linear(F.relu(self.b(h) @ self.a.weight) * h, self.b.weight)

    def between(self, h: Tensor) -> Tensor:
        return F.silu(h)


def sequence(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 6), *layers, nn.Linear(6, 3)).double()


def test_forward_hooks_that_change_values_stay_exact() -> None:
    model = sequence(nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 6))
    model[1].register_forward_hook(lambda m, args, out: 3 * out.sin())
    model[2].register_forward_hook(lambda m, args, out: F.relu_(out - 0.1))
    model[3].register_forward_pre_hook(lambda m, args: (args[0] * args[0],))
    model[3].register_forward_hook(lambda m, args, out: out + args[0])
    model[4].register_forward_pre_hook(
        lambda m, args, kw: ((), {"input": args[0].cos()}), with_kwargs=True
    )
    assert_exact_probe(model, ["0"], torch.randn(5, 6).double())


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("place", [0, 1], ids=["at the tap", "behind the tap"])
def test_full_backward_hook_on_an_inner_layer_is_exact_or_refused(place: int) -> None:
    """It inserts a function without a forward derivative: never a silent wrong derivative."""
    model = sequence(nn.LayerNorm(6), nn.ReLU())
    seen = []
    model[place].register_full_backward_hook(lambda m, gin, gout: seen.append(gout))
    x = torch.randn(5, 6).double()
    if place == 0:
        assert_exact_probe(model, ["0"], x)
    else:
        with pytest.raises(ProbeError, match=r"'1' \(LayerNorm\).*finite-difference"):
            fdfa.FDFA(model, taps=["0"])(x)
        for learner in (fdfa.FDFA(model, taps=["0"], probe="finite-difference"), fdfa.DFA(model)):
            learner(x).sum().backward()
    assert seen
    assert all(p.grad is not None for p in model.parameters())


class Branch(nn.Module):
    """A branch that might lose its tangent beside a shortcut that keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.read = nn.Linear(6, 6), nn.Linear(6, 3)
        self.branch = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        return self.read(self.branch(h) + h)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("place", range(4))
def test_full_backward_hook_beside_a_shortcut_is_exact_or_refused(place: int) -> None:
    """Here a lost tangent would not show at the output."""
    model = Branch().double()
    x = torch.randn(5, 6).double()
    plain = copy.deepcopy(model)
    learner = Observed(model, taps=["stem"])
    model.branch[place].register_full_backward_hook(lambda m, gin, gout: None)
    try:
        learner(x).sum().backward()
    except ProbeError:
        return
    product = jacobian_products(explicit_jacobians(plain, ["stem"], x), learner.p)
    torch.testing.assert_close(learner.d, product, rtol=1e-10, atol=1e-12)


def test_pre_hooks_that_call_other_modules_keep_every_tangent() -> None:
    """As a monitor does that runs a head of its own on what passes."""
    model = Branch().double()
    norm, last = model.branch[1], model.branch[3]
    norm.register_forward_pre_hook(lambda m, args: (args[0] + last(args[0]).sin(),))
    last.register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    assert_exact_probe(model, ["stem"], torch.randn(5, 6).double())


def test_backward_hooks_on_the_learner_and_on_tensors_work() -> None:
    model = sequence(nn.ReLU(), nn.Linear(6, 6))
    learner = fdfa.FDFA(model, taps=["1"])
    seen = []
    learner.register_full_backward_hook(lambda m, gin, gout: seen.append("learner"))
    model[2].register_forward_hook(
        lambda m, args, out: out.register_hook(lambda grad: seen.append("tensor")) and None
    )
    learner(torch.randn(5, 6).double().requires_grad_()).sum().backward()
    assert sorted(seen) == ["learner", "tensor"]


class Tripled(nn.ReLU):
    """A subclass whose rule would be wrong."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x).square()


def test_subclasses_and_parametrised_layers_are_exact() -> None:
    weight_norm = nn.utils.parametrizations.weight_norm
    model = sequence(
        Tripled(),
        weight_norm(nn.Linear(6, 6)),
        nn.Tanh(),
        nn.utils.parametrizations.orthogonal(nn.Linear(6, 6)),
    )
    assert_exact_probe(model, ["0", "3"], torch.randn(5, 6).double())


def test_pruned_layers_are_exact() -> None:
    """Pruning keeps the type and sets ``weight`` in a pre-hook: the rule must read that one."""
    models = []
    for _ in range(2):  # a pruned layer cannot be deep-copied
        torch.default_generator.manual_seed(0)
        models.append(sequence(nn.Linear(6, 6), nn.ReLU()))
        prune.random_unstructured(models[-1][1], "weight", 0.5)
    assert_exact_probe(models[0], ["0"], torch.randn(5, 6).double(), models[1])


@pytest.mark.parametrize("context", ["hooks", "cpu"])
def test_a_model_under_saved_tensor_hooks_is_exact(context: str) -> None:
    model = nn.Sequential(
        *(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.3)),
        *(nn.Flatten(), nn.Linear(12, 3)),
    ).double()
    guard = (
        torch.autograd.graph.save_on_cpu()
        if context == "cpu"
        else torch.autograd.graph.saved_tensors_hooks(lambda t: (t,), lambda packed: packed[0])
    )
    with guard:
        assert_exact_probe(model, ["0"], torch.randn(4, 1, 6, 6).double())


def saved_for_backward(learner: nn.Module, x: Tensor) -> tuple[list[int], bool]:
    """Sizes of all that autograd saves in a forward pass, and whether any of it is dual."""
    sizes, duals = [], []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        duals.append(fwAD._current_level >= 0 and fwAD.unpack_dual(tensor).tangent is not None)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        learner(x)
    return sorted(sizes), any(duals)


def test_rules_keep_tangents_out_of_what_autograd_saves() -> None:
    """As many tensors, of the same sizes, as without a probe, and none of them dual."""
    model = sequence(
        *(nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 6), nn.LayerNorm(6), nn.Tanh()),
        *(nn.Linear(6, 6), nn.GELU(), nn.Unflatten(1, (2, 3)), nn.AvgPool1d(1), nn.Flatten()),
    )
    x = torch.randn(5, 6).double()
    dfa = fdfa.DFA(copy.deepcopy(model), taps=["0", "3"])
    learner = fdfa.FDFA(copy.deepcopy(model), taps=["0", "3"])
    dfa.plan(x), learner.plan(x)
    assert saved_for_backward(learner, x) == (saved_for_backward(dfa, x)[0], False)
    functional = fdfa.FDFA(Functional().double(), taps=["a"])
    functional.plan(x)
    assert saved_for_backward(functional, x)[1]  # the check can see duals


def test_rules_that_follow_each_other_in_a_sequence_make_no_dual_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """This is what they are fast by: at most the output is one."""
    model = sequence(
        *(nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 6), nn.LayerNorm(6), nn.Tanh()),
        nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Sequential(nn.Linear(6, 6)), nn.GELU()),
    )
    learner = fdfa.FDFA(model, taps=["0", "5"])
    x = torch.randn(5, 6).double()
    learner.plan(x)
    made, make_dual = [], fwAD.make_dual

    def counted(*args: Tensor, **kwargs: int) -> Tensor:
        made.append(1)
        return make_dual(*args, **kwargs)

    monkeypatch.setattr(fwAD, "make_dual", counted)
    learner(x)
    assert len(made) <= 1


def test_a_measured_derivative_keeps_no_graph() -> None:
    """Also where functions that autograd records made the tangent; no tangent outlives the pass."""
    lessons = []

    class Kept(fdfa.FDFA):
        def teach(self, lesson: object) -> None:
            lessons.append(lesson)

    learner = Kept(Functional(), taps=["a"])
    y = learner(torch.randn(4, 6))
    assert fwAD._current_level == -1
    y.sum().backward()
    assert not lessons[0].derivative.requires_grad
    assert all(not p.requires_grad for p in lessons[0].perturbations)
    assert fwAD._current_level == -1


def test_the_dual_level_is_closed_after_an_exception() -> None:
    def fail(h: Tensor) -> Tensor:
        raise KeyError("user")

    learner = fdfa.FDFA(Functional(), taps=["a"])
    learner.plan(torch.randn(4, 6))
    learner.model.between = fail
    with pytest.raises(KeyError, match="user"):
        learner(torch.randn(4, 6))
    assert fwAD._current_level == -1
    assert not any("forward" in module.__dict__ for module in learner.modules())


def test_group_norm_behind_a_tap_survives_channels_last() -> None:
    """Torch 2.13 crashes the process there if the input needs no gradient, as behind every tap."""
    script = """
import fdfa, torch
from torch import nn
for method in ("dfa", "fdfa"):
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(64, 3))
    learner = fdfa.wrap(method, model, taps=["0"])
    x = torch.randn(5, 2, 6, 6).contiguous(memory_format=torch.channels_last)
    learner(x).sum().backward()
    assert model[1].weight.grad.any()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()

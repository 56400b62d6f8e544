"""What users write between modules: functions, in-place writes, views, skips, modules reused.

The measured derivative is compared with explicit Jacobians of the plain model.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from tests.oracles.lessons import Observed, assert_exact_probe
from tests.oracles.perturbed import explicit_jacobians, jacobian_products


class Written(nn.Module):
    """Three linear layers of equal width with a function of the user's between each two."""

    def __init__(self, between: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(6, 6) for _ in range(3))
        self.read = nn.Linear(6, 3)
        self.norm = nn.LayerNorm(6)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5, inplace=True)
        self.plain = nn.ReLU()
        self.parts = nn.Unflatten(1, (2, 3))
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        h = self.between(self, self.a(x))
        return self.read(self.between(self, self.c(self.between(self, self.b(h)))))


def assigned(h: Tensor, value: float) -> Tensor:
    h[:, 0] = value
    return h


def scaled_view(h: Tensor) -> Tensor:
    h.view(-1, 2, 3)[:, 1] *= 3
    return h


def two_parts(h: Tensor) -> Tensor:
    first, second = h.chunk(2, 1)
    return torch.cat([second * first, first + 1], 1)


def kept(m: nn.Module, h: Tensor) -> Tensor:
    """A shortcut that the activation overwrites: legal, and h is the new h."""
    return m.norm(m.relu(h)) + h


def view_of_module_written(m: nn.Module, h: Tensor) -> Tensor:
    m.parts(h)[:, 0].mul_(3)
    return h.sin()


def ignored(m: nn.Module, h: Tensor) -> Tensor:
    m.relu(h)
    return m.norm(h)


FUNCTIONS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "functional relu": lambda m, h: F.relu(h),
    "functional layer norm": lambda m, h: F.layer_norm(h, (6,)),
    "functional relu in place": lambda m, h: F.relu_(h),
    "method in place": lambda m, h: h.tanh_(),
    "scaled in place": lambda m, h: h.mul_(2.0),
    "added in place": lambda m, h: m.norm(h.add_(h.detach().sin())),
    "assigned": lambda m, h: assigned(h, 0.5),
    "view written": lambda m, h: scaled_view(h),
    "view by a module written": view_of_module_written,
    "view by a module through an in-place module": lambda m, h: (
        m.relu(m.parts(h)).sum(1) @ m.b.weight[:3] + h
    ),
    "chunk and cat": lambda m, h: two_parts(h),
    "transposed view": lambda m, h: h.view(-1, 2, 3).transpose(1, 2).reshape(-1, 6).sin(),
    "expanded": lambda m, h: (h[:, None] * torch.ones(1, 2, 1, dtype=h.dtype)).sum(1).cos(),
    "in-place module": lambda m, h: m.relu(h),
    "in-place module, result ignored": ignored,
    "in-place module on a shortcut": kept,
    "in-place dropout on a shortcut": lambda m, h: m.drop(h) + 0.1 * h,
    "in-place dropout behind a function": lambda m, h: m.drop(F.gelu(h)),
    "in-place relu behind a function": lambda m, h: m.relu(h.sin()),
    "in-place module on a tensor of some time ago": lambda m, h: m.plain(h) + m.drop(h),
    "skip around a module with a rule": lambda m, h: m.norm(h) + h,
    "skip consumed twice": lambda m, h: m.norm(h) * torch.tanh(h) + h,
    "skip added in place": lambda m, h: m.norm(h).add_(h),
    "module called twice": lambda m, h: m.norm(m.norm(h) * 2),
    "relu after a plain pass": lambda m, h: m.relu(m.norm(h) + 0),
    "keyword call": lambda m, h: m.norm(input=h),
    "where": lambda m, h: torch.where(h > 0, h, 0.1 * h),
    "other dtype on the way": lambda m, h: h.double().sin().to(h.dtype),
    "matrix product": lambda m, h: h @ m.b.weight,
}


@pytest.mark.parametrize("noise", ["normal", "rademacher"])
@pytest.mark.parametrize("taps", [["a"], ["a", "b"]], ids=["one tap", "two taps"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_users_write_between_modules(name: str, taps: list[str], noise: str) -> None:
    """Right behind a tap, in place too: neither p nor the map it teaches may be corrupted."""
    model = Written(FUNCTIONS[name]).double()
    x = torch.randn(4, 6).double()
    learner = assert_exact_probe(model, taps, x, feedback_rate=1.0, noise=noise)
    for tap, p in zip(taps, learner.p, strict=True):
        expected = learner.d.T @ p / len(x)
        torch.testing.assert_close(learner.feedback[tap].weight, expected, rtol=1e-10, atol=1e-12)
    if noise == "rademacher":
        assert all(p.abs().eq(1).all() for p in learner.p)


@pytest.mark.parametrize("noise", ["normal", "rademacher"])
def test_writing_into_a_tapped_tensor_teaches_what_the_copy_teaches(noise: str) -> None:
    maps = []
    for between in (lambda m, h: F.relu_(h), lambda m, h: F.relu(h)):
        torch.default_generator.manual_seed(0)
        model = Written(between).double()
        learner = fdfa.FDFA(model, taps=["a", "b", "c"], feedback_rate=1.0, noise=noise, seed=1)
        learner(torch.randn(4, 6).double()).sum().backward()
        maps.append([learner.feedback[tap].weight for tap in "abc"])
    assert all(torch.equal(a, b) for a, b in zip(*maps, strict=True))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_probe_leaves_local_gradients_alone(name: str) -> None:
    """Bit-equal to the same maps without a probe: no tensor's graph is bypassed or doubled."""
    learners = []
    for method, options in ((fdfa.DFA, {}), (fdfa.FDFA, {"feedback_rate": 1e-30})):
        torch.default_generator.manual_seed(0)
        learner = method(Written(FUNCTIONS[name]).double(), taps=["a", "b"], **options)
        x = torch.randn(4, 6).double()
        learner.plan(x)
        learners.append(learner)
    learners[1].feedback.load_state_dict(learners[0].feedback.state_dict())
    for learner in learners:
        torch.default_generator.manual_seed(1)
        learner(x).square().sum().backward()
    used = [p.grad is not None for p in learners[0].parameters()]
    assert used == [p.grad is not None for p in learners[1].parameters()]
    for ours, theirs in zip(learners[1].parameters(), learners[0].parameters(), strict=True):
        assert ours.grad is None or torch.equal(ours.grad, theirs.grad)


def test_adding_in_place_to_a_channels_last_tensor() -> None:
    """Primal and tangent then have different strides, and a dual number holds its own copy."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 3, padding=1)
            self.norm, self.read = nn.BatchNorm2d(3), nn.Linear(3 * 16, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.stem(x)
            out = self.norm(self.conv(h))
            out += h
            return self.read(F.relu_(out).flatten(1))

    last = {"memory_format": torch.channels_last}
    model = Residual().double().to(**last)
    assert_exact_probe(model, ["stem"], torch.randn(3, 2, 4, 4).double().contiguous(**last))
    at_the_tap = nn.Sequential(nn.Conv2d(2, 3, 1), Scaled(), nn.Flatten(), nn.Linear(48, 3))
    model = at_the_tap.double().to(**last)
    assert_exact_probe(model, ["0"], torch.randn(3, 2, 4, 4).double().contiguous(**last))


class Scaled(nn.Module):
    """Writes into its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(3).add_(1)


class Changing(nn.Module):
    """Uses a tensor once more from some step on, as stochastic depth and warm-up flags do."""

    def __init__(self, *, bound: bool) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 3)
        self.skip, self.bound = False, bound

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        u = torch.tanh(self.norm(h)) if self.bound else self.norm(h)
        return self.b(u + h if self.skip else u)


@pytest.mark.parametrize("bound", [True, False])
def test_structure_that_changes_between_steps_keeps_every_tangent(bound: bool) -> None:
    """The plan still holds, so what one recorded pass did with a tensor must not matter."""
    model, x = Changing(bound=bound).double(), torch.randn(4, 6).double()
    learner = Observed(model, taps=["a"])
    for skip in (False, True, False):
        model.skip = skip
        learner(x).sum().backward()
        product = jacobian_products(explicit_jacobians(model, ["a"], x), learner.p)
        torch.testing.assert_close(learner.d, product, rtol=1e-10, atol=1e-12)


def test_hooks_registered_after_the_first_step_keep_every_tangent() -> None:
    model = nn.Sequential(
        nn.Linear(6, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 6), nn.Linear(6, 3)
    ).double()
    x = torch.randn(4, 6).double()
    learner = Observed(model, taps=["0"])
    learner(x).sum().backward()
    model[1].register_forward_hook(lambda m, args, out: out * 2)
    model[3].register_forward_pre_hook(lambda m, args: (args[0] + 1,))
    learner(x).sum().backward()
    product = jacobian_products(explicit_jacobians(model, ["0"], x), learner.p)
    torch.testing.assert_close(learner.d, product, rtol=1e-10, atol=1e-12)


class Shortcut(nn.Module):
    """From some step on a path goes round the second layer, at whose input the first tap lies."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.read = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.skip = False

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        u = F.relu(self.b(h))
        return self.read(u + h if self.skip else u)


@pytest.mark.parametrize("at_once", [0, 2**40])
@pytest.mark.parametrize("method", ["dfa", "fdfa"])
def test_a_path_round_a_tap_that_appears_later_is_refused(
    method: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first block would get its credit and a part of its true gradient, without a word."""
    monkeypatch.setattr("fdfa.engine.credit._AT_ONCE", at_once)
    model, x = Shortcut(), torch.randn(4, 6)
    learner = fdfa.wrap(method, model)
    learner(x).sum().backward()
    model.skip = True
    with pytest.raises(fdfa.errors.UnsupportedModelError, match="b:input"):
        learner(x).sum().backward()


def test_tapped_in_place_relu_and_a_tap_before_it() -> None:
    """The tapped tensor is the one that the module wrote into; what lies before keeps its graph."""
    model = nn.Sequential(
        *(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 6), nn.BatchNorm1d(6)),
        *(nn.ReLU(inplace=True), nn.Linear(6, 3)),
    ).double()
    assert_exact_probe(model, ["1", "4"], torch.randn(5, 6).double())

"""The forward gradient is (g . v) v: its value, its mean, its three variances, its projection."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fdfa
from fdfa.engine.leaves import leaves_of
from fdfa.errors import ConfigError, ProbeError
from tests.oracles.statistics import LIMIT, mean_deviation, variance_deviation
from tests.oracles.weight_space import data, directions, draws, flat, gradient, small, taken

NOISES = ["normal", "rademacher", "sphere"]
noises = pytest.mark.parametrize("noise", NOISES)
DRAWS = 6000


def networks() -> dict[str, tuple[nn.Module, Tensor]]:
    torch.default_generator.manual_seed(5)
    tied = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4), nn.Linear(4, 3))
    tied[2].weight = tied[0].weight
    conv = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.LayerNorm(12), nn.Linear(12, 3),
    )  # fmt: skip
    return {
        "tied": (tied, torch.randn(5, 4)),
        "convolution": (conv, torch.randn(5, 2, 6, 6)),
        "gru": (Recurrent(), torch.randn(5, 4, 3)),
        "attention": (Attention(), torch.randn(5, 4, 8)),
        "embedding": (
            nn.Sequential(nn.Embedding(6, 4), nn.Flatten(), nn.Linear(12, 3)),
            torch.randint(6, (5, 3)),
        ),
    }


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(3, 4, batch_first=True)
        self.read = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.cell(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
        self.read = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.layer(x).mean(1))


@noises
@pytest.mark.parametrize("network", networks())
def test_equals_the_slope_times_the_direction(network: str, noise: str) -> None:
    """With autograd's gradient and the same direction; a recurrent layer's second list included."""
    model, x = networks()[network]
    model, x = model.double(), x.double() if x.is_floating_point() else x
    target = torch.tensor([0, 1, 2, 0, 1])
    learner = fdfa.ForwardGradient(model, noise=noise, seed=3)
    for step in range(2):
        (v,) = directions(learner, step)
        found = gradient(learner, (x, target))
        g = gradient(model, (x, target))
        torch.testing.assert_close(found, (g @ v) * v, rtol=1e-10, atol=1e-13)
        assert not torch.allclose(found, (g @ v.flip(0)) * v)


def test_the_directions_have_their_laws() -> None:
    learner = {noise: fdfa.ForwardGradient(small(), noise=noise, seed=3) for noise in NOISES}
    V = {noise: torch.cat([directions(each, s) for s in range(4000)])
         for noise, each in learner.items()}  # fmt: skip
    assert set(V["rademacher"].unique().tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(V["sphere"].square().sum(1), torch.full((4000,), 12.0).double())
    for noise, fourth in (("normal", 3.0), ("sphere", 3 * 12 / 14)):
        assert mean_deviation(V[noise].pow(4), fourth) < LIMIT
    for v in V.values():
        products = v[:, :, None] * v[:, None, :]
        off = products[:, ~torch.eye(12, dtype=torch.bool)]
        assert mean_deviation(v, 0.0) < LIMIT
        assert mean_deviation(off, 0.0) < LIMIT + 0.5  # 132 of them
        assert (products.diagonal(dim1=1, dim2=2).mean(0) - 1).abs().max() < 0.15


def test_steps_seeds_and_processes_draw_unrelated_directions() -> None:
    torch.default_generator.manual_seed(0)
    learner = fdfa.ForwardGradient(nn.Linear(60, 60))
    leaves = leaves_of(learner.model)
    seen = []
    for seeds in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)):
        each = learner.directions(leaves, seeds).each[0]
        seen.append(flat([each.leaf(0), each.leaf(1)]))
    correlations = torch.corrcoef(torch.stack(seen)) - torch.eye(4)
    assert correlations.abs().max() < 4 / 3660**0.5


def component_variance(g: Tensor, noise: str) -> Tensor:
    """Whose sums are (P + 1) |g|^2 and, twice, (P - 1) |g|^2."""
    P, length = g.numel(), g.square().sum()
    if noise == "normal":
        return length + g.square()
    if noise == "rademacher":
        return length - g.square()
    return P / (P + 2) * (length + 2 * g.square()) - g.square()


@noises
def test_mean_and_variance(noise: str) -> None:
    found, g = draws("fg-w", DRAWS, noise=noise)
    P, length = g.numel(), g.square().sum()
    assert mean_deviation(found, g) < LIMIT
    assert variance_deviation(found, component_variance(g, noise)) < LIMIT
    total = (found - g).square().sum(1)
    theory = (P + 1 if noise == "normal" else P - 1) * length
    assert mean_deviation(total, theory) < LIMIT
    # Wrong estimators and laws that the same checks must refuse.
    assert mean_deviation(found + 0.3 * g, g) > LIMIT  # a scale left in
    assert mean_deviation(-found, g) > LIMIT
    other = "rademacher" if noise == "normal" else "normal"
    assert variance_deviation(found, component_variance(g, other)) > LIMIT


@noises
def test_draws_are_what_steps_take(noise: str) -> None:
    for ours, theirs in zip(
        draws("fg-w", 20, noise=noise), taken("fg-w", 20, noise=noise), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)


def test_one_weight_and_rademacher_is_exact() -> None:
    model = nn.Linear(1, 1, bias=False).double()
    learner = fdfa.ForwardGradient(model, noise="rademacher")
    x = torch.randn(7, 1).double()
    learner(x).square().sum().backward()
    torch.testing.assert_close(model.weight.grad, 2 * model.weight.detach() * x.square().sum())


def test_finite_difference_is_the_same_along_the_same_direction() -> None:
    found = [
        gradient(fdfa.ForwardGradient(small(), seed=1, probe=probe), data())
        for probe in ("forward-ad", "finite-difference")
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-7, atol=1e-9)


def test_a_guess_is_projected_on() -> None:
    """(u . g) u / |u|^2, whatever the length of u; the gradient itself as a guess is exact."""
    g = gradient(small(), data())
    names = {name: p.shape for name, p in small().named_parameters()}
    torch.default_generator.manual_seed(6)
    u = {name: torch.randn(shape).double() for name, shape in names.items()}
    for scale in (1.0, 50.0):
        guess = {name: scale * part for name, part in u.items()}
        found = gradient(fdfa.ForwardGradient(small(), direction=guess), data())
        along = flat(u) / flat(u).norm()
        torch.testing.assert_close(found, (along @ g) * along, rtol=1e-10, atol=1e-13)
    parts = g.split([shape.numel() for shape in names.values()])
    exact = {n: part.view(s) for part, (n, s) in zip(parts, names.items(), strict=True)}
    found = gradient(fdfa.ForwardGradient(small(), direction=lambda model: exact), data())
    torch.testing.assert_close(found, g, rtol=1e-10, atol=1e-13)


def test_a_guess_for_some_weights_moves_no_other() -> None:
    learner = fdfa.ForwardGradient(small(), direction={"0.weight": torch.ones(2, 2)})
    gradient(learner, data())
    assert learner.model[0].weight.grad.any()
    assert not learner.model[2].weight.grad.any()


def test_a_guess_of_zeros_is_refused() -> None:
    learner = fdfa.ForwardGradient(small(), direction={})
    with pytest.raises(ConfigError, match="zero on all parameters"):
        learner(data()[0])


@pytest.mark.slow
def test_an_input_gets_a_forward_gradient_too() -> None:
    """Of a pass of its own: unbiased, and the weights learn what they learn without it."""
    learner, alone = (fdfa.ForwardGradient(small(), seed=7) for _ in range(2))
    x, target = data()
    asked = x.clone().requires_grad_()
    found = []
    for _ in range(800):
        asked.grad = None
        assert torch.equal(gradient(learner, (asked, target)), gradient(alone, (x, target)))
        found.append(asked.grad)
    gradient(small(), (asked, target))
    plain = x.clone().requires_grad_()
    gradient(small(), (plain, target))
    assert mean_deviation(torch.stack(found), plain.grad) < LIMIT


def test_what_has_no_forward_derivative_is_named() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, (1, 4)), nn.LSTM(4, 2))
    learner = fdfa.ForwardGradient(model, output=0)
    with pytest.raises(ProbeError, match=r"'2' \(LSTM\).*probe='finite-difference'"):
        learner(torch.ones(5, 3))  # in float64 there is one


def test_what_loses_its_tangent_is_named() -> None:
    class Detached(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    with pytest.raises(ProbeError, match="the output has no tangent"):
        fdfa.ForwardGradient(Detached(3, 2))(torch.ones(5, 3))

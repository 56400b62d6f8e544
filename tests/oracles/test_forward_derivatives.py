"""What a probe measures: d = J p = central differences; and the primal, which it leaves alone."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import fdfa
from tests.oracles.lessons import Observed
from tests.oracles.perturbed import central_difference, explicit_jacobians, jacobian_products


class Attention(nn.Module):
    """A Transformer encoder over tokens with a linear read-out of their mean."""

    def __init__(self, *, norm_first: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            8, 2, 12, dropout=dropout, batch_first=True, norm_first=norm_first, activation="gelu"
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.read = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.encoder(x).mean(1))


class Recurrent(nn.Module):
    """A recurrent layer behind a tapped one."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 5)
        self.cell = kind(5, 6, batch_first=True)
        self.read = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden, _ = self.cell(torch.tanh(self.embed(x)))
        return self.read(hidden[:, -1])


class Residual(nn.Module):
    """A skip connection: the dual tensor is consumed twice, and added in place as is usual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3, padding=1)
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.relu = nn.ReLU(inplace=True)
        self.read = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        out = self.norm(self.conv(h))
        out += h
        return self.read(F.adaptive_avg_pool2d(self.relu(out), 1).flatten(1))


# name: (model, taps, shape of a sample); made when asked for, that is behind the test's own seed
NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[str], tuple[int, ...]]] = {
    "mlp": (
        lambda: nn.Sequential(
            nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3)
        ),
        ["1", "3"],
        (5,),
    ),
    "cnn": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3),
            nn.Softplus(),
            nn.Conv2d(3, 4, 2),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4, 3),
        ),
        ["1", "4"],
        (1, 8, 8),
    ),
    "batch norm in training mode": (
        lambda: nn.Sequential(
            nn.Linear(5, 7), nn.Linear(7, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)
        ),
        ["0", "3"],
        (5,),
    ),
    "dropout": (
        lambda: nn.Sequential(
            nn.Linear(5, 20), nn.Dropout(0.4), nn.Linear(20, 6), nn.Dropout(0.2), nn.Linear(6, 3)
        ),
        ["0", "2"],
        (5,),
    ),
    "dropout at the tap": (
        lambda: nn.Sequential(nn.Linear(5, 20), nn.Dropout(0.4), nn.Linear(20, 3)),
        ["1"],
        (5,),
    ),
    "layer norm": (
        lambda: nn.Sequential(
            nn.Linear(5, 7), nn.LayerNorm(7), nn.GELU(), nn.Linear(7, 3), nn.LayerNorm(3)
        ),
        ["0", "2"],
        (5,),
    ),
    "group norm": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.Flatten(), nn.Linear(16, 3)
        ),
        ["0", "2"],
        (1, 4, 4),
    ),
    "residual": (Residual, ["stem"], (1, 4, 4)),
    "attention": (Attention, ["encoder.layers.0", "encoder.layers.1"], (4, 8)),
    "attention with dropout": (
        lambda: Attention(norm_first=True, dropout=0.2),
        ["encoder.layers.0"],
        (4, 8),
    ),
    "gru": (lambda: Recurrent(nn.GRU), ["embed"], (4, 4)),
}


def probed(name: str, **options: object) -> tuple[Observed, nn.Module, list[str], Tensor]:
    """A learner after one probing pass, a copy of its model from before, taps and input."""
    make, taps, sample = NETWORKS[name]
    model = make().double()
    plain = copy.deepcopy(model)
    x = torch.randn(4, *sample).double()
    learner = Observed(model, taps=taps, **options)
    torch.default_generator.manual_seed(0)  # dropout masks, as in perturbed.py
    learner(x).sum().backward()
    return learner, plain, taps, x


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_derivative_is_the_jacobian_product_and_the_central_difference(name: str) -> None:
    learner, plain, taps, x = probed(name)
    product = jacobian_products(explicit_jacobians(plain, taps, x), learner.p)
    torch.testing.assert_close(learner.d, product, rtol=1e-10, atol=1e-12)
    difference = central_difference(plain, taps, x, learner.p)
    torch.testing.assert_close(learner.d, difference, rtol=1e-6, atol=1e-8)
    # The check can fail: a probe that left one tap out would be far away.
    if len(taps) > 1:
        partial = jacobian_products(
            explicit_jacobians(plain, taps, x), [learner.p[0], torch.zeros_like(learner.p[1])]
        )
        assert (learner.d - partial).norm() > 1e-3 * learner.d.norm()


@pytest.mark.parametrize("name", NETWORKS)
def test_finite_difference_probe_agrees_with_the_forward_probe(name: str) -> None:
    """On the same seed: the same perturbations, the same dropout masks, batch statistics held."""
    results = []
    for probe in ("forward-ad", "finite-difference"):
        torch.default_generator.manual_seed(1)
        results.append(probed(name, probe=probe, seed=9)[0])
    for ours, theirs in zip(results[0].p, results[1].p, strict=True):
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(results[0].d, results[1].d, rtol=1e-6, atol=1e-8)
    for a, b in zip(results[0].buffers(), results[1].buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)  # statistics stepped once in both


def test_lstm_by_finite_differences_is_the_jacobian_product() -> None:
    """Torch has no forward derivative of an LSTM on a CPU."""
    model = Recurrent(nn.LSTM).double()
    plain = copy.deepcopy(model)
    x = torch.randn(4, 4, 4).double()
    learner = Observed(model, taps=["embed"], probe="finite-difference")
    learner(x).sum().backward()
    product = jacobian_products(explicit_jacobians(plain, ["embed"], x), learner.p)
    torch.testing.assert_close(learner.d, product, rtol=1e-7, atol=1e-9)


def test_lstm_by_forward_ad_is_refused_with_the_remedy() -> None:
    learner = fdfa.FDFA(Recurrent(nn.LSTM), taps=["embed"])
    with pytest.raises(fdfa.errors.ProbeError, match=r"'cell' \(LSTM\).*finite-difference"):
        learner(torch.randn(4, 4, 4))


@pytest.mark.parametrize("name", [name for name in NETWORKS if "attention" not in name])
@pytest.mark.parametrize("method", ["fdfa", "fdfa by differences", "dfa"])
def test_output_and_loss_are_bit_equal_with_and_without_a_probe(name: str, method: str) -> None:
    """Three steps in float32; statistics and torch's generator end as a plain pass leaves them."""
    make, taps, sample = NETWORKS[name]
    plain = make()
    options = {"probe": "finite-difference"} if "differences" in method else {}
    learner = fdfa.wrap(method.split()[0], copy.deepcopy(plain), taps=taps, **options)
    runs = []
    for model in (plain, learner):
        torch.default_generator.manual_seed(3)
        seen = []
        for _ in range(3):
            y = model(torch.randn(4, *sample))
            loss = F.cross_entropy(y, torch.randint(3, (4,)))
            loss.backward()
            seen += [y.detach(), loss.detach()]
        runs.append([*seen, *plain_buffers(model), torch.rand(3)])
    assert all(torch.equal(ours, exact) for exact, ours in zip(*runs, strict=True))


def plain_buffers(model: nn.Module) -> list[Tensor]:
    """Buffers of the user's model."""
    return list(getattr(model, "model", model).buffers())


def test_attention_under_a_probe_is_bit_equal_to_the_plain_model_with_the_same_kernel() -> None:
    """Fused attention has no forward derivative: a probe takes the MATH kernel, and no more."""
    model = Attention()
    x = torch.randn(4, 4, 8)
    with sdpa_kernel(SDPBackend.MATH):
        expected = model(x)
    learner = fdfa.FDFA(copy.deepcopy(model))
    assert torch.equal(learner(x), expected)
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-6)

"""Errors sent back through few dimensions, against loops that keep Q and P and nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

import fdfa
from fdfa.errors import UnsupportedModelError

CLOSE = {"rtol": 1e-11, "atol": 1e-13}
NAMES = ("2.weight", "4.weight")


def wrap(model: nn.Module, **options: Any) -> Any:
    return fdfa.wrap("ldfa", model, **{"seed": 5, "rank": 2, **options})


def network() -> nn.Sequential:
    torch.manual_seed(3)
    layers = [nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)]
    return nn.Sequential(*layers).double()


def naive_oja(P: Tensor, errors: Tensor, rate: float) -> Tensor:
    """``P + rate (P C - P C P^T P)``, C summed up sample by sample and divided by its trace."""
    C = torch.zeros(errors.shape[1], errors.shape[1], dtype=errors.dtype)
    for delta in errors:
        C += torch.outer(delta, delta)
    C /= C.trace()
    return P + rate * (P @ C - P @ C @ P.T @ P)


@pytest.mark.parametrize("learn_q", [True, False])
@pytest.mark.parametrize("learn_p", [True, False])
def test_the_rule_by_hand_over_several_steps(learn_q: bool, learn_p: bool) -> None:
    """Q and P learn from h, z and delta alone; the weights' gradients come from both."""
    eta, lam, rate = 0.2, 0.1, 0.3
    model = network()
    learner = wrap(
        *(model,),
        **{"learn_q": learn_q, "learn_p": learn_p, "decay": eta * lam, "projection_rate": rate},
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=eta, weight_decay=lam)
    learner(torch.randn(2, 4).double())  # its factors are there
    factors = {name: [part.clone() for part in learner.factors(name)] for name in NAMES}
    for _ in range(6):
        x, target = torch.randn(7, 4).double(), torch.randint(3, (7,))
        (W1, b1, W2, b2, W3, b3) = (p.detach() for p in model.parameters())
        (Q2, P2), (Q3, P3) = (factors[name] for name in NAMES)
        h1 = torch.tanh(x @ W1.T + b1)
        h2 = torch.tanh(h1 @ W2.T + b2)
        e = ((h2 @ W3.T + b3).softmax(1) - F.one_hot(target, 3)) / 7
        delta2 = (e @ P3.T @ Q3.T) * (1 - h2**2)
        delta1 = (delta2 @ P2.T @ Q2.T) * (1 - h1**2)
        expected = [delta1.T @ x, delta1.sum(0), delta2.T @ h1, delta2.sum(0), e.T @ h2, e.sum(0)]
        optimizer.zero_grad()
        F.cross_entropy(learner(x), target).backward()
        for parameter, gradient in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, **CLOSE)
        optimizer.step()
        for name, h, delta in (("2.weight", h1, delta2), ("4.weight", h2, e)):
            Q, P = factors[name]
            if learn_p:
                P = naive_oja(P, delta, rate)
            if learn_q:
                Q = (1 - eta * lam) * Q - eta * h.T @ (delta @ P.T)
            factors[name] = [Q, P]
            for ours, theirs in zip(learner.factors(name), (Q, P), strict=True):
                torch.testing.assert_close(ours, theirs, **CLOSE)


def test_what_q_lacks_decays_by_a_fixed_share() -> None:
    """Q - W^T P^T = (1 - eta lam)^t (Q_0 - W_0^T P^T) under SGD, P fixed, to 1e-12."""
    eta, lam = 0.1, 0.05
    model = network()
    learner = wrap(model, learn_p=False, decay=eta * lam)
    optimizer = torch.optim.SGD(model.parameters(), lr=eta, weight_decay=lam)

    def lacking(name: str) -> Tensor:
        Q, P = learner.factors(name)
        return Q - model.get_parameter(name).detach().T @ P.T

    learner(torch.randn(2, 4).double())
    start = {name: lacking(name) for name in NAMES}
    for _ in range(50):
        optimizer.zero_grad()
        learner(torch.randn(7, 4).double()).square().mean().backward()
        optimizer.step()
    for name in NAMES:
        expected = (1 - eta * lam) ** 50 * start[name]
        torch.testing.assert_close(lacking(name), expected, rtol=0, atol=1e-12)


def test_projections_find_the_principal_subspace() -> None:
    """Errors with a known second moment: rows orthonormal, and in the top r eigenvectors."""
    n, r = 8, 3
    torch.manual_seed(1)
    axes, _ = torch.linalg.qr(torch.randn(n, n).double())
    spectrum = torch.tensor([5.0, 4.0, 3.0, 1.0, 0.8, 0.5, 0.3, 0.1]).double()
    errors = spectrum.sqrt().diag() @ axes.T  # errors^T errors has these eigenvalues
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, n)).double()
    learner = wrap(model, rank=r, projection_rate=0.5)
    x = torch.randn(n, 2).double()
    for _ in range(200):
        learner(x).backward(errors)
    _, P = learner.factors("2.weight")
    torch.testing.assert_close(P @ P.T, torch.eye(r).double(), rtol=0, atol=1e-6)
    cosines = torch.linalg.svdvals(P @ axes[:, :r]).clamp(max=1)
    assert cosines.arccos().max() < 1e-2
    torch.testing.assert_close(P @ P.T, torch.eye(r).double(), rtol=0, atol=1e-6)


CONVOLUTIONS = [
    *(nn.Conv2d(4, 6, 3), nn.Conv2d(4, 6, 3, stride=2), nn.Conv2d(4, 6, 3, groups=2)),
    *(nn.ConvTranspose2d(4, 6, 3), nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2)),
    nn.Conv2d(4, 6, 3, padding=1, dilation=2),
]


@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=str)
def test_full_rank_is_backpropagation_once_q_is_there(layer: nn.Module) -> None:
    """P square and orthogonal, Q = W^T P^T: autograd to rounding, dense and convolutional."""
    model = nn.Sequential(nn.Conv2d(2, 4, 3), layer, nn.Flatten(), nn.LazyLinear(3)).double()
    x = torch.randn(3, 2, 9, 9).double()
    model(x)
    plain = copy.deepcopy(model)
    learner = wrap(model, rank=10**6)
    learner(x)
    for name, outputs in (("1.weight", 6 // getattr(layer, "groups", 1)), ("3.weight", 3)):
        learner.feedback[name][..., outputs:] = 0  # what Q has beside W^T P^T
    learner(x).square().sum().backward()
    plain(x).square().sum().backward()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, **CLOSE)


@pytest.mark.parametrize(("other", "learn_q"), [("kolen-pollack", True), ("fa", False)])
def test_full_rank_is_the_rule_it_projects(other: str, learn_q: bool) -> None:
    """With as many dimensions as outputs and one seed, over several steps."""
    model = network()
    twin = copy.deepcopy(model)
    options = {"decay": 0.1} if learn_q else {}
    first = wrap(model, rank=6, learn_q=learn_q, learn_p=False, decay=0.1)
    second = fdfa.wrap(other, twin, seed=5, **options)
    optimizers = [torch.optim.Adam(net.parameters(), lr=0.05) for net in (model, twin)]
    for _ in range(4):
        x = torch.randn(7, 4).double()
        for learner, optimizer in zip((first, second), optimizers, strict=True):
            optimizer.zero_grad()
            learner(x).square().sum().backward()
            optimizer.step()
        for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_only_rank_dimensions_pass() -> None:
    """The error before f', at the output of every activation."""
    model = nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 7))
    learner = wrap(model.double(), rank=3)
    errors: list[Tensor] = []
    for activation in (model[1], model[3]):
        activation.register_full_backward_hook(lambda _m, _i, outputs: errors.append(outputs[0]))
    learner(torch.randn(20, 4).double()).backward(torch.randn(20, 7).double())
    assert [int(torch.linalg.matrix_rank(error)) for error in errors] == [3, 3]


def test_a_convolution_by_hand() -> None:
    """P maps channels; Q is a transposed convolution that learns as a weight with error z."""
    eta, lam, rate = 0.01, 0.1, 0.2
    torch.manual_seed(4)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Conv2d(4, 5, 3, padding=1)).double()
    learner = wrap(model, rank=3, decay=eta * lam, projection_rate=rate)
    optimizer = torch.optim.SGD(model.parameters(), lr=eta, weight_decay=lam)
    learner(torch.randn(1, 2, 6, 6).double())
    Q, P = (part.clone() for part in learner.factors("2.weight"))
    for _ in range(4):
        x = torch.randn(3, 2, 6, 6).double()
        h = torch.tanh(F.conv2d(x, model[0].weight, model[0].bias)).detach()
        e = torch.randn(3, 5, 4, 4).double()
        kernel = Q.T.reshape(3, 4, 3, 3)
        before = conv2d_input(h.shape, kernel, torch.einsum("nchw,rc->nrhw", e, P), padding=1)
        expected = conv2d_weight(x, (4, 2, 3, 3), before * (1 - h**2))
        optimizer.zero_grad()
        learner(x).backward(e)
        torch.testing.assert_close(model[0].weight.grad, expected, **CLOSE)
        optimizer.step()
        P = naive_oja(P, e.permute(0, 2, 3, 1).reshape(-1, 5), rate)
        z = torch.einsum("nchw,rc->nrhw", e, P)
        kernel = (1 - eta * lam) * kernel - eta * conv2d_weight(h, kernel.shape, z, padding=1)
        Q = kernel.reshape(3, -1).T
        for ours, theirs in zip(learner.factors("2.weight"), (Q, P), strict=True):
            torch.testing.assert_close(ours, theirs, **CLOSE)


class _Twice(nn.Module):
    """One layer called twice, and a second layer with its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.tied = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 5)
        self.tied.weight = self.shared.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.tied(self.shared(self.shared(self.first(x))))
        return y


def test_a_shared_weight_hears_the_error_of_every_call() -> None:
    model = _Twice().double()
    learner = wrap(model, rank=5, projection_rate=0.4)
    x, e = torch.randn(6, 4).double(), torch.randn(6, 5).double()
    learner(x)
    Q, P = (part.clone() for part in learner.factors("shared.weight"))
    learner(x).backward(e)
    B = (Q @ P).T
    heard = torch.cat([e, e @ B, e @ B @ B])
    torch.testing.assert_close(
        learner.factors("shared.weight")[1], naive_oja(P, heard, 0.4), **CLOSE
    )


def test_the_scale_of_the_loss_and_its_overflow_move_no_projection() -> None:
    """Ten thousand times the loss teaches the same; a loss that is not finite teaches nothing."""
    learners = [wrap(network(), learn_q=False) for _ in range(2)]
    x = torch.randn(7, 4).double()
    for learner, scale in zip(learners, (1.0, 1e4), strict=True):
        (scale * learner(x).square().sum()).backward()
    first, second = (learner.factors("2.weight")[1] for learner in learners)
    torch.testing.assert_close(first, second, **CLOSE)
    (float("inf") * learners[0](x).sum()).backward()
    assert torch.equal(learners[0].factors("2.weight")[1], first)


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.cell, self.head = nn.Linear(3, 4), nn.GRU(4, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.cell(self.embed(x))[0][-1])
        return y


class _Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.layer = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.first(x), self.layer.weight)


def test_other_layers_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        wrap(_Recurrent())(torch.randn(6, 2, 3))
    assert len(caught.value.problems) == 2
    assert "'cell.weight_hh_l0'" in str(caught.value)


def test_a_weight_used_without_its_layer_needs_a_fixed_projection() -> None:
    x = torch.randn(2, 4)
    with pytest.raises(UnsupportedModelError, match=r"'layer\.weight' is used without a call"):
        wrap(_Functional())(x)
    wrap(_Functional(), learn_p=False)(x).sum().backward()

"""Where direct feedback is backpropagation: exact maps of a linear rest, and no taps at all."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from tests.oracles.perturbed import explicit_jacobians


def double(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers).double()


def frozen_statistics(features: int) -> nn.BatchNorm1d:
    """Batch norm as the affine map that it is in eval mode."""
    norm = nn.BatchNorm1d(features)
    nn.init.uniform_(norm.running_mean, -1, 1)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    nn.init.normal_(norm.weight)
    return norm


# name: (model, taps, shape of a sample); all that follows the first tap is linear
NETWORKS = {
    "last layer": lambda: (double(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)), ["1"], (5,)),
    "three linear layers": lambda: (
        double(
            nn.Linear(5, 7),
            nn.ReLU(),
            nn.Linear(7, 6),
            nn.Linear(6, 4, bias=False),
            nn.Linear(4, 3),
        ),
        ["1", "2", "3"],
        (5,),
    ),
    "batch norm in eval mode": lambda: (
        double(
            nn.Linear(5, 7), nn.Sigmoid(), nn.Linear(7, 6), frozen_statistics(6), nn.Linear(6, 3)
        ),
        ["1", "3"],
        (5,),
    ),
    "layer norm before the tap": lambda: (
        double(nn.Linear(5, 7), nn.LayerNorm(7), nn.GELU(), nn.Linear(7, 6), nn.Linear(6, 3)),
        ["2", "3"],
        (5,),
    ),
    "convolutions": lambda: (
        double(
            nn.Conv2d(2, 3, 3),
            nn.ReLU(),
            nn.Conv2d(3, 4, 3, stride=2, padding=1),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4, 3),
        ),
        ["1", "3"],
        (2, 6, 6),
    ),
}


@pytest.mark.parametrize("method", [fdfa.DFA, fdfa.FDFA])
@pytest.mark.parametrize("name", NETWORKS)
def test_exact_maps_give_the_gradients_of_autograd(name: str, method: type) -> None:
    model, taps, sample = NETWORKS[name]()
    for module in model:
        if isinstance(module, nn.BatchNorm1d):
            module.train(False)
    x, target = torch.randn(6, *sample).double(), torch.randint(3, (6,))
    plain = copy.deepcopy(model)
    F.cross_entropy(plain(x), target).backward()
    # Reverse mode on the plain model; one sample's own block, since nothing couples samples here.
    jacobians = [J[0, :, 0] for J in explicit_jacobians(copy.deepcopy(model), taps, x)]

    learner = method(model, taps=taps)
    keep_modes(learner)
    learner.plan(x)
    for tap, J in zip(taps, jacobians, strict=True):
        learner.feedback[tap].weight.copy_(J.flatten(1))
    F.cross_entropy(learner(x), target).backward()

    for (key, ours), exact in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, exact.grad, rtol=1e-10, atol=1e-14, msg=key)


def keep_modes(learner: nn.Module) -> None:
    """Training mode for the learner itself, whatever mode the modules inside are in."""
    learner.training = True


def test_maps_of_a_curved_network_are_not_exact() -> None:
    """The check above can fail: past a ReLU behind the tap, one map cannot fit every sample."""
    model = double(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3))
    x, target = torch.randn(6, 5).double(), torch.randint(3, (6,))
    plain = copy.deepcopy(model)
    F.cross_entropy(plain(x), target).backward()
    (J,) = explicit_jacobians(copy.deepcopy(model), ["1"], x)
    learner = fdfa.DFA(model, taps=["1"])
    learner.plan(x)
    learner.feedback["1"].weight.copy_(J[0, :, 0])
    F.cross_entropy(learner(x), target).backward()
    assert relative_error(model[0].weight.grad, plain[0].weight.grad) > 1e-2
    assert torch.equal(
        model[4].weight.grad, plain[4].weight.grad
    )  # the output layer's error is exact


def relative_error(ours: Tensor, exact: Tensor) -> float:
    return ((ours - exact).norm() / exact.norm()).item()


def mixed_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Dropout2d(0.3),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(36, 12),
        nn.LayerNorm(12),
        nn.GELU(),
        nn.Linear(12, 3),
    )


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("backpropagation", {}),
        ("dfa", {"taps": []}),
        ("fdfa", {"taps": []}),
        ("fdfa", {"taps": [], "probe": "finite-difference"}),
        ("fdfa", {"depth": 99}),
    ],
)
def test_without_taps_every_method_is_autograd_bit_for_bit(method: str, options: dict) -> None:
    """Over several steps: an extra random draw or a second batch-norm step would show."""
    plain = mixed_network()
    learner = fdfa.wrap(method, copy.deepcopy(plain), **options)
    runs = []
    for model, call in ((plain, plain), (learner.model, learner)):
        torch.default_generator.manual_seed(5)
        optimizer = torch.optim.Adam(model.parameters())
        outputs = []
        for _ in range(3):
            optimizer.zero_grad()
            y = call(torch.randn(8, 1, 8, 8))
            F.cross_entropy(y, torch.randint(3, (8,))).backward()
            optimizer.step()
            outputs += [y.detach(), *(p.grad.clone() for p in model.parameters())]
        runs.append([*outputs, *model.state_dict().values(), torch.rand(3)])
    assert all(torch.equal(ours, exact) for exact, ours in zip(*runs, strict=True))

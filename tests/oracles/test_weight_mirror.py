"""Weight mirrors: what one step learns, written out, and where many lead."""

from __future__ import annotations

import math
import zlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fdfa.engine.estimator import Estimator
from fdfa.engine.probes import Probe
from fdfa.errors import UnsupportedModelError
from tests.oracles.exchanged import (
    CLOSE,
    Recurrent,
    feedback,
    network,
    wrap,
)


def _angle(learner: Estimator, name: str) -> float:
    B, W = feedback(learner, name).flatten(), learner.model.get_parameter(name).detach().flatten()
    return math.degrees(math.acos(F.cosine_similarity(B, W, dim=0).item()))


@pytest.mark.parametrize("growth_control", [True, False])
def test_the_mirror_turns_to_the_weight(growth_control: bool) -> None:
    """Linear, convolution and transposed convolution; the length of B stays, if it is to."""
    model = nn.Sequential(
        *(nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, 3, stride=2, groups=1)),
        *(nn.ConvTranspose2d(4, 2, 3), nn.Flatten(), nn.Linear(2 * 5 * 5, 3)),
    ).double()
    learner = wrap("weight-mirror", model, growth_control=growth_control, mirror_rate=0.1)
    x = torch.randn(64, 2, 7, 7).double()
    learner(x)
    names = ["1.weight", "2.weight", "4.weight"]
    norms = [feedback(learner, name).norm() for name in names]
    angles = [[_angle(learner, name) for name in names]]
    for _ in range(3):
        for _ in range(20):
            learner(x).square().mean().backward()
        angles.append([_angle(learner, name) for name in names])
    assert all(angle > 60 for angle in angles[0])
    assert all(after < before for before, after in zip(angles[0], angles[1], strict=True))
    assert all(angle < 20 for angle in angles[-1])
    for name, norm in zip(names, norms, strict=True):
        now = feedback(learner, name).norm()
        assert torch.isclose(now, norm, rtol=1e-10) == growth_control


def test_one_mirror_step_is_the_noise_correlation() -> None:
    """``B + rate y^T xi / N`` for a linear layer: what is learned is W times a second moment."""
    model = network()
    learner = wrap("weight-mirror", model, growth_control=False, mirror_rate=0.3)
    learner(torch.randn(2, 4).double())
    step, before = learner.steps, feedback(learner, "4.weight")
    learner(torch.randn(9, 4).double()).sum().backward()
    learned = (feedback(learner, "4.weight") - before) / 0.3
    W = model[4].weight.detach()
    xi = Probe().draw(
        [(9, 5)], [torch.float64], [torch.device("cpu")], 5, step, 0, zlib.crc32(b"4.weight")
    )[0]
    torch.testing.assert_close(learned, (xi @ W.T).T @ xi / 9, **CLOSE)


def test_without_a_layer_to_mirror_it_is_backpropagation() -> None:
    """As in feedback alignment: nothing carries an error to the input of a layer."""
    model, x = nn.Linear(4, 3).double(), torch.randn(5, 4).double()
    learner = wrap("weight-mirror", model)
    found = torch.autograd.grad(learner(x).square().sum(), list(model.parameters()))
    exact = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    torch.testing.assert_close(found, exact, **CLOSE)
    assert not learner.feedback.names()


def test_an_lstm_in_one_kernel_has_no_mirror() -> None:
    learner = wrap("weight-mirror", Recurrent(nn.LSTM))
    with pytest.raises(UnsupportedModelError, match=r"weight 'cell\.weight_ih_l0'"):
        learner(torch.randn(3, 4, 3))

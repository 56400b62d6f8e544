"""Which passes share one plan: inputs of all kinds, and models that change between steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import fdfa
from tests.engine.image_cases import ResNet
from tests.engine.sequence_cases import EncoderClassifier
from tests.engine.tap_case import noise


@dataclasses.dataclass
class Batch:
    features: Tensor


@dataclasses.dataclass(slots=True)
class SlottedBatch:
    features: Tensor


class NamedBatch(NamedTuple):
    features: Tensor


class CyclicBatch:
    """Knows itself, as nodes of a graph know their graph."""

    def __init__(self, features: Tensor) -> None:
        self.features, self.owner = features, self


class Unpacking(nn.Module):
    """Finds its input in whatever it was given."""

    def __init__(self, unpack: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.body, self.unpack = small(), unpack

    def forward(self, batch: Any) -> Tensor:
        return self.body(self.unpack(batch))


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def attribute(batch: Any) -> Tensor:
    return batch.features


@pytest.mark.parametrize(
    ("pack", "unpack"),
    [
        pytest.param(Batch, attribute, id="dataclass"),
        pytest.param(SlottedBatch, attribute, id="dataclass with slots"),
        pytest.param(NamedBatch, attribute, id="named tuple"),
        pytest.param(lambda x: SimpleNamespace(features=x), attribute, id="namespace"),
        pytest.param(CyclicBatch, attribute, id="object that knows itself"),
        pytest.param(lambda x: {"a": [x, None, 1.5]}, lambda b: b["a"][0], id="nested"),
        pytest.param(lambda x: Batch([x]), lambda b: b.features[0], id="list in a dataclass"),
    ],
)
def test_a_smaller_batch_is_no_surprise(pack: Callable[..., Any], unpack: Any) -> None:
    """The last batch of an epoch is smaller, in whatever it is packed."""
    model = Unpacking(unpack)
    learner = fdfa.DFA(model)
    for samples in (6, 2, 6):
        model.zero_grad()
        learner(pack(noise(samples, 4))).sum().backward()
        # dL/dy = 1: the last bias counts the samples
        assert model.body[2].bias.grad.tolist() == [samples] * 3


def test_freezing_a_layer_between_steps_is_noticed() -> None:
    """The first tap is gone with the parameters behind it; the rest learns on."""
    model = nn.Sequential(
        *(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3))
    ).double()
    learner, x = fdfa.FDFA(model), noise(6, 4)
    assert [tap.name for tap in learner.plan(x).taps] == ["1", "3"]
    learner(x).sum().backward()
    model[0].requires_grad_(False)
    model.zero_grad()
    assert [tap.name for tap in learner.plan(x).taps] == ["3"]
    learner(x).sum().backward()
    assert model[0].weight.grad is None
    assert model[2].weight.grad is not None


def test_a_module_put_in_place_of_another_is_cut_as_well() -> None:
    model = small()
    learner, x = fdfa.DFA(model), noise(6, 4)
    learner(x).sum().backward()
    model[1] = nn.Sequential(nn.Linear(5, 5), nn.Tanh()).double()
    assert [tap.name for tap in learner.plan(x).taps] == ["0", "1.1"]
    model.zero_grad()
    learner(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_switching_dropout_off_keeps_the_cut() -> None:
    """In eval mode dropout returns its very input: the tap found behind it must still cut."""
    model = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 3)).double()
    learner, x = fdfa.DFA(model), noise(6, 4)
    assert [tap.name for tap in learner.plan(x).taps] == ["1"]
    model[1].eval()
    learner(x).backward(torch.ones(6, 3, dtype=torch.float64))
    credit = torch.ones(6, 3, dtype=torch.float64) @ learner.feedback["1"].weight
    torch.testing.assert_close(model[0].weight.grad, credit.T @ x, rtol=1e-10, atol=1e-12)


def test_an_input_with_a_history_is_no_tap() -> None:
    """A network before the learner gets its gradient from the first block, by its credit."""
    before, model = nn.Linear(3, 4).double(), small()
    learner, x = fdfa.DFA(model), noise(6, 3)
    z = torch.tanh(before(x))
    assert [tap.name for tap in learner.plan(z).taps] == ["1"]
    assert learner.plan(z).blocks == (("0.weight", "0.bias"), ("2.weight", "2.bias"))
    e = noise(6, 3)
    learner(z).backward(e)
    with torch.no_grad():
        h = model[1](model[0](z))
        at_first = (e @ learner.feedback["1"].weight) * (1 - h**2)
        at_before = (at_first @ model[0].weight) * (1 - z**2)
    torch.testing.assert_close(before.weight.grad, at_before.T @ x, rtol=1e-10, atol=1e-12)


def test_weight_layers_of_a_residual_network() -> None:
    layers = fdfa.DFA(ResNet(), seed=0).plan(torch.randn(5, 1, 8, 8)).weight_layers
    assert layers == (
        ("stem.0",),
        ("layer1.0.conv1", "layer1.0.conv2"),
        ("layer1.1.conv1", "layer1.1.conv2"),
        ("layer2.0.conv1", "layer2.0.conv2", "layer2.0.shortcut.0"),
        ("layer2.1.conv1", "layer2.1.conv2"),
        ("fc",),
    )


def test_weight_layers_of_a_transformer() -> None:
    """Attention is one layer: its projection is never called as a module."""
    model = EncoderClassifier(norm_first=False)
    layers = fdfa.DFA(model, depth=2).plan(torch.randn(5, 4, 4)).weight_layers
    assert layers == (
        ("embed", "encoder.layers.0.self_attn"),
        ("encoder.layers.0.linear1", "encoder.layers.0.linear2", "encoder.layers.1.self_attn"),
        ("encoder.layers.1.linear1", "encoder.layers.1.linear2", "head"),
    )

"""Reference networks under the learners: taps against lists written by hand, exact gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import fdfa
from fdfa import models
from tests.engine.exact_credit import (
    assert_blocks_are_isolated,
    assert_derivative_is_dual_to_the_credits,
    assert_exact_credits_give_exact_gradients,
)
from tests.engine.tap_case import TapCase, noise
from tests.models.small import build_small


def _case(name: str, taps: list[str], *, side: int = 8, **options: Any) -> TapCase:
    label = " ".join([name, *(f"{key}={value}" for key, value in options.items())])
    return TapCase(
        label,
        lambda: build_small(name, (1, side, side), 3, **options),
        lambda: (noise(4, 1, side, side),),
        taps,
    )


def _blocks(*stages: int) -> list[str]:
    """Every residual block but the last, whose tap lies behind pooling."""
    blocks = [f"stage{s}.{b}" for s, count in enumerate(stages, 1) for b in range(count)]
    return ["relu", *blocks[:-1], "flatten"]


# The last tensor before the next weight layer: after pooling, and after flattening.
CASES = [
    _case("fully-connected", ["relu1", "relu2"]),
    _case("convolutional", ["relu1", "flatten", "relu3"], side=10),
    _case("convolutional", ["pool1", "flatten", "relu3"], side=16, form="announced"),
    _case("lenet", ["pool1", "flatten", "relu3", "relu4"], side=12),
    _case("mlp", ["relu1", "relu2"]),
    _case("mlp", ["sigmoid1"], depth=1, activation="sigmoid", start="normal"),
    _case("resnet20", _blocks(3, 3, 3)),
    _case("resnet56", _blocks(9, 9, 9)),
    _case("resnet18", _blocks(2, 2, 2, 2)),
    _case("resnet18", ["pool", *_blocks(2, 2, 2, 2)[1:]], side=32, stem="7x7"),
    _case("vgg", ["pool1", "pool2", "relu3", "pool4", "relu5", "pool6", "relu7", "flatten"]),
    _case("vit", ["embedding", "blocks.0", "blocks.1", "output:input"]),
    _case("gru", ["layers.0", "layers.1", "output:input"]),
    _case("lstm", ["layers.0", "layers.1", "output:input"]),
    _case("mlp-mixer", ["embedding", "blocks.0", "blocks.1", "output:input"]),
    _case("local-mixer", ["blocks.0.relu1", "blocks.0.relu2", "blocks.1.relu3", "output:input"]),
]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def test_every_network_has_a_case() -> None:
    # AlexNet has tens of millions of weights at any size: it has a test of its own.
    assert {case.name.split()[0] for case in CASES} | {"alexnet"} == set(models.names())


@every_case
def test_taps_are_those_of_the_rule(case: TapCase) -> None:
    (x,), _ = case.inputs()
    plan = fdfa.FDFA(case.model()).plan(x)
    assert [tap.name for tap in plan.taps] == case.taps
    assert plan.chain


@every_case
def test_each_block_reaches_its_own_parameters_alone(case: TapCase) -> None:
    assert_blocks_are_isolated(case)


@every_case
def test_exact_credits_give_exact_gradients(case: TapCase) -> None:
    assert_exact_credits_give_exact_gradients(case)


@every_case
def test_the_probe_measures_the_derivative_along_all_taps(case: TapCase) -> None:
    with sdpa_kernel(SDPBackend.MATH):  # the kernel of probes, here also of the reference
        assert_derivative_is_dual_to_the_credits(case)


@pytest.mark.parametrize("method", ["fdfa", "dfa", "backpropagation"])
@every_case
def test_every_parameter_learns(case: TapCase, method: str) -> None:
    model = case.model().float()
    x = case.inputs()[0][0].float()
    learner = fdfa.wrap(method, model, seed=0)
    for _ in range(2):  # feedback starts at zero: the second step is the first with any credit
        model.zero_grad()
        learner(x).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A bias before batch norm has a gradient of zero but for rounding.
        assert parameter.dim() == 1 or parameter.grad.any(), name


@every_case
def test_in_eval_mode_the_learner_is_the_plain_model_and_examples_are_alone(case: TapCase) -> None:
    model = case.model()
    learner = fdfa.FDFA(model)
    (x,), _ = case.inputs()
    learner(x)  # moves the statistics of batch norm
    learner.eval()
    y = learner(x)
    assert torch.equal(y, model(x))
    assert torch.equal(y, learner(x))
    torch.testing.assert_close(model(x[1:2]), y[1:2], rtol=1e-10, atol=1e-12)


def test_alexnet_is_cut_behind_pooling_and_learns() -> None:
    model, x = models.alexnet(image=(1, 63, 63), classes=2), torch.randn(2, 1, 63, 63)
    learner = fdfa.FDFA(model, seed=0)
    taps = ["pool1", "pool2", "relu3", "relu4", "flatten", "relu6", "relu7"]
    assert [tap.name for tap in learner.plan(x).taps] == taps
    learner(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(learner.feedback[tap].weight.any() for tap in learner.plan(x).taps)

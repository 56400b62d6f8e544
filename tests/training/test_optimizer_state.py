"""What optimisers remember, as tensors and JSON, and back: original and copy in parallel."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fdfa.errors import CheckpointError
from fdfa.training.optimizer_state import capture_optimizer, restore_optimizer
from tests.training.cuts import assert_same_bits, optimizer_tensors

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "adam-amsgrad": lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True),
    "adam-foreach": lambda p: torch.optim.Adam(p, lr=0.1, foreach=True),
    "adam-fused": lambda p: torch.optim.Adam(p, lr=0.1, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "sgd-momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1),
    "rmsprop-centered": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.5, centered=True),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.1),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.1),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.1),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.1),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=0.1),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.1),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.1, t0=2),
}


def weights(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """A matrix, a vector, a number."""
    generator = torch.Generator().manual_seed(1)
    shapes = ((3, 4), (4,), ())
    return [nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in shapes]


def step(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        gradient = torch.randn(parameter.shape, generator=generator)
        parameter.grad = gradient.to(parameter.dtype)
    optimizer.step()


def captured(optimizer: torch.optim.Optimizer) -> tuple[Any, dict[str, Tensor]]:
    """As a checkpoint gives it back: the tensors are others, the options went through JSON."""
    groups, tensors = capture_optimizer(optimizer)
    return json.loads(json.dumps(groups)), {n: value.clone() for n, value in tensors.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_original_and_copy_go_on_alike(name: str, dtype: torch.dtype) -> None:
    parameters = weights(dtype)
    optimizer = OPTIMIZERS[name](parameters)
    for seed in range(3):
        step(optimizer, parameters, seed)
    copies = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    copy = OPTIMIZERS[name](copies)
    restore_optimizer(copy, *captured(optimizer))
    assert_same_bits(optimizer_tensors(copy), optimizer_tensors(optimizer))
    for seed in range(3, 9):
        step(optimizer, parameters, seed)
        step(copy, copies, seed)
    assert_same_bits(dict(enumerate(copies)), dict(enumerate(parameters)))
    assert_same_bits(optimizer_tensors(copy), optimizer_tensors(optimizer))


def test_what_is_given_back_is_not_shared() -> None:
    """A checkpoint that is held in memory is not trained on."""
    parameters = weights()
    optimizer = OPTIMIZERS["adam"](parameters)
    step(optimizer, parameters, 0)
    groups, tensors = captured(optimizer)
    before = {name: value.clone() for name, value in tensors.items()}
    copies = weights()
    copy = OPTIMIZERS["adam"](copies)
    restore_optimizer(copy, groups, tensors)
    step(copy, copies, 1)
    assert_same_bits(tensors, before)


def test_before_the_first_step_there_is_nothing_to_remember() -> None:
    optimizer = OPTIMIZERS["adam"](weights())
    groups, tensors = captured(optimizer)
    assert tensors == {}
    restore_optimizer(OPTIMIZERS["adam"](weights()), groups, tensors)


def test_a_parameter_that_never_had_a_gradient_stays_without_a_state() -> None:
    parameters = weights()
    parameters[1].requires_grad_(requires_grad=False)
    optimizer = OPTIMIZERS["adam"](parameters)
    step(optimizer, [parameters[0], parameters[2]], 0)
    copies = weights()
    copies[1].requires_grad_(requires_grad=False)
    copy = OPTIMIZERS["adam"](copies)
    restore_optimizer(copy, *captured(optimizer))
    assert_same_bits(optimizer_tensors(copy), optimizer_tensors(optimizer))
    assert copies[1] not in copy.state


def test_parameters_with_names() -> None:
    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam([(f"layer.{n}", p) for n, p in enumerate(parameters)], lr=0.1)

    parameters, copies = weights(), weights()
    optimizer, copy = make(parameters), make(copies)
    step(optimizer, parameters, 0)
    restore_optimizer(copy, *captured(optimizer))
    assert_same_bits(optimizer_tensors(copy), optimizer_tensors(optimizer))


def test_the_rate_comes_back_and_options_keep_their_types() -> None:
    optimizer, copy = OPTIMIZERS["adam"](weights()), OPTIMIZERS["adam"](weights())
    optimizer.param_groups[0]["lr"] = 0.0123
    restore_optimizer(copy, *captured(optimizer))
    assert copy.param_groups[0]["lr"] == 0.0123
    assert copy.param_groups[0]["betas"] == (0.9, 0.999)
    assert isinstance(copy.param_groups[0]["betas"], tuple)


def test_lbfgs_is_refused_with_a_way_out() -> None:
    parameters = weights()
    optimizer = torch.optim.LBFGS(parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step(lambda: torch.tensor(1.0))
    with pytest.raises(CheckpointError, match=r"LBFGS keeps .* Use another optimiser"):
        capture_optimizer(optimizer)


def test_a_rate_that_is_a_tensor_is_refused() -> None:
    optimizer = torch.optim.Adam(weights(), lr=torch.tensor(0.1))
    with pytest.raises(CheckpointError, match="'lr' as Tensor"):
        capture_optimizer(optimizer)

"""Errors of engine, methods and diagnostics that no case of ``tests/engine`` provokes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import fdfa
from fdfa.diagnostics import alignment
from fdfa.errors import (
    CheckpointError,
    ConfigError,
    FDFAError,
    ProbeError,
    UnsupportedModelError,
)
from tests.engine.refused_models import mlp
from tests.engine.tap_case import noise
from tests.errors.provoke import Case, Here
from tests.errors.target_cases import TARGET_CASES

__all__ = ["ENGINE_CASES"]


def _negative_seed(here: Here) -> None:
    state = fdfa.DFA(mlp()).state_dict()
    text = bytes(state["_extra_state"].tolist()).replace(b'"steps": 0', b'"steps": -1')
    state["_extra_state"] = torch.tensor(list(text), dtype=torch.uint8)
    fdfa.DFA(mlp()).load_state_dict(state)


def _other_maps(here: Here) -> None:
    """A map of another size than the learner's, and a buffer of another size than its map."""
    learner = fdfa.FDFA(mlp())
    learner(noise(6, 4)).sum().backward()
    state = learner.state_dict()
    state["feedback.1.weight"] = torch.ones(3, 4)
    state["feedback.3.momentum_buffer"] = torch.ones(2, 2)
    learner.load_state_dict(state)


def _many_conflicts(here: Here) -> None:
    deep = nn.Sequential(*(nn.Linear(4, 4) for _ in range(9)))
    fdfa.Backpropagation(mlp()).load_state_dict(fdfa.Backpropagation(deep).state_dict())


def _empty_output(here: Here) -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp()

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x[:0])

    fdfa.DFA(Dropping())(noise(6, 4))


class _Inner(nn.Module):
    """Differentiates something within its own forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        start = torch.zeros(len(x), 5, requires_grad=True)
        energy = (self.first(x) - start.tanh()).square().sum()
        (gradient,) = torch.autograd.grad(energy, start)
        return self.last(self.first(x).tanh() - gradient)


def _narrow(here: Here) -> None:
    fdfa.FDFA(mlp().half(), probe="finite-difference")(torch.ones(6, 4, dtype=torch.float16))


def _in_eval_mode(here: Here) -> None:
    learner = fdfa.DFA(mlp()).eval()
    alignment(learner, nn.functional.cross_entropy, noise(6, 4), torch.zeros(6, dtype=torch.int64))


class _Kept(torch.autograd.Function):
    """A product that keeps its weight out of autograd's sight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor) -> Tensor:
        ctx.x, ctx.W = x.detach(), W.detach()
        return x @ W.T

    @staticmethod
    def backward(ctx: Any, e: Tensor) -> Any:
        return e @ ctx.W, e.T @ ctx.x


class _Chain(nn.Module):
    """Two layers, the second used as a function says."""

    def __init__(self, use: Callable[[Tensor, nn.Linear], Tensor]) -> None:
        super().__init__()
        self.first, self.layer, self.use = nn.Linear(4, 5), nn.Linear(5, 5), use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self.first(x).exp(), self.layer)


def _changed(x: Tensor, layer: nn.Linear) -> Tensor:
    y: Tensor = layer(x)
    x.mul_(2)
    return y


def _stepped_too_early(here: Here) -> None:
    model = mlp()
    loss = fdfa.wrap("usf", model)(noise(6, 4)).sum()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    loss.backward()


def _other_feedback(here: Here) -> None:
    learner = fdfa.wrap("fa", mlp())
    state = learner.state_dict()
    state["feedback.9/weight"] = torch.ones(3, 4)
    learner.load_state_dict(state)


def _as_a_function(x: Tensor, layer: nn.Linear) -> Tensor:
    return nn.functional.linear(x, layer.weight)


def _in_a_kernel(here: Here, method: str = "weight-mirror") -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.cell = nn.Linear(4, 5), nn.LSTM(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.cell(self.first(x))[0]
            return y

    fdfa.wrap(method, Recurrent())(torch.ones(2, 6, 4))


def _chained(use: Callable[[Tensor, nn.Linear], Tensor]) -> Callable[[Here], None]:
    return lambda here: fdfa.wrap("fa", _Chain(use))(torch.ones(6, 4)).sum().backward()


def _option(method: str, **options: Any) -> Case:
    ((name, value),) = options.items()
    return Case(
        f"{method} with {name} {value}",
        ConfigError,
        lambda here: fdfa.wrap(method, mlp(), **options),
    )


FEEDBACK_CASES = [
    _option("fa", start="unifrom"),
    _option("brsf", redraw_every=0),
    _option("kolen-pollack", decay=1.0),
    _option("ldfa", rank=0),
    _option("ldfa", learn_q=1),
    _option("ldfa", decay=1.0),
    _option("ldfa", projection_rate=1.0),
    _option("weight-mirror", mirror_rate=0.0),
    _option("weight-mirror", mirror_every=0),
    _option("weight-mirror", growth_control=1),
    Case(
        "feedback for a weight that is masked",
        UnsupportedModelError,
        _chained(lambda x, layer: nn.functional.linear(x, layer.weight * torch.ones(5, 5))),
    ),
    Case(
        "feedback for a weight with a penalty",
        UnsupportedModelError,
        _chained(lambda x, layer: layer(x) + layer.weight.square().sum()),
    ),
    Case(
        "feedback for a weight that a function hides",
        UnsupportedModelError,
        _chained(lambda x, layer: _Kept.apply(x, layer.weight)),
    ),
    Case(
        "feedback within a checkpoint",
        UnsupportedModelError,
        _chained(lambda x, layer: checkpoint(layer, x, use_reentrant=False)),
    ),
    Case("feedback and an activation changed", RuntimeError, _chained(_changed)),
    Case("feedback and a weight changed", RuntimeError, _stepped_too_early),
    Case("feedback of another model", CheckpointError, _other_feedback),
    Case("a mirror in a kernel", UnsupportedModelError, _in_a_kernel),
    Case(
        "few dimensions in a kernel",
        UnsupportedModelError,
        functools.partial(_in_a_kernel, method="ldfa"),
    ),
    Case(
        "few dimensions and an error unheard",
        UnsupportedModelError,
        lambda here: fdfa.wrap("ldfa", _Chain(_as_a_function))(torch.ones(6, 4)),
    ),
    Case(
        "feedback for a frozen model",
        UnsupportedModelError,
        lambda here: fdfa.wrap("fa", mlp().requires_grad_(False))(noise(6, 4)),
    ),
]


class _Detached(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


def _lstm(here: Here) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.LSTM(5, 2))
    fdfa.ForwardGradient(model, output=0)(torch.ones(6, 4))


def _dependent(here: Here) -> None:
    learner = fdfa.MultiTangent(mlp(), count=6, tangents="angle", angle=1e-5, seed=1)
    learner(noise(6, 4))


def _freed_perturbations(here: Here) -> None:
    y = fdfa.wrap("fg-a", mlp())(noise(6, 4))
    y.sum().backward()
    y.sum().backward()


def _running(state_of: bool, here: Here) -> None:
    """A state with a running coefficient, or a learner with one: not both."""
    learners = [fdfa.FDFA(mlp()), fdfa.wrap("fdfa-cv", mlp())]
    learners[1 - state_of].load_state_dict(learners[state_of].state_dict())


def _coefficient_of_another_shape(here: Here) -> None:
    learner = fdfa.wrap("fdfa-cv", mlp())
    learner.load_state_dict({**learner.state_dict(), "coefficient.moments": torch.zeros(3)})


def _growing_decay(here: Here) -> None:
    learner = fdfa.wrap("pseudo-zeroth-order", mlp(), decay=lambda step: 1.0 + step)
    for _ in range(2):
        learner(noise(6, 4))


def _another_window(here: Here) -> None:
    state = fdfa.wrap("pseudo-zeroth-order", mlp(), window=3).state_dict()
    fdfa.wrap("pseudo-zeroth-order", mlp(), window=2).load_state_dict(state)


def _answers_cut_short(here: Here) -> None:
    learner = fdfa.wrap("pseudo-zeroth-order", mlp(), window=2)
    learner(noise(6, 4)).sum().backward()
    state = learner.state_dict()
    learner.load_state_dict({**state, "answers.values": state["answers.values"][:, 1:]})


def _another_output(here: Here) -> None:
    model = mlp()
    learner = fdfa.DFA(model, rank=2)
    learner(noise(6, 4))
    model[-1] = nn.Linear(model[-1].in_features, 7).double()
    learner(noise(6, 4))


def _projection_of_another_rank(here: Here) -> None:
    learner = fdfa.DFA(mlp(), rank=2)
    learner(noise(6, 4))
    state = learner.state_dict()
    fdfa.DFA(mlp(), rank=1).load_state_dict(state)


def _projections(state_of: bool, here: Here) -> None:
    """A state with a projection, or a learner with one: not both."""
    learners = [fdfa.DFA(mlp()), fdfa.DFA(mlp(), rank=2)]
    learners[state_of](noise(6, 4))
    learners[1 - state_of].load_state_dict(learners[state_of].state_dict())


def _map_of_another_rank(here: Here) -> None:
    learner = fdfa.DFA(mlp(), rank=2)
    learner(noise(6, 4))
    state = learner.state_dict()
    maps = {key: value[:1] for key, value in state.items() if key.startswith("feedback.")}
    fdfa.DFA(mlp(), rank=2).load_state_dict({**state, **maps})


def _dependent_at_a_sample(here: Here) -> None:
    learner = fdfa.wrap("multi-tangent-a", mlp(), count=6, tangents="angle", angle=1e-5, seed=1)
    learner(noise(6, 4))


def _two_factors(here: Here) -> None:
    fdfa.wrap("multi-tangent-a", mlp(), unbiased=True, length_correction=True)


ENGINE_CASES = [
    Case("dependent tangents of a sample", ProbeError, _dependent_at_a_sample),
    Case("two factors on a projection", ConfigError, _two_factors),
    *FEEDBACK_CASES,
    Case("perturbations that a backward pass freed", FDFAError, _freed_perturbations),
    Case("a projection too much", CheckpointError, functools.partial(_projections, True)),
    Case("a projection too little", CheckpointError, functools.partial(_projections, False)),
    Case("a projection of another rank", CheckpointError, _projection_of_another_rank),
    Case("a map of another rank", CheckpointError, _map_of_another_rank),
    Case("a coefficient too much", CheckpointError, functools.partial(_running, True)),
    Case("a coefficient too little", CheckpointError, functools.partial(_running, False)),
    Case("a coefficient of another shape", CheckpointError, _coefficient_of_another_shape),
    _option("fdfa", credit="unbiassed"),
    _option("fdfa", coefficient=2.0),
    _option("dkp", feedback_rate=0.0),
    _option("dkp", decay=-1.0),
    _option("dkp", feedback_update="adams"),
    _option("dkp", start="kaiming"),
    _option("pseudo-zeroth-order", window=0),
    _option("pseudo-zeroth-order", decay=1.5),
    _option("pseudo-zeroth-order", noise="sphere"),
    Case("a decay that grows with the steps", ConfigError, _growing_decay),
    Case("a state with another window", CheckpointError, _another_window),
    Case("a state with answers cut short", CheckpointError, _answers_cut_short),
    _option("dkp", learn_p=1),
    _option("dkp", learn_p=True),
    Case(
        "a projection over the limit",
        UnsupportedModelError,
        lambda here: fdfa.DFA(mlp(), rank=2, feedback_size_limit=16)(noise(6, 4)),
    ),
    Case("a projection of another output", UnsupportedModelError, _another_output),
    _option("opzo", form="centered"),
    _option("opzo", feedback_rate=0.0),
    _option("opzo", noise="gauss"),
    _option("opzo", noise_scale=0.0),
    _option("grape", feedback_rate=0.0),
    _option("grape", exact_every=0),
    _option("grape", start="kaiming"),
    *TARGET_CASES,
    Case("an error without a problem", ValueError, lambda here: UnsupportedModelError([])),
    Case(
        "a learner in a learner",
        UnsupportedModelError,
        lambda here: fdfa.DFA(fdfa.FDFA(mlp())),
    ),
    Case(
        "a learner within a model",
        UnsupportedModelError,
        lambda here: fdfa.DFA(nn.Sequential(fdfa.FDFA(mlp()), nn.Linear(3, 2))),
    ),
    Case("no bytes for maps", ConfigError, lambda here: fdfa.DFA(mlp(), feedback_size_limit=0)),
    Case("a state that counts below zero", CheckpointError, _negative_seed),
    Case("a state with other maps", CheckpointError, _other_maps),
    Case("a state of a much deeper model", CheckpointError, _many_conflicts),
    Case("an output without samples", ValueError, _empty_output),
    Case("a finite difference in half precision", ProbeError, _narrow),
    Case(
        "a gradient within the forward pass",
        UnsupportedModelError,
        lambda here: fdfa.DFA(_Inner())(torch.ones(6, 4)),
    ),
    Case("alignment in eval mode", ValueError, _in_eval_mode),
    Case(
        "a weight probe's kind of noise",
        ConfigError,
        lambda here: fdfa.ForwardGradient(mlp(), noise="gauss"),
    ),
    Case(
        "a guess that is none", ConfigError, lambda here: fdfa.ForwardGradient(mlp(), direction=3)
    ),
    Case(
        "a guess for no parameter",
        ConfigError,
        lambda here: fdfa.ForwardGradient(mlp(), direction={"0.wieght": torch.ones(1)}),
    ),
    Case(
        "a guess of another shape",
        ConfigError,
        lambda here: fdfa.ForwardGradient(mlp(), direction={"0.bias": torch.ones(1)}),
    ),
    Case(
        "a guess of zeros",
        ConfigError,
        lambda here: fdfa.ForwardGradient(mlp(), direction={})(noise(6, 4)),
    ),
    Case("a forward derivative that is missing", ProbeError, _lstm),
    Case(
        "a tangent that is lost in weight space",
        ProbeError,
        lambda here: fdfa.ForwardGradient(_Detached(4, 2))(torch.ones(6, 4)),
    ),
    Case(
        "moved weights in half precision",
        ProbeError,
        lambda here: fdfa.SPSA(mlp().half())(torch.ones(6, 4, dtype=torch.float16)),
    ),
    Case("no tangents", ConfigError, lambda here: fdfa.MultiTangent(mlp(), count=0)),
    Case(
        "an unknown combination", ConfigError, lambda here: fdfa.MultiTangent(mlp(), combine="men")
    ),
    Case(
        "an unknown kind of tangents",
        ConfigError,
        lambda here: fdfa.MultiTangent(mlp(), tangents="gauss"),
    ),
    Case(
        "an unbiased sum",
        ConfigError,
        lambda here: fdfa.MultiTangent(mlp(), unbiased=True, combine="sum"),
    ),
    Case("no angle", ConfigError, lambda here: fdfa.MultiTangent(mlp(), angle=0.0)),
    Case("dependent tangents", ProbeError, _dependent),
    Case("a perturbation of unknown noise", ConfigError, lambda here: fdfa.SPSA(mlp(), noise="x")),
]

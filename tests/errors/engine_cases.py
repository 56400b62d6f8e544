"""Errors of learners, their states and feedback maps that no case of ``tests/engine`` provokes."""

from __future__ import annotations

import functools
import importlib

import torch
from torch import Tensor, nn

import fdfa
from fdfa.diagnostics import Watch, alignment
from fdfa.errors import CheckpointError, ConfigError, UnsupportedModelError
from tests.engine.refused_models import mlp
from tests.engine.tap_case import noise
from tests.errors.provoke import Case, Here
from tests.errors.refused_option import refused_option

__all__ = ["ENGINE_CASES"]


def _no_such_method_class(here: Here) -> None:
    importlib.import_module("fdfa.methods").FDFAA  # noqa: B018


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


def _watched_never(here: Here) -> object:
    learner = fdfa.DFA(nn.Linear(4, 2))
    return Watch(learner, nn.functional.cross_entropy, noise(6, 4), noise(6, 2), every=0)


def _in_eval_mode(here: Here) -> None:
    learner = fdfa.DFA(mlp()).eval()
    alignment(learner, nn.functional.cross_entropy, noise(6, 4), torch.zeros(6, dtype=torch.int64))


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


ENGINE_CASES = [
    Case("no such name in fdfa", AttributeError, lambda here: fdfa.FDFAA),
    Case("no such name in fdfa.methods", AttributeError, _no_such_method_class),
    Case("a projection too much", CheckpointError, functools.partial(_projections, True)),
    Case("a projection too little", CheckpointError, functools.partial(_projections, False)),
    Case("a projection of another rank", CheckpointError, _projection_of_another_rank),
    Case("a map of another rank", CheckpointError, _map_of_another_rank),
    refused_option("dkp", feedback_rate=0.0),
    refused_option("dkp", decay=-1.0),
    refused_option("dkp", feedback_update="adams"),
    refused_option("dkp", start="kaiming"),
    refused_option("dkp", learn_p=1),
    refused_option("dkp", learn_p=True),
    Case(
        "a projection over the limit",
        UnsupportedModelError,
        lambda here: fdfa.DFA(mlp(), rank=2, feedback_size_limit=16)(noise(6, 4)),
    ),
    Case("a projection of another output", UnsupportedModelError, _another_output),
    refused_option("grape", feedback_rate=0.0),
    refused_option("grape", exact_every=0),
    refused_option("grape", start="kaiming"),
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
    Case(
        "a gradient within the forward pass",
        UnsupportedModelError,
        lambda here: fdfa.DFA(_Inner())(torch.ones(6, 4)),
    ),
    Case("alignment in eval mode", ValueError, _in_eval_mode),
    Case("watch: no number of steps", ConfigError, _watched_never),
]

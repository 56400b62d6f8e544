"""Every public error about options and state: how to provoke it, what its text must say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import fdfa
from fdfa.engine.feedback import DirectFeedbackMap
from fdfa.errors import CheckpointError, ConfigError
from tests.engine.error_cases import ErrorCase
from tests.engine.refused_models import mlp
from tests.engine.tap_case import noise

__all__ = ["OPTION_ERRORS"]


def _option(
    name: str, *says: str, error: type[Exception] = ConfigError, **options: Any
) -> ErrorCase:
    return ErrorCase(name, error, lambda: fdfa.FDFA(mlp(), **options), says)


def _state(name: str, damage: Callable[[dict[str, Any]], None], *says: str) -> ErrorCase:
    """A state dict of a trained FDFA learner, damaged, and loaded into a fresh one."""

    def run() -> None:
        learner = fdfa.FDFA(mlp(), seed=1)
        learner(noise(6, 4)).sum().backward()
        state = learner.state_dict()
        damage(state)
        fdfa.FDFA(mlp(), seed=2).load_state_dict(state)

    return ErrorCase(name, CheckpointError, run, says)


def _other_method() -> None:
    fdfa.FDFA(mlp()).load_state_dict(fdfa.DFA(mlp()).state_dict())


def _other_model() -> None:
    other = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))
    fdfa.FDFA(mlp()).load_state_dict(fdfa.FDFA(other).state_dict())


def _optimizer_with_lists() -> None:
    learner = fdfa.FDFA(
        mlp(), feedback_update=lambda maps: torch.optim.SGD(maps, lr=0.1, momentum=0.9)
    )
    learner(noise(6, 4)).sum().backward()
    learner.feedback["1"]._optimizer.state[learner.feedback["1"].weight]["notes"] = ["a list"]
    learner(noise(6, 4)).sum().backward()


OPTION_ERRORS = [
    ErrorCase(
        "unknown method",
        ConfigError,
        lambda: fdfa.wrap("dfaa", mlp()),
        ("'dfaa'", "Did you mean 'dfa'?", "backpropagation, dfa, adfa"),
    ),
    ErrorCase(
        "unknown option",
        ConfigError,
        lambda: fdfa.wrap("dfa", mlp(), dept=2),
        ("'dfa'", "'dept'", "Did you mean 'depth'?", "taps, depth, sample_dims"),
    ),
    _option("feedback rate of zero", "feedback_rate=0", "(0, 1]", feedback_rate=0),
    _option("feedback rate above one", "feedback_rate=1.5", "(0, 1]", feedback_rate=1.5),
    _option("feedback rate that is no number", "nan", "(0, 1]", feedback_rate=float("nan")),
    _option("unknown feedback update", "'momentun'", "'momentum'", feedback_update="momentun"),
    _option("unknown noise", "'gaussian'", "normal, rademacher", noise="gaussian"),
    _option("unknown probe", "'forward'", "'forward-ad'", probe="forward"),
    _option("probe never", "probe_every=0", probe_every=0),
    _option("difference of no length", "difference_step=-0.1", difference_step=-0.1),
    _option("no sample dimension", "sample_dims=0", sample_dims=0),
    _option("seed that is no whole number", "seed=1.5", error=TypeError, seed=1.5),
    ErrorCase(
        "unknown start",
        ConfigError,
        lambda: fdfa.DFA(mlp(), start="kaiming"),
        ("'kaiming'", "'kaiming-uniform'"),
    ),
    ErrorCase(  # hidden blocks would never get any credit
        "start at zero without learning",
        ConfigError,
        lambda: fdfa.DFA(mlp(), start="zero"),
        ("'zero'", "kaiming-uniform, uniform"),
    ),
    ErrorCase(
        "empty batch",
        ValueError,
        lambda: fdfa.DFA(mlp())(noise(0, 4)),
        ("the batch is empty", "(0, 4)", "drop_last"),
    ),
    ErrorCase("state of another method", CheckpointError, _other_method, ("'dfa'", "'fdfa'")),
    ErrorCase(
        "state of another model",
        CheckpointError,
        _other_model,
        ("'model.4.weight' is missing", "(6, 4) in the state and (5, 4) here"),
    ),
    _state(
        "state without a map",
        lambda state: state.pop("feedback.1.weight"),
        "'feedback.1.weight' is missing",
    ),
    _state(
        "state with an unknown entry",
        lambda state: state.update(bogus=torch.ones(1)),
        "'bogus' is unknown",
    ),
    _state("state without its counter", lambda state: state.pop("_extra_state"), "'_extra_state'"),
    _state(
        "state with a damaged counter",
        lambda state: state.update(_extra_state=torch.zeros(3, dtype=torch.uint8)),
        *("'_extra_state'", "JSON"),
    ),
    _state(
        "state with a map of another kind",
        lambda state: state.update({"feedback.1.weight": torch.ones(3)}),
        "feedback.1.weight",
    ),
    ErrorCase(
        "optimiser whose state is no tensor",
        ConfigError,
        _optimizer_with_lists,
        ("SGD keeps 'notes' as list", "Adam"),
    ),
    ErrorCase(
        "map without width",
        ValueError,
        lambda: DirectFeedbackMap(outputs=0, units=3),
        ("outputs=0, units=3",),
    ),
    ErrorCase(
        "random map without a generator",
        ValueError,
        lambda: DirectFeedbackMap(outputs=2, units=3, start="uniform"),
        ("'uniform'", "generator"),
    ),
]

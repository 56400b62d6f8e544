"""What a record of a method says to the contract suite, and what several records share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from fdfa.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class ErrorInput:
    """Options that a constructor must refuse, with the exception and a part of its text."""

    options: Mapping[str, Any]
    error: type[Exception]
    text: str


@dataclasses.dataclass(frozen=True, repr=False)
class MethodInfo:
    """What the tests need to know of a method.

    Attributes:
        name: as in the registry.
        cases: (id, options) of every way to construct it that deserves the whole contract.
        exact: its gradients are autograd's, bit for bit.
        stochastic: its own seed matters.
        probes: it perturbs the forward pass.
        learns: its own state changes from step to step.
        taught_once: options under which only the very first step (or none) changes its own state.
        draws: each lesson that its own state learns is drawn at random.
        chained: its error travels backwards from layer to layer, so it may enter anywhere.
        varying: ids of the cases in which the gradients of a pass depend on its number: through a
            probe of its own, or because some steps follow another rule.
        error_teaches: ids of the cases in which the output error changes the method's own state.
        seedless: ids of the cases in which nothing is drawn, though others of the method draw.
        error_inputs: what its constructor must refuse.
        redrawn: its gradient itself is random: held still, a learner's steps are not counted, so
            that each draws the same.
        by_difference: it takes differences of outputs, in every case.
        noisy: ids of the cases in which the output of a step is itself perturbed.
        steps_to_learn: Adam's steps after which the loss of a small batch has halved.
        excused: (a contract test, cases or none for all, why it cannot hold by the rule's nature);
            such a test must fail.
        by_error: hidden credits come from the output error; else from the targets alone.
        repeats: the model runs once more in ``backward()``, the user's hooks with it.
        heads: it needs a model with local heads; these have weights, so that all blocks learn.
    """

    name: str
    cases: tuple[tuple[str, Mapping[str, Any]], ...]
    exact: bool
    stochastic: bool
    probes: bool
    learns: bool
    taught_once: Mapping[str, Any]
    error_inputs: tuple[ErrorInput, ...]
    draws: bool = False
    chained: bool = False
    redrawn: bool = False
    by_difference: bool = False
    steps_to_learn: int = 90  # fixed random weights take their time
    excused: tuple[tuple[str, tuple[str, ...], str], ...] = ()
    varying: tuple[str, ...] = ()
    error_teaches: tuple[str, ...] = ()
    seedless: tuple[str, ...] = ()
    noisy: tuple[str, ...] = ()
    by_error: bool = True
    repeats: bool = False
    heads: bool = False

    def __repr__(self) -> str:
        """Short, so that a failure's report stays readable."""
        return self.name


def adam_on_maps(maps: Iterable[Tensor]) -> torch.optim.Optimizer:
    """A feedback optimiser as a named function, so that a learner that holds it can be pickled."""
    return torch.optim.Adam(maps, lr=0.05)


ANY_METHOD = (
    ErrorInput({"seed": 1.5}, TypeError, "seed"),
    ErrorInput({"sede": 1}, ConfigError, "unknown option 'sede'.*Did you mean 'seed'"),
)
TAPPED = (
    *ANY_METHOD,
    ErrorInput({"sample_dims": 0}, ConfigError, "sample_dims=0"),
    ErrorInput({"sample_dims": True}, ConfigError, "sample_dims=True"),
    ErrorInput({"depth": 0}, ConfigError, "depth=0"),
    ErrorInput({"depth": 1.0}, ConfigError, "depth=1.0"),
    ErrorInput({"depth": 2, "taps": ["1"]}, ConfigError, "taps='auto' only"),
    ErrorInput({"taps": ["1", "rleu"]}, ConfigError, "unknown tap 'rleu'"),
    ErrorInput({"taps": 3}, TypeError, "taps=3"),
    ErrorInput({"taps": [1]}, TypeError, "taps holds 1"),
)
PROJECTED = (
    ErrorInput({"rank": 0}, ConfigError, "rank=0"),
    ErrorInput({"rank": 2.0}, ConfigError, r"rank=2\.0"),
    ErrorInput({"rank": 2, "learn_p": 1}, ConfigError, "learn_p=1"),
    ErrorInput({"rank": 2, "projection_rate": 0.0}, ConfigError, r"projection_rate=0\.0"),
)
Excuses = tuple[tuple[str, tuple[str, ...], str], ...]


def FIXED_P(*cases: str) -> Excuses:  # noqa: N802
    return (("test_every_step_draws_anew", cases, "a projection that learns nothing stays"),)

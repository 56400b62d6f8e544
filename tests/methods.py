"""One record a method: the single place where a new method joins the whole contract suite."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import fdfa
from fdfa.engine.estimator import Estimator
from fdfa.errors import ConfigError

__all__ = ["CASES", "METHODS", "Case", "ErrorInput", "MethodInfo"]


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
        error_inputs: what its constructor must refuse.
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

    def __repr__(self) -> str:
        """Short, so that a failure's report stays readable."""
        return self.name


@dataclasses.dataclass(frozen=True, repr=False)
class Case:
    """One way to construct one method."""

    info: MethodInfo
    id: str
    options: Mapping[str, Any]

    def __repr__(self) -> str:
        """Short, so that a failure's report stays readable."""
        return f"{self.info.name}-{self.id}"

    def wrap(self, model: nn.Module, **more: Any) -> Estimator:
        """The estimator; it has seed 7 unless ``more`` says otherwise."""
        return fdfa.wrap(self.info.name, model, **{"seed": 7, **self.options, **more})

    def wrap_taught_once(self, model: nn.Module) -> Estimator:
        """The estimator with its own state held still after the first step."""
        return self.wrap(model, **self.info.taught_once)


def adam_on_maps(maps: Iterable[Tensor]) -> torch.optim.Optimizer:
    """A feedback optimiser as a named function, so that a learner that holds it can be pickled."""
    return torch.optim.Adam(maps, lr=0.05)


_ANY_METHOD = (
    ErrorInput({"seed": 1.5}, TypeError, "seed"),
    ErrorInput({"sede": 1}, ConfigError, "unknown option 'sede'.*Did you mean 'seed'"),
)
_TAPPED = (
    *_ANY_METHOD,
    ErrorInput({"sample_dims": 0}, ConfigError, "sample_dims=0"),
    ErrorInput({"sample_dims": True}, ConfigError, "sample_dims=True"),
    ErrorInput({"depth": 0}, ConfigError, "depth=0"),
    ErrorInput({"depth": 1.0}, ConfigError, "depth=1.0"),
    ErrorInput({"depth": 2, "taps": ["1"]}, ConfigError, "taps='auto' only"),
    ErrorInput({"taps": ["1", "rleu"]}, ConfigError, "unknown tap 'rleu'"),
    ErrorInput({"taps": 3}, TypeError, "taps=3"),
    ErrorInput({"taps": [1]}, TypeError, "taps holds 1"),
)

METHODS = (
    MethodInfo(
        name="backpropagation",
        cases=(("default", {}),),
        exact=True,
        stochastic=False,
        probes=False,
        learns=False,
        taught_once={},
        error_inputs=_ANY_METHOD,
    ),
    MethodInfo(
        name="dfa",
        cases=(
            ("kaiming-uniform", {"start": "kaiming-uniform"}),
            ("uniform", {"start": "uniform"}),
        ),
        exact=False,
        stochastic=True,
        probes=False,
        learns=False,
        taught_once={},
        error_inputs=(
            *_TAPPED,
            ErrorInput({"start": "kaiming"}, ConfigError, "unknown start 'kaiming'.*'kaiming-uni"),
        ),
    ),
    MethodInfo(
        name="fdfa",
        cases=(
            ("momentum", {"feedback_rate": 0.3}),
            ("innovation", {"feedback_rate": 0.2, "feedback_update": "innovation"}),
            ("adam", {"feedback_update": adam_on_maps}),
            ("rademacher", {"feedback_rate": 0.3, "noise": "rademacher"}),
            ("every-4", {"feedback_rate": 0.3, "probe_every": 4}),
            ("finite-difference", {"feedback_rate": 0.3, "probe": "finite-difference"}),
            ("depth-2", {"feedback_rate": 0.3, "depth": 2}),
        ),
        exact=False,
        stochastic=True,
        probes=True,
        learns=True,
        taught_once={"probe_every": 10**6},
        draws=True,
        error_inputs=(
            *_TAPPED,
            ErrorInput({"feedback_rate": 0.0}, ConfigError, r"feedback_rate=0\.0.*\(0, 1\]"),
            ErrorInput({"feedback_rate": 1.5}, ConfigError, r"feedback_rate=1\.5"),
            ErrorInput({"feedback_rate": float("nan")}, ConfigError, "feedback_rate=nan"),
            ErrorInput({"feedback_update": "momentun"}, ConfigError, "Did you mean 'momentum'"),
            ErrorInput({"noise": "gauss"}, ConfigError, "unknown noise 'gauss'.*normal, radem"),
            ErrorInput({"probe": "forward"}, ConfigError, "Did you mean 'forward-ad'"),
            ErrorInput({"probe_every": 0}, ConfigError, "probe_every=0"),
            ErrorInput({"probe_every": 2.5}, ConfigError, r"probe_every=2\.5"),
            ErrorInput({"difference_step": 0.0}, ConfigError, r"difference_step=0\.0"),
            ErrorInput({"difference_step": float("inf")}, ConfigError, "difference_step=inf"),
        ),
    ),
    MethodInfo(
        name="fa",
        cases=(("uniform", {}), ("xavier-uniform", {"start": "xavier-uniform"})),
        exact=False,
        stochastic=True,
        probes=False,
        learns=False,
        taught_once={},
        draws=False,
        chained=True,
        error_inputs=(
            *_ANY_METHOD,
            ErrorInput({"start": "unifrom"}, ConfigError, "unknown start 'unifrom'.*'uniform'"),
        ),
    ),
    MethodInfo(
        name="usf",
        cases=(("default", {}),),
        exact=False,
        stochastic=False,
        probes=False,
        learns=False,
        taught_once={},
        draws=False,
        chained=True,
        error_inputs=_ANY_METHOD,
    ),
    MethodInfo(
        name="brsf",
        cases=(("default", {}),),
        exact=False,
        stochastic=True,
        probes=False,
        learns=False,
        taught_once={"redraw_every": 10**6},
        draws=False,
        chained=True,
        error_inputs=(
            *_ANY_METHOD,
            ErrorInput({"redraw_every": 0}, ConfigError, "redraw_every=0"),
        ),
    ),
    MethodInfo(
        name="frsf",
        cases=(("default", {}),),
        exact=False,
        stochastic=True,
        probes=False,
        learns=False,
        taught_once={},
        draws=False,
        chained=True,
        error_inputs=_ANY_METHOD,
    ),
    MethodInfo(
        name="kolen-pollack",
        cases=(("decay", {"decay": 0.05}),),
        exact=False,
        stochastic=True,
        probes=False,
        learns=True,
        taught_once={"decay": 0.0},
        draws=False,
        chained=True,
        error_inputs=(
            *_ANY_METHOD,
            ErrorInput({"start": "unifrom"}, ConfigError, "unknown start 'unifrom'.*'uniform'"),
            ErrorInput({"decay": 1.0}, ConfigError, r"decay=1\.0"),
            ErrorInput({"decay": -0.1}, ConfigError, r"decay=-0\.1"),
            ErrorInput({"decay": float("nan")}, ConfigError, "decay=nan"),
        ),
    ),
    MethodInfo(
        name="weight-mirror",
        cases=(
            ("normal", {"mirror_rate": 0.2}),
            ("rademacher", {"mirror_rate": 0.2, "noise": "rademacher"}),
            ("every-4", {"mirror_rate": 0.2, "mirror_every": 4}),
        ),
        exact=False,
        stochastic=True,
        probes=False,
        learns=True,
        taught_once={"mirror_every": 10**6},
        draws=True,
        chained=True,
        error_inputs=(
            *_ANY_METHOD,
            ErrorInput({"start": "unifrom"}, ConfigError, "unknown start 'unifrom'.*'uniform'"),
            ErrorInput({"mirror_rate": 0.0}, ConfigError, r"mirror_rate=0\.0"),
            ErrorInput({"mirror_rate": float("inf")}, ConfigError, "mirror_rate=inf"),
            ErrorInput({"mirror_every": 0}, ConfigError, "mirror_every=0"),
            ErrorInput({"growth_control": 1}, ConfigError, "growth_control=1"),
            ErrorInput({"noise": "gauss"}, ConfigError, "unknown noise 'gauss'.*normal, radem"),
        ),
    ),
)

CASES = tuple(Case(info, id, options) for info in METHODS for id, options in info.cases)

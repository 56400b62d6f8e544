"""One record a method: the single place where a new method joins the whole contract suite."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
import torch
from _pytest.mark import ParameterSet
from torch import Tensor, nn

import fdfa
from fdfa.engine.estimator import Estimator
from fdfa.engine.heads import LinearHead
from fdfa.errors import ConfigError

__all__ = [
    "CASES",
    "FAST_CASES",
    "METHODS",
    "NAMES",
    "PARAMETERS",
    "Case",
    "ErrorInput",
    "MethodInfo",
    "marked",
    "wrap_by_name",
]


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


@dataclasses.dataclass(frozen=True, repr=False)
class Case:
    """One way to construct one method."""

    info: MethodInfo
    id: str
    options: Mapping[str, Any]

    def __repr__(self) -> str:
        """Short, so that a failure's report stays readable."""
        return f"{self.info.name}-{self.id}"

    @property
    def varying(self) -> bool:
        """Whether two passes over one batch give different gradients, its own state held still."""
        return self.id in self.info.varying

    @property
    def error_teaches(self) -> bool:
        """Whether the output error changes its own state."""
        return self.id in self.info.error_teaches

    @property
    def batch_teaches(self) -> bool:
        """Whether its own state learns from the batch alone, without noise."""
        return self.error_teaches and not self.info.probes

    @property
    def stochastic(self) -> bool:
        """Whether its own seed matters."""
        return self.info.stochastic and self.id not in self.info.seedless

    def wrap(self, model: nn.Module, **more: Any) -> Estimator:
        """The estimator; it has seed 7 unless ``more`` says otherwise."""
        model, more = self.prepared(model, **more)
        return fdfa.wrap(self.info.name, model, **{"seed": 7, **self.options, **more})

    def prepared(self, model: nn.Module, **more: Any) -> tuple[nn.Module, dict[str, Any]]:
        """The model as the method takes it, and the options that are left for the method."""
        if self.info.heads:
            more = dict(more)
            model = with_heads(model, output=more.pop("output", None))
        return model, more

    def wrap_taught_once(self, model: nn.Module) -> Estimator:
        """The estimator with its own state, and what it draws, held still after the first step."""
        learner = self.wrap(model, **self.info.taught_once)
        if self.info.redrawn:
            learner.take_step = lambda: learner.steps  # type: ignore[method-assign]
        return learner

    @property
    def by_difference(self) -> bool:
        """Whether its probes are differences of outputs."""
        by_option = {"finite-difference", "two-point", "antithetic"}
        chosen = {self.options.get("probe"), self.options.get("form")}
        return self.info.by_difference or bool(by_option & chosen)

    @property
    def noisy(self) -> bool:
        """Whether the output of a step is itself perturbed."""
        return self.id in self.info.noisy

    def excuse(self, test: str) -> str | None:
        """Why this clause cannot hold, None where it must."""
        for name, cases, reason in self.info.excused:
            if name == test and (not cases or self.id in cases):
                return reason
        return None


def wrap_by_name(name: str, model: nn.Module, **options: Any) -> Estimator:
    """``fdfa.wrap``, with local heads for a method that needs them."""
    info = next(info for info in METHODS if info.name == name)
    return fdfa.wrap(name, with_heads(model) if info.heads else model, **options)


def with_heads(model: nn.Module, **options: Any) -> nn.Module:
    """A model with local heads that draw nothing; as it is where it cannot have any."""
    if not isinstance(model, nn.Module) or not any(True for _ in model.parameters()):
        return model
    layer = next(m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d)))
    shape = (6, layer.in_features) if isinstance(layer, nn.Linear) else (6, layer.in_channels, 4, 4)
    shape = getattr(model, "input_shape", shape)
    example = torch.ones(shape, dtype=layer.weight.dtype)
    return fdfa.LocalHeads(model, example, head=_head, **options)


def _head(shape: tuple[int, ...], outputs: tuple[int, ...]) -> nn.Module:
    head = LinearHead(shape, outputs)
    weight = head.linear.weight
    weight.data = torch.cos(torch.arange(weight.numel())).view_as(weight) / len(weight[0]) ** 0.5
    return head


def adam_on_maps(maps: Iterable[Tensor]) -> torch.optim.Optimizer:
    """A feedback optimiser as a named function, so that a learner that holds it can be pickled."""
    return torch.optim.Adam(maps, lr=0.05)


def guess_along_the_weights(model: nn.Module) -> dict[str, Tensor]:
    """A direction of one's own that changes as the weights do; named, so that it can be pickled."""
    return {name: torch.cos(1e3 * p + 1) for name, p in model.named_parameters()}


def squared_secant(a: Tensor) -> Tensor:
    """The derivative of tanh, as a named function of the user's."""
    return 1 / a.cosh().square()


def decay_by_step(step: int) -> float:
    """A decay that falls; named, so that it can be pickled."""
    return 1 / (1 + step)


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
_PROJECTED = (
    ErrorInput({"rank": 0}, ConfigError, "rank=0"),
    ErrorInput({"rank": 2.0}, ConfigError, r"rank=2\.0"),
    ErrorInput({"rank": 2, "learn_p": 1}, ConfigError, "learn_p=1"),
    ErrorInput({"rank": 2, "projection_rate": 0.0}, ConfigError, r"projection_rate=0\.0"),
)
_WEIGHT_PROBES = (
    *_ANY_METHOD,
    ErrorInput({"probe": "forward"}, ConfigError, "Did you mean 'forward-ad'"),
    ErrorInput({"difference_step": 0.0}, ConfigError, r"difference_step=0\.0"),
)
_Excuses = tuple[tuple[str, tuple[str, ...], str], ...]
_IN_WEIGHT_SPACE: _Excuses = (
    ("test_last_layer_is_exact", (), "every weight is perturbed, the last layer's too"),
    (
        "test_hook_on_a_hidden_activation",
        (),
        "no credit passes a hidden activation: there is no graph",
    ),
)


def _HOOKS_IN_EACH_PASS(*cases: str) -> _Excuses:  # noqa: N802
    return (
        (
            "test_user_hooks_fire_as_on_the_plain_model",
            cases,
            "a step takes several forward passes, and the user's hooks belong to each",
        ),
    )


def _FIXED_P(*cases: str) -> _Excuses:  # noqa: N802
    return (("test_every_step_draws_anew", cases, "a projection that learns nothing stays"),)


_A_GUESS: _Excuses = tuple(
    (test, ("guess",), "a guess is the user's: there is nothing random in it")
    for test in ("test_another_seed_another_run_if_stochastic", "test_default_seed_is_torchs")
)
_NOISY_OUTPUT: _Excuses = tuple(
    (test, ("single-point", "centred"), "one forward pass: the output is that of the moved taps")
    for test in (
        "test_training_output_is_the_plain_model",
        "test_attention_is_the_plain_models_to_rounding",
        "test_probe_does_not_show_in_the_output",
        "test_a_users_own_forward_is_called",
        "test_last_layer_is_exact",
        "test_credit_is_what_was_known_before_the_step",
        "test_full_backward_hook_on_the_learner",
        "test_reentrant_checkpoint_round_the_learner_is_exact",
        "test_two_checkpointed_passes_before_one_backward",
    )
)

_HEADS: _Excuses = (
    ("test_parameters_are_exactly_the_models", (), "its heads are parameters too"),
    ("test_a_refused_model_is_left_alone", (), "refused when its heads are made"),
    (
        "test_inside_a_larger_module",
        (),
        "what follows the learner is in the output's loss, but not in those of the heads",
    ),
    (
        "test_output_may_be_changed_in_place",
        (),
        "what is done to the output belongs into the loss function, to be done for every head",
    ),
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
            *_PROJECTED,
            ErrorInput({"start": "kaiming"}, ConfigError, "unknown start 'kaiming'.*'kaiming-uni"),
        ),
    ),
    MethodInfo(
        name="adfa",
        cases=(
            ("cos", {}),
            ("one", {"g": "one", "start": "uniform"}),
            ("function", {"g": squared_secant, "depth": 2}),
        ),
        exact=False,
        stochastic=True,
        probes=False,
        learns=False,
        taught_once={},
        error_inputs=(
            *_TAPPED,
            ErrorInput({"start": "zero"}, ConfigError, "unknown start 'zero'.*'?kaiming-uni"),
            ErrorInput(
                {"g": "cosine"}, ConfigError, "unknown function 'cosine'.*Valid functions: cos"
            ),
            ErrorInput({"g": torch.sum}, ConfigError, r"g makes \(\) of a tensor"),
            ErrorInput({"g": 1.0}, ConfigError, "unknown function '1.0'"),
        ),
    ),
    MethodInfo(
        name="ifa",
        cases=(
            ("kaiming-uniform", {"start": "kaiming-uniform"}),
            ("uniform", {"start": "uniform", "depth": 2}),
        ),
        exact=False,
        stochastic=True,
        probes=False,
        learns=False,
        taught_once={},
        error_inputs=(
            *_TAPPED,
            ErrorInput({"start": "zero"}, ConfigError, "unknown start 'zero'.*'?kaiming-uni"),
        ),
        repeats=True,
    ),
    MethodInfo(
        name="drtp",
        cases=(
            ("kaiming-uniform", {"start": "kaiming-uniform"}),
            ("uniform", {"start": "uniform", "depth": 2}),
        ),
        exact=False,
        stochastic=True,
        probes=False,
        learns=False,
        taught_once={},
        error_inputs=(
            *_TAPPED,
            ErrorInput({"start": "zero"}, ConfigError, "unknown start 'zero'.*'?kaiming-uni"),
        ),
        by_error=False,
    ),
    MethodInfo(
        name="pepita",
        cases=(("default", {}),),
        exact=False,
        stochastic=True,
        probes=False,
        learns=False,
        taught_once={},
        error_inputs=(
            *_ANY_METHOD,
            ErrorInput({"projection_scale": -1.0}, ConfigError, r"projection_scale=-1\.0"),
            ErrorInput({"projection_scale": "big"}, ConfigError, "projection_scale='big'"),
        ),
        by_difference=True,
        repeats=True,
        steps_to_learn=600,
        excused=(
            ("test_last_layer_is_exact", (), "it is, but in the second pass"),
            (
                "test_hook_on_the_output",
                (),
                "credits are differences of two passes, not linear in the error",
            ),
            ("test_hook_on_a_hidden_activation", (), "no credit passes it: there is no graph"),
            (
                "test_inside_a_larger_module",
                (),
                "the loss function has to know what lies between, to be called again",
            ),
            (
                "test_output_may_be_changed_in_place",
                (),
                "the loss function has to know what lies between, to be called again",
            ),
            (
                "test_attention_is_the_plain_models_to_rounding",
                (),
                "the rule is not defined for attention, and says so",
            ),
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
            ("unbiased", {"feedback_rate": 0.3, "credit": "unbiased"}),
            ("half-trusted", {"feedback_rate": 0.3, "credit": "unbiased", "coefficient": 0.5}),
        ),
        varying=("unbiased", "half-trusted"),
        exact=False,
        stochastic=True,
        probes=True,
        learns=True,
        taught_once={"probe_every": 10**6},
        draws=True,
        error_inputs=(
            *_TAPPED,
            *_PROJECTED,
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
            ErrorInput({"credit": "unbiassed"}, ConfigError, "Did you mean 'unbiased'"),
            ErrorInput({"coefficient": 1.5}, ConfigError, r"coefficient=1\.5.*\[0, 1\]"),
            ErrorInput({"coefficient": "runing"}, ConfigError, "coefficient='runing'"),
        ),
    ),
    MethodInfo(
        name="fdfa-cv",
        cases=(
            ("running", {"feedback_rate": 0.3}),
            ("innovation", {"feedback_rate": 0.2, "feedback_update": "innovation"}),
            ("finite-difference", {"feedback_rate": 0.3, "probe": "finite-difference"}),
            ("every-4", {"feedback_rate": 0.3, "probe_every": 4, "noise": "rademacher"}),
            ("projected", {"feedback_rate": 0.3, "rank": 2}),
        ),
        exact=False,
        stochastic=True,
        probes=True,
        learns=True,
        taught_once={"probe_every": 10**6},
        draws=True,
        error_inputs=_TAPPED,
        varying=("running", "innovation", "finite-difference", "every-4", "projected"),
        error_teaches=("running", "innovation", "finite-difference", "every-4", "projected"),
        excused=_FIXED_P("projected"),
    ),
    MethodInfo(
        name="fg-a",
        cases=(
            ("normal", {}),
            ("rademacher", {"noise": "rademacher"}),
            ("masked", {"mask_inactive": True}),
            ("finite-difference", {"probe": "finite-difference"}),
            ("masked-difference", {"probe": "finite-difference", "mask_inactive": True}),
            ("depth-2", {"depth": 2}),
        ),
        exact=False,
        stochastic=True,
        probes=True,
        learns=False,
        taught_once={},
        error_inputs=(
            *_TAPPED,
            ErrorInput({"noise": "gauss"}, ConfigError, "unknown noise 'gauss'.*normal, radem"),
            ErrorInput({"probe": "forward"}, ConfigError, "Did you mean 'forward-ad'"),
            ErrorInput({"difference_step": 0.0}, ConfigError, r"difference_step=0\.0"),
        ),
        varying=(
            "normal",
            "rademacher",
            "masked",
            "finite-difference",
            "masked-difference",
            "depth-2",
        ),
    ),
    MethodInfo(
        name="multi-tangent-a",
        cases=(
            ("projection", {"count": 3}),
            ("unbiased", {"count": 2, "unbiased": True, "depth": 2}),
            ("mean", {"count": 3, "combine": "mean", "tangents": "rademacher"}),
            ("sum", {"count": 2, "combine": "sum", "tangents": "orthonormal"}),
            ("angle", {"count": 3, "tangents": "angle", "angle": 30.0}),
            ("finite-difference", {"count": 2, "probe": "finite-difference"}),
        ),
        exact=False,
        stochastic=True,
        probes=True,
        learns=False,
        taught_once={},
        steps_to_learn=300,
        error_inputs=(
            *_TAPPED,
            ErrorInput({"count": 0}, ConfigError, "count=0"),
            ErrorInput({"combine": "men"}, ConfigError, "Did you mean 'mean'"),
            ErrorInput({"tangents": "gauss"}, ConfigError, "unknown tangents 'gauss'"),
            ErrorInput({"angle": 91.0}, ConfigError, r"angle=91\.0"),
            ErrorInput({"probe": "forward"}, ConfigError, "Did you mean 'forward-ad'"),
            ErrorInput(
                {"unbiased": True, "length_correction": True}, ConfigError, "one factor at a time"
            ),
        ),
        varying=("projection", "unbiased", "mean", "sum", "angle", "finite-difference"),
        excused=_HOOKS_IN_EACH_PASS(),
    ),
    MethodInfo(
        name="dkp",
        cases=(
            ("adam", {"feedback_rate": 0.05}),
            ("sgd", {"feedback_rate": 0.3, "feedback_update": "sgd", "decay": 0.1}),
            ("own-optimizer", {"feedback_update": adam_on_maps}),
            ("uniform", {"feedback_rate": 0.05, "start": "uniform"}),
        ),
        exact=False,
        stochastic=True,
        probes=False,
        learns=True,
        # a step too small for any bit of a map that starts at random
        taught_once={"feedback_update": "sgd", "feedback_rate": 1e-300, "start": "uniform"},
        error_inputs=(
            *_TAPPED,
            *_PROJECTED,
            ErrorInput({"feedback_rate": 0.0}, ConfigError, r"feedback_rate=0\.0.*positive"),
            ErrorInput({"decay": -1.0}, ConfigError, r"decay=-1\.0"),
            ErrorInput({"feedback_update": "adams"}, ConfigError, "Did you mean 'adam'"),
            ErrorInput({"start": "kaiming"}, ConfigError, "unknown start 'kaiming'.*'kaiming-uni"),
        ),
        error_teaches=("adam", "sgd", "own-optimizer", "uniform"),
        seedless=("adam", "sgd", "own-optimizer"),
    ),
    MethodInfo(
        name="grape",
        cases=(
            ("default", {}),
            ("rademacher", {"noise": "rademacher"}),
            ("every-4", {"probe_every": 4}),
            ("finite-difference", {"probe": "finite-difference"}),
            ("exact-3", {"exact_every": 3}),
            ("projected", {"rank": 2}),
        ),
        exact=False,
        stochastic=True,
        probes=True,
        learns=True,
        taught_once={"probe_every": 10**6},
        draws=True,
        error_inputs=(
            *_TAPPED,
            *_PROJECTED,
            ErrorInput({"feedback_rate": 0.0}, ConfigError, r"feedback_rate=0\.0.*positive"),
            ErrorInput({"exact_every": 0}, ConfigError, "exact_every=0"),
            ErrorInput({"exact_every": 2.0}, ConfigError, r"exact_every=2\.0"),
            ErrorInput({"start": "kaiming"}, ConfigError, "unknown start 'kaiming'.*'kaiming-uni"),
            ErrorInput({"noise": "gauss"}, ConfigError, "unknown noise 'gauss'.*normal, radem"),
            ErrorInput({"probe_every": 0}, ConfigError, "probe_every=0"),
        ),
        excused=_FIXED_P("projected"),
        varying=("exact-3",),
    ),
    MethodInfo(
        name="opzo",
        cases=(
            (
                "two-point",
                {"form": "two-point", "feedback_rate": 0.3, "noise": "rademacher"},
            ),
            ("antithetic", {"form": "antithetic", "feedback_rate": 0.3, "probe_every": 4}),
            ("single-point", {"feedback_rate": 0.3}),
            ("centred", {"form": "centred", "feedback_rate": 0.3, "noise": "sphere"}),
        ),
        exact=False,
        stochastic=True,
        probes=True,
        learns=True,
        taught_once={"probe_every": 10**6},
        draws=True,
        error_inputs=(
            *_TAPPED,
            *_PROJECTED,
            ErrorInput({"form": "centered"}, ConfigError, "Did you mean 'centred'"),
            ErrorInput({"feedback_rate": 0.0}, ConfigError, r"feedback_rate=0\.0.*\(0, 1\]"),
            ErrorInput({"noise": "gauss"}, ConfigError, "unknown noise 'gauss'.*sphere"),
            ErrorInput({"noise_scale": 0.0}, ConfigError, r"noise_scale=0\.0"),
            ErrorInput({"noise_scale": float("inf")}, ConfigError, "noise_scale=inf"),
            ErrorInput({"probe_every": 0}, ConfigError, "probe_every=0"),
        ),
        noisy=("single-point", "centred"),
        excused=_NOISY_OUTPUT,
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
        name="ldfa",
        cases=(
            ("q-and-p", {"rank": 2, "decay": 0.05}),
            ("q-alone", {"rank": 2, "decay": 0.05, "learn_p": False}),
            ("p-alone", {"rank": 2, "learn_q": False, "projection_rate": 0.3}),
        ),
        exact=False,
        stochastic=True,
        probes=False,
        learns=True,
        taught_once={"learn_p": False, "decay": 0.0},
        chained=True,
        error_teaches=("q-and-p", "p-alone"),
        steps_to_learn=200,
        excused=(
            (
                "test_attention_is_the_plain_models_to_rounding",
                (),
                "the rule is for linear layers and convolutions; attention is refused by name",
            ),
            (
                "test_autograd_grad_of_one_parameter",
                ("q-and-p", "p-alone"),
                "a layer that autograd leaves out meets no error, so its projection learns nothing",
            ),
        ),
        error_inputs=(
            *_ANY_METHOD,
            ErrorInput({"start": "unifrom"}, ConfigError, "unknown start 'unifrom'.*'uniform'"),
            ErrorInput({"rank": 0}, ConfigError, "rank=0"),
            ErrorInput({"rank": True}, ConfigError, "rank=True"),
            ErrorInput({"learn_q": 1}, ConfigError, "learn_q=1"),
            ErrorInput({"learn_p": "no"}, ConfigError, "learn_p='no'"),
            ErrorInput({"decay": 1.0}, ConfigError, r"decay=1\.0"),
            ErrorInput({"decay": float("nan")}, ConfigError, "decay=nan"),
            ErrorInput({"projection_rate": 1.0}, ConfigError, r"projection_rate=1\.0"),
        ),
    ),
    MethodInfo(
        name="ldfa-direct",
        cases=(
            ("q-and-p", {"rank": 2, "feedback_rate": 0.3, "decay": 0.1}),
            ("adam", {"rank": 2, "feedback_update": "adam", "projection_rate": 0.3}),
            ("q-alone", {"rank": 2, "feedback_rate": 0.3, "learn_p": False}),
        ),
        exact=False,
        stochastic=True,
        probes=False,
        learns=True,
        # a step too small for any bit of a map that starts at random
        taught_once={"feedback_update": "sgd", "feedback_rate": 1e-300, "learn_p": False},
        error_inputs=(
            *_TAPPED,
            *_PROJECTED,
            ErrorInput({"rank": None}, ConfigError, "learn_p=True: without rank="),
        ),
        error_teaches=("q-and-p", "adam", "q-alone"),
        excused=_FIXED_P("q-alone"),
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
    MethodInfo(
        name="fg-w",
        cases=(
            ("normal", {}),
            ("rademacher", {"noise": "rademacher"}),
            ("sphere", {"noise": "sphere"}),
            ("finite-difference", {"probe": "finite-difference"}),
            ("guess", {"direction": guess_along_the_weights}),
        ),
        exact=False,
        stochastic=True,
        probes=True,
        learns=False,
        taught_once={},
        redrawn=True,
        steps_to_learn=600,
        error_inputs=(
            *_WEIGHT_PROBES,
            ErrorInput({"noise": "gauss"}, ConfigError, "unknown noise 'gauss'.*sphere"),
            ErrorInput({"direction": 3}, ConfigError, "direction=3"),
            ErrorInput({"direction": {"0.wieght": 1}}, ConfigError, "Did you mean '0.weight'"),
            ErrorInput({"direction": {"0.bias": 1}}, ConfigError, "'0.bias'.*is int"),
            ErrorInput({"direction": {"0.bias": torch.ones(3)}}, ConfigError, r"is \(3,\).*\(8,\)"),
        ),
        excused=(*_IN_WEIGHT_SPACE, *_HOOKS_IN_EACH_PASS("finite-difference"), *_A_GUESS),
    ),
    MethodInfo(
        name="multi-tangent",
        cases=(
            ("projection", {"count": 3}),
            ("unbiased", {"count": 3, "unbiased": True}),
            ("mean", {"count": 3, "combine": "mean"}),
            ("sum", {"count": 2, "combine": "sum", "tangents": "rademacher"}),
            ("orthonormal", {"count": 3, "tangents": "orthonormal"}),
            ("angle", {"count": 3, "tangents": "angle", "angle": 30.0}),
            ("finite-difference", {"count": 2, "probe": "finite-difference"}),
        ),
        exact=False,
        stochastic=True,
        probes=True,
        learns=False,
        taught_once={},
        redrawn=True,
        steps_to_learn=300,
        error_inputs=(
            *_WEIGHT_PROBES,
            ErrorInput({"count": 0}, ConfigError, "count=0"),
            ErrorInput({"count": True}, ConfigError, "count=True"),
            ErrorInput({"combine": "men"}, ConfigError, "Did you mean 'mean'"),
            ErrorInput({"tangents": "gauss"}, ConfigError, "unknown tangents 'gauss'"),
            ErrorInput({"angle": 0.0}, ConfigError, r"angle=0\.0"),
            ErrorInput({"unbiased": True, "combine": "sum"}, ConfigError, "unbiased=True"),
            ErrorInput(
                {"length_correction": True, "combine": "mean"}, ConfigError, "length_correction"
            ),
        ),
        excused=(*_IN_WEIGHT_SPACE, *_HOOKS_IN_EACH_PASS()),
    ),
    MethodInfo(
        name="spsa",
        cases=(("normal", {}), ("rademacher", {"noise": "rademacher"})),
        exact=False,
        stochastic=True,
        probes=True,
        learns=False,
        taught_once={},
        redrawn=True,
        by_difference=True,
        steps_to_learn=600,
        error_inputs=(
            *_ANY_METHOD,
            ErrorInput({"noise": "sphere"}, ConfigError, "unknown noise 'sphere'"),
            ErrorInput({"difference_step": 0.0}, ConfigError, r"difference_step=0\.0"),
        ),
        excused=(*_IN_WEIGHT_SPACE, *_HOOKS_IN_EACH_PASS()),
    ),
    MethodInfo(
        name="pseudo-zeroth-order",
        cases=(
            ("window-3", {"window": 3, "decay": 0.8}),
            ("rademacher", {"noise": "rademacher"}),
            ("by-step", {"decay": decay_by_step}),
        ),
        exact=False,
        stochastic=True,
        probes=True,
        learns=True,
        taught_once={"window": 1},
        draws=True,
        redrawn=True,
        by_difference=True,
        steps_to_learn=600,
        error_inputs=(
            *_ANY_METHOD,
            ErrorInput({"window": 0}, ConfigError, "window=0"),
            ErrorInput({"window": 2.0}, ConfigError, r"window=2\.0"),
            ErrorInput({"decay": 1.5}, ConfigError, r"decay is 1\.5.*\[0, 1\]"),
            ErrorInput({"decay": "half"}, ConfigError, "decay is 'half'"),
            ErrorInput({"noise": "sphere"}, ConfigError, "unknown noise 'sphere'"),
            ErrorInput({"difference_step": 0.0}, ConfigError, r"difference_step=0\.0"),
        ),
        varying=("window-3", "rademacher", "by-step"),
        excused=(*_IN_WEIGHT_SPACE, *_HOOKS_IN_EACH_PASS()),
    ),
    MethodInfo(
        name="l-bp",
        cases=(("default", {}),),
        exact=False,
        stochastic=False,
        probes=False,
        learns=False,
        taught_once={},
        error_inputs=_ANY_METHOD,
        by_error=False,
        heads=True,
        excused=_HEADS,
    ),
    MethodInfo(
        name="lg-fg-a",
        cases=(
            ("normal", {}),
            ("rademacher", {"noise": "rademacher"}),
            ("masked", {"mask_inactive": True}),
        ),
        exact=False,
        stochastic=True,
        probes=True,
        learns=False,
        taught_once={},
        error_inputs=(
            *_ANY_METHOD,
            ErrorInput({"noise": "gauss"}, ConfigError, "unknown noise 'gauss'.*normal, radem"),
            ErrorInput({"taps": ["1", "rleu"]}, ConfigError, "unknown tap 'rleu'"),
        ),
        varying=("normal", "rademacher", "masked"),
        by_error=False,
        heads=True,
        excused=_HEADS,
    ),
)

CASES = tuple(Case(info, id, options) for info in METHODS for id, options in info.cases)

# In the fast suite: every case of the methods that stand at the heart, and the first case of one
# method for each other part of the engine. All the others are marked slow.
_HEART = ("backpropagation", "dfa", "fdfa")
_ONE_A_PART = ("fg-a", "fa", "fg-w")
FAST_CASES = tuple(
    case
    for case in CASES
    if case.info.name in _HEART
    or (case.info.name in _ONE_A_PART and case.id == case.info.cases[0][0])
)


def marked(case: Case, *marks: pytest.MarkDecorator) -> ParameterSet:
    """A case as a parameter of a test: slow unless it belongs to the fast suite."""
    slow = () if case in FAST_CASES else (pytest.mark.slow,)
    return pytest.param(case, marks=(*marks, *slow))


PARAMETERS = tuple(marked(case) for case in CASES)

# As many of the names, for what does not depend on a method's options.
NAMES = tuple(
    pytest.param(info.name, marks=() if info.name in (*_HEART, *_ONE_A_PART) else pytest.mark.slow)
    for info in METHODS
)

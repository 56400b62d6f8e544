"""Rules that perturb: the taps, or the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fdfa.errors import ConfigError
from tests.records.info import (
    ANY_METHOD,
    FIXED_P,
    PROJECTED,
    TAPPED,
    ErrorInput,
    Excuses,
    MethodInfo,
)


def guess_along_the_weights(model: nn.Module) -> dict[str, Tensor]:
    """A direction of one's own that changes as the weights do; named, so that it can be pickled."""
    return {name: torch.cos(1e3 * p + 1) for name, p in model.named_parameters()}


def decay_by_step(step: int) -> float:
    """A decay that falls; named, so that it can be pickled."""
    return 1 / (1 + step)


_WEIGHT_PROBES = (
    *ANY_METHOD,
    ErrorInput({"probe": "forward"}, ConfigError, "Did you mean 'forward-ad'"),
    ErrorInput({"difference_step": 0.0}, ConfigError, r"difference_step=0\.0"),
)
_IN_WEIGHT_SPACE: Excuses = (
    ("test_last_layer_is_exact", (), "every weight is perturbed, the last layer's too"),
    (
        "test_hook_on_a_hidden_activation",
        (),
        "no credit passes a hidden activation: there is no graph",
    ),
)


def _HOOKS_IN_EACH_PASS(*cases: str) -> Excuses:  # noqa: N802
    return (
        (
            "test_user_hooks_fire_as_on_the_plain_model",
            cases,
            "a step takes several forward passes, and the user's hooks belong to each",
        ),
    )


_A_GUESS: Excuses = tuple(
    (test, ("guess",), "a guess is the user's: there is nothing random in it")
    for test in ("test_another_seed_another_run_if_stochastic", "test_default_seed_is_torchs")
)

RECORDS = (
    MethodInfo(
        name="fdfa",
        cases=(
            ("momentum", {"feedback_rate": 0.3}),
            ("innovation", {"feedback_rate": 0.2, "feedback_update": "innovation"}),
            ("adam", {"feedback_rate": 0.1, "feedback_update": "adam"}),
            ("rademacher", {"feedback_rate": 0.3, "noise": "rademacher"}),
            ("every-4", {"feedback_rate": 0.3, "probe_every": 4}),
            ("finite-difference", {"feedback_rate": 0.3, "probe": "finite-difference"}),
            ("depth-2", {"feedback_rate": 0.3, "depth": 2}),
            ("relayed", {"feedback_rate": 0.3, "relay": 1}),
            ("active", {"feedback_rate": 0.3, "average_over": "active"}),
            ("adaptive", {"feedback_rate": "adaptive", "bias_correction": True}),
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
            *TAPPED,
            *PROJECTED,
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
            ErrorInput({"average_over": "actives"}, ConfigError, "Did you mean 'active'"),
            ErrorInput({"feedback_rate": "adaptiv"}, ConfigError, "feedback_rate='adaptiv'"),
            ErrorInput(
                {"feedback_rate": "adaptive", "feedback_update": "adam"},
                ConfigError,
                "another kind",
            ),
            ErrorInput(
                {"bias_correction": True, "credit": "unbiased"}, ConfigError, "bias_correction=True"
            ),
            ErrorInput({"relay": -1}, ConfigError, "relay=-1"),
            ErrorInput({"relay": 1, "credit": "unbiased"}, ConfigError, "relay=1 and credit="),
        ),
        excused=(
            (
                "test_hook_on_a_hidden_activation",
                ("relayed",),
                "a credit that is relayed through a block passes its hooks, too",
            ),
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
        error_inputs=TAPPED,
        varying=("running", "innovation", "finite-difference", "every-4", "projected"),
        error_teaches=("running", "innovation", "finite-difference", "every-4", "projected"),
        excused=FIXED_P("projected"),
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
            *TAPPED,
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
            *TAPPED,
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
            *ANY_METHOD,
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
            *ANY_METHOD,
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
)

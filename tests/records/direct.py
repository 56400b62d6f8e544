"""Rules whose credit comes straight from the output, or from the targets."""

from __future__ import annotations

import torch
from torch import Tensor

from fdfa.errors import ConfigError
from tests.records.info import (
    ANY_METHOD,
    FIXED_P,
    PROJECTED,
    TAPPED,
    ErrorInput,
    Excuses,
    MethodInfo,
    adam_on_maps,
)


def squared_secant(a: Tensor) -> Tensor:
    """The derivative of tanh, as a named function of the user's."""
    return 1 / a.cosh().square()


_NOISY_OUTPUT: Excuses = tuple(
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

RECORDS = (
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
            *TAPPED,
            *PROJECTED,
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
            *TAPPED,
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
            *TAPPED,
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
            *TAPPED,
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
            *ANY_METHOD,
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
            *TAPPED,
            *PROJECTED,
            ErrorInput({"feedback_rate": 0.0}, ConfigError, r"feedback_rate=0\.0.*positive"),
            ErrorInput({"decay": -1.0}, ConfigError, r"decay=-1\.0"),
            ErrorInput({"feedback_update": "adams"}, ConfigError, "Did you mean 'adam'"),
            ErrorInput({"start": "kaiming"}, ConfigError, "unknown start 'kaiming'.*'kaiming-uni"),
        ),
        error_teaches=("adam", "sgd", "own-optimizer", "uniform"),
        seedless=("adam", "sgd", "own-optimizer"),
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
            *TAPPED,
            *PROJECTED,
            ErrorInput({"rank": None}, ConfigError, "learn_p=True: without rank="),
        ),
        error_teaches=("q-and-p", "adam", "q-alone"),
        excused=FIXED_P("q-alone"),
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
            *TAPPED,
            *PROJECTED,
            ErrorInput({"feedback_rate": 0.0}, ConfigError, r"feedback_rate=0\.0.*positive"),
            ErrorInput({"exact_every": 0}, ConfigError, "exact_every=0"),
            ErrorInput({"exact_every": 2.0}, ConfigError, r"exact_every=2\.0"),
            ErrorInput({"start": "kaiming"}, ConfigError, "unknown start 'kaiming'.*'kaiming-uni"),
            ErrorInput({"noise": "gauss"}, ConfigError, "unknown noise 'gauss'.*normal, radem"),
            ErrorInput({"probe_every": 0}, ConfigError, "probe_every=0"),
        ),
        excused=FIXED_P("projected"),
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
            *TAPPED,
            *PROJECTED,
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
)

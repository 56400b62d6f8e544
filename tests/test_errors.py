"""The exceptions: their family, their texts, and that they survive a trip between processes."""

from __future__ import annotations

import copy
import pickle

import pytest

from fdfa import errors

FAMILY = {
    errors.UnsupportedModelError: ValueError,
    errors.ProbeError: RuntimeError,
    errors.CheckpointError: RuntimeError,
    errors.ConfigError: ValueError,
    errors.DataError: ValueError,
    errors.DistributedError: RuntimeError,
    errors.NonFiniteLossError: ArithmeticError,
}


@pytest.mark.parametrize("kind", FAMILY, ids=lambda kind: kind.__name__)
def test_each_is_of_the_family_and_of_the_builtin_type(kind: type[errors.FDFAError]) -> None:
    assert issubclass(kind, errors.FDFAError)
    assert issubclass(kind, FAMILY[kind])


@pytest.mark.parametrize("kind", [errors.FDFAError, *FAMILY], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("copied", [lambda e: pickle.loads(pickle.dumps(e)), copy.deepcopy])
def test_each_survives_pickling(kind: type[errors.FDFAError], copied) -> None:
    twin = copied(kind("what, why, what to do"))
    assert type(twin) is kind
    assert str(twin) == "what, why, what to do"


def test_problems_survive_pickling() -> None:
    twin = pickle.loads(pickle.dumps(errors.UnsupportedModelError(["first", "second"])))
    assert twin.problems == ("first", "second")
    assert str(twin) == "2 problems found:\n  1. first\n  2. second"


def test_problems_may_come_from_a_generator() -> None:
    assert errors.UnsupportedModelError(p for p in ("a", "b")).problems == ("a", "b")


def test_a_single_text_is_one_problem_not_its_letters() -> None:
    error = errors.UnsupportedModelError("no weight layer")
    assert error.problems == ("no weight layer",)
    assert str(error) == "no weight layer"


def test_no_problem_is_no_error() -> None:
    with pytest.raises(ValueError, match="at least one problem"):
        errors.UnsupportedModelError([])


@pytest.mark.parametrize(
    ("kind", "given", "valid", "text"),
    [
        (
            "tap",
            "layr1",
            ["layer1", "layer2"],
            "unknown tap 'layr1'. Did you mean 'layer1'? Valid taps: layer1, layer2.",
        ),
        (
            "method",
            "FDFA",
            ["dfa", "fdfa"],
            "unknown method 'FDFA'. Did you mean 'fdfa'? Valid methods: dfa, fdfa.",
        ),
        ("method", "xyz", ["dfa"], "unknown method 'xyz'. Valid methods: dfa."),
        ("tap", "a", [], "unknown tap 'a'. There are no taps to choose from."),
        ("key", "a", [], "unknown key 'a'. There are no keys to choose from."),
        ("policy", "a", [], "unknown policy 'a'. There are no policies to choose from."),
        ("box", "a", [], "unknown box 'a'. There are no boxes to choose from."),
    ],
)
def test_unknown_name(kind: str, given: str, valid: list[str], text: str) -> None:
    assert errors.unknown_name(kind, given, valid) == text

"""Options from text: types, misspellings, and texts that say what would have been right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
from torch import nn

import fdfa
from fdfa.errors import ConfigError
from fdfa.methods import methods
from fdfa.studies.options import (
    assignments,
    method_options,
    options_by_method,
    rate_shares,
    resolved_options,
    typed_options,
)
from fdfa.studies.setup import CompareConfig, TrainConfig


def everything(
    whole: int = 1,
    number: float = 1.0,
    text: str = "",
    switch: bool = False,
    choice: Literal["left", "right"] = "left",
    maybe: int | None = None,
    names: str | Sequence[str] | Callable[[], bool] = "auto",
    callback: Callable[[], bool] | None = None,
    anything: Any = None,
    untyped=None,
) -> None: ...


NAMES = [
    "whole",
    "number",
    "text",
    "switch",
    "choice",
    "maybe",
    "names",
    "callback",
    "anything",
    "untyped",
]


def read(name: str, text: str) -> Any:
    return typed_options({name: text}, everything, valid=NAMES, owner="test")[name]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("whole", "3", 3),
        ("number", "3", 3.0),
        ("number", "1e-3", 0.001),
        ("text", "3", "3"),
        ("switch", "True", True),
        ("switch", "no", False),
        ("choice", "right", "right"),
        ("maybe", "none", None),
        ("maybe", "4", 4),
        ("names", "auto", "auto"),
        ("names", "a,b", ("a", "b")),
        ("names", "[]", ()),
        ("callback", "none", None),
        ("anything", "[1, 2]", [1, 2]),
        ("anything", "plain text", "plain text"),
        ("untyped", "2.5", 2.5),
    ],
)
def test_a_text_becomes_what_the_signature_asks_for(name: str, text: str, value: Any) -> None:
    found = read(name, text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("whole", "2.5", "takes a whole number, not '2.5'"),
        ("number", "fast", "takes a number, not 'fast'"),
        ("switch", "2", "takes true or false, not '2'"),
        ("choice", "up", "takes left or right, not 'up'"),
        ("maybe", "x", "takes none or a whole number, not 'x'"),
        ("callback", "f", "takes none, not 'f'"),
    ],
)
def test_a_text_of_another_type_is_refused(name: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"test: option '{name}' {words}"):
        read(name, text)


def test_a_class_is_asked_for_its_constructor() -> None:
    class Network:
        width: str = "an attribute of another type than the argument"

        def __init__(self, width: int) -> None: ...

    assert typed_options({"width": "3"}, Network, valid=["width"], owner="test") == {"width": 3}


def test_every_option_of_every_method_reads_its_own_default() -> None:
    """Fails for an option whose type the reader does not know."""
    for method in methods().values():
        texts = {
            name: str(value).lower() if value is None or isinstance(value, bool) else str(value)
            for name, value in method.options().items()
        }
        assert method_options(method.name, texts) == method.options()


def test_assignments() -> None:
    assert assignments(["feedback-rate=0.1", "taps = a=b"]) == {
        "feedback_rate": "0.1",
        "taps": "a=b",
    }


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["rate"], "'rate' is not of the form NAME=VALUE"),
        (["=3"], "'=3' is not of the form NAME=VALUE"),
        (["a-b=1", "a_b=2"], "'a_b' is given twice"),
    ],
)
def test_assignments_that_say_nothing(texts: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        assignments(texts)


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"method 'fdfa'.*Did you mean 'feedback_rate'"):
        method_options("fdfa", {"feedback_rte": "1"})
    with pytest.raises(ConfigError, match="Did you mean 'fdfa'"):
        method_options("fdf", {})
    with pytest.raises(ConfigError, match="Did you mean 'probe_every'"):
        resolved_options("fdfa", {"probe_evry": 2})


def test_options_of_several_methods() -> None:
    chosen = ["backpropagation", "dfa", "fdfa"]
    texts = {"fdfa.probe_every": "4", "fdfa.noise": "rademacher", "dfa.depth": "2"}
    assert options_by_method(chosen, texts) == {
        "fdfa": {"probe_every": 4, "noise": "rademacher"},
        "dfa": {"depth": 2},
    }
    with pytest.raises(ConfigError, match=r"does not say which method.*METHOD\.depth=2"):
        options_by_method(chosen, {"depth": "2"})
    with pytest.raises(ConfigError, match=r"unknown method 'dfaa'\. Did you mean 'dfa'"):
        options_by_method(chosen, {"dfaa.depth": "2"})


def test_a_method_with_a_hyphen_takes_options_of_its_own() -> None:
    """On a command line hyphens and underscores are the same."""
    for name in ("fdfa-cv.probe-every", "fdfa_cv.probe_every"):
        given = assignments([f"{name}=4"])
        assert options_by_method(["fdfa-cv"], given) == {"fdfa-cv": {"probe_every": 4}}


def test_resolved_options_keep_what_was_chosen() -> None:
    found = resolved_options("fdfa", {"probe_every": 4})
    assert found == {**methods()["fdfa"].options(), "probe_every": 4}


def test_two_names_of_one_method_are_not_given_together() -> None:
    twice = r"'{}' is given twice, as '{}' and as '{}'\. Give it once"
    given = {"kp.decay": "0.1", "kolen-pollack.decay": "0.2"}
    with pytest.raises(
        ConfigError, match="options: " + twice.format(r"kolen-pollack\.decay", *given)
    ):
        options_by_method(["kolen-pollack"], given)
    assert options_by_method(["kp"], {"kp.decay": "0.1", "kolen-pollack.seed": "2"}) == {
        "kolen-pollack": {"decay": 0.1, "seed": 2}
    }
    shares = {"mezo": "0.1", "spsa": "0.2"}
    with pytest.raises(ConfigError, match="rate_shares: " + twice.format("spsa", *shares)):
        rate_shares(shares)
    with pytest.raises(ConfigError, match="rate_shares: " + twice.format("spsa", *shares)):
        CompareConfig(rate_shares={"mezo": 0.1, "spsa": 0.2})
    options = {"raf": {"rank": 3}, "ldfa": {"rank": 5}}
    with pytest.raises(ConfigError, match="options: " + twice.format("ldfa", *options)):
        CompareConfig(methods=("raf",), options=options)


@pytest.mark.parametrize("name", [None, 3, ["dfa"], nn.ReLU()])
def test_a_method_is_named_by_a_string(name: Any) -> None:
    words = rf"is a string, and an object of type {type(name).__name__} was given"
    for run in (
        lambda: fdfa.wrap(name, nn.Linear(2, 2)),
        lambda: TrainConfig(method=name),
        lambda: CompareConfig(methods=(name,)),
    ):
        with pytest.raises(ConfigError, match=words):
            run()

"""The test records and the library's registry agree, and constructors refuse what they must."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

import fdfa
from fdfa.errors import ConfigError
from fdfa.methods import canonical, described
from tests.contract.networks import batch, dense
from tests.contract.steps import assert_same_bits, backward, gradients
from tests.methods import METHODS, Case, ErrorInput, MethodInfo


def test_records_and_registry_name_the_same_methods() -> None:
    assert [info.name for info in METHODS] == list(fdfa.methods())


def test_record_and_registry_agree_on_probing(info: MethodInfo) -> None:
    assert info.probes == fdfa.methods()[info.name].probes


def test_class_knows_its_registered_name(info: MethodInfo) -> None:
    """A preset is a name of its own for settings of another one's class."""
    method = fdfa.methods()[info.name]
    same = [other.name for other in fdfa.methods().values() if other.estimator is method.estimator]
    assert method.estimator.method == same[0]
    assert [name for name in same if not fdfa.methods()[name].preset] == same[:1]


def test_preset_overrides_only_options_that_exist(info: MethodInfo) -> None:
    method = fdfa.methods()[info.name]
    assert method.options().keys() == dataclasses.replace(method, preset={}).options().keys()
    assert method.preset.items() <= method.options().items()


def test_case_overrides_only_options_that_exist(case: Case) -> None:
    assert case.options.keys() <= fdfa.methods()[case.info.name].options().keys()


def test_wrap_builds_what_the_class_builds(case: Case) -> None:
    """A ``wrap`` that dropped or renamed an option would train another rule."""
    by_name = case.wrap(dense())
    method = fdfa.methods()[case.info.name]
    by_class = method.estimator(
        case.prepared(dense())[0], seed=7, **{**method.preset, **case.options}
    )
    assert type(by_name) is type(by_class)
    for learner in (by_name, by_class):
        backward(learner, batch(0))
        backward(learner, batch(1))
    assert_same_bits(gradients(by_name), gradients(by_class))


def _id(value: object) -> str | None:
    if not isinstance(value, ErrorInput):
        return None
    # without addresses: two workers must give one test one name
    return re.sub(r" at 0x[0-9a-f]+", "", str(dict(value.options)))


@pytest.mark.parametrize(
    ("method", "wrong"),
    [(info.name, wrong) for info in METHODS for wrong in info.error_inputs],
    ids=_id,
)
def test_constructor_refuses(method: str, wrong: ErrorInput) -> None:
    """When the learner is made, not when it is first called."""
    with pytest.raises(wrong.error, match=re.compile(wrong.text, re.DOTALL)):
        fdfa.wrap(method, dense(), **wrong.options)


@pytest.mark.parametrize("name", ["FDFAA", "fdf", "backdrop", ""])
def test_unknown_method_lists_the_valid_ones(name: str) -> None:
    with pytest.raises(
        ConfigError, match=f"Valid methods: {', '.join(info.name for info in METHODS)}"
    ):
        fdfa.wrap(name, dense())


@pytest.mark.parametrize("model", [type(dense()), lambda x: x, None, "mlp"])
def test_constructor_refuses_what_is_no_module(info: MethodInfo, model: Any) -> None:
    with pytest.raises(TypeError, match=r"pass an instance|not a torch\.nn\.Module"):
        fdfa.wrap(info.name, model)


PAPERS = {
    "BP": "backpropagation",
    "FG-A": "fg-a",
    "KP": "kolen-pollack",
    "MeZO": "spsa",
    "PseuZO": "pseudo-zeroth-order",
    "RAF": "ldfa",
    "aDFA": "adfa",
    "dRAF": "ldfa-direct",
    "forward_gradient": "fg-w",
    "frog": "multi-tangent",
    "uSF": "usf",
}


def test_no_two_methods_share_a_name() -> None:
    names = [n for method in fdfa.methods().values() for n in (method.name, *method.aliases)]
    assert len(set(names)) == len(names)
    assert names == [name.lower() for name in names]


@pytest.mark.parametrize(
    ("paper", "name"),
    PAPERS.items(),
)
def test_a_papers_own_name_finds_its_method(paper: str, name: str) -> None:
    assert canonical(paper) == described(paper).name == name
    assert type(fdfa.wrap(paper, dense(), seed=1)) is fdfa.methods()[name].estimator


def test_a_misspelt_other_name_is_answered_with_it() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'mezo'"):
        described("mezoo")

"""A state dict that is not this learner's raises CheckpointError, and nothing is loaded."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fdfa.engine.estimator import Estimator
from fdfa.errors import CheckpointError, UnsupportedModelError
from fdfa.methods import methods
from tests.contract.networks import batch, busy, dense
from tests.contract.steps import assert_same_bits, backward, own_state, snapshot, train
from tests.methods import CASES, FAST_CASES, METHODS, Case, MethodInfo


def _trained(case: Case, model: nn.Module | None = None, first: int = 0) -> Estimator:
    learner = case.wrap(model or busy())
    train(learner, [batch(first), batch(first + 1)])
    return learner


def _assert_refused(learner: Estimator, state: Any, text: str, **options: Any) -> None:
    """Raises, changes no tensor, and leaves a learner that can take its next step."""
    before = snapshot(learner)
    with pytest.raises(CheckpointError, match=text):
        learner.load_state_dict(state, **options)
    assert_same_bits(snapshot(learner), before)
    torch.default_generator.manual_seed(1)
    backward(learner, batch(9))


_FAST = {case.info.name for case in FAST_CASES}


@pytest.mark.parametrize(
    ("reader", "writer"),
    [
        pytest.param(*pair, marks=() if {info.name for info in pair} <= _FAST else pytest.mark.slow)
        for pair in itertools.permutations(METHODS, 2)
        if len({methods()[info.name].estimator for info in pair}) == 2  # no presets of one class
    ],
    ids=lambda info: info.name,
)
@pytest.mark.parametrize("ran", [False, True], ids=["new", "trained"])
def test_state_of_another_method(reader: MethodInfo, writer: MethodInfo, ran: bool) -> None:
    case, other = (next(c for c in CASES if c.info is info) for info in (reader, writer))
    learner = _trained(case, first=5) if ran else case.wrap(busy())
    names = [methods()[info.name].estimator.method for info in (writer, reader)]
    text = f"saved by method '{names[0]}', and this is '{names[1]}'"
    _assert_refused(learner, _trained(other).state_dict(), text)


class _Wider:
    """Models whose state almost fits."""

    @staticmethod
    def width() -> nn.Module:
        model = busy()
        model[4], model[5], model[8] = (
            nn.Linear(8, 9),
            nn.BatchNorm1d(9, momentum=None),
            nn.Linear(9, 3),
        )
        return model.double()

    @staticmethod
    def layer() -> nn.Module:
        return busy().append(nn.Linear(3, 3)).double()

    @staticmethod
    def fewer() -> nn.Module:
        return nn.Sequential(*list(busy())[:5])


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (_Wider.width, r"'model\.4\.weight' is \(9, 8\) in the state and \(7, 8\) here"),
        (_Wider.layer, r"'model\.9\.weight' is unknown here"),
        (_Wider.fewer, r"'model\.8\.weight' is missing"),
    ],
    ids=["width", "layer", "fewer"],
)
@pytest.mark.parametrize("ran", [False, True], ids=["new", "trained"])
def test_state_of_another_model(
    first_case: Case, build: Callable[[], nn.Module], text: str, ran: bool
) -> None:
    learner = _trained(first_case, first=5) if ran else first_case.wrap(busy())
    _assert_refused(learner, _trained(first_case, build()).state_dict(), text)


def _bytes(text: str) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


DAMAGED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "empty": lambda values: torch.empty(0, dtype=torch.uint8),
    "truncated": lambda values: _bytes(json.dumps(values)[:-4]),
    "a flipped bit": lambda values: _bytes(json.dumps(values).replace('"', "\xa2", 1)),
    "no JSON": lambda values: _bytes("method=dfa"),
    "a list": lambda values: _bytes("[1, 2]"),
    "floats": lambda values: torch.rand(8),
    "negative": lambda values: torch.full((4,), -1),
    "a scalar": lambda values: torch.tensor(5),
    "no tensor": lambda values: "damaged",
    "none": lambda values: None,
    "no steps": lambda values: _bytes(json.dumps({**values, "steps": None})),
    "steps below 0": lambda values: _bytes(json.dumps({**values, "steps": -1})),
    "a seed of words": lambda values: _bytes(json.dumps({**values, "seed": "seven"})),
    "an infinite seed": lambda values: _bytes(json.dumps({**values, "seed": float("inf")})),
    "nested deep": lambda values: _bytes("[" * 100_000),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("strict", [True, False], ids=["strict", "lax"])
def test_damaged_extra_state(first_case: Case, damage: str, strict: bool) -> None:
    state = snapshot(_trained(first_case))
    values = json.loads(bytes(state["_extra_state"].tolist()))
    state["_extra_state"] = DAMAGED[damage](values)
    _assert_refused(_trained(first_case, first=5), state, "_extra_state", strict=strict)


@pytest.mark.parametrize("ran", [False, True], ids=["new", "trained"])
def test_any_entry_missing(case: Case, ran: bool) -> None:
    """Also one of the method's own: a map that silently starts anew is another run."""
    whole = snapshot(_trained(case))
    own = own_state(_trained(case))
    for key in ("_extra_state", "model.0.weight", "model.1.num_batches_tracked", *own):
        learner = _trained(case, first=5) if ran else case.wrap(busy())
        state = {name: value for name, value in whole.items() if name != key}
        _assert_refused(learner, state, "nothing was loaded")


@pytest.mark.parametrize(
    "key", ["bogus", "bogus.weight", "model.bogus", "feedback.weight", "feedback.2.bogus"]
)
def test_an_unknown_entry(first_case: Case, key: str) -> None:
    state = {**snapshot(_trained(first_case)), key: torch.zeros(2, 2)}
    _assert_refused(_trained(first_case, first=5), state, "nothing was loaded")


@pytest.mark.parametrize("ran", [False, True], ids=["new", "trained"])
def test_an_entry_of_the_methods_own_of_the_wrong_shape(case: Case, ran: bool) -> None:
    """A learner that never ran does not know its maps' sizes, but a map is a matrix."""
    whole = snapshot(_trained(case))
    for key, value in own_state(_trained(case)).items():
        learner = _trained(case, first=5) if ran else case.wrap(busy())
        state = {**whole, key: torch.zeros(2, *value.shape, dtype=value.dtype)}
        _assert_refused(learner, state, "nothing was loaded")


def test_a_plain_models_state(case: Case) -> None:
    """The text says where weights alone go."""
    learner = _trained(case)
    _assert_refused(learner, busy().state_dict(), r"learner\.model\.load_state_dict")


def test_a_size_that_does_not_fit_is_noticed_at_the_first_step(case: Case) -> None:
    """What cannot be known at loading is an error at the first step, not a wrong gradient."""
    learner = _trained(case, dense())
    state = snapshot(learner)
    matrices = [key for key, value in own_state(learner).items() if value.dim() == 2]
    for key in matrices:
        state[key] = state[key][:, :-1].contiguous()
    fresh = case.wrap(dense())
    refused = pytest.raises(
        (CheckpointError, UnsupportedModelError), match=r"feedback map|in the state"
    )
    with refused if matrices else contextlib.nullcontext():
        fresh.load_state_dict(state)
        for number in range(2):  # one of them may cut nowhere
            fresh(batch(number)[0])

"""Looking for the taps is one more forward pass: model, random numbers and memory show nothing."""

from __future__ import annotations

import contextlib
import gc
import random
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fdfa
from fdfa.engine.taps import plan_taps
from tests.engine.dense_cases import DENSE
from tests.engine.image_cases import IMAGES
from tests.engine.sequence_cases import SEQUENCES
from tests.engine.tap_case import TapCase, noise

CASES = {case.name: case for case in [*DENSE, *IMAGES, *SEQUENCES]}
WITH_STATE = [
    CASES["batch norm before the activation, then dropout"],
    CASES["alexnet"],
    CASES["resnet"],
    CASES["spectral_norm"],
    CASES["spectral_norm of old"],
    CASES["transformer encoder, norm last"],
]


def discover(case: TapCase, model: nn.Module) -> None:
    args, kwargs = case.inputs()
    torch.default_generator.manual_seed(23)
    plan_taps(model, args, kwargs, **case.options)


@pytest.mark.parametrize("case", WITH_STATE, ids=lambda case: case.name)
def test_buffers_are_untouched(case: TapCase) -> None:
    """Batch statistics and power iterations step once a learning pass, not twice on the first.

    The same tensors too: an optimiser or an average of weights may hold them.
    """
    model = case.model()
    model(*case.inputs()[0])  # so that no buffer is as it was born
    held = dict(model.named_buffers())
    values = {name: buffer.clone() for name, buffer in held.items()}
    versions = {name: buffer._version for name, buffer in held.items()}
    discover(case, model)
    now = dict(model.named_buffers())
    assert list(now) == list(held)
    for name, buffer in held.items():
        assert now[name] is buffer
        assert buffer._version == versions[name]
        assert torch.equal(buffer, values[name])


class Random(nn.Module):
    """Draws from torch's generator and from Python's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.head = nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(self.first(x)) * (1 + random.random())
        return self.head(h + torch.randn_like(h))


def test_random_numbers_are_untouched() -> None:
    """The learning pass meets the generators as the plain model would: runs can be compared."""
    torch.default_generator.manual_seed(5)
    random.seed(5)
    model, x = Random(), noise(6, 4)
    before = torch.get_rng_state(), random.getstate()
    plan_taps(model, (x,), {})
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    learned = fdfa.DFA(model)(x)
    torch.set_rng_state(before[0])
    random.setstate(before[1])
    assert torch.equal(learned, model(x))


@pytest.mark.parametrize("fails", [False, True], ids=["", "when the pass fails"])
def test_modules_are_untouched(fails: bool) -> None:
    """No hook, no replaced method, no changed flag, no gradient is left behind."""

    class Failing(nn.Module):
        def forward(self, h: Tensor) -> Tensor:
            if fails:
                raise KeyError("oh")
            return h

    model = nn.Sequential(
        nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), Failing(), nn.Linear(5, 3)
    ).double()
    model[1].eval()
    own = model[4].forward  # a method that the user replaced in the instance stays replaced
    model[4].forward = lambda h: own(h) * 2
    seen = [dict(vars(module)) for module in model.modules()]
    kept = [{name: _frozen(value) for name, value in attributes.items()} for attributes in seen]
    # the user's own error comes as it is: not wrapped, not reworded
    with pytest.raises(KeyError, match="oh") if fails else contextlib.nullcontext():
        plan_taps(model, (noise(6, 4),), {})
    for module, attributes, before in zip(model.modules(), seen, kept, strict=True):
        now = dict(vars(module))
        assert now.keys() == attributes.keys()
        for name, value in now.items():
            assert value is attributes[name]
            assert _frozen(value) == before[name]
    assert all(p.grad is None for p in model.parameters())
    assert torch.is_grad_enabled()
    assert torch._C._autograd._top_saved_tensors_default_hooks(False) is None


def _frozen(value: Any) -> Any:
    """What can change inside an attribute: the entries of its dictionaries."""
    return [(key, id(entry)) for key, entry in value.items()] if isinstance(value, dict) else value


def test_hooks_of_the_user_still_run() -> None:
    """Discovery is a pass like any other: what the user's hooks change is what is cut."""
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    widths = []
    model[1].register_forward_pre_hook(lambda m, args: widths.append(args[0].shape[1]))
    model[1].register_forward_hook(lambda m, args, y: y * 2)
    plan_taps(model, (noise(6, 4),), {})
    assert widths == [5]


class Watched(nn.Module):
    """Tells, at every layer, how many earlier activations are alive."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(depth)])
        self.head = nn.Linear(4, 3)
        self.alive: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        made: list[weakref.ref[Tensor]] = []
        for layer in self.layers:
            # tanh and square save what they read or made for backward
            x = torch.tanh(layer(x)).square()
            made.append(weakref.ref(x.untyped_storage()))
            self.alive.append(sum(ref() is not None for ref in made))
        return self.head(x)


def test_activations_are_dropped_as_the_pass_goes() -> None:
    """The first pass of a large model needs the memory of inference, not of training."""
    model = Watched(depth=12)
    plan_taps(model, (torch.randn(6, 4),), {})
    assert max(model.alive) <= 2


def test_the_watch_sees_activations_that_autograd_keeps() -> None:
    """The check above, on a plain training pass: it must fail there."""
    model = Watched(depth=12)
    output = model(torch.randn(6, 4))
    assert max(model.alive) == 12
    assert output.requires_grad


def test_nothing_of_the_pass_lives_on() -> None:
    """The graph is let go with the recording, without waiting for the collector of cycles."""
    made: list[weakref.ref[Tensor]] = []
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    model[1].register_forward_hook(lambda m, args, y: made.append(weakref.ref(y)))
    gc.collect()
    gc.disable()
    try:
        plan = plan_taps(model, (noise(6, 4),), {})
        assert [ref() for ref in made] == [None]
        assert not [o for o in gc.get_objects() if type(o).__name__ == "AutogradGraph"]
    finally:
        gc.enable()
    assert len(plan.taps) == 1


def test_a_model_in_no_grad_mode_is_planned_all_the_same() -> None:
    """``learner.plan(x)`` under no_grad, as an explanation before training would call it."""
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        plan = fdfa.DFA(model).plan(noise(6, 4))
    assert [tap.name for tap in plan.taps] == ["1"]

"""The output may be one entry of a tuple, a dict, a dataclass or a named tuple, by ``output=``."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from torch import Tensor, nn

from fdfa.errors import FDFAError, UnsupportedModelError
from tests.contract.networks import batch, dense
from tests.contract.steps import (
    assert_same_bits,
    backward,
    cross_entropy,
    gradients,
    mean_square,
    own_state,
)
from tests.methods import Case


class Named(NamedTuple):
    hidden: Tensor
    logits: Tensor
    names: list[str]


@dataclasses.dataclass
class Record:
    hidden: Tensor
    logits: Tensor
    names: list[str]


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    hidden: Tensor
    logits: Tensor
    names: list[str]


class Mapping(collections.OrderedDict[str, Any]):
    """A subclass of dict, as many libraries return."""


Pack = Callable[[Tensor, Tensor, list[str]], Any]
Read = Callable[[Any], Tensor]

CONTAINERS: dict[str, tuple[Pack, str | int, type]] = {
    "tuple": (lambda *entries: entries, 1, tuple),
    "tuple from behind": (lambda *entries: entries, -2, tuple),
    "list": (lambda *entries: list(entries), 1, list),
    "dict": (
        lambda *entries: dict(zip(Record.__annotations__, entries, strict=True)),
        "logits",
        dict,
    ),
    "dict subclass": (
        lambda *entries: Mapping(zip(Record.__annotations__, entries, strict=True)),
        "logits",
        Mapping,
    ),
    "named tuple": (Named, "logits", Named),
    "named tuple by index": (Named, 1, Named),
    "dataclass": (Record, "logits", Record),
    "frozen dataclass with slots": (Slotted, "logits", Slotted),
}
each_container = pytest.mark.parametrize("kind", CONTAINERS)


class _Packed(nn.Module):
    """The dense network, its output among other things."""

    def __init__(self, pack: Pack) -> None:
        super().__init__()
        self.body = dense()
        self.pack = pack

    def forward(self, x: Tensor) -> Any:
        hidden = self.body[:4](x)
        return self.pack(hidden, self.body[4:](hidden), ["a", "b"])


def _read(returned: Any, name: str | int) -> Tensor:
    if isinstance(name, int) or isinstance(returned, dict):
        tensor: Tensor = returned[name]
    else:
        tensor = getattr(returned, name)
    return tensor


@each_container
def test_returns_the_same_container(first_case: Case, kind: str) -> None:
    """Its type, every value bit for bit, and what is no tensor as it was."""
    pack, name, container = CONTAINERS[kind]
    learner, plain = first_case.wrap(_Packed(pack), output=name), _Packed(pack)
    for number in range(2):
        x, target = batch(number)
        found, expected = learner(x), plain(x)
        assert type(found) is container
        for entry in (name, 0 if isinstance(name, int) else "hidden"):
            assert_same_bits(_read(found, entry), _read(expected, entry))
        assert _read(found, 2 if isinstance(name, int) else "names") == ["a", "b"]
        cross_entropy(_read(found, name), target).backward()


@each_container
def test_learns_as_from_a_bare_output(first_case: Case, kind: str) -> None:
    pack, name, _ = CONTAINERS[kind]
    learner, bare = (
        first_case.wrap(_Packed(pack), output=name),
        first_case.wrap(_Packed(lambda h, y, _: y)),
    )
    for number in range(2):
        x, target = batch(number)
        cross_entropy(_read(learner(x), name), target).backward()
        backward(bare, (x, target))
    assert_same_bits(gradients(learner), gradients(bare))
    assert_same_bits(own_state(learner), own_state(bare))


@each_container
def test_a_gradient_into_another_entry(first_case: Case, kind: str) -> None:
    """An auxiliary loss on a hidden entry is exact, or an error of ours.

    Never a silent part of a gradient. Where the error travels from layer to layer, it may enter at
    any: the last layers before it are exact.
    """
    pack, name, _ = CONTAINERS[kind]
    hidden = 0 if isinstance(name, int) else "hidden"
    learner, plain = first_case.wrap(_Packed(pack), output=name), _Packed(pack)
    x, target = batch(0)

    def loss(module: nn.Module) -> Tensor:
        returned = module(x)
        return cross_entropy(_read(returned, name), target) + _read(returned, hidden).square().sum()

    loss(plain).backward()
    if first_case.info.exact:
        loss(learner).backward()
        assert_same_bits(gradients(learner), gradients(plain))
    elif first_case.info.chained:
        plain.zero_grad()
        for module in (learner, plain):
            returned = module(x)
            _read(returned, hidden).square().sum().backward()
        for name_ in ("body.2.weight", "body.2.bias"):
            assert_same_bits(gradients(learner)[name_], gradients(plain)[name_])
        assert gradients(learner)["body.0.weight"].any()
        loss(learner).backward()
    else:
        with pytest.raises(FDFAError, match="beside its output"):
            loss(learner).backward()


def test_a_gradient_into_an_entry_deep_inside(case: Case) -> None:
    """As a Transformer returns its hidden states: a tuple of tensors within a dict."""
    learner = case.wrap(
        _Packed(lambda h, y, _: {"logits": y, "states": (h, [{"inner": h * 2}])}), output="logits"
    )
    x, target = batch(0)
    returned = learner(x)
    cross_entropy(returned["logits"], target).backward()  # untouched, it is in nobody's way
    returned = learner(x)
    inner = returned["states"][1][0]["inner"]
    if case.info.exact or case.info.chained:
        inner.sum().backward()
    else:
        with pytest.raises(FDFAError, match="beside its output"):
            inner.sum().backward()


def test_other_entries_may_be_read(case: Case) -> None:
    """Detached, in numbers, in metrics: no gradient, no error."""
    learner = case.wrap(_Packed(Record), output="logits")
    x, target = batch(0)
    returned = learner(x)
    assert returned.hidden.detach().norm() > 0
    assert returned.hidden.mean().item() == returned.hidden.mean().item()
    cross_entropy(returned.logits, target).backward()
    assert len(gradients(learner)) == 8


BAD: dict[str, tuple[Pack, str | int | None, str]] = {
    "container without a name": (Record, None, r"output=NAME.*hidden, logits, names"),
    "a misspelt key": (
        lambda h, y, _: {"hidden": h, "logits": y},
        "logit",
        "Did you mean 'logits'",
    ),
    "a misspelt attribute": (Record, "logit", "Did you mean 'logits'"),
    "an index too large": (lambda *entries: entries, 3, "unknown output '3'"),
    "an index into a dict": (lambda h, y, _: {"logits": y}, 0, "unknown output '0'"),
    "a name for a bare tensor": (lambda h, y, _: y, "logits", "returns a bare tensor"),
    "an entry that is no tensor": (Record, "names", "one output tensor was expected"),
    "class numbers": (lambda h, y, _: y.argmax(1), None, "dtype torch.int64"),
    "no component": (lambda h, y, _: y[:, 0], None, r"shape \(6,\)"),
    "a scalar": (lambda h, y, _: y.sum(), None, r"shape \(\)"),
    "nothing": (lambda h, y, _: None, None, "NoneType"),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_output_is_refused(first_case: Case, bad: str) -> None:
    pack, name, text = BAD[bad]
    with pytest.raises(UnsupportedModelError, match=text):
        first_case.wrap(_Packed(pack), output=name)(batch(0)[0])


def test_output_with_more_dimensions(case: Case) -> None:
    """(N, K, T): all components of a sample count."""
    model = nn.Sequential(dense(), nn.Linear(3, 6).double(), nn.Unflatten(1, (2, 3)))
    learner = case.wrap(model)
    for number in range(2):
        output = learner(batch(number)[0])
        assert output.shape == (6, 2, 3)
        mean_square(output).backward()
    assert all(gradient.any() for gradient in gradients(learner).values())


def test_a_single_component(case: Case) -> None:
    """K = 1, regression."""
    model = nn.Sequential(dense(), nn.Tanh(), nn.Linear(3, 1).double())
    learner = case.wrap(model)
    for number in range(2):
        mean_square(learner(batch(number)[0])).backward()
    assert all(gradient.any() for gradient in gradients(learner).values())

"""What once trained wrongly without a word, or was refused in the wrong words."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import fdfa
from fdfa.errors import CheckpointError, ConfigError, FDFAError, ProbeError, UnsupportedModelError


def _mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))


class Keeper(nn.Module):
    """A module that keeps what it returns, for others to use."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        self.kept = torch.tanh(self.layer(x))
        return self.kept


class Leaky(nn.Module):
    """Uses the tensor that a tapped module keeps beside what the tap hands on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.keeper, self.read = nn.Linear(4, 6), Keeper(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.keeper(torch.tanh(self.first(x)))
        return self.read(h) + self.keeper.kept.sum(1, keepdim=True)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_leak_is_found_also_where_a_compiler_would_hide_it(compiled: bool) -> None:
    learner = fdfa.DFA(Leaky(), taps=["keeper"])
    if compiled:
        learner.compile(backend="aot_eager")
    with pytest.raises(UnsupportedModelError, match="'keeper'"):
        learner(torch.randn(5, 4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_finite_differences_refuse_narrow_models(dtype: torch.dtype) -> None:
    learner = fdfa.FDFA(_mlp().to(dtype), probe="finite-difference")
    with pytest.raises(ProbeError, match="float32 or wider"):
        learner(torch.randn(5, 4, dtype=dtype))


@dataclasses.dataclass
class Extra:
    """Something beside the output that holds a tensor."""

    hidden: Tensor
    note: str = "kept"


class WithExtra(nn.Module):
    """Returns its hidden activation within a dataclass within a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.read = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Extra]]:
        h = torch.tanh(self.second(torch.tanh(self.first(x))))
        return self.read(h), {"extra": Extra(2 * h)}


def test_a_loss_on_a_tensor_deep_beside_the_output_is_refused() -> None:
    y, beside = fdfa.DFA(WithExtra(), output=0)(torch.randn(5, 4))
    assert beside["extra"].note == "kept"
    with pytest.raises(FDFAError, match="beside its output"):
        (y.sum() + beside["extra"].hidden.sum()).backward()


def test_two_checkpointed_passes_before_one_backward_are_exact() -> None:
    """What is computed again saves what was saved, whichever of the two passes probed."""
    layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)
    model = nn.Sequential(nn.Linear(4, 6), layer, nn.Flatten(), nn.Linear(30, 3)).double()
    plain = fdfa.FDFA(copy.deepcopy(model), seed=1, probe_every=2)
    learner = fdfa.FDFA(model, seed=1, probe_every=2)
    batches = [torch.randn(3, 5, 4).double() for _ in range(4)]
    for x, z in (batches[:2], batches[2:]):
        for run, own in ((plain, plain), (learner, learner)):
            own.zero_grad()
            calls: Any = run
            if own is learner:
                calls = lambda t: checkpoint(learner, t, use_reentrant=False)  # noqa: E731
            (calls(x).square().sum() + calls(z).square().sum()).backward()
        for p, q in zip(plain.parameters(), learner.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-10, atol=1e-12)
    for p, q in zip(plain.feedback.buffers(), learner.feedback.buffers(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


class Talkative(nn.Module):
    """Fails, once told to, in words that hold those of torch's missing derivative."""

    broken = False

    def forward(self, x: Tensor) -> Tensor:
        if self.broken:
            raise RuntimeError("forward: HEAD size 3 does not divide PADDING 8")
        return torch.tanh(x)


def test_an_ordinary_error_of_the_model_stays_what_it_is() -> None:
    """On a probing pass: the plan is there already, so that it is the cut model that fails."""
    model = nn.Sequential(nn.Linear(4, 6), Talkative(), nn.Linear(6, 3))
    learner = fdfa.FDFA(model)
    learner(torch.randn(5, 4)).sum().backward()
    model[1].broken = True
    with pytest.raises(RuntimeError, match="HEAD size") as caught:
        learner(torch.randn(5, 4))
    assert not isinstance(caught.value, ProbeError)


class Named(nn.Module):
    """Takes its batch in a dictionary, and an extra that may be empty."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _mlp()

    def forward(self, batch: dict[str, Tensor], extra: Tensor | None = None) -> Tensor:
        return self.body(batch["x"])


def test_an_empty_batch_is_told_from_an_empty_extra() -> None:
    learner = fdfa.DFA(Named())
    learner({"x": torch.randn(5, 4)}, extra=torch.empty(0, 3)).sum().backward()
    with pytest.raises(ValueError, match="the batch is empty"):
        learner({"x": torch.randn(0, 4)})


def test_an_unknown_option_of_a_class_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown option 'feedback_rte'.*'feedback_rate'"):
        fdfa.FDFA(_mlp(), feedback_rte=0.1)


def test_a_partial_state_may_be_loaded_when_asked_for() -> None:
    """The weights alone leave what the feedback has learned."""
    learner, x = fdfa.FDFA(_mlp()), torch.randn(5, 4)
    learner(x).sum().backward()
    learned = learner.feedback["1"].weight.clone()
    weights = {f"model.{key}": value + 1 for key, value in learner.model.state_dict().items()}
    with pytest.raises(CheckpointError, match="_extra_state"):
        learner.load_state_dict(weights)
    missing = learner.load_state_dict(weights, strict=False).missing_keys
    assert "_extra_state" in missing
    assert torch.equal(learner.model[0].weight, weights["model.0.weight"])
    assert torch.equal(learner.feedback["1"].weight, learned)

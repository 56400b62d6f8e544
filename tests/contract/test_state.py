"""``state_dict`` holds all that a run needs.

Restored and original step on in parallel, bit for bit.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from fdfa.engine.estimator import Estimator
from tests.contract.networks import batch, busy, dense
from tests.contract.steps import assert_same_bits, gradients, snapshot, train
from tests.methods import Case

State = Mapping[str, Tensor]


def _through_torch_save(state: State) -> State:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: State = torch.load(file, weights_only=True)
    return loaded


WAYS: dict[str, Callable[[State], State]] = {
    "memory": lambda state: {key: value.clone() for key, value in state.items()},
    "safetensors": lambda state: safetensors.torch.load(safetensors.torch.save(dict(state))),
    "torch.save": _through_torch_save,
}


def _pairs(case: Case, steps: int) -> tuple[Estimator, Estimator]:
    """A learner that took some steps, and one that never ran, of other weights and another seed."""
    learner = case.wrap(busy())
    train(learner, [batch(number) for number in range(steps)])
    fresh = busy()
    nn.init.normal_(fresh[0].weight)
    return learner, case.wrap(fresh, seed=99)


def _assert_parallel(learner: Estimator, restored: Estimator) -> None:
    for each in (learner, restored):
        torch.default_generator.manual_seed(31)
        train(each, [batch(number) for number in range(10, 15)])
    assert_same_bits(snapshot(restored), snapshot(learner))
    assert_same_bits(gradients(restored), gradients(learner))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("steps", [0, 3])
def test_restored_steps_in_parallel(case: Case, way: str, steps: int) -> None:
    """Into a learner that never ran.

    With 0 steps the state is from before the first forward pass.
    """
    learner, fresh = _pairs(case, steps)
    fresh.load_state_dict(WAYS[way](learner.state_dict()))
    assert_same_bits(snapshot(fresh), snapshot(learner))
    _assert_parallel(learner, fresh)


@pytest.mark.parametrize("steps", [0, 3])
def test_restored_over_another_run_steps_in_parallel(case: Case, steps: int) -> None:
    """Into a learner that ran.

    What it had learned is gone, also where the state is from before any pass.
    """
    learner, other = _pairs(case, steps)
    train(other, [batch(number) for number in range(40, 44)])
    other.load_state_dict(snapshot(learner))
    _assert_parallel(learner, other)


def test_restored_by_assignment_steps_in_parallel(case: Case) -> None:
    learner, fresh = _pairs(case, 2)
    fresh.load_state_dict(snapshot(learner), assign=True)
    _assert_parallel(learner, fresh)


def test_loading_copies(case: Case) -> None:
    """A state kept as "best so far" must not move with the learner that loaded it."""
    learner, fresh = _pairs(case, 2)
    state = snapshot(learner)
    kept = {key: value.clone() for key, value in state.items()}
    fresh.load_state_dict(state)
    train(fresh, [batch(number) for number in range(3)])
    assert_same_bits(state, kept)


def test_resume_repeats_the_rest_of_a_run(case: Case) -> None:
    """Five steps at once, or two, saved, three more.

    The same weights, with the optimiser's state saved too.
    """
    runs = []
    for stop in (5, 2):
        learner = case.wrap(dense())
        optimizer = torch.optim.Adam(learner.parameters(), lr=0.01)
        train(learner, [batch(number) for number in range(stop)], optimizer)
        resumed = case.wrap(dense(), seed=99)
        resumed.load_state_dict(snapshot(learner))
        again = torch.optim.Adam(resumed.parameters(), lr=0.01)
        again.load_state_dict(optimizer.state_dict())
        train(resumed, [batch(number) for number in range(stop, 5)], again)
        runs.append(snapshot(resumed))
    assert_same_bits(runs[0], runs[1])


def test_every_entry_is_a_tensor(case: Case) -> None:
    """So that safetensors can hold it, and a reader needs no code of ours."""
    learner, _ = _pairs(case, 2)
    assert all(isinstance(value, Tensor) for value in learner.state_dict().values())


def test_weights_are_the_plain_models(case: Case) -> None:
    """The model's state loads where ``fdfa`` is not installed; the learner's adds a prefix."""
    learner, _ = _pairs(case, 2)
    plain = busy()
    weights = learner.model.state_dict()
    assert list(weights) == list(plain.state_dict())
    plain.load_state_dict(weights)
    whole = learner.state_dict()
    assert_same_bits(
        {key: value for key, value in whole.items() if key.startswith("model.")},
        {f"model.{key}": value for key, value in plain.state_dict().items()},
    )


def test_model_weights_may_be_loaded_alone(case: Case) -> None:
    """Fine-tuning: the model's weights change under the learner, which goes on with them."""
    learner, _ = _pairs(case, 2)
    weights = busy().state_dict()
    learner.model.load_state_dict(weights)
    assert_same_bits(learner.model.state_dict(), weights)
    train(learner, [batch(7)])


def test_float32_state_in_a_float64_learner(case: Case) -> None:
    """As torch does for the model.

    Values are taken over, the learner keeps its precision and goes on.
    """
    narrow = case.wrap(dense(torch.float32))
    train(narrow, [batch(number, dtype=torch.float32) for number in range(2)])
    wide = case.wrap(dense())
    for steps in (0, 2):  # never ran, and ran
        train(wide, [batch(number) for number in range(steps)])
        wide.load_state_dict(narrow.state_dict())
        train(wide, [batch(number) for number in range(2, 7)])
        floating = [value for value in wide.state_dict().values() if value.is_floating_point()]
        assert all(value.dtype == torch.float64 for value in floating if value.dim())


class _System(nn.Module):
    """A learner as one part of a larger module."""

    def __init__(self, learner: Estimator) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.part = nn.ModuleDict({"learner": learner})

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = self.part["learner"](x * 1.0) * self.scale
        return scaled


@pytest.mark.parametrize("steps", [0, 2])
def test_inside_a_larger_module(case: Case, steps: int) -> None:
    """Saved, loaded and trained with it; what lies outside has its own exact gradient."""
    system = _System(case.wrap(busy()))
    train(system, [batch(number) for number in range(steps)])
    restored = _System(case.wrap(busy(), seed=99))
    restored.load_state_dict(snapshot(system))
    assert_same_bits(snapshot(restored), snapshot(system))
    for each in (system, restored):
        torch.default_generator.manual_seed(31)
        train(each, [batch(number) for number in range(10, 15)])
    assert_same_bits(snapshot(restored), snapshot(system))
    assert system.scale.grad is not None
    assert system.scale != 1


def test_parameters_are_exactly_the_models(case: Case) -> None:
    """No feedback among them: an optimiser or DistributedDataParallel would choke on it."""
    model = busy()
    learner = case.wrap(model)
    for number in range(2):
        train(learner, [batch(number)])
        assert [id(p) for p in learner.parameters()] == [id(p) for p in model.parameters()]
        assert [name for name, _ in learner.named_parameters()] == [
            f"model.{name}" for name, _ in model.named_parameters()
        ]
    assert learner.model is model

"""Hooks, checkpointing and other tools of torch round a learner."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fdfa.engine.estimator import Estimator
from tests.contract.networks import batch, busy, convolutional, dense, images
from tests.contract.steps import (
    added,
    assert_close_to_rounding,
    assert_same_bits,
    backward,
    cross_entropy,
    fresh_gradients,
    gradients,
    own_state,
    train,
)
from tests.methods import Case


def test_full_backward_hook_on_the_learner(case: Case) -> None:
    """It sees the output error, and changes nothing by being there."""
    learner, twin = case.wrap(dense()), case.wrap(dense())
    seen: list[Tensor] = []
    learner.register_full_backward_hook(lambda _, __, errors: seen.append(errors[0]))
    for number in range(2):
        x, target = batch(number)
        found = fresh_gradients(learner, (x.requires_grad_(), target))
        expected = fresh_gradients(twin, (x.detach(), target))
    assert_same_bits(found, expected)
    output = learner(x)
    (error,) = torch.autograd.grad(cross_entropy(output, target), output)
    assert_close_to_rounding(seen[1], error)


def test_hooks_on_parameters_fire_once(case: Case) -> None:
    """Those on gradients, and those after accumulation, which optimisers in backward use."""
    learner = case.wrap(dense())
    backward(learner, batch(0))
    learner.zero_grad()
    seen: list[str] = []
    for name, parameter in learner.model.named_parameters():
        parameter.register_hook(lambda gradient, name=name: seen.append(name))
        parameter.register_post_accumulate_grad_hook(lambda p, name=name: seen.append(f"{name} in"))
    backward(learner, batch(1))
    names = [name for name, _ in learner.model.named_parameters()]
    assert sorted(seen) == sorted([*names, *(f"{name} in" for name in names)])


def test_hook_on_the_output(case: Case) -> None:
    """A hook that halves the output error halves every credit that comes from it."""
    learner, twin = case.wrap(dense()), case.wrap(dense())
    for each in (learner, twin):
        backward(each, batch(0))
    x, target = batch(1)
    output = learner(x)
    output.register_hook(lambda error: error / 2)
    learner.zero_grad()
    cross_entropy(output, target).backward()
    halves = {
        key: value / 2 if case.info.by_error or key.startswith(_behind_last_tap(case)) else value
        for key, value in fresh_gradients(twin, (x, target)).items()
    }
    assert_same_bits(gradients(learner), halves)


def _behind_last_tap(case: Case) -> tuple[str, ...]:
    """Prefixes of the parameters of the last block, which is exact."""
    return ("4.", "6.") if case.options.get("depth") == 2 else ("6.",)


class _Watched(nn.Module):
    """ReLU that hooks its own output, as a layer that clips or logs its gradient does."""

    def __init__(self, hook: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.hook = hook

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(x)
        if y.requires_grad:
            y.register_hook(self.hook)
        return y


def test_hook_on_a_hidden_activation(case: Case) -> None:
    """It sees the credit, and what it makes of it is what the layers before get."""
    seen: list[Tensor] = []

    def halve(credit: Tensor) -> Tensor:
        seen.append(credit)
        return credit / 2

    learner, twin = (
        case.wrap(nn.Sequential(*dense()[:3], _Watched(hook), *dense()[4:]))
        for hook in (halve, lambda credit: credit)
    )
    for number in range(2):
        found, expected = (fresh_gradients(each, batch(number)) for each in (learner, twin))
    assert len(seen) == 2
    assert seen[1].any()
    assert_close_to_rounding(found["2.weight"], expected["2.weight"] / 2)
    assert_same_bits(found["4.weight"], expected["4.weight"])


def _checkpointed(learner: Estimator, x: Tensor) -> Tensor:
    output: Tensor = checkpoint(learner, x, use_reentrant=False)
    return output


def test_checkpoint_round_the_learner_is_exact(case: Case) -> None:
    """The recomputed pass changes no gradient, teaches nothing again, counts no second step."""
    learner, twin = case.wrap(dense()), case.wrap(dense())
    for number in range(6):
        x, target = batch(number)
        learner.zero_grad()
        cross_entropy(_checkpointed(learner, x), target).backward()
        expected = fresh_gradients(twin, (x, target))
        assert_same_bits(gradients(learner), expected)
    assert_same_bits(own_state(learner), own_state(twin))
    assert learner.steps == twin.steps


def test_reentrant_checkpoint_round_the_learner_is_exact(case: Case) -> None:
    """There the first pass runs without gradients; the recomputed one is the step."""
    learner, twin = case.wrap(dense()), case.wrap(dense())
    for number in range(6):
        x, target = batch(number)
        learner.zero_grad()
        output = checkpoint(learner, x.clone().requires_grad_(), use_reentrant=True)
        cross_entropy(output, target).backward()
        expected = fresh_gradients(twin, (x.clone().requires_grad_(), target))
        assert_same_bits(gradients(learner), expected)
    assert_same_bits(own_state(learner), own_state(twin))
    assert learner.steps == twin.steps


def test_saved_tensors_elsewhere(case: Case) -> None:
    """``save_on_cpu`` and the like: a probe cannot read the graph, and finds the same."""
    learner, twin = case.wrap(convolutional()), case.wrap(convolutional())
    for number in range(2):
        x, target = images(number)
        learner.zero_grad()
        with torch.autograd.graph.save_on_cpu():
            loss = cross_entropy(learner(x), target)
        loss.backward()
        assert_close_to_rounding(gradients(learner), fresh_gradients(twin, (x, target)))
    assert_close_to_rounding(own_state(learner), own_state(twin))


def test_checkpoint_with_dropout_and_pooling(case: Case) -> None:
    """The recomputed pass meets the same masks and, in a probe, the same tangents.

    Those to rounding: what a rule reads from the graph elsewhere is computed anew here.
    """
    for build, data in ((busy, batch), (convolutional, images)):
        learner, twin = case.wrap(build()), case.wrap(build())
        for number in range(2):
            x, target = data(number)
            torch.default_generator.manual_seed(number)
            learner.zero_grad()
            cross_entropy(_checkpointed(learner, x), target).backward()
            torch.default_generator.manual_seed(number)
            expected = fresh_gradients(twin, (x, target))
            assert_close_to_rounding(gradients(learner), expected)
        assert_close_to_rounding(own_state(learner), own_state(twin))


def test_two_checkpointed_passes_before_one_backward(case: Case) -> None:
    """Each is recomputed as it was: with the probe of its own step, or with none if it had none."""
    learner, twin = case.wrap_taught_once(dense()), case.wrap_taught_once(dense())
    (x1, target1), (x2, target2) = batch(0), batch(1)
    outputs = [_checkpointed(learner, x) for x in (x1, x2)]
    (cross_entropy(outputs[0], target1) + cross_entropy(outputs[1], target2)).backward()
    first, second = twin(x1), twin(x2)
    (cross_entropy(first, target1) + cross_entropy(second, target2)).backward()
    assert_close_to_rounding(gradients(learner), gradients(twin))
    assert_same_bits(own_state(learner), own_state(twin))


def test_accumulation_in_checkpointed_micro_batches(case: Case) -> None:
    learner, twin = case.wrap(dense()), case.wrap(dense())
    for number in range(2):
        x, target = batch(number)
        cross_entropy(_checkpointed(learner, x), target).backward()
    parts = [fresh_gradients(twin, batch(number)) for number in range(2)]
    assert_same_bits(gradients(learner), added(*parts))


def test_clip_grad_norm(case: Case) -> None:
    learner = case.wrap(dense())
    backward(learner, batch(0))
    before = fresh_gradients(learner, batch(1))
    norm = nn.utils.clip_grad_norm_(learner.model.parameters(), 0.01)
    true_norm = torch.cat([gradient.flatten() for gradient in before.values()]).norm()
    assert_close_to_rounding(norm, true_norm)
    scale = 0.01 / (true_norm + 1e-6)
    assert_close_to_rounding(
        gradients(learner), {key: value * scale for key, value in before.items()}
    )


def test_averaged_model(case: Case) -> None:
    """``swa_utils.AveragedModel`` copies a learner, and averages its parameters and buffers."""
    learner = case.wrap(busy())
    backward(learner, batch(0))
    averaged = torch.optim.swa_utils.AveragedModel(learner, use_buffers=True)
    for number in range(3):
        train(learner, [batch(number)])
        averaged.update_parameters(learner)
    averaged.eval()
    assert averaged(batch(5)[0]).isfinite().all()
    assert not torch.equal(averaged.module.model[0].weight, learner.model[0].weight)


def test_parametrised_layer(case: Case) -> None:
    """``weight_norm``: direction and length of the weight both learn."""
    model, plain = dense(), dense()
    for each in (model, plain):
        nn.utils.parametrizations.weight_norm(each[2])
    learner = case.wrap(model)
    for number in range(2):
        found = fresh_gradients(learner, batch(number))
        expected = fresh_gradients(plain, batch(number))
    assert found.keys() == expected.keys()
    assert all(gradient.any() for gradient in found.values())
    if case.info.exact:
        assert_same_bits(found, expected)


def test_two_learners_round_one_model(case: Case) -> None:
    """For comparisons.

    Each leaves the model as the other needs it, and neither sees the other's state.
    """
    model = dense()
    first, second, alone = case.wrap(model), case.wrap(model), case.wrap(dense())
    for number in range(2):
        ours = fresh_gradients(first, batch(number))
        fresh_gradients(second, batch(number + 5))
        expected = fresh_gradients(alone, batch(number))
    assert_same_bits(ours, expected)

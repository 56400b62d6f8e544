"""The forward pass is the plain model's.

Outputs, batch-norm statistics, dropout masks, random numbers.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.contract.networks import batch, busy, convolutional, dense, images
from tests.contract.steps import (
    assert_close_to_rounding,
    assert_same_bits,
    backward,
    cross_entropy,
    mean_square,
    own_state,
    snapshot,
    summed,
)
from tests.methods import Case

NETWORKS = {
    "dense": (dense, batch),
    "busy": (busy, batch),
    "convolutional": (convolutional, images),
}
everywhere = pytest.mark.parametrize("network", NETWORKS)


@everywhere
def test_training_output_is_the_plain_model(case: Case, network: str) -> None:
    """Bit for bit, on the first pass, which finds the taps, and on later ones."""
    build, data = NETWORKS[network]
    learner, plain = case.wrap(build()), build()
    for number in range(3):
        x, _ = data(number)
        torch.default_generator.manual_seed(number)
        expected = plain(x)
        torch.default_generator.manual_seed(number)
        found = learner(x)
        assert_same_bits(found, expected)
        assert found.requires_grad
        summed(found).backward()


class _Attention(nn.Module):
    """A Transformer's layer between two linear ones."""

    def __init__(self) -> None:
        super().__init__()
        torch.default_generator.manual_seed(14)
        self.input_shape = (4, 12, 5)
        self.embed = nn.Linear(5, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.layer(self.embed(x)).mean(1))
        return output


def test_attention_is_the_plain_models_to_rounding(case: Case) -> None:
    """Not bit for bit: of attention's kernels, only one has a forward derivative."""
    learner, plain = case.wrap(_Attention().double(), **_every_layer(case)), _Attention().double()
    for _ in range(2):
        x = torch.randn(4, 12, 5, dtype=torch.float64)
        found = learner(x)
        assert_close_to_rounding(found, plain(x))
        mean_square(found).backward()


def _every_layer(case: Case) -> dict[str, int]:
    """Options for a network too shallow for blocks of two layers."""
    return {"depth": 1} if "depth" in case.options else {}


@everywhere
def test_probe_does_not_show_in_the_output(case: Case, network: str) -> None:
    build, data = NETWORKS[network]
    probing, resting = case.wrap(build()), case.wrap_taught_once(build())
    for number in range(2):
        outputs = []
        for learner in (probing, resting):
            torch.default_generator.manual_seed(number)
            outputs.append(learner(data(number)[0]))
        assert_same_bits(outputs[0], outputs[1])


@everywhere
@pytest.mark.parametrize("taught", [False, True], ids=["new", "trained"])
def test_eval_mode_is_the_plain_model(case: Case, network: str, taught: bool) -> None:
    """Also as a graph: in eval mode gradients are autograd's, and the method learns nothing."""
    build, data = NETWORKS[network]
    learner = case.wrap(build())
    if taught:
        backward(learner, data(0))
    plain = copy.deepcopy(learner.model).eval()
    before = snapshot(learner.eval())
    learner.zero_grad()
    plain.zero_grad()
    assert_same_bits(learner(data(1)[0]), plain(data(1)[0]))
    for module in (learner, plain):
        backward(module, data(1))
    assert_same_bits(
        [parameter.grad for parameter in learner.model.parameters()],
        [parameter.grad for parameter in plain.parameters()],
    )
    assert_same_bits(snapshot(learner), before)


@everywhere
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_it_is_the_plain_model(case: Case, network: str, mode: type) -> None:
    """Batch norm steps as it would without us; the method takes no step.

    Training goes on afterwards.
    """
    build, data = NETWORKS[network]
    learner, plain = case.wrap(build()), build()
    with mode():
        for number in range(2):
            torch.default_generator.manual_seed(number)
            found = learner(data(number)[0])
            torch.default_generator.manual_seed(number)
            assert_same_bits(found, plain(data(number)[0]))
            assert not found.requires_grad
    assert learner.steps == 0
    assert_same_bits(learner.model.state_dict(), plain.state_dict())
    backward(learner, data(2))


@everywhere
def test_batch_norm_steps_exactly_once(case: Case, network: str) -> None:
    """Neither the search for taps nor a finite difference may leave a trace in the statistics.

    Where the pass that learns is itself perturbed, they are its own, and count as one step.
    """
    build, data = NETWORKS[network]
    learner, plain = case.wrap(build()), build()
    for number in range(3):
        for module in (learner, plain):
            torch.default_generator.manual_seed(number)
            backward(module, data(number))
        buffers = dict(learner.model.named_buffers())
        if not case.noisy:
            assert_same_bits(buffers, dict(plain.named_buffers()))
        tracked = [value for name, value in buffers.items() if name.endswith("tracked")]
        assert all(value == number + 1 for value in tracked)


def test_buffers_stay_the_same_objects(case: Case) -> None:
    """Who holds on to a buffer, as DistributedDataParallel does, goes on seeing it step."""
    learner = case.wrap(busy())
    held = dict(learner.model.named_buffers())
    backward(learner, batch(0))
    for name, buffer in learner.model.named_buffers():
        assert buffer is held[name]


def test_dropout_masks_are_the_plain_models(case: Case) -> None:
    """The masks themselves, read from the zeros of the output."""
    model = nn.Sequential(
        nn.Linear(5, 50), nn.Dropout(0.5), nn.Linear(50, 50), nn.Dropout(0.5)
    ).double()
    x, _ = batch(0)
    for number in range(3):
        torch.default_generator.manual_seed(number)
        dropped = model(x) == 0
        learner = case.wrap(copy.deepcopy(model))
        torch.default_generator.manual_seed(number)
        found = learner(x)
        assert_same_bits(found == 0, dropped)
        assert dropped.any()
        summed(found).backward()


@everywhere
def test_global_random_stream_is_the_plain_models(case: Case, network: str) -> None:
    """Probes or maps drawn from torch's own generator would shift all later draws."""
    build, data = NETWORKS[network]
    streams = []
    for module in (case.wrap(build()), build()):
        torch.default_generator.manual_seed(5)
        seen = []
        for number in range(3):
            backward(module, data(number))
            seen.append(torch.get_rng_state())
        streams.append(seen)
    assert_same_bits(streams[0], streams[1])


def test_construction_draws_no_random_numbers(case: Case) -> None:
    model = dense()
    before = torch.get_rng_state()
    case.wrap(model)
    case.wrap(model, seed=None)
    assert_same_bits(torch.get_rng_state(), before)


class _Counting(nn.Module):
    """Counts its forward passes in a buffer and keeps a random number of each."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))
        self.register_buffer("drawn", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        self.drawn = torch.rand(())  # a buffer that is replaced, not stepped in place
        return x * 1.5


def test_state_of_any_layer_steps_once(case: Case) -> None:
    model = nn.Sequential(nn.Linear(5, 8), _Counting(), nn.ReLU(), nn.Linear(8, 3)).double()
    plain = copy.deepcopy(model)
    learner = case.wrap(model, **_every_layer(case))
    for number in range(2):
        for module in (learner, plain):
            torch.default_generator.manual_seed(number)
            backward(module, batch(number))
        assert model[1].passes == number + 1
        assert_same_bits(dict(model.named_buffers()), dict(plain.named_buffers()))


def test_user_hooks_fire_as_on_the_plain_model(case: Case) -> None:
    """Hooks on the learner and on a layer fire once a pass, the search for taps aside."""
    learner = case.wrap_taught_once(dense())
    backward(learner, batch(0))
    seen: list[str] = []
    learner.register_forward_hook(lambda *_: seen.append("learner"))
    learner.model[2].register_forward_hook(lambda *_: seen.append("layer"))
    learner.model[2].register_forward_pre_hook(lambda *_: seen.append("before"))
    backward(learner, batch(1))
    always = case.varying and case.options.get("probe") == "finite-difference"
    passes = 2 + ("mask_inactive" in case.options) if always and not case.info.learns else 0
    again = ["before", "layer"] if case.info.repeats and "depth" not in case.options else []
    assert seen == [*["before", "layer"] * passes, "before", "layer", "learner", *again]


@pytest.mark.parametrize("mode", ["new", "trained"])
def test_empty_batch_is_refused(case: Case, mode: str) -> None:
    """In training, where a mean over nothing would be NaN.

    In eval mode an empty batch has an empty output.
    """
    learner = case.wrap(dense())
    if mode == "trained":
        backward(learner, batch(0))
    before = snapshot(learner)
    with pytest.raises(ValueError, match=r"batch is empty.*\(0, 5\)"):
        learner(torch.empty(0, 5, dtype=torch.float64))
    with pytest.raises(ValueError, match="batch is empty"):
        learner(input=torch.empty(0, 5, dtype=torch.float64))
    assert_same_bits(snapshot(learner), before)
    assert learner.eval()(torch.empty(0, 5, dtype=torch.float64)).shape == (0, 3)


def test_keyword_arguments_reach_the_model(case: Case) -> None:
    by_place, by_name = case.wrap(dense()), case.wrap(dense())
    for number in range(2):
        x, target = batch(number)
        cross_entropy(by_place(x), target).backward()
        cross_entropy(by_name(input=x), target).backward()
    assert_same_bits(own_state(by_place), own_state(by_name))
    assert_same_bits(
        [p.grad for p in by_place.parameters()], [p.grad for p in by_name.parameters()]
    )

"""Autocast, loss scaling, float64, conversions and memory formats: as with the plain model."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

import fdfa
from fdfa.engine.estimator import Estimator
from fdfa.errors import ProbeError
from tests.contract.networks import batch, busy, convolutional, dense, images
from tests.contract.steps import (
    assert_same_bits,
    backward,
    copy_weights,
    cross_entropy,
    fresh_gradients,
    gradients,
    own_state,
    summed,
    train,
)
from tests.methods import Case

FLOAT32 = torch.float32


def _assert_wide(learner: Estimator, least: torch.dtype = FLOAT32) -> None:
    """What the method has learned is never kept narrower than this."""
    for key, value in own_state(learner).items():
        if value.is_floating_point() and value.dim():
            assert torch.promote_types(value.dtype, least) == value.dtype, key


def _alike(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The same direction and length up to the rounding of bfloat16 (8 bits of mantissa)."""
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        a, b = found[key].flatten().double(), gradient.flatten().double()
        assert cosine_similarity(a, b, dim=0) > 0.99, key
        assert 0.9 < a.norm() / b.norm() < 1.1, key


@pytest.mark.parametrize("inside", [False, True], ids=["backward outside", "backward inside"])
def test_autocast_bfloat16(case: Case, inside: bool) -> None:
    """Gradients are float32 and close to those without autocast; so is what the method learns."""
    narrow, wide = case.wrap(dense(FLOAT32)), case.wrap(dense(FLOAT32))
    for number in range(3):
        x, target = batch(number, size=32, dtype=FLOAT32)
        narrow.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = narrow(x)
            loss = cross_entropy(output, target)
            if inside:
                loss.backward()
        assert output.dtype == torch.bfloat16
        if not inside:
            loss.backward()
        expected = fresh_gradients(wide, (x, target))
    found = gradients(narrow)
    assert {gradient.dtype for gradient in found.values()} == {FLOAT32}
    _alike(found, expected)
    _assert_wide(narrow)
    for key, value in own_state(wide).items():
        torch.testing.assert_close(own_state(narrow)[key], value, rtol=0.05, atol=0.05)


def test_autocast_learns_in_float32(case: Case) -> None:
    """After one probe a map is what that probe said.

    Were the product d^T p taken in bfloat16, all its entries would be numbers of 8 bits.
    """
    whole = {"feedback_rate": 1.0} if "feedback_rate" in case.options else {}
    learner = case.wrap(dense(FLOAT32), **whole)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        backward(learner, batch(0, size=32, dtype=FLOAT32))  # to divide by 32 keeps the bits
    for key, value in own_state(learner).items():
        if value.dim() == 2:
            assert (value != value.bfloat16().float()).any(), key


def test_autocast_with_batch_norm_and_convolutions(case: Case) -> None:
    learner = case.wrap(convolutional(FLOAT32))
    for number in range(3):
        learner.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            backward(learner, images(number, dtype=FLOAT32))
    assert all(gradient.dtype == FLOAT32 for gradient in gradients(learner).values())
    assert all(gradient.isfinite().all() for gradient in gradients(learner).values())
    _assert_wide(learner)


def test_grad_scaler(case: Case) -> None:
    """Unscaled gradients are exact, and an overflow skips the step."""
    learner, twin = case.wrap(dense(FLOAT32)), case.wrap(dense(FLOAT32))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
    for number in range(3):
        x, target = batch(number, dtype=FLOAT32)
        optimizer.zero_grad()
        scaler.scale(cross_entropy(learner(x), target)).backward()
        scaler.unscale_(optimizer)
        copy_weights(learner, twin)
        assert_same_bits(gradients(learner), fresh_gradients(twin, (x, target)))
        if not case.error_teaches:
            assert_same_bits(own_state(learner), own_state(twin))
        else:
            twin.load_state_dict(learner.state_dict())
        scaler.step(optimizer)
        scaler.update()
    before = copy.deepcopy(learner.model.state_dict())
    optimizer.zero_grad()
    scaler.scale(summed(learner(x)) * 1e38).backward()
    scaler.step(optimizer)
    scaler.update()
    assert_same_bits(learner.model.state_dict(), before)
    assert scaler.get_scale() == 2.0**15


def test_float64_throughout(case: Case) -> None:
    learner = case.wrap(dense())
    for number in range(2):
        backward(learner, batch(number))
    assert {gradient.dtype for gradient in gradients(learner).values()} == {torch.float64}
    _assert_wide(learner, torch.float64)


CONVERSIONS: dict[str, tuple[Callable[[nn.Module], nn.Module], torch.dtype]] = {
    "double": (lambda module: module.double(), torch.float64),
    "bfloat16": (lambda module: module.bfloat16(), torch.bfloat16),
    "to": (lambda module: module.to("cpu", FLOAT32), FLOAT32),
}


@pytest.mark.parametrize("conversion", CONVERSIONS)
@pytest.mark.parametrize("steps", [0, 2], ids=["new", "trained"])
def test_conversion_between_steps(case: Case, conversion: str, steps: int) -> None:
    """Parameters follow; the method's own tensors keep at least float32; training goes on."""
    convert, dtype = CONVERSIONS[conversion]
    learner = case.wrap(dense(FLOAT32))
    train(learner, [batch(number, dtype=FLOAT32) for number in range(steps)])
    learned = own_state(learner)
    assert convert(learner) is learner
    for key, value in own_state(learner).items():
        assert_same_bits(value.to(learned[key].dtype), learned[key])
    learner.zero_grad()
    if dtype == torch.bfloat16 and case.by_difference:
        with pytest.raises(ProbeError, match="float32 or wider"):
            train(learner, [batch(number, dtype=dtype) for number in range(2, 7)])
        return
    train(learner, [batch(number, dtype=dtype) for number in range(2, 7)])
    for parameter in learner.parameters():
        assert parameter.dtype == dtype
        assert parameter.grad is not None
        assert parameter.grad.dtype == dtype
        assert parameter.grad.isfinite().all()
    _assert_wide(learner, FLOAT32 if dtype == torch.bfloat16 else dtype)


def test_conversion_of_the_model_alone(case: Case) -> None:
    """``model.double()`` behind the learner's back: it goes on, with what it has learned."""
    learner = case.wrap(dense(FLOAT32))
    train(learner, [batch(number, dtype=FLOAT32) for number in range(2)])
    learner.model.double()
    learner.zero_grad()
    train(learner, [batch(number) for number in range(2, 7)])
    assert {gradient.dtype for gradient in gradients(learner).values()} == {torch.float64}


def test_there_and_back_changes_nothing(case: Case) -> None:
    """Through bfloat16 and back, the method's own state has lost no bit."""
    learner = case.wrap(busy(FLOAT32))
    train(learner, [batch(number, dtype=FLOAT32) for number in range(2)])
    learned = own_state(learner)
    learner.bfloat16().float()
    assert_same_bits(own_state(learner), learned)


@pytest.mark.parametrize("model_too", [False, True], ids=["input", "input and model"])
def test_channels_last(case: Case, model_too: bool) -> None:
    """The memory format changes no gradient but in rounding, which a finite difference magnifies.

    The gradients' own format is the weights'.
    """
    learner, twin = case.wrap(convolutional()), case.wrap(convolutional())
    if model_too:
        learner.to(memory_format=torch.channels_last)
    for number in range(2):
        x, target = images(number)
        found = fresh_gradients(learner, (x.contiguous(memory_format=torch.channels_last), target))
        expected = fresh_gradients(twin, (x, target))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(own_state(learner), own_state(twin), rtol=1e-6, atol=1e-9)
    for parameter in learner.parameters():
        assert parameter.grad is not None
        assert parameter.grad.stride() == parameter.stride()


@pytest.mark.parametrize(
    "norm",
    [nn.LayerNorm(8), nn.LayerNorm(8, elementwise_affine=False), nn.GroupNorm(2, 8)],
    ids=["layer norm", "layer norm without weights", "group norm"],
)
def test_autocast_probes_pass_normalisation(norm: nn.Module) -> None:
    """A probe in bfloat16 teaches what one in float32 teaches, up to the rounding."""
    torch.default_generator.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), copy.deepcopy(norm), nn.Linear(8, 3)
    )
    learned = {}
    for narrow in (False, True):
        learner = fdfa.FDFA(copy.deepcopy(model), feedback_rate=1.0, seed=0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrow):
            learner(torch.randn(64, 4, generator=torch.Generator().manual_seed(1))).sum().backward()
        learned[narrow] = {k: v for k, v in own_state(learner).items() if v.is_floating_point()}
    _alike(learned[True], learned[False])

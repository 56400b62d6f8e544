"""Normalisation and augmentation against loops over single pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fdfa.data.pixels import Augmentation, Normalization
from fdfa.errors import ConfigError
from tests.data.writers import pictures

GREY, COLOUR = pictures(7, channels=1, side=5), pictures(7, side=4)


@pytest.mark.parametrize(
    ("normalization", "images"),
    [
        (Normalization(), GREY),
        (Normalization(brightest=16), GREY),
        (Normalization(mean=0.1307, deviation=0.3081), GREY),
        (Normalization(mean=(0.5,), deviation=(0.25,)), GREY),
        (Normalization(mean=(0.4914, 0.4822, 0.4465), deviation=(0.247, 0.243, 0.261)), COLOUR),
        (Normalization(mean=(0.1, 0.2, 0.3)), COLOUR),
    ],
)
def test_normalization_is_per_channel(normalization: Normalization, images: np.ndarray) -> None:
    given_images = torch.from_numpy(images)
    found = normalization(given_images)
    assert found.dtype == torch.float32
    assert given_images.tolist() == images.tolist()
    for channel in range(images.shape[1]):
        mean, deviation = (
            value[channel] if isinstance(value, tuple) else value
            for value in (normalization.mean, normalization.deviation)
        )
        expected = (images[:, channel].astype(float) / normalization.brightest - mean) / deviation
        np.testing.assert_allclose(found[:, channel].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_one_number_fits_any_shape() -> None:
    assert Normalization()(torch.tensor([[0, 255]], dtype=torch.uint8)).tolist() == [[-1, 1]]


def test_a_batch_of_floats_is_not_changed_in_place() -> None:
    images = torch.ones(2, 1, 2, 2)
    Normalization()(images)
    assert images.eq(1).all()


@pytest.mark.parametrize(
    "options",
    [
        {"brightest": 0},
        {"brightest": -255},
        {"brightest": float("inf")},
        {"deviation": 0},
        {"deviation": (1.0, 0.0)},
        {"deviation": float("nan")},
        {"mean": float("nan")},
        {"mean": (0.0, float("inf"))},
    ],
)
def test_impossible_normalizations(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))}="):
        Normalization(**options)


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (2, 3), (3, 4, 4)])
def test_channels_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="does not fit inputs of shape"):
        Normalization(mean=(0.1, 0.2, 0.3))(torch.zeros(shape))


def naive(images: np.ndarray, augmentation: Augmentation, generator: torch.Generator) -> np.ndarray:
    """One picture after the other, from the same random numbers."""
    count, _, height, width = images.shape
    changed = images.copy()
    if (padding := augmentation.padding) > 0:
        top, left = torch.randint(2 * padding + 1, (2, count), generator=generator).tolist()
        for n in range(count):
            padded = np.pad(images[n], ((0, 0), (padding, padding), (padding, padding)))
            changed[n] = padded[:, top[n] : top[n] + height, left[n] : left[n] + width]
    if augmentation.flip:
        for n, number in enumerate(torch.rand(count, generator=generator).tolist()):
            if number < 0.5:
                changed[n] = changed[n, :, :, ::-1].copy()
    return changed


@given(
    padding=st.integers(0, 4),
    flip=st.booleans(),
    count=st.integers(0, 5),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    dtype=st.sampled_from([np.uint8, np.float32, np.float64]),
    seed=st.integers(0, 9),
)
def test_augmentation_equals_a_loop(
    padding: int, flip: bool, count: int, shape: tuple[int, ...], dtype: type, seed: int
) -> None:
    images = np.random.default_rng(seed).integers(1, 256, (count, *shape)).astype(dtype)
    augmentation = Augmentation(padding=padding, flip=flip)
    before = torch.get_rng_state()
    found = augmentation(torch.from_numpy(images), torch.Generator().manual_seed(seed))
    expected = naive(images, augmentation, torch.Generator().manual_seed(seed))
    assert found.dtype == torch.from_numpy(images).dtype
    assert found.shape == images.shape
    assert found.numpy().tobytes() == expected.tobytes()
    assert torch.equal(before, torch.get_rng_state())


def test_all_corners_and_both_sides_come_up_equally_often() -> None:
    # A picture of one bright pixel in the middle shows where it was cut.
    images = torch.zeros(9000, 1, 3, 3)
    images[:, :, 1, 1] = 1
    found = Augmentation(padding=1)(images, torch.Generator().manual_seed(0)).sum(0)[0]
    # Each of 9 places: 1000 times, with a deviation of 30.
    assert (found - 1000).abs().max() < 4 * 30
    images[:, :, 1] = torch.tensor([1.0, 0.0, 0.0])
    flipped = Augmentation(flip=True)(images, torch.Generator().manual_seed(0))[:, 0, 1, 2].sum()
    assert abs(flipped - 4500) < 4 * 48


def test_without_a_generator_torch_s_own_is_taken() -> None:
    images = torch.rand(20, 1, 4, 4)
    torch.manual_seed(3)
    found = Augmentation(padding=1, flip=True)(images)
    torch.manual_seed(3)
    again = Augmentation(padding=1, flip=True)(images)
    assert torch.equal(found, again)
    assert not torch.equal(found, Augmentation(padding=1, flip=True)(images))


@pytest.mark.parametrize("padding", [-1, True, 1.5, "2"])
def test_impossible_padding(padding: object) -> None:
    with pytest.raises(ConfigError, match="padding="):
        Augmentation(padding=padding)


def test_what_is_no_picture_cannot_be_augmented() -> None:
    with pytest.raises(ConfigError, match=r"only pictures .* not inputs of shape \(4, 5\)"):
        Augmentation(flip=True)(torch.zeros(4, 5))

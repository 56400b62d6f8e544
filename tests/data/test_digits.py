"""The digits against what is known of them, and their split against a frozen copy of it."""

from __future__ import annotations

import hashlib
from importlib.resources import files

import pytest
import torch

from fdfa import data
from fdfa.data import dataset, digits
from fdfa.errors import ConfigError, DataError

# Printed by scripts/make_digits.py.
SHA256 = "2368626786ff35f80b63c9e5aefbf839091368ee2e6274f3cc17d63b184883fb"
FIRST_OF_THE_SHUFFLE = [761, 1192, 428, 1026, 1605, 594, 1607, 1640]
# Examples of each class in the test part of the UCI data set, as its documentation lists them.
PER_CLASS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.fixture(scope="module")
def loaded() -> data.Dataset:
    return data.load("digits")


def everything(loaded: data.Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    parts = (loaded.train, loaded.validation, loaded.test)
    return torch.cat([part.inputs for part in parts]), torch.cat([part.labels for part in parts])


def rows(inputs: torch.Tensor) -> set[bytes]:
    return {bytes(image.flatten().tolist()) for image in inputs}


def test_the_file_is_the_one_that_the_script_wrote() -> None:
    content = files("fdfa.data").joinpath("digits.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256


def test_shapes_and_types(loaded: data.Dataset) -> None:
    for part, count in ((loaded.train, 1297), (loaded.validation, 200), (loaded.test, 300)):
        assert part.inputs.shape == (count, 1, 8, 8)
        assert part.inputs.dtype == torch.uint8
        assert part.labels.shape == (count,)
        assert part.labels.dtype == torch.int64
    assert (loaded.name, loaded.shape, loaded.classes) == ("digits", (1, 8, 8), 10)


def test_the_parts_together_are_all_digits_once(loaded: data.Dataset) -> None:
    inputs, labels = everything(loaded)
    assert torch.bincount(labels).tolist() == PER_CLASS
    # 561,718 is the sum of all pixels of scikit-learn's copy, brightness 0 ... 16.
    assert inputs.long().sum() == 561_718
    assert inputs.max() == 16
    assert len(rows(inputs)) == 1797  # no two digits are equal, so none came twice


def test_batches_reach_from_minus_one_to_one(loaded: data.Dataset) -> None:
    for part in (loaded.train, loaded.validation, loaded.test):
        ((inputs, labels),) = part.batches([torch.arange(len(part))])
        assert inputs.dtype == torch.float32
        assert torch.equal(inputs.double(), part.inputs.double() / 8 - 1)
        assert torch.equal(labels, part.labels)
        assert (inputs.min(), inputs.max()) == (-1, 1)


def test_pictures_keep_their_labels(loaded: data.Dataset) -> None:
    # A nearest mean, fitted on one part, is right on another only where labels fit the pictures.
    train = loaded.train.inputs.flatten(1).float()
    means = torch.stack([train[loaded.train.labels == digit].mean(0) for digit in range(10)])
    for part in (loaded.test, loaded.validation):
        guessed = torch.cdist(part.inputs.flatten(1).float(), means).argmin(1)
        assert (guessed == part.labels).float().mean() > 0.8


def test_the_split_is_frozen() -> None:
    # Every number measured on the digits hangs on this order: were torch to change its generator,
    # the split would have to be stored instead.
    assert dataset.shuffled_order(1797)[:8].tolist() == FIRST_OF_THE_SHUFFLE


def test_loading_twice_gives_the_same(loaded: data.Dataset) -> None:
    assert data.load("digits").checksum() == loaded.checksum()


def test_the_random_state_of_the_user_is_left_alone() -> None:
    before = torch.get_rng_state()
    data.load("digits")
    assert torch.equal(before, torch.get_rng_state())


def test_validation_comes_out_of_the_training_part_only(loaded: data.Dataset) -> None:
    without = data.load("digits", validation=0)
    assert without.validation.inputs.shape == (0, 1, 8, 8)
    assert len(without.validation) == 0
    assert torch.equal(without.test.inputs, loaded.test.inputs)
    both = rows(loaded.train.inputs) | rows(loaded.validation.inputs)
    assert rows(without.train.inputs) == both


@pytest.mark.parametrize("validation", [-1, 1497, 5000])
def test_impossible_validation(validation: int) -> None:
    with pytest.raises(ConfigError, match=rf"validation={validation} .* 0 \.\.\. 1496"):
        data.load("digits", validation=validation)


def test_validation_may_leave_one_example() -> None:
    assert len(data.load("digits", validation=1496).train) == 1


@pytest.mark.parametrize("content", [None, b"", b"\0" * 16], ids=["missing", "empty", "zeros"])
def test_a_damaged_package_is_named(monkeypatch, tmp_path, content: bytes | None) -> None:
    monkeypatch.setattr(digits, "files", lambda package: tmp_path)
    if content is not None:
        (tmp_path / "digits.safetensors").write_bytes(content)
    with pytest.raises(
        DataError, match=r"digits\.safetensors cannot be read .* Install fdfa again"
    ):
        data.load("digits")

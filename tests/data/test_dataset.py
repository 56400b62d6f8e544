"""The split into three parts, and the checksum over them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from fdfa.data.dataset import Dataset, assemble, held_out, sha256, shuffled_order
from fdfa.data.pixels import Augmentation, Normalization
from fdfa.data.streamed import StreamedExamples
from fdfa.errors import ConfigError
from tests.data.writers import labels, pictures


def made(*, validation: int = 3, count: int = 8, change: tuple | None = None) -> Dataset:
    """A data set of which one byte may be another one."""
    parts = {
        part: (
            torch.from_numpy(pictures(n, side=4, seed=n)),
            torch.from_numpy(labels(n, classes=3)),
        )
        for part, n in (("train", count), ("test", 5))
    }
    parts = {part: (inputs, targets.long()) for part, (inputs, targets) in parts.items()}
    if change:
        part, what, position = change
        parts[part][what].view(-1)[position] += 1
    return assemble("toy", **parts, classes=3, validation=validation, normalization=Normalization())


@given(examples=st.integers(1, 40), validation=st.integers(0, 39))
def test_every_example_is_in_one_part(examples: int, validation: int) -> None:
    if validation >= examples:
        with pytest.raises(
            ConfigError, match=rf"validation={validation} .* 0 \.\.\. {examples - 1}"
        ):
            held_out("toy", examples=examples, validation=validation)
        return
    numbers = torch.arange(examples)
    dataset = assemble(
        "toy",
        train=(numbers[:, None], numbers),
        test=(numbers[:, None], numbers),
        classes=examples,
        validation=validation,
    )
    train, apart = dataset.train.labels.tolist(), dataset.validation.labels.tolist()
    assert len(apart) == validation
    assert sorted(train + apart) == numbers.tolist()
    assert train == sorted(train)
    assert dataset.test.labels.tolist() == numbers.tolist()
    for part in (dataset.train, dataset.validation):
        assert part.inputs[:, 0].tolist() == part.labels.tolist()


def test_the_split_never_changes() -> None:
    # Frozen: with another order, numbers measured before could not be repeated.
    assert torch.nonzero(held_out("toy", examples=20, validation=5)).flatten().tolist() == [
        0,
        7,
        8,
        9,
        15,
    ]
    assert shuffled_order(10).tolist() == [7, 0, 2, 3, 1, 4, 9, 5, 6, 8]


@given(validation=st.integers(1, 18))
def test_a_larger_validation_part_holds_the_smaller(validation: int) -> None:
    smaller = held_out("toy", examples=20, validation=validation)
    assert (held_out("toy", examples=20, validation=validation + 1) | ~smaller).all()


@pytest.mark.parametrize("validation", [-1, 8, 100, 2.5, True, None])
def test_impossible_validation(validation: object) -> None:
    with pytest.raises(ConfigError, match=f"validation={validation} is not possible"):
        made(validation=validation)


def test_torch_s_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    made().checksum()
    assert torch.equal(before, torch.get_rng_state())


def test_the_checksum_changes_with_any_byte() -> None:
    sums = {made().checksum()}
    assert sums == {made().checksum()}
    for part, count in (("train", 8), ("test", 5)):
        for what, size in ((0, count * 48), (1, count)):
            sums |= {made(change=(part, what, at)).checksum() for at in range(0, size, 37)}
            sums.add(made(change=(part, what, size - 1)).checksum())
    sums |= {made(validation=2).checksum(), made(count=9).checksum()}
    changes = sum(len({*range(0, n, 37), n - 1}) for n in (8 * 48, 8, 5 * 48, 5))
    assert len(sums) == 1 + changes + 2


def test_the_checksum_is_of_what_is_stored() -> None:
    dataset = made()
    assert dataset.augmented(Augmentation(flip=True)).checksum() == dataset.checksum()
    parts = (dataset.train, dataset.validation, dataset.test)
    content = b"".join(
        part.inputs.numpy().tobytes() + part.labels.numpy().tobytes() for part in parts
    )
    assert dataset.checksum() == hashlib.sha256(content).hexdigest()


@given(
    kind=st.sampled_from(["u1", "i8", "f4", "f8", "?"]),
    shape=st.lists(st.integers(0, 4), max_size=3).map(tuple),
    turned=st.booleans(),
)
def test_sha256_is_of_the_bytes(kind: str, shape: tuple[int, ...], turned: bool) -> None:
    array = np.random.default_rng(0).integers(0, 2, shape).astype(kind)
    array = array.T if turned else array
    expected = hashlib.sha256(array.tobytes() * 2).hexdigest()
    assert sha256(torch.from_numpy(array), torch.from_numpy(array)) == expected


def test_sha256_needs_no_detached_tensor() -> None:
    assert sha256(torch.ones(2, requires_grad=True)) == sha256(torch.ones(2))


def test_only_the_training_part_is_augmented() -> None:
    augmentation = Augmentation(padding=1)
    dataset = made().augmented(augmentation)
    assert dataset.train.augmentation == augmentation
    assert dataset.validation.augmentation is None
    assert dataset.test.augmentation is None
    assert dataset.augmented(None).train.augmentation is None


def test_the_shape_of_held_and_streamed_inputs() -> None:
    dataset = made()
    assert dataset.shape == (3, 4, 4)
    source = TensorDataset(dataset.test.inputs, dataset.test.labels)
    streamed = StreamedExamples.of(source, dataset.test.labels)
    parts = {"train": streamed, "validation": streamed, "test": streamed}
    assert Dataset(name="streamed", classes=3, **parts).shape == (3, 4, 4)


def test_streams_of_the_same_entries_have_the_same_checksum() -> None:
    source = TensorDataset(torch.zeros(4, 2), torch.arange(4))

    def streamed(indices: list[int]) -> str:
        part = StreamedExamples(source, torch.tensor(indices), torch.tensor(indices))
        parts = {"train": part, "validation": part, "test": part}
        return Dataset(name="streamed", classes=4, **parts).checksum()

    assert streamed([0, 1, 2]) == streamed([0, 1, 2])
    assert len({streamed([0, 1, 2]), streamed([0, 2, 1]), streamed([0, 1])}) == 3

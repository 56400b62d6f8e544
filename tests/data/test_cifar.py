"""CIFAR in all its forms against what was written into them, and against real pictures."""

from __future__ import annotations

import io
import itertools
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fdfa.data.cifar import load_cifar10, load_cifar100
from fdfa.data.examples import Examples
from fdfa.errors import ConfigError, DataError
from tests.data.cifar_files import (
    BATCH,
    LAYOUTS,
    PLACES,
    Files,
    archived,
    batches10,
    batches100,
    binary,
    binary10,
    load,
)
from tests.data.writers import cifar_batch, pictures, write


def check(part: Examples, images: list[np.ndarray], numbers: list[np.ndarray]) -> None:
    assert part.inputs.numpy().tobytes() == np.concatenate(images).tobytes()
    assert part.inputs.shape == (len(part), 3, 32, 32)
    assert part.labels.tolist() == np.concatenate(numbers).tolist()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("layout", ["binary 10", "python 10"])
def test_cifar10(tmp_path: Path, layout: str, place: Callable[..., Files]) -> None:
    make, *names = LAYOUTS[layout]
    loaded = load(write(tmp_path, place(make(), *names)), layout)
    _, images, numbers = zip(*batches10(), strict=True)
    check(loaded.train, images[:5], numbers[:5])
    check(loaded.test, images[5:], numbers[5:])
    assert (loaded.name, loaded.classes) == ("cifar10", 10)
    # The pickled batches must also be what the official files are to everybody else.
    if layout == "python 10":
        batch = pickle.loads(make()["data_batch_2"], encoding="bytes")
        assert batch[b"data"].tolist() == images[1].reshape(BATCH, 3072).tolist()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["fine", "coarse"])
@pytest.mark.parametrize("layout", ["binary 100", "python 100"])
def test_cifar100(tmp_path: Path, layout: str, kind: str, place: Callable[..., Files]) -> None:
    make, *names = LAYOUTS[layout]
    loaded = load(write(tmp_path, place(make(), *names)), layout, labels=kind)
    (_, train, *train_labels), (_, test, *test_labels) = batches100()
    column = ["coarse", "fine"].index(kind)
    check(loaded.train, [train], [train_labels[column]])
    check(loaded.test, [test], [test_labels[column]])
    assert (loaded.name, loaded.classes) == ("cifar100", 100 if kind == "fine" else 20)


def test_pixels_become_minus_one_to_one(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, binary10()), "binary 10")
    inputs, _ = loaded.train.first(BATCH)
    expected = (pictures(BATCH, seed=0).astype(np.float32) / np.float32(255) - 0.5) / 0.5
    np.testing.assert_array_equal(inputs.numpy(), expected.astype(np.float32))


def test_unknown_labels(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown label kind 'corse'\. Did you mean 'coarse'"):
        load(tmp_path, "binary 100", labels="corse")


def test_official_counts(tmp_path: Path) -> None:
    write(tmp_path, {"data_batch_1.bin": b""})
    with pytest.raises(DataError, match="it holds 0 of 30,730,000 bytes"):
        load_cifar10(tmp_path, validation=0)
    write(tmp_path, {"train.bin": b""})
    with pytest.raises(DataError, match="it holds 0 of 153,700,000 bytes"):
        load_cifar100(tmp_path, validation=0)


@pytest.mark.slow
def test_a_jpeg_copy_of_all_pictures(tmp_path: Path) -> None:
    root = os.environ.get("FDFA_DATA")
    copy = Path(root, "cifar-10", "cifar-10-jpeg.npz") if root else None
    if copy is None or not copy.exists():
        pytest.skip("FDFA_DATA names no folder with cifar-10/cifar-10-jpeg.npz")
    from PIL import Image

    archive = np.load(copy)
    expected: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for split in ("train", "test"):
        jpeg, offsets = archive[f"{split}_jpeg"].tobytes(), archive[f"{split}_offsets"]
        images = [
            np.asarray(Image.open(io.BytesIO(jpeg[start:end])).convert("RGB")).transpose(2, 0, 1)
            for start, end in itertools.pairwise(offsets)
        ]
        expected[split] = np.stack(images), archive[f"{split}_labels"].astype(np.uint8)
    (train, train_labels), (test, test_labels) = expected["train"], expected["test"]
    parts = {
        f"data_batch_{number + 1}": (
            train[number * 10_000 : (number + 1) * 10_000],
            train_labels[number * 10_000 : (number + 1) * 10_000],
        )
        for number in range(5)
    }
    parts["test_batch"] = test, test_labels
    write(tmp_path / "bin", {f"{name}.bin": binary(*part) for name, part in parts.items()})
    pickled = {name: cifar_batch(images, labels=y) for name, (images, y) in parts.items()}
    write(tmp_path / "py", archived(pickled, *LAYOUTS["python 10"][1:]))
    for folder in ("bin", "py"):
        loaded = load_cifar10(tmp_path / folder, validation=0)
        check(loaded.train, [train], [train_labels])
        check(loaded.test, [test], [test_labels])
        assert np.bincount(loaded.train.labels).tolist() == [5000] * 10

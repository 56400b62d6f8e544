"""MNIST's four files: read exactly, refused where anything is wrong."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fdfa import data
from fdfa.data.mnist import FILES, load_fashion_mnist, load_mnist
from fdfa.errors import ConfigError, DataError
from tests.data.idx_files import idx, write_mnist

COUNTS = (12, 5)
BOTH = {"mnist": load_mnist, "fashion-mnist": load_fashion_mnist}


def load_small(folder: Path, *, validation: int = 0) -> data.Dataset:
    return load_mnist(folder, validation=validation, examples=COUNTS)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", BOTH)
def test_pixels_are_kept_and_batches_are_normalised_as_the_paper_does(
    tmp_path: Path, name: str, packed: bool
) -> None:
    written = write_mnist(tmp_path, packed=packed)
    loaded = BOTH[name](tmp_path, validation=0, examples=COUNTS)
    for part, file in ((loaded.train, "train"), (loaded.test, "t10k")):
        pixels = written[f"{file}-images-idx3-ubyte"][:, None]
        labels = written[f"{file}-labels-idx1-ubyte"]
        assert part.inputs.dtype == torch.uint8
        assert np.array_equal(part.inputs.numpy(), pixels)
        assert part.labels.dtype == torch.int64
        assert part.labels.tolist() == labels.tolist()
        expected = (pixels.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
        order = torch.arange(len(part)).flip(0)
        ((inputs, targets),) = part.batches([order])
        assert torch.equal(inputs, torch.from_numpy(expected)[order])
        assert torch.equal(targets, part.labels[order])
    assert (loaded.name, loaded.shape, loaded.classes) == (name, (1, 28, 28), 10)


def test_validation_keeps_pictures_and_labels_together(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    whole, split = load_small(tmp_path), load_small(tmp_path, validation=4)

    def pairs(part: data.Examples) -> dict[bytes, int]:
        both = zip(part.inputs, part.labels, strict=True)
        return {image.numpy().tobytes(): int(label) for image, label in both}

    assert pairs(split.train) | pairs(split.validation) == pairs(whole.train)
    assert (len(split.train), len(split.validation)) == (8, 4)
    assert torch.equal(split.test.inputs, whole.test.inputs)


@pytest.mark.parametrize("missing", [FILES[:1], FILES[1:3], FILES], ids=len)
def test_missing_files_are_named_all_at_once(tmp_path: Path, missing: tuple[str, ...]) -> None:
    write_mnist(tmp_path)
    for file in missing:
        (tmp_path / file).unlink()
    with pytest.raises(DataError, match=f"lacks {', '.join(missing)} ") as caught:
        load_small(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "Put the four official files" in str(caught.value)


@pytest.mark.parametrize("file", FILES)
def test_counts_must_be_the_official_ones(tmp_path: Path, file: str) -> None:
    written = write_mnist(tmp_path)
    (tmp_path / file).write_bytes(idx(written[file][:-1]))
    with pytest.raises(DataError, match=f"{file} claims the shape"):
        load_small(tmp_path)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("spoil", [lambda content: content[:-1], lambda content: content + b"\0"])
def test_each_file_is_read_strictly(
    tmp_path: Path, file: str, spoil: Callable[[bytes], bytes]
) -> None:
    write_mnist(tmp_path)
    (tmp_path / file).write_bytes(spoil((tmp_path / file).read_bytes()))
    with pytest.raises(DataError, match=f"{file} (is cut off|goes on after)"):
        load_small(tmp_path)


@pytest.mark.parametrize("label", [10, 255])
@pytest.mark.parametrize("part", ["train", "t10k"])
def test_labels_out_of_range(tmp_path: Path, part: str, label: int) -> None:
    labels = write_mnist(tmp_path)[f"{part}-labels-idx1-ubyte"]
    labels[3] = label
    (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    with pytest.raises(DataError, match=rf"{part}-labels.* the label {label} at position 3"):
        load_small(tmp_path)


def test_swapped_files_are_noticed(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    shutil.copy(tmp_path / "t10k-images-idx3-ubyte", tmp_path / "train-images-idx3-ubyte")
    with pytest.raises(DataError, match=r"train-images.* claims the shape \(5, 28, 28\)"):
        load_small(tmp_path)


def test_impossible_validation(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    with pytest.raises(ConfigError, match="validation=12"):
        load_small(tmp_path, validation=12)


# Brightness 0.1307 and 0.2860 are the means that torchvision's examples normalise by.
@pytest.mark.parametrize(("name", "mean"), [("mnist", 0.1307), ("fashion-mnist", 0.2860)])
def test_the_real_files(name: str, mean: float) -> None:
    root = os.environ.get("FDFA_DATA")
    if not root or not (Path(root) / name).is_dir():
        pytest.skip(f"no folder {name} in FDFA_DATA")
    loaded = data.load(name, download=False, validation=0)
    assert (len(loaded.train), len(loaded.test)) == (60_000, 10_000)
    assert loaded.train.inputs.float().mean().item() / 255 == pytest.approx(mean, abs=5e-5)
    if name == "mnist":
        # Printed in many tutorials.
        assert loaded.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
        assert torch.bincount(loaded.test.labels).tolist() == [
            980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
        ]  # fmt: skip
    else:
        assert torch.bincount(loaded.train.labels).tolist() == [6000] * 10

"""MNIST's four files: found where they may lie, read exactly, refused where anything is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fdfa import data
from fdfa.data.mnist import FILES, load_mnist
from fdfa.errors import ConfigError, DataError
from tests.data.idx_files import idx, write_mnist

COUNTS = (12, 5)


@pytest.fixture(autouse=True)
def _no_folder_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FDFA_DATA", raising=False)


def load_small(folder: Path | None, *, validation: int = 0, name: str = "mnist") -> data.Dataset:
    return load_mnist(name, directory=folder, validation=validation, examples=COUNTS)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_values_are_normalised_as_the_paper_does(tmp_path: Path, packed: bool) -> None:
    written = write_mnist(tmp_path, packed=packed)
    loaded = load_small(tmp_path)
    for part, file in (("train", "train"), ("test", "t10k")):
        pixels = written[f"{file}-images-idx3-ubyte"].astype(np.float32)[:, None]
        expected = (pixels / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
        inputs, labels = getattr(loaded, f"{part}_inputs"), getattr(loaded, f"{part}_labels")
        assert inputs.dtype == torch.float32
        assert torch.equal(inputs, torch.from_numpy(expected))
        assert labels.dtype == torch.int64
        assert labels.tolist() == written[f"{file}-labels-idx1-ubyte"].tolist()
    assert (loaded.name, loaded.image, loaded.classes) == ("mnist", (1, 28, 28), 10)


def test_validation_keeps_pictures_and_labels_together(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    whole, split = load_small(tmp_path), load_small(tmp_path, validation=4)
    pairs = {
        image.numpy().tobytes(): int(label)
        for image, label in zip(whole.train_inputs, whole.train_labels, strict=True)
    }
    found = {}
    for part in ("train", "validation"):
        inputs, labels = getattr(split, f"{part}_inputs"), getattr(split, f"{part}_labels")
        found |= {x.numpy().tobytes(): int(y) for x, y in zip(inputs, labels, strict=True)}
    assert found == pairs
    assert (len(split.train_labels), len(split.validation_labels)) == (8, 4)
    assert torch.equal(split.test_inputs, whole.test_inputs)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_full_size_through_the_public_name(tmp_path: Path, monkeypatch, name: str) -> None:
    write_mnist(tmp_path / name, counts=(60_000, 10_000))
    monkeypatch.setenv("FDFA_DATA", str(tmp_path))
    loaded = data.load(name)
    assert loaded.name == name
    assert loaded.train_inputs.shape == (55_000, 1, 28, 28)
    assert loaded.validation_inputs.shape == (5_000, 1, 28, 28)
    assert loaded.test_inputs.shape == (10_000, 1, 28, 28)


def test_the_folder_above_will_do(tmp_path: Path) -> None:
    write_mnist(tmp_path / "fashion-mnist")
    assert load_small(tmp_path, name="fashion-mnist").name == "fashion-mnist"


def test_the_given_directory_comes_before_the_environment(tmp_path: Path, monkeypatch) -> None:
    write_mnist(tmp_path / "given")
    monkeypatch.setenv("FDFA_DATA", str(tmp_path / "nowhere"))
    assert load_small(tmp_path / "given").image == (1, 28, 28)


def test_no_folder_at_all() -> None:
    with pytest.raises(
        DataError, match=r"neither a directory nor .* FDFA_DATA says .* set FDFA_DATA"
    ):
        data.load("mnist")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder") as caught:
        data.load("mnist", directory=tmp_path / "nowhere")
    assert str(tmp_path / "nowhere" / "mnist") in str(caught.value)


@pytest.mark.parametrize("file", FILES)
def test_each_missing_file_is_named(tmp_path: Path, file: str) -> None:
    write_mnist(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(DataError, match=rf"holds neither {file} nor {file}\.gz") as caught:
        load_small(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "Put the four official files" in str(caught.value)


@pytest.mark.parametrize("file", FILES)
def test_counts_must_be_the_official_ones(tmp_path: Path, file: str) -> None:
    written = write_mnist(tmp_path)
    (tmp_path / file).write_bytes(idx(written[file][:-1]))
    with pytest.raises(DataError, match=f"{file} claims the shape"):
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

"""EMNIST in all its forms: loose, packed, in the official archive."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fdfa.data.emnist import SPLITS, load_emnist
from fdfa.errors import ConfigError, DataError
from tests.data.fuzz import damaged, or_refused
from tests.data.idx_files import idx
from tests.data.writers import labels, pictures, write

COUNTS = (7, 3)


def contents(split: str = "balanced") -> tuple[dict[str, bytes], list[np.ndarray]]:
    """The four files, and the pictures and labels in them."""
    files, arrays = {}, []
    for seed, (part, count) in enumerate(zip(("train", "test"), COUNTS, strict=True)):
        images = pictures(count, channels=1, side=28, seed=seed)[:, 0]
        known = SPLITS[split]
        numbers = labels(count, classes=known.classes, seed=seed)
        numbers[:2] = 0, known.classes - 1
        files[f"emnist-{split}-{part}-images-idx3-ubyte"] = idx(images)
        files[f"emnist-{split}-{part}-labels-idx1-ubyte"] = idx(numbers + np.uint8(known.first))
        arrays += [images, numbers]
    return files, arrays


def packed(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(file, mtime=0) for name, file in files.items()}


def zipped(files: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, file in files.items():
            archive.writestr(f"gzip/{name}", file)
    return stream.getvalue()


FORMS = {
    "plain": lambda files: files,
    "gzip": packed,
    "folder": lambda files: {f"gzip/{name}": file for name, file in packed(files).items()},
    "zip": lambda files: {"gzip.zip": zipped(packed(files))},
    "deflated zip": lambda files: {
        "gzip.zip": zipped(packed(files), compression=zipfile.ZIP_DEFLATED)
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_upright_pictures(tmp_path: Path, form: str) -> None:
    files, (train, train_labels, test, test_labels) = contents()
    loaded = load_emnist(write(tmp_path, FORMS[form](files)), validation=0, examples=COUNTS)
    assert (loaded.name, loaded.classes, loaded.shape) == ("emnist-balanced", 47, (1, 28, 28))
    for part, images, numbers in (
        (loaded.train, train, train_labels),
        (loaded.test, test, test_labels),
    ):
        # Row r, column c of what is seen is column c, row r of what is stored.
        assert part.inputs.tolist() == images.transpose(0, 2, 1)[:, None].tolist()
        assert part.inputs.is_contiguous()
        assert part.labels.tolist() == numbers.tolist()


@pytest.mark.parametrize("split", SPLITS)
def test_labels_of_every_split_start_at_0(tmp_path: Path, split: str) -> None:
    files, (_, train_labels, _, _) = contents(split)
    loaded = load_emnist(write(tmp_path, files), validation=0, split=split, examples=COUNTS)
    assert loaded.name == f"emnist-{split}"
    assert loaded.classes == SPLITS[split].classes
    assert loaded.train.labels.tolist() == train_labels.tolist()


def test_official_counts() -> None:
    # Table II of the paper (arXiv:1702.05373).
    found = {name: (split.classes, split.train, split.test) for name, split in SPLITS.items()}
    assert found == {
        "byclass": (62, 697_932, 116_323),
        "bymerge": (47, 697_932, 116_323),
        "balanced": (47, 112_800, 18_800),
        "letters": (26, 124_800, 20_800),
        "digits": (10, 240_000, 40_000),
        "mnist": (10, 60_000, 10_000),
    }


def test_without_the_test_only_counts_the_official_ones_are_asked_for(tmp_path: Path) -> None:
    files, _ = contents()
    with pytest.raises(DataError, match=r"claims the shape \(7,\) where \(112800,\) is expected"):
        load_emnist(write(tmp_path, files), validation=0)


@pytest.mark.parametrize("missing", range(4))
@pytest.mark.parametrize("form", ["plain", "gzip", "zip"])
def test_each_missing_file_is_named(tmp_path: Path, missing: int, form: str) -> None:
    files, _ = contents()
    name = list(files)[missing]
    del files[name]
    with pytest.raises(DataError, match=name):
        load_emnist(write(tmp_path, FORMS[form](files)), validation=0, examples=COUNTS)


@pytest.mark.parametrize("label", [0, 27])
def test_letters_are_1_to_26(tmp_path: Path, label: int) -> None:
    files, _ = contents("letters")
    files["emnist-letters-test-labels-idx1-ubyte"] = idx(np.array([1, label, 1], np.uint8))
    with pytest.raises(DataError, match=rf"label {label} at position 1, outside 1 \.\.\. 26"):
        load_emnist(write(tmp_path, files), validation=0, split="letters", examples=COUNTS)


def test_a_misspelt_split(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown split 'letter'\. Did you mean 'letters'\?"):
        load_emnist(tmp_path, validation=0, split="letter")


def test_a_damaged_member_of_the_archive_is_named(tmp_path: Path) -> None:
    files, _ = contents()
    name = "emnist-balanced-train-images-idx3-ubyte"
    files[name] = files[name][:-1]
    with pytest.raises(DataError, match=rf"gzip\.zip \(gzip/{name}\.gz\) is cut off"):
        load_emnist(write(tmp_path, FORMS["zip"](files)), validation=0, examples=COUNTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files, _ = contents("letters")
    return write(tmp_path_factory.mktemp("fuzz"), packed(files))


NAMES = list(packed(contents("letters")[0]).items())


@settings(max_examples=50)
@given(data=st.data(), which=st.integers(0, 3))
def test_fuzz_a_file(folder: Path, data: st.DataObject, which: int) -> None:
    name, good = NAMES[which]
    write(folder, {name: data.draw(damaged(good, gzip.decompress(good)))})
    or_refused(lambda: load_emnist(folder, validation=1, split="letters", examples=COUNTS))
    write(folder, {name: good})


@settings(max_examples=50)
@given(content=st.binary(max_size=100) | damaged(FORMS["zip"](contents()[0])["gzip.zip"]))
def test_fuzz_the_archive(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "emnist-zip"
    write(folder, {"gzip.zip": content})
    or_refused(lambda: load_emnist(folder, validation=1, examples=COUNTS))

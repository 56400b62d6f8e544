"""SVHN's MATLAB files against an independent writer of that format."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fdfa.data.matlab import read_mat
from fdfa.data.svhn import load_svhn
from fdfa.errors import DataError
from tests.data.fuzz import damaged, or_refused
from tests.data.writers import (
    MAT_HEADER,
    mat,
    mat_array,
    mat_element,
    mat_packed,
    pictures,
    write,
)

COUNTS = (6, 5)
SHAPES = {"X": (2, 3, 4), "y": (5, 1)}
X = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
Y = np.array([[1], [10], [3], [2], [9]], np.uint8)
PLAIN = MAT_HEADER + mat_array("X", X) + mat_array("y", Y)
PACKED = mat(X=X, y=Y)


def read(folder: Path, content: bytes) -> dict[str, list]:
    (folder / "file.mat").write_bytes(content)
    arrays = read_mat(folder / "file.mat", shapes=SHAPES)
    return {name: values.tolist() for name, values in arrays.items()}


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PACKED,
        MAT_HEADER + mat_packed(mat_array("y", Y)) + mat_array("X", X),
        MAT_HEADER + mat_array("X", X, kind=6) + mat_array("y", Y, kind=6, flags=2),
    ],
    ids=["plain", "deflated", "both, in the other order", "class double, logical"],
)
def test_reads_what_was_written(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path, content) == {"X": X.tolist(), "y": Y.tolist()}


def test_values_that_lie_in_the_place_of_their_size(tmp_path: Path) -> None:
    (tmp_path / "file.mat").write_bytes(mat(y=Y[:3]))
    assert read_mat(tmp_path / "file.mat", shapes={"y": (3, 1)})["y"].tolist() == [[1], [10], [3]]


def test_padding_at_the_very_end_may_be_missing(tmp_path: Path) -> None:
    array = mat_array("y", Y)
    size = struct.pack("<I", len(array) - 8 - 3)
    assert read(tmp_path, MAT_HEADER + mat_array("X", X) + array[:4] + size + array[8:-3])


def test_svhn_is_upright_and_counts_from_0(tmp_path: Path) -> None:
    files, written = {}, {}
    for name, count in zip(("train", "test"), COUNTS, strict=True):
        images = pictures(count, seed=count)  # (N, C, H, W)
        numbers = np.arange(1, 11, dtype=np.uint8)[-count:, None]  # 10 stands for 0
        files[f"{name}_32x32.mat"] = mat(X=images.transpose(2, 3, 1, 0), y=numbers)
        written[name] = images, numbers
    loaded = load_svhn(write(tmp_path, files), validation=0, examples=COUNTS)
    assert (loaded.name, loaded.classes, loaded.shape) == ("svhn", 10, (3, 32, 32))
    for part in ("train", "test"):
        images, numbers = written[part]
        examples = getattr(loaded, part)
        assert examples.inputs.is_contiguous()
        assert examples.inputs.tolist() == images.tolist()
        assert examples.labels.tolist() == [int(number) % 10 for number in numbers[:, 0]]
    assert loaded.train.labels.tolist()[-1] == 0


@pytest.mark.parametrize("label", [0, 11, 255])
def test_labels_out_of_range(tmp_path: Path, label: int) -> None:
    numbers = np.array([[1], [2], [label], [3], [4]], np.uint8)
    files = {
        "train_32x32.mat": mat(X=np.zeros((32, 32, 3, 5), np.uint8), y=numbers),
        "test_32x32.mat": b"",
    }
    with pytest.raises(DataError, match=rf"label {label} at position 2, outside 1 \.\.\. 10"):
        load_svhn(write(tmp_path, files), validation=0, examples=(5, 5))


@pytest.mark.parametrize("missing", ["train_32x32.mat", "test_32x32.mat"])
def test_each_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    write(tmp_path, {"train_32x32.mat": b"", "test_32x32.mat": b""})
    (tmp_path / missing).unlink()
    with pytest.raises(DataError, match=rf"does not hold {missing}\. Put the official files"):
        load_svhn(tmp_path, validation=0)


def test_official_counts(tmp_path: Path) -> None:
    files = dict.fromkeys(("train_32x32.mat", "test_32x32.mat"), mat(y=Y))
    with pytest.raises(DataError, match=r"claims the shape \(5, 1\) of 'y' where \(73257, 1\)"):
        load_svhn(write(tmp_path, files), validation=0)


def element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content


def array_of(*parts: bytes) -> bytes:
    return MAT_HEADER + mat_array("X", X) + element(14, b"".join(parts))


FLAGS = mat_element(6, struct.pack("<II", 9, 0))
DIMENSIONS = mat_element(5, struct.pack("<ii", 5, 1))
NAME, VALUES = mat_element(1, b"y"), mat_element(2, Y.tobytes())


def deflated(array: bytes, *, behind: bytes = b"") -> bytes:
    return MAT_HEADER + mat_array("X", X) + element(15, zlib.compress(array) + behind)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not a MATLAB 5 file: it begins with b''"),
        (b"MATLAB 7.3 MAT-file".ljust(200), "is not a MATLAB 5 file: it begins with b'MATLAB 7.3"),
        (MAT_HEADER[:127], "cut off in its header, after 127 bytes"),
        (
            MAT_HEADER[:124] + b"\1\0MI" + PLAIN[128:],
            "of a version or byte order that is not known",
        ),
        (MAT_HEADER, "lacks the array 'X'"),
        (mat(X=X), "lacks the array 'y'"),
        (mat(X=X, y=Y) + mat_array("y", Y), "holds 'y' twice"),
        (mat(X=X, y=Y, z=Y), "holds an array 'z' where only X, y are expected"),
        (mat(X=X, y=Y[:4]), r"claims the shape \(4, 1\) of 'y' where \(5, 1\) is expected"),
        (mat(X=X, y=Y.T), r"claims the shape \(1, 5\) of 'y'"),
        (PLAIN + b"abc", "is cut off between two elements"),
        (PLAIN[:-1], "(is cut off|goes on|does not hold)"),
        (PLAIN[:-9], "(is cut off|goes on|does not hold)"),
        (PACKED[:-1], "cannot be read: a deflated array ends too early"),
        (PACKED[:-4] + b"\0\0\0\0", "cannot be read: Error -3"),
        (PACKED[:150] + b"\xff" + PACKED[151:], "(cannot be read|damaged|claims|cut off)"),
        (MAT_HEADER + element(9, bytes(8)), "an element of type 9 where an array is expected"),
        (MAT_HEADER + element(15, zlib.compress(element(9, b""))), "an element of type 9"),
        (MAT_HEADER + mat_array("X", X, kind=7), "holds 'X' of a class other than uint8"),
        (MAT_HEADER + mat_array("X", X, flags=8), "holds 'X' of a class other than uint8"),
        (deflated(mat_array("y", Y), behind=b"x"), "goes on after an array's end"),
        (deflated(mat_array("y", Y) + b"x"), "goes on after an array's end"),
        (array_of(FLAGS, DIMENSIONS, NAME, VALUES, b"12345678"), "does not hold the 5 values"),
        (array_of(FLAGS, DIMENSIONS, NAME, mat_element(2, b"1234")), "does not hold the 5 values"),
        (array_of(FLAGS, DIMENSIONS, NAME, mat_element(2, b"123456")), "a part .* claims 6 bytes"),
        (array_of(FLAGS, DIMENSIONS, NAME, mat_element(9, b"1" * 40)), "part of type 9 where 2"),
        (array_of(FLAGS, DIMENSIONS, NAME), "is cut off"),
        (array_of(FLAGS, DIMENSIONS, NAME, struct.pack("<II", 2, 5), b"12"), "it holds 2 of 5 by"),
        (array_of(FLAGS, mat_element(5, bytes(6)), NAME, VALUES), "dimensions of 'y' cannot be"),
        (array_of(FLAGS, mat_element(5, bytes(400)), NAME), "a part of an array claims 400 bytes"),
        (array_of(FLAGS, DIMENSIONS, mat_element(1, b"y" * 64)), "a part .* claims 64 bytes"),
        (array_of(mat_element(6, bytes(4)), DIMENSIONS, NAME, VALUES), "class other than uint8"),
        (array_of(struct.pack("<HHI", 6, 8, 0)), "a part of an array claims 8 bytes"),
        (array_of(struct.pack("<II", 6, 2**32 - 1)), "a part of an array claims 4,294,967,295"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=rf"file\.mat .*{reason}"):
        read(tmp_path, content)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@given(content=st.binary(max_size=300) | st.binary(max_size=100).map(MAT_HEADER.__add__))
def test_fuzz_any_bytes(folder: Path, content: bytes) -> None:
    or_refused(lambda: read(folder, content))


@given(content=damaged(PLAIN, PACKED))
def test_fuzz_a_damaged_file(folder: Path, content: bytes) -> None:
    found = or_refused(lambda: read(folder, content))
    assert found is None or (np.shape(found["X"]), np.shape(found["y"])) == ((2, 3, 4), (5, 1))


@given(inside=damaged(mat_array("y", Y)))
def test_fuzz_what_is_deflated(folder: Path, inside: bytes) -> None:
    or_refused(lambda: read(folder, deflated(inside)))

"""The IDX reader: what it reads, what it refuses, and that nothing else can happen."""

from __future__ import annotations

import gzip
import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fdfa.data.idx import read_idx
from fdfa.errors import DataError
from tests.data.idx_files import idx

PICTURES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
WHOLE = idx(PICTURES)
PACKED = gzip.compress(WHOLE, mtime=0)


def read(folder: Path, content: bytes, *, shape: tuple[int, ...] = (2, 3, 4)) -> torch.Tensor:
    path = folder / "pictures"
    path.write_bytes(content)
    return read_idx(path, shape=shape)


@pytest.mark.parametrize("content", [WHOLE, PACKED], ids=["plain", "gzip"])
def test_reads_what_was_written(tmp_path: Path, content: bytes) -> None:
    values = read(tmp_path, content)
    assert values.dtype == torch.uint8
    assert values.tolist() == PICTURES.tolist()


def test_an_archive_may_have_several_members(tmp_path: Path) -> None:
    content = gzip.compress(WHOLE[:20], mtime=0) + gzip.compress(WHOLE[20:], mtime=0)
    assert read(tmp_path, content).tolist() == PICTURES.tolist()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cut off in its header, after 0 bytes"),
        (WHOLE[:3], "cut off in its header, after 3 bytes"),
        (WHOLE[:9], "cut off in its header, after 9 bytes"),
        (WHOLE[:-1], "cut off: it holds 23 of 24 values"),
        (WHOLE + b"\0", "goes on after the 24 values"),
        (b"\x01" + WHOLE[1:], "not an IDX file: it begins with the bytes 01 00 08 03"),
        (b"\0\x01" + WHOLE[2:], "not an IDX file"),
        (b"\x89PNG\r\n" + WHOLE, "not an IDX file: it begins with the bytes 89 50 4e 47"),
        (idx(PICTURES, code=0x0D), "holds values of float32 where uint8 is expected"),
        (idx(PICTURES, code=0x77), "holds values of the unknown type 0x77"),
        (idx(PICTURES, shape=(24,)), "has 1 dimension\\(s\\) where 3 are expected"),
        (idx(PICTURES, shape=(3, 2, 4)), r"claims the shape \(3, 2, 4\) where \(2, 3, 4\)"),
        (idx(PICTURES, shape=(2**32 - 1,) * 3), r"claims the shape \(4294967295, "),
        (PACKED[:1], "cut off in its header"),
        (PACKED[:2], "cannot be read"),
        (PACKED[:-9], "cannot be read: Compressed file ended"),
        (PACKED[:-1], "cannot be read: Compressed file ended"),
        (PACKED[:-5] + b"\xff" + PACKED[-4:], "cannot be read: CRC check failed"),
        (PACKED[:12] + b"\xff\xff" + PACKED[14:], "cannot be read"),
        (PACKED + b"junk", "cannot be read: Not a gzipped file"),
        (gzip.compress(WHOLE + b"\0", mtime=0), "goes on after the 24 values"),
        (gzip.compress(WHOLE[:-1], mtime=0), "cut off: it holds 23 of 24 values"),
    ],
)
def test_refuses_and_names_file_and_remedy(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        read(tmp_path, content)
    assert str(tmp_path / "pictures") in str(caught.value)
    assert "Remove the file and get it again" in str(caught.value)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: None], ids=["folder", "missing"])
def test_what_is_no_file_is_refused(tmp_path: Path, make) -> None:
    make(tmp_path / "pictures")
    with pytest.raises(DataError, match="pictures cannot be read"):
        read_idx(tmp_path / "pictures", shape=(1,))


def test_an_archive_that_never_ends_takes_no_memory(tmp_path: Path) -> None:
    # 64 MiB of zeros in 64 kB: a reader that unpacks all of it is caught by its peak.
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb") as archive:
        archive.write(WHOLE)
        for _ in range(64):
            archive.write(bytes(2**20))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="goes on after the 24 values"):
            read(tmp_path, stream.getvalue())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * 2**20


def outcome(folder: Path, content: bytes) -> None:
    """A tensor that says exactly what the bytes say, or our error; nothing else."""
    try:
        values = read(folder, content)
    except DataError:
        return
    assert values.shape == (2, 3, 4)
    plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    assert plain == WHOLE[:16] + bytes(values.flatten().tolist())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@given(content=st.binary(max_size=64))
def test_fuzz_any_bytes(folder: Path, content: bytes) -> None:
    outcome(folder, content)


@given(body=st.binary(max_size=40))
def test_fuzz_any_bytes_behind_a_good_header(folder: Path, body: bytes) -> None:
    outcome(folder, WHOLE[:16] + body)


@given(
    content=st.sampled_from([WHOLE, PACKED]),
    position=st.integers(0, 80),
    value=st.integers(0, 255),
    length=st.integers(0, 80),
)
def test_fuzz_one_changed_byte_and_a_cut(
    folder: Path, content: bytes, position: int, value: int, length: int
) -> None:
    broken = bytearray(content)
    broken[position % len(broken)] = value
    outcome(folder, bytes(broken))
    outcome(folder, bytes(broken[:length]))


@given(payload=st.binary(max_size=64))
def test_fuzz_any_bytes_inside_an_archive(folder: Path, payload: bytes) -> None:
    outcome(folder, gzip.compress(payload, mtime=0))
    outcome(folder, b"\x1f\x8b" + payload)

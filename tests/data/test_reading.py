"""What all readers share: streams that end where they must, and one voice for bad files."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fdfa.data.reading import PIECE, Slice, checked_labels, existing, opened, refuse, take, take_all
from fdfa.errors import DataError


class OneByteAtATime(io.RawIOBase):
    """A stream that gives less than it is asked for, as pipes and archives may."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        return self._content.readinto(memoryview(buffer)[:1])


@given(content=st.binary(max_size=40), count=st.integers(0, 50), size=st.integers(0, 50))
def test_take_and_slice_are_slices(content: bytes, count: int, size: int) -> None:
    for stream in (io.BytesIO(content), OneByteAtATime(content)):
        part = Slice(stream, size)
        assert take(part, count) == content[:size][:count]
        assert part.left == size - min(size, count, len(content))
        part.skip()
        assert take(stream, 100) == content[size:]


def test_take_goes_on_behind_a_piece() -> None:
    content = os.urandom(PIECE + 7)
    assert take(io.BytesIO(content), PIECE + 100) == content
    assert take_all(io.BytesIO(content), PIECE + 7, place="file") == content


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"ab", r"^file is cut off: it holds 2 of 3 apples\. Remove the file"),
        (b"abcd", r"^file goes on after the 3 apples that it has to hold\. Remove"),
    ],
)
def test_take_all_wants_the_exact_number(content: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        take_all(io.BytesIO(content), 3, place="file", unit="apples")


@pytest.mark.parametrize("unpack", [True, False])
def test_opened_unpacks_unless_told_not_to(tmp_path: Path, unpack: bool) -> None:
    packed = gzip.compress(b"content", mtime=0)
    (tmp_path / "file").write_bytes(packed)
    with opened(tmp_path / "file", unpack=unpack) as stream:
        assert take(stream, 100) == (b"content" if unpack else packed)


@pytest.mark.parametrize("content", [b"", b"\x1f", b"a", b"plain"])
def test_opened_leaves_what_is_not_packed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with opened(tmp_path / "file") as stream:
        assert take(stream, 100) == content


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (
        pytest.raises(DataError, match="pipe cannot be read: it is no file"),
        opened(tmp_path / "pipe"),
    ):
        pass


def test_a_loop_of_links(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError, match="loop cannot be read"), opened(tmp_path / "loop"):
        pass


def test_what_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"a")

    def refused(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)  # root may read everything
    with pytest.raises(DataError, match="Permission denied"), opened(tmp_path / "file"):
        pass


def test_the_cause_is_kept() -> None:
    cause = OSError("disk")
    with pytest.raises(DataError) as caught:
        refuse("file", "is bad", cause=cause)
    assert caught.value.__cause__ is cause


def test_the_plain_file_comes_before_the_packed(tmp_path: Path) -> None:
    (tmp_path / "file.gz").touch()
    assert existing(tmp_path, "file") == tmp_path / "file.gz"
    (tmp_path / "file").touch()
    assert existing(tmp_path, "file") == tmp_path / "file"


@given(
    values=st.lists(st.integers(0, 255), min_size=1),
    classes=st.integers(1, 255),
    first=st.integers(0, 2),
)
def test_labels_are_in_range_or_refused(values: list[int], classes: int, first: int) -> None:
    labels = torch.tensor(values, dtype=torch.uint8)
    bad = [(at, x) for at, x in enumerate(values) if not first <= x < first + classes]
    if not bad:
        checked = checked_labels(labels, classes=classes, first=first, place="file")
        assert checked.dtype == torch.int64
        assert checked.tolist() == [x - first for x in values]
        return
    with pytest.raises(DataError, match=rf"label {bad[0][1]} at position {bad[0][0]}, outside"):
        checked_labels(labels, classes=classes, first=first, place="file")

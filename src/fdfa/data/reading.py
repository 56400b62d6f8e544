"""How every file of a data set is read: as much as was promised, and refused in one voice."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from fdfa.errors import DataError, briefly

__all__ = [
    "GET_AGAIN",
    "PIECE",
    "Slice",
    "Stream",
    "checked_labels",
    "existing",
    "opened",
    "refuse",
    "take",
    "take_all",
]

GET_AGAIN = "Remove the file and get it again from the data set's own site."
GZIP_MAGIC = b"\x1f\x8b"
PIECE = 2**18

# All that offers `readinto`: plain files, gzip, members of archives, and the classes below.
Stream = io.RawIOBase | io.BufferedIOBase


def refuse(
    place: Path | str, reason: str, *, remedy: str = GET_AGAIN, cause: BaseException | None = None
) -> NoReturn:
    """Raises the error of a bad file: which, why, and what to do.

    Args:
        place: the file, or the member of which archive.
        reason: goes on after the file's name: "is cut off".
        remedy: whole sentences.
        cause: the exception that told of it.

    Raises:
        DataError: always.

    Example:
        >>> refuse("train.bin", "is cut off", remedy="Get it again.")
        Traceback (most recent call last):
        fdfa.errors.DataError: train.bin is cut off. Get it again.
    """
    if isinstance(cause, PermissionError):
        remedy = "Make it readable for you."
    # What other libraries say may end with a full stop already.
    raise DataError(f"{place} {reason.rstrip('. ')}. {remedy}") from cause


@contextlib.contextmanager
def opened(path: Path, *, unpack: bool = True, remedy: str = GET_AGAIN) -> Iterator[Stream]:
    """Opens a file, gzipped or not, which its first bytes tell.

    Args:
        path: the file.
        unpack: whether to unpack what is gzipped; else its own bytes come.
        remedy: of the error.

    Yields:
        The content.

    Raises:
        DataError: for all that goes wrong as long as the file is open: what the disk says, a
            damaged or a cut-off archive.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "packed"
        ...     _ = path.write_bytes(gzip.compress(b"content"))
        ...     with opened(path) as stream:
        ...         print(bytes(take(stream, 3)))
        b'con'
    """
    try:
        # A pipe would wait for ever, a device never end.
        if path.exists() and not path.is_file():
            refuse(path, "cannot be read: it is no file", remedy=remedy)
        with path.open("rb") as raw:
            packed = unpack and raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            raw.seek(0)
            if not packed:
                yield raw
                return
            with gzip.GzipFile(fileobj=raw, mode="rb") as unpacked:
                yield unpacked
    except (OSError, EOFError, zlib.error) as error:
        refuse(path, f"cannot be read: {briefly(error)}", remedy=remedy, cause=error)


def take(stream: Stream, count: int) -> bytearray:
    """Takes bytes from a stream.

    Args:
        stream: where from.
        count: how many; the memory for them is asked for at once.

    Returns:
        So many, fewer only at the end of the stream.

    Example:
        >>> take(io.BytesIO(b"abc"), 5)
        bytearray(b'abc')
    """
    content = bytearray(count)
    filled = 0
    with memoryview(content) as view:
        # In pieces, since archives make a copy of each piece.
        while got := stream.readinto(view[filled : filled + PIECE]):
            filled += got
    del content[filled:]
    return content


def take_all(stream: Stream, count: int, *, place: Path | str, unit: str = "bytes") -> bytearray:
    """Takes exactly what a stream has to hold, and sees that it ends there.

    Args:
        stream: where from.
        count: how many bytes it has to hold.
        place: the file, for the text of an error.
        unit: what one byte stands for, in the plural.

    Returns:
        The bytes.

    Raises:
        DataError: if there are fewer or more.

    Example:
        >>> take_all(io.BytesIO(b"abc"), 3, place="file")
        bytearray(b'abc')
    """
    # One byte more than promised. Reaching the end also makes archives verify their checksum.
    content = take(stream, count + 1)
    if len(content) < count:
        refuse(place, f"is cut off: it holds {len(content):,} of {count:,} {unit}")
    if len(content) > count:
        refuse(place, f"goes on after the {count:,} {unit} that it has to hold")
    return content


class Slice(io.RawIOBase):
    """The next bytes of a stream, as a stream that ends where they end.

    Args:
        stream: where from; it is moved on by what is read here.
        size: how many bytes.

    Attributes:
        left: how many are still to be read.

    Example:
        >>> Slice(io.BytesIO(b"abcdef"), 3).read()
        b'abc'
    """

    def __init__(self, stream: Stream, size: int) -> None:
        self._stream = stream
        self.left = size

    def readable(self) -> bool:
        """Tells ``io`` that this can be read.

        Returns:
            True.
        """
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fills a buffer, or a part of it.

        Args:
            buffer: to be written into.

        Returns:
            How many bytes came; 0 at the end.
        """
        with memoryview(buffer)[: self.left] as view:
            got = (self._stream.readinto(view) or 0) if len(view) else 0
        self.left -= got
        return got

    def skip(self) -> None:
        """Reads to the end and keeps nothing."""
        while self.left and take(self, min(self.left, PIECE)):
            pass


def existing(folder: Path, file: str) -> Path | None:
    """Looks for a file that may be gzipped.

    Args:
        folder: where.
        file: its name without ``.gz``.

    Returns:
        The file, or None where there is neither form.

    Example:
        >>> existing(Path("/nowhere"), "train.bin") is None
        True
    """
    for path in (folder / file, folder / f"{file}.gz"):
        if path.exists():
            return path
    return None


def checked_labels(
    labels: Tensor, *, classes: int, place: Path | str, first: int = 0, remedy: str = GET_AGAIN
) -> Tensor:
    """Checks that every label names a class.

    Args:
        labels: integers of shape (N,).
        classes: how many classes there are.
        place: the file that they come from.
        first: the label of the first class.
        remedy: of the error.

    Returns:
        int64 of shape (N,), values 0 ... classes - 1.

    Raises:
        DataError: if a label is out of range.

    Example:
        >>> checked_labels(torch.tensor([1, 3]), classes=3, first=1, place="labels")
        tensor([0, 2])
    """
    numbers = labels.long()  # bytes cannot be compared with 256
    wrong = torch.nonzero((numbers < first) | (numbers >= first + classes))
    if len(wrong):
        position = int(wrong[0])
        refuse(
            place,
            f"holds the label {int(numbers[position])} at position {position}, outside "
            f"{first} ... {first + classes - 1}",
            remedy=remedy,
        )
    return numbers - first

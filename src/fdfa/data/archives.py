"""Strict readers of tar and zip archives that come with a data set; nothing is unpacked to disk.

Not ``tarfile``: it takes whatever size an extended header claims into memory, which a gzipped
archive of a few kilobytes may fill with zeros.
"""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

from fdfa.data.reading import PIECE, Slice, Stream, refuse, take
from fdfa.errors import DataError, briefly

__all__ = ["tar_files", "zip_file"]

BLOCK = 512
DIRECTORY_LIMIT = 2**20  # bytes of a zip's list of contents; EMNIST's takes 4 kB
# The other kinds unpack as much as they please at a time.
COMPRESSIONS: Final = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


def tar_files(stream: Stream, *, place: Path, limit: int) -> Iterator[tuple[str, Slice]]:
    """The regular files of a tar archive, one after the other.

    Args:
        stream: the unpacked archive.
        place: the archive, for the text of an error.
        limit: how many bytes may come out of it; more is refused.

    Yields:
        Name and content of a file. The content must be read before the next file is asked for.

    Raises:
        DataError: if the archive is damaged, cut off or too long.

    Example:
        >>> import io, tarfile
        >>> packed = io.BytesIO()
        >>> with tarfile.open(fileobj=packed, mode="w") as archive:
        ...     member = tarfile.TarInfo("folder/train.bin")
        ...     member.size = 3
        ...     archive.addfile(member, io.BytesIO(b"abc"))
        >>> with io.BytesIO(packed.getvalue()) as stream:
        ...     for name, content in tar_files(stream, place=Path("a.tar"), limit=20_000):
        ...         print(name, content.read())
        folder/train.bin b'abc'
    """
    bounded = Slice(stream, limit)
    while (header := bytes(take(bounded, BLOCK))) != bytes(BLOCK):
        if len(header) < BLOCK:
            _refuse_end(bounded, place=place, limit=limit)
        name, size, regular = _parsed(header, place=place)
        content = Slice(bounded, size)
        if regular:
            yield name, content
        # Folders and links hold nothing; extended headers say nothing that is needed here.
        content.skip()
        padding = Slice(bounded, -size % BLOCK)
        padding.skip()
        if content.left or padding.left:
            _refuse_end(bounded, place=place, limit=limit)
    # To the very end, where gzip verifies its checksum.
    while take(bounded, PIECE):
        pass
    if not bounded.left:
        _refuse_end(bounded, place=place, limit=limit)


def _refuse_end(bounded: Slice, *, place: Path, limit: int) -> None:
    """Tells an archive that is cut off from one that is too long."""
    if bounded.left:
        refuse(place, "is cut off: it has no end mark")
    refuse(place, f"unpacks to more than the {limit:,} bytes that it may hold")


def _parsed(header: bytes, *, place: Path) -> tuple[str, int, bool]:
    """Name, size, and whether this is a regular file, out of a header of the `ustar` kind."""
    try:
        promised = _octal(header[148:156])
        size = _octal(header[124:136])
        name = header[:100].split(b"\0")[0].decode()
        folder = header[345:500].split(b"\0")[0].decode()
    except ValueError:
        refuse(place, "is not a tar archive, or damaged: a header cannot be read")
    if sum(header[:148]) + 8 * ord(" ") + sum(header[156:]) != promised:
        refuse(place, "is not a tar archive, or damaged: the checksum of a header is wrong")
    # GNU's own format keeps other things where `ustar` keeps the folder.
    if folder and header[257:263] == b"ustar\0":
        name = f"{folder}/{name}"
    return name, size, header[156:157] in {b"0", b"\0"}


def _octal(field: bytes) -> int:
    """An octal number, ended by a space or a zero byte."""
    digits = field.strip(b" \0")
    if not set(digits) <= set(b"01234567"):
        raise ValueError("not an octal number")
    return int(digits or b"0", 8)


@contextlib.contextmanager
def zip_file(path: Path, name: str) -> Iterator[Stream]:
    """Opens one file in a zip archive.

    Args:
        path: the archive.
        name: of the file, folders included.

    Yields:
        The unpacked content.

    Raises:
        DataError: if the archive is damaged, or holds no such file, and for all that goes wrong as
            long as it is open.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "gzip.zip"
        ...     with zipfile.ZipFile(path, "w") as archive:
        ...         archive.writestr("gzip/labels", b"abc")
        ...     with zip_file(path, "gzip/labels") as stream:
        ...         print(bytes(take(stream, 5)))
        b'abc'
    """
    try:
        with _ShortReads(path.open("rb", buffering=0)) as file, zipfile.ZipFile(file) as archive:
            if archive.namelist().count(name) != 1:
                refuse(path, f"has to hold the file {name} once")
            if archive.getinfo(name).compress_type not in COMPRESSIONS:
                refuse(path, f"holds {name} neither stored nor deflated")
            with archive.open(name) as stream:
                yield cast(zipfile.ZipExtFile, stream)  # typeshed says less of it
    except DataError:
        raise  # which is a ValueError, as what zipfile says of a negative position
    except (
        OSError,
        EOFError,
        RuntimeError,  # zipfile's word for what is encrypted or too new
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        refuse(path, f"cannot be read: {briefly(error)}", cause=error)


class _ShortReads(io.BufferedReader):
    """A file that is read in pieces: ``zipfile`` takes a list of contents of any size whole."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > DIRECTORY_LIMIT:
            raise zipfile.BadZipFile(f"its list of contents is said to take {size:,} bytes")
        return super().read(size)

"""A strict reader of IDX files, the format of MNIST and its kin.

A file is two zero bytes, a type code, the number of dimensions, each dimension as a big-endian
32-bit number, then the values (http://yann.lecun.com/exdb/mnist). The caller says which shape it
expects; whatever a damaged or hostile file claims, no more than that (and one byte, to notice that
there is more) is ever unpacked.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, NoReturn, cast

import torch
from torch import Tensor

from fdfa.errors import DataError

__all__ = ["read_idx"]

GZIP_MAGIC = b"\x1f\x8b"
UNSIGNED_BYTE = 0x08
TYPE_NAMES = {
    0x08: "uint8",
    0x09: "int8",
    0x0B: "int16",
    0x0C: "int32",
    0x0D: "float32",
    0x0E: "float64",
}


def read_idx(path: Path, *, shape: tuple[int, ...]) -> Tensor:
    """Reads an IDX file of unsigned bytes, gzipped or not, which its first bytes tell.

    Args:
        path: the file.
        shape: the shape that it has to have; no dimension may be 0.

    Returns:
        uint8 of the given shape.

    Raises:
        DataError: if the file cannot be read, is not such a file, is cut off or goes on too long.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "labels-idx1-ubyte"
        ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
        ...     read_idx(path, shape=(3,))
        tensor([7, 2, 1], dtype=torch.uint8)
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            raw.seek(0)
            if not packed:
                return _read_values(raw, path=path, shape=shape)
            with gzip.GzipFile(fileobj=raw, mode="rb") as unpacked:
                return _read_values(cast(BinaryIO, unpacked), path=path, shape=shape)
    except (OSError, EOFError, zlib.error) as error:
        # A bad checksum, a damaged or a cut-off archive, and all that the disk may say.
        _refuse(path, f"cannot be read: {error}", cause=error)


def _read_values(stream: BinaryIO, *, path: Path, shape: tuple[int, ...]) -> Tensor:
    """Checks the header against the expected shape, then takes exactly the values."""
    _check_header(stream.read(4 + 4 * len(shape)), path=path, shape=shape)
    expected = math.prod(shape)
    # One byte more than promised. Reaching the end also makes gzip verify its checksum.
    values = bytearray(stream.read(expected + 1))
    if len(values) < expected:
        _refuse(path, f"is cut off: it holds {len(values):,} of {expected:,} values")
    if len(values) > expected:
        _refuse(path, f"goes on after the {expected:,} values that its header promises")
    return torch.frombuffer(values, dtype=torch.uint8).reshape(shape)


def _check_header(header: bytes, *, path: Path, shape: tuple[int, ...]) -> None:
    """Refuses everything but unsigned bytes of the expected shape."""
    if len(header) < 4:
        _refuse(path, f"is cut off in its header, after {len(header)} bytes")
    if header[:2] != b"\0\0":
        _refuse(path, f"is not an IDX file: it begins with the bytes {header[:4].hex(' ')}")
    code, dimensions = header[2], header[3]
    if code != UNSIGNED_BYTE:
        found = TYPE_NAMES.get(code, f"unknown type 0x{code:02x}")
        _refuse(path, f"holds {found} values where uint8 is expected")
    if dimensions != len(shape):
        _refuse(path, f"has {dimensions} dimensions where {len(shape)} are expected")
    if len(header) < 4 + 4 * len(shape):
        _refuse(path, f"is cut off in its header, after {len(header)} bytes")
    claimed = struct.unpack(f">{len(shape)}I", header[4:])
    if claimed != shape:
        _refuse(path, f"claims the shape {claimed} where {shape} is expected")


def _refuse(path: Path, reason: str, *, cause: Exception | None = None) -> NoReturn:
    """Raises the error of a bad file: which, why, and what to do."""
    raise DataError(
        f"{path} {reason}. Remove the file and get it again from the data set's own site."
    ) from cause

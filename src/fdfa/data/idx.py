"""A strict reader of IDX files, the format of MNIST and its kin.

A file is two zero bytes, a type code, the number of dimensions, each dimension as a big-endian
32-bit number, then the values (http://yann.lecun.com/exdb/mnist). The caller says which shape it
expects; whatever a damaged or hostile file claims, no more than that (and one byte, to notice that
there is more) is ever unpacked.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import torch
from torch import Tensor

from fdfa.data.reading import Stream, opened, refuse, take, take_all

__all__ = ["read_idx", "read_idx_stream"]

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
    with opened(path) as stream:
        return read_idx_stream(stream, place=path, shape=shape)


def read_idx_stream(stream: Stream, *, place: Path | str, shape: tuple[int, ...]) -> Tensor:
    """Reads the content of an IDX file of unsigned bytes from wherever it comes.

    Args:
        stream: the unpacked content.
        place: what to call it in the text of an error.
        shape: the shape that it has to have; no dimension may be 0.

    Returns:
        uint8 of the given shape.

    Raises:
        DataError: if this is not such a file, is cut off or goes on too long.

    Example:
        >>> import io
        >>> content = io.BytesIO(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 2]))
        >>> read_idx_stream(content, place="labels", shape=(2,))
        tensor([7, 2], dtype=torch.uint8)
    """
    _check_header(bytes(take(stream, 4 + 4 * len(shape))), place=place, shape=shape)
    values = take_all(stream, math.prod(shape), place=place, unit="values")
    return torch.frombuffer(values, dtype=torch.uint8).reshape(shape)


def _check_header(header: bytes, *, place: Path | str, shape: tuple[int, ...]) -> None:
    """Refuses everything but unsigned bytes of the expected shape."""
    if len(header) < 4:
        refuse(place, f"is cut off in its header, after {len(header)} bytes")
    if header[:2] != b"\0\0":
        refuse(place, f"is not an IDX file: it begins with the bytes {header[:4].hex(' ')}")
    code, dimensions = header[2], header[3]
    if code != UNSIGNED_BYTE:
        found = TYPE_NAMES.get(code, f"the unknown type 0x{code:02x}")
        refuse(place, f"holds values of {found} where uint8 is expected")
    if dimensions != len(shape):
        refuse(place, f"has {dimensions} dimension(s) where {len(shape)} are expected")
    if len(header) < 4 + 4 * len(shape):
        refuse(place, f"is cut off in its header, after {len(header)} bytes")
    claimed = struct.unpack(f">{len(shape)}I", header[4:])
    if claimed != shape:
        refuse(place, f"claims the shape {claimed} where {shape} is expected")

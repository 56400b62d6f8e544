"""A strict reader of MATLAB 5 files (``.mat``) that hold arrays of bytes, as SVHN's do.

A file is a header of 128 bytes, then elements: type and size, 4 bytes each, then the content,
filled up to 8 bytes. An element is an array, or a deflated one; an array is four elements: flags,
dimensions, name, values. Content of up to 4 bytes may share the 8 bytes of its type and size
("MAT-File Format", MathWorks). Numbers are little-endian, which the header says.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fdfa.data.reading import PIECE, Slice, Stream, opened, refuse, take

__all__ = ["read_mat"]

HEADER = 128
INT8, UINT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 2, 5, 6, 14, 15
# MATLAB also stores whole numbers of its class `double` as bytes where they fit.
CLASSES = {6, 9}  # double, uint8
COMPLEX = 0x08
LONGEST_NAME = 63  # MATLAB's own limit
MOST_DIMENSIONS = 32


def read_mat(path: Path, *, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    r"""Reads all arrays of a file.

    Args:
        path: the file.
        shapes: which arrays it has to hold, in whatever order, and their shapes; no dimension may
            be 0.

    Returns:
        uint8 arrays of these shapes by name. They are views of memory in MATLAB's order, in which
        the first dimension is the one that runs fastest.

    Raises:
        DataError: if the file cannot be read, is no such file, is cut off or goes on too long, or
            holds other arrays or other shapes.

    Example:
        >>> import tempfile
        >>> element = struct.Struct("<II")
        >>> array = element.pack(6, 8) + struct.pack("<II", 9, 0)  # flags: class uint8
        >>> array += element.pack(5, 8) + struct.pack("<ii", 2, 1)  # dimensions
        >>> array += struct.pack("<HH4s", 1, 1, b"y") + struct.pack("<HH4s", 2, 2, b"\3\5")
        >>> header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "labels.mat"
        ...     _ = path.write_bytes(header + element.pack(14, len(array)) + array)
        ...     read_mat(path, shapes={"y": (2, 1)})
        {'y': tensor([[3],
                [5]], dtype=torch.uint8)}
    """
    arrays: dict[str, Tensor] = {}
    with opened(path) as stream:
        _check_header(bytes(take(stream, HEADER)), place=path)
        while tag := bytes(take(stream, 8)):
            name, values = _read_element(tag, stream, shapes=shapes, place=path)
            if name in arrays:
                refuse(path, f"holds {name!r} twice")
            arrays[name] = values
    missing = [name for name in shapes if name not in arrays]
    if missing:
        refuse(path, f"lacks the array {missing[0]!r}")
    return arrays


def _check_header(header: bytes, *, place: Path) -> None:
    """Refuses everything but MATLAB 5 in little-endian order."""
    if not header.startswith(b"MATLAB 5.0 MAT-file"):
        refuse(place, f"is not a MATLAB 5 file: it begins with {header[:19]!r}")
    if len(header) < HEADER:
        refuse(place, f"is cut off in its header, after {len(header)} bytes")
    if header[124:] != b"\0\1IM":
        refuse(place, f"is of a version or byte order that is not known: {header[124:].hex(' ')}")


def _read_element(
    tag: bytes, stream: Stream, *, shapes: Mapping[str, tuple[int, ...]], place: Path
) -> tuple[str, Tensor]:
    """Name and values of the array in the element that follows a tag."""
    kind, size = _tag(tag, place=place)
    content = Slice(stream, size)
    if kind == COMPRESSED:
        inflated = _Inflated(content)
        kind, size = _tag(bytes(take(inflated, 8)), place=place)
        array = _read_array(kind, Slice(inflated, size), shapes=shapes, place=place)
        # The end of a deflated element is also where its checksum is verified.
        if take(inflated, 1) or inflated.unused or content.left:
            refuse(place, "goes on after an array's end")
        return array
    return _read_array(kind, content, shapes=shapes, place=place)


def _tag(tag: bytes, *, place: Path) -> tuple[int, int]:
    """Type and size of an element."""
    if len(tag) < 8:
        refuse(place, "is cut off between two elements")
    kind, size = struct.unpack("<II", tag)
    return kind, size


def _read_array(
    kind: int, content: Slice, *, shapes: Mapping[str, tuple[int, ...]], place: Path
) -> tuple[str, Tensor]:
    """Checks what an array says of itself before any memory is asked for, then takes its values."""
    if kind != MATRIX:
        refuse(place, f"holds an element of type {kind} where an array is expected")
    flags = _read_part(content, UINT32, most=8, place=place)
    dimensions = _read_part(content, INT32, most=4 * MOST_DIMENSIONS, place=place)
    name = _read_part(content, INT8, most=LONGEST_NAME, place=place).decode("latin-1")
    if len(flags) != 8 or flags[0] not in CLASSES or flags[1] & COMPLEX:
        refuse(place, f"holds {name!r} of a class other than uint8")
    if name not in shapes:
        refuse(place, f"holds an array {name!r} where only {', '.join(shapes)} are expected")
    if len(dimensions) % 4:
        refuse(place, f"is damaged: the dimensions of {name!r} cannot be read")
    shape = struct.unpack(f"<{len(dimensions) // 4}i", dimensions)
    if shape != shapes[name]:
        refuse(place, f"claims the shape {shape} of {name!r} where {shapes[name]} is expected")
    values = _read_part(content, UINT8, most=math.prod(shape), place=place)
    if len(values) < math.prod(shape) or content.left:
        refuse(place, f"does not hold the {math.prod(shape):,} values of {name!r} that it claims")
    backwards = torch.frombuffer(values, dtype=torch.uint8).reshape(shape[::-1])
    return name, backwards.permute(*range(len(shape))[::-1])


def _read_part(content: Slice, kind: int, *, most: int, place: Path) -> bytearray:
    """Takes an element inside an array, and what fills it up to 8 bytes."""
    tag = bytes(take(content, 8))
    found, size = _tag(tag, place=place)
    small = found >> 16
    if small:
        found, size = found & 0xFFFF, small
    if found != kind:
        refuse(place, f"is damaged: it holds a part of type {found} where {kind} is expected")
    if size > (min(most, 4) if small else most):
        refuse(place, f"is damaged: a part of an array claims {size:,} bytes")
    if small:
        return bytearray(tag[4 : 4 + size])
    values = take(content, size)
    if len(values) < size:
        refuse(place, f"is cut off: it holds {len(values):,} of {size:,} bytes")
    Slice(content, -size % 8).skip()
    return values


class _Inflated(io.RawIOBase):
    """The content of a deflated stream; no more is unpacked at a time than is asked for."""

    def __init__(self, packed: Stream) -> None:
        self._packed = packed
        self._inflate = zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while len(buffer) and not self._inflate.eof:
            piece = self._inflate.unconsumed_tail or bytes(take(self._packed, PIECE))
            content = self._inflate.decompress(piece, len(buffer))
            if content:
                buffer[: len(content)] = content
                return len(content)
            if not piece:
                raise EOFError("a deflated array ends too early")
        return 0

    @property
    def unused(self) -> bool:
        """Whether something follows the end of what is deflated."""
        return bool(self._inflate.unused_data)

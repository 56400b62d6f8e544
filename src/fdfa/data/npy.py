"""A strict reader of ``.npy`` files, which hold one array of numbers (numpy's NEP 1).

A file is a magic word, a version, the length of a header, the header (a Python dict as text), then
the values. The header is taken apart by a regular expression and must account for every byte of the
file before any memory is asked for. Arrays of Python objects are refused, since they are pickles.
"""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor

from fdfa.data.reading import Stream, opened, refuse, take

__all__ = ["SAVE_AGAIN", "read_npy"]

SAVE_AGAIN = "Save the array again with numpy.save(path, array, allow_pickle=False)."
MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 4096  # numpy writes some 120 bytes
MOST_DIMENSIONS = 32
# One entry of the header. Its tokens cannot be split in two ways, so that matching takes linear
# time on any text.
ENTRY: Final = re.compile(
    r"\s*+'(?P<key>descr|fortran_order|shape)'\s*+:\s*+"
    r"(?:'(?P<descr>[^']{1,16})'|(?P<order>True|False)|\((?P<shape>[\d\s,]*+)\))\s*+(?:,|(?=\}))"
)
DTYPES: Final = {
    "b1": torch.bool,
    "u1": torch.uint8,
    "u2": torch.uint16,
    "u4": torch.uint32,
    "u8": torch.uint64,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
}


class Header(NamedTuple):
    """What a file says of its array."""

    dtype: torch.dtype
    swapped: bool
    fortran: bool
    shape: tuple[int, ...]


def read_npy(path: Path) -> Tensor:
    r"""Reads an array of bool, integer or floating-point numbers.

    Args:
        path: the file.

    Returns:
        The array, contiguous, of the file's own dtype in this machine's byte order.

    Raises:
        DataError: if the file cannot be read, is no such file, holds something other than numbers
            or no numbers at all, is cut off or goes on too long.

    Example:
        >>> import tempfile
        >>> header = b"{'descr': '<i2', 'fortran_order': False, 'shape': (2,), }".ljust(117) + b"\n"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "labels.npy"
        ...     _ = path.write_bytes(b"\x93NUMPY\1\0" + b"v\0" + header + b"\5\0\0\1")
        ...     read_npy(path)
        tensor([  5, 256], dtype=torch.int16)
    """
    with opened(path, unpack=False, remedy=SAVE_AGAIN) as stream:
        header = _read_header(stream, place=path)
        expected = math.prod(header.shape) * header.dtype.itemsize
        # numpy.save packs nothing: the disk says how much there is before memory is asked for.
        held = path.stat().st_size - stream.tell()
        if held != expected:
            refuse(
                path,
                f"holds {held:,} bytes where its header promises {expected:,}",
                remedy=SAVE_AGAIN,
            )
        content = take(stream, expected)
    if len(content) < expected:
        refuse(path, "became shorter while it was read", remedy=SAVE_AGAIN)
    return _array(content, header, place=path)


def _read_header(stream: Stream, *, place: Path) -> Header:
    """Takes the header apart."""
    start = bytes(take(stream, 8))
    if start[:6] != MAGIC:
        refuse(place, f"is not a .npy file: it begins with {start[:6]!r}", remedy=SAVE_AGAIN)
    if start[6:] not in {b"\1\0", b"\2\0", b"\3\0"}:
        refuse(place, f"has the unknown version {start[6:].hex('.')}", remedy=SAVE_AGAIN)
    # The length takes two bytes in version 1, four in the others.
    length = int.from_bytes(take(stream, 2 if start[6] == 1 else 4), "little")
    if length > LONGEST_HEADER:
        refuse(
            place,
            f"claims a header of {length:,} bytes, more than the {LONGEST_HEADER:,} that are read",
            remedy=SAVE_AGAIN,
        )
    content = bytes(take(stream, length))
    if len(content) < length:
        refuse(place, "is cut off in its header", remedy=SAVE_AGAIN)
    return _parsed(content.decode("latin-1"), place=place)


def _parsed(text: str, *, place: Path) -> Header:
    """The three entries of a header, in whatever order."""
    found: dict[str, str] = {}
    position = text.find("{") + 1
    while entry := ENTRY.match(text, position):
        key = entry["key"]
        value = entry[{"fortran_order": "order"}.get(key, key)]
        if value is None or key in found:
            break
        found[key] = value
        position = entry.end()
    whole = not text[: text.find("{")].strip() and text[position:].strip() == "}"
    if not whole or len(found) != 3:
        refuse(place, f"has a header that cannot be read: {text.strip()[:80]!r}", remedy=SAVE_AGAIN)
    dtype, swapped = _dtype(found["descr"], place=place)
    return Header(dtype, swapped, found["fortran_order"] == "True", _shape(found["shape"], place))


def _dtype(descr: str, *, place: Path) -> tuple[torch.dtype, bool]:
    """The kind of numbers, and whether their bytes are in the other order."""
    order, kind = descr[:1], descr[1:]
    if order not in {"<", ">", "|", "="} or kind not in DTYPES:
        refuse(
            place,
            f"holds {descr!r} where bool, integer or floating-point numbers are expected",
            remedy="Convert the array with astype and save it again.",
        )
    return DTYPES[kind], order == {"little": ">", "big": "<"}[sys.byteorder]


def _shape(text: str, place: Path) -> tuple[int, ...]:
    """The shape; ``3,`` has one dimension and the empty text none."""
    text = text.strip()
    parts = [part.strip() for part in text.removesuffix(",").split(",")] if text else []
    whole = all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts)
    if not whole or (len(parts) == 1 and "," not in text):
        refuse(place, f"has a shape that cannot be read: ({text[:80]})", remedy=SAVE_AGAIN)
    shape = tuple(int(part) for part in parts)
    if 0 in shape or len(shape) > MOST_DIMENSIONS:
        refuse(
            place,
            f"has the shape {shape}: no dimension may be 0, and no more than {MOST_DIMENSIONS} "
            "are read",
            remedy="Save an array that holds something.",
        )
    return shape


def _array(content: bytearray, header: Header, *, place: Path) -> Tensor:
    """The values as a tensor of the shape that the header says."""
    if header.dtype == torch.bool and content.strip(b"\0\1"):
        refuse(place, "holds bool values other than 0 and 1", remedy=SAVE_AGAIN)
    values = torch.frombuffer(content, dtype=header.dtype)
    if header.swapped:
        values.untyped_storage().byteswap(header.dtype)  # type: ignore[no-untyped-call]
    if not header.fortran:
        return values.reshape(header.shape)
    backwards = values.reshape(header.shape[::-1])
    return backwards.permute(*range(len(header.shape))[::-1]).contiguous()

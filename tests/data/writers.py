"""Writes files of every kind that is read, independently of the readers under test."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np


def pictures(count: int, *, channels: int = 3, side: int = 32, seed: int = 0) -> np.ndarray:
    """Pseudo-random pictures (N, C, H, W)."""
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (count, channels, side, side), dtype=np.uint8)


def labels(count: int, *, classes: int, seed: int = 0) -> np.ndarray:
    """Pseudo-random labels."""
    return np.random.default_rng(seed).integers(0, classes, count, dtype=np.uint8)


class Python2Pickler(pickle._Pickler):
    """Writes strings as Python 2 did: as bytes without an encoding."""

    def _save_string(self, text: str | bytes) -> None:
        content = text.encode() if isinstance(text, str) else text
        if len(content) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(content)]) + content)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(text)

    dispatch = pickle._Pickler.dispatch | {str: _save_string, bytes: _save_string}


def python2_pickle(thing: object) -> bytes:
    """Protocol 2 as Python 2 and numpy 1 wrote it."""
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(thing)
    return stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def cifar_batch(images: np.ndarray, **label_lists: np.ndarray) -> bytes:
    """A batch of the python form."""
    batch = {"batch_label": "training batch 1 of 5"}
    batch |= {key: [int(label) for label in values] for key, values in label_lists.items()}
    batch["data"] = images.reshape(len(images), 3072)
    batch["filenames"] = [f"picture_{index}.png" for index in range(len(images))]
    return python2_pickle(batch)


def tar(
    members: dict[str, bytes], *, packed: bool = True, form: int = tarfile.USTAR_FORMAT
) -> bytes:
    """An archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    content = stream.getvalue()
    return gzip.compress(content, compresslevel=1, mtime=0) if packed else content


def mat_element(kind: int, content: bytes, *, small: bool = True) -> bytes:
    """Type, size, content, filled up to 8 bytes."""
    if small and 0 < len(content) <= 4:
        return struct.pack("<HH", kind, len(content)) + content.ljust(4, b"\0")
    padding = bytes(-len(content) % 8)
    return struct.pack("<II", kind, len(content)) + content + padding


def mat_array(name: str, values: np.ndarray, *, kind: int = 9, flags: int = 0) -> bytes:
    """An array as MATLAB lays it out, column by column."""
    inside = mat_element(6, struct.pack("<II", kind | flags << 8, 0))
    inside += mat_element(5, np.array(values.shape, "<i4").tobytes(), small=False)
    inside += mat_element(1, name.encode())
    inside += mat_element(2, values.tobytes(order="F"))
    return struct.pack("<II", 14, len(inside)) + inside


def mat_packed(array: bytes) -> bytes:
    """An array deflated, as MATLAB 7 does."""
    content = zlib.compress(array, 1)
    return struct.pack("<II", 15, len(content)) + content


MAT_HEADER = b"MATLAB 5.0 MAT-file, Platform: GLNXA64, Created on: ...".ljust(124) + b"\0\1IM"


def mat(**arrays: np.ndarray) -> bytes:
    """A file with deflated arrays."""
    return MAT_HEADER + b"".join(mat_packed(mat_array(*item)) for item in arrays.items())


def zeros_gzipped(size: int) -> bytes:
    """Zeros in a thousandth of their size, made in no time: 16 MiB at a time, in many members."""
    piece = gzip.compress(bytes(2**24), compresslevel=9, mtime=0)
    return piece * (size // 2**24)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Writes files, their folders too."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder

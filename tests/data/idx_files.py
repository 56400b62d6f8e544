"""Writes IDX files, independently of the reader under test."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np


def idx(array: np.ndarray, *, code: int = 8, shape: tuple[int, ...] | None = None) -> bytes:
    """The bytes of an IDX file; `shape` lets the header lie."""
    shape = array.shape if shape is None else shape
    return bytes([0, 0, code, len(shape)]) + np.array(shape, ">u4").tobytes() + array.tobytes()


def write_mnist(folder: Path, *, counts: tuple[int, int] = (12, 5), packed: bool = False) -> dict:
    """The four files with pseudo-random contents; returns what was written, by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    written = {}
    for part, count in zip(("train", "t10k"), counts, strict=True):
        images = draw.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = draw.integers(0, 10, count, dtype=np.uint8)
        written |= {f"{part}-images-idx3-ubyte": images, f"{part}-labels-idx1-ubyte": labels}
    for name, array in written.items():
        content = idx(array)
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, compresslevel=1, mtime=0))
        else:
            (folder / name).write_bytes(content)
    return written

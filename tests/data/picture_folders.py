"""Writes folders of pictures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.writers import write


def encoded(pixels: np.ndarray, *, form: str = "PNG", **options: object) -> bytes:
    """A picture file of (H, W) grey or (H, W, 3) colours."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


def picture(seed: int, *, height: int = 6, width: int = 6, grey: bool = False) -> np.ndarray:
    """Pseudo-random pixels, (H, W) or (H, W, 3)."""
    shape = (height, width) if grey else (height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def planes(pixels: np.ndarray) -> list:
    """What is to be read of it: (C, H, W)."""
    return (pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)).tolist()


def three_classes(folder: Path, *, test: str = "test", grey: bool = False) -> Path:
    """Two pictures a class for training, one for the test; each is told by its seed."""
    files = {}
    for number, name in enumerate(("ape", "bee", "cat")):
        for index in range(2):
            content = encoded(picture(10 * number + index, grey=grey))
            files[f"train/{name}/{index}.png"] = content
        files[f"{test}/{name}/x.png"] = encoded(picture(10 * number + 5, grey=grey))
    return write(folder, files)

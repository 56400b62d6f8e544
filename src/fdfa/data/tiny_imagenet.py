"""Tiny ImageNet: 200 classes of ImageNet in 64 x 64 pixels, from its official files unpacked.

Le & Yang 2015, "Tiny ImageNet visual recognition challenge".
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from fdfa.data.dataset import Dataset
from fdfa.data.imagefolder import load_imagefolder
from fdfa.errors import DataError

__all__ = ["FOLDER", "load_tiny_imagenet"]

FOLDER = "tiny-imagenet-200"
EXAMPLES = (100_000, 10_000)


def load_tiny_imagenet(
    folder: Path,
    *,
    validation: int,
    workers: int = 0,
    memory: int | None = None,
    examples: tuple[int, int] = EXAMPLES,
) -> Dataset:
    """Loads Tiny ImageNet. Its ``val`` is the test part, since its ``test`` has no labels.

    Args:
        folder: holds ``tiny-imagenet-200``, or what is in there.
        validation: how many training pictures to set apart.
        workers: processes that decode ahead where pictures are not held in memory.
        memory: bytes that may be taken for pictures; None for half of what is available.
        examples: how many pictures the training and the test part must hold.

    Returns:
        The data set, inputs of shape (N, 3, 64, 64), 200 classes.

    Raises:
        DataError: if a file is missing, damaged, or not what it has to be.
        ConfigError: if an option is out of range, or Pillow is not installed.

    Example:
        >>> load_tiny_imagenet(Path("/nowhere"), validation=0)
        Traceback (most recent call last):
        fdfa.errors.DataError: data set 'tiny-imagenet': /nowhere/train holds 0 pictures ...
    """
    inner = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    # Before anything is decoded, which takes a minute.
    for part, pattern, expected in zip(
        ("train", "val"), ("*/images/*.JPEG", "images/*.JPEG"), examples, strict=True
    ):
        found = sum(1 for _ in (inner / part).glob(pattern))
        if found != expected:
            raise DataError(
                f"data set 'tiny-imagenet': {inner / part} holds {found:,} pictures where "
                f"{expected:,} are expected. Unpack {FOLDER}.zip again."
            )
    # Said, not guessed from the first picture: some are grey.
    loaded = load_imagefolder(
        inner, validation=validation, colour=True, workers=workers, memory=memory
    )
    return dataclasses.replace(loaded, name="tiny-imagenet")

"""MNIST and Fashion-MNIST from their four official IDX files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from fdfa.data.dataset import Dataset, assemble, normalized
from fdfa.data.idx import read_idx
from fdfa.errors import DataError

__all__ = ["load_mnist"]

BRIGHTEST = 255
CLASSES = 10
SIDE = 28
TRAIN_EXAMPLES = 60_000
TEST_EXAMPLES = 10_000
FILES: Final = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def load_mnist(
    name: str,
    *,
    directory: str | os.PathLike[str] | None,
    validation: int,
    examples: tuple[int, int] = (TRAIN_EXAMPLES, TEST_EXAMPLES),
) -> Dataset:
    """Loads a data set of 28 x 28 grey pictures that comes in the four files of MNIST.

    Args:
        name: name of the data set, and of its folder inside ``directory`` or ``FDFA_DATA``.
        directory: the folder with the files, or the one above it; None for ``$FDFA_DATA/name``.
        validation: how many training pictures to set apart.
        examples: how many pictures the training and the test part must hold.

    Returns:
        The data set, inputs of shape (N, 1, 28, 28).

    Raises:
        DataError: if a file is missing, damaged, or not what it has to be.
        ConfigError: if ``validation`` is out of range.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for part, count in (("train", 3), ("t10k", 2)):
        ...         images = bytes([0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 28, 0, 0, 0, 28])
        ...         path = Path(folder) / f"{part}-images-idx3-ubyte"
        ...         _ = path.write_bytes(images + bytes(count * 784))
        ...         path = Path(folder) / f"{part}-labels-idx1-ubyte"
        ...         _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, count]) + bytes(count))
        ...     load_mnist("mnist", directory=folder, validation=1, examples=(3, 2)).image
        (1, 28, 28)
    """
    train_images, train_labels, test_images, test_labels = _locate(name, directory=directory)
    train_examples, test_examples = examples
    train = _read_part(train_images, train_labels, examples=train_examples)
    test = _read_part(test_images, test_labels, examples=test_examples)
    return assemble(name, train=train, test=test, classes=CLASSES, validation=validation)


def _read_part(images: Path, labels: Path, *, examples: int) -> tuple[Tensor, Tensor]:
    """Inputs (N, 1, 28, 28) and labels (N,) of one part; the small file first, to fail early."""
    targets = read_idx(labels, shape=(examples,))
    wrong = torch.nonzero(targets >= CLASSES)
    if len(wrong):
        position = int(wrong[0])
        raise DataError(
            f"{labels} holds the label {int(targets[position])} at position {position}, outside "
            f"0 ... {CLASSES - 1}. Remove the file and get it again from the data set's own site."
        )
    pictures = read_idx(images, shape=(examples, SIDE, SIDE))
    return normalized(pictures, brightest=BRIGHTEST), targets.long()


def _locate(name: str, *, directory: str | os.PathLike[str] | None) -> list[Path]:
    """The four files, each plain or gzipped, all from one folder."""
    folders = _folders(name, directory=directory)
    for folder in folders:
        if folder.is_dir():
            return [_file_in(folder, file, name=name) for file in FILES]
    looked = " and ".join(str(folder) for folder in folders)
    raise DataError(f"data set {name!r}: there is no folder {looked}. {_remedy(name)}")


def _folders(name: str, *, directory: str | os.PathLike[str] | None) -> list[Path]:
    """Where to look, the more specific first."""
    if directory is not None:
        return [Path(directory).expanduser() / name, Path(directory).expanduser()]
    root = os.environ.get("FDFA_DATA")
    if not root:
        raise DataError(
            f"data set {name!r} is not part of the package, and neither a directory nor the "
            f"environment variable FDFA_DATA says where its files are. {_remedy(name)}"
        )
    return [Path(root).expanduser() / name]


def _file_in(folder: Path, file: str, *, name: str) -> Path:
    """One of the four files, plain or gzipped."""
    for path in (folder / file, folder / f"{file}.gz"):
        if path.is_file():
            return path
    raise DataError(
        f"data set {name!r}: {folder} holds neither {file} nor {file}.gz. {_remedy(name)}"
    )


def _remedy(name: str) -> str:
    """What to do about a missing file."""
    return (
        f"Put the four official files {', '.join(FILES)} (gzipped or not) into one folder and pass "
        f"that folder as the directory, or name it {name!r} and set FDFA_DATA to the folder above."
    )

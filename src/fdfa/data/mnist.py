"""MNIST and Fashion-MNIST from their four official IDX files.

LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document recognition";
Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from torch import Tensor

from fdfa.data.dataset import Dataset, assemble, sha256
from fdfa.data.idx import read_idx
from fdfa.data.pixels import Normalization
from fdfa.data.reading import checked_labels, existing
from fdfa.errors import DataError

__all__ = ["load_fashion_mnist", "load_mnist"]

CLASSES = 10
SIDE = 28
EXAMPLES = (60_000, 10_000)
# The official training and test labels, by the begin of their SHA-256 (without the header).
_WHOSE: Final = {
    "1feba77c54802fa5": "mnist",
    "ddeff807876a9661": "mnist",
    "657fbd221bfc9f41": "fashion-mnist",
    "3d0e6c6ea990b53b": "fashion-mnist",
}
FILES: Final = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def load_mnist(folder: Path, *, validation: int, examples: tuple[int, int] = EXAMPLES) -> Dataset:
    """Loads MNIST, handwritten digits of 28 x 28 grey pixels.

    Args:
        folder: holds the four files, each gzipped or not.
        validation: how many training pictures to set apart.
        examples: how many pictures the training and the test part must hold.

    Returns:
        The data set, inputs of shape (N, 1, 28, 28).

    Raises:
        DataError: if a file is missing, damaged, or not what it has to be.
        ConfigError: if ``validation`` is out of range.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for part, count in (("train", 3), ("t10k", 2)):
        ...         images = bytes([0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 28, 0, 0, 0, 28])
        ...         path = Path(name) / f"{part}-images-idx3-ubyte"
        ...         _ = path.write_bytes(images + bytes(count * 784))
        ...         path = Path(name) / f"{part}-labels-idx1-ubyte"
        ...         _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, count]) + bytes(count))
        ...     load_mnist(Path(name), validation=1, examples=(3, 2)).train.inputs.shape
        torch.Size([2, 1, 28, 28])
    """
    return _load("mnist", folder, validation=validation, examples=examples)


def load_fashion_mnist(
    folder: Path, *, validation: int, examples: tuple[int, int] = EXAMPLES
) -> Dataset:
    """Loads Fashion-MNIST, clothes of 28 x 28 grey pixels, in files named as those of MNIST.

    Args:
        folder: holds the four files, each gzipped or not.
        validation: how many training pictures to set apart.
        examples: how many pictures the training and the test part must hold.

    Returns:
        The data set, inputs of shape (N, 1, 28, 28).

    Raises:
        DataError: if a file is missing, damaged, or not what it has to be.
        ConfigError: if ``validation`` is out of range.
    """
    return _load("fashion-mnist", folder, validation=validation, examples=examples)


def _load(name: str, folder: Path, *, validation: int, examples: tuple[int, int]) -> Dataset:
    """Reads whichever of the two it is: their files are alike in all but what they show."""
    train_images, train_labels, test_images, test_labels = _paths(name, folder)
    train_examples, test_examples = examples
    return assemble(
        name,
        train=_read_part(train_images, train_labels, examples=train_examples, name=name),
        test=_read_part(test_images, test_labels, examples=test_examples, name=name),
        classes=CLASSES,
        validation=validation,
        normalization=Normalization(),
    )


def _read_part(images: Path, labels: Path, *, examples: int, name: str) -> tuple[Tensor, Tensor]:
    """Inputs (N, 1, 28, 28) and labels (N,) of one part; the small file first, to fail early."""
    raw = read_idx(labels, shape=(examples,))
    whose = _WHOSE.get(sha256(raw)[:16], name)
    if whose != name:
        raise DataError(
            f"{labels} holds the labels of {whose}, not of {name}: the two sets name their files "
            f"alike. Load it as {whose}, or put the files of {name} there."
        )
    targets = checked_labels(raw, classes=CLASSES, place=labels)
    return read_idx(images, shape=(examples, SIDE, SIDE)).unsqueeze(1), targets


def _paths(name: str, folder: Path) -> list[Path]:
    """Where the four files are; all that are missing in one complaint."""
    found = {file: existing(folder, file) for file in FILES}
    paths = [path for path in found.values() if path is not None]
    if len(paths) < len(FILES):
        missing = ", ".join(file for file, path in found.items() if path is None)
        raise DataError(
            f"data set {name!r}: {folder} lacks {missing} (gzipped or not). Put the four official "
            f"files {', '.join(FILES)} into one folder."
        )
    return paths

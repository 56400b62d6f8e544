"""SVHN, house numbers in street views, from its official MATLAB files of cropped digits.

Netzer, Wang, Coates, Bissacco, Wu & Ng 2011, "Reading digits in natural images".
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from fdfa.data.dataset import Dataset, assemble
from fdfa.data.matlab import read_mat
from fdfa.data.pixels import Normalization
from fdfa.data.reading import checked_labels
from fdfa.errors import DataError

__all__ = ["load_svhn"]

CLASSES = 10
SIDE = 32
EXAMPLES = (73_257, 26_032)
FILES = ("train_32x32.mat", "test_32x32.mat")


def load_svhn(folder: Path, *, validation: int, examples: tuple[int, int] = EXAMPLES) -> Dataset:
    """Loads SVHN, cropped digits. The class of a digit is the digit, though the files call 0 ten.

    Args:
        folder: holds ``train_32x32.mat`` and ``test_32x32.mat``.
        validation: how many training pictures to set apart.
        examples: how many pictures the training and the test part must hold.

    Returns:
        The data set, inputs of shape (N, 3, 32, 32).

    Raises:
        DataError: if a file is missing, damaged, or not what it has to be.
        ConfigError: if ``validation`` is out of range.

    Example:
        >>> load_svhn(Path("/nowhere"), validation=0)
        Traceback (most recent call last):
        fdfa.errors.DataError: data set 'svhn': /nowhere does not hold train_32x32.mat. Put ...
    """
    for file in FILES:
        if not (folder / file).exists():
            raise DataError(
                f"data set 'svhn': {folder} does not hold {file}. Put the official files "
                f"{' and '.join(FILES)} there."
            )
    train, test = (
        _read_part(folder / file, examples=count)
        for file, count in zip(FILES, examples, strict=True)
    )
    return assemble(
        "svhn",
        train=train,
        test=test,
        classes=CLASSES,
        validation=validation,
        normalization=Normalization(),
    )


def _read_part(path: Path, *, examples: int) -> tuple[Tensor, Tensor]:
    """Inputs (N, 3, 32, 32) and labels (N,) of one part."""
    arrays = read_mat(path, shapes={"X": (SIDE, SIDE, 3, examples), "y": (examples, 1)})
    counted = checked_labels(arrays["y"].flatten(), classes=CLASSES, first=1, place=path)
    # Counted from 1, so that 9 stands for 10, which stands for the digit 0.
    return arrays["X"].permute(3, 2, 0, 1).contiguous(), (counted + 1) % CLASSES

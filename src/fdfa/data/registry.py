"""Data sets by name."""

from __future__ import annotations

import os
from typing import Final

from fdfa.data.dataset import Dataset
from fdfa.data.digits import load_digits
from fdfa.data.mnist import load_mnist
from fdfa.errors import ConfigError, unknown_name

__all__ = ["load", "names"]

# How many training examples are set apart for validation unless the caller says otherwise.
VALIDATION: Final = {"digits": 200, "mnist": 5_000, "fashion-mnist": 5_000}


def names() -> tuple[str, ...]:
    """Lists the data sets that ``load`` knows.

    Returns:
        The names, the one that needs no files first.

    Example:
        >>> names()
        ('digits', 'mnist', 'fashion-mnist')
    """
    return tuple(VALIDATION)


def load(
    name: str,
    *,
    directory: str | os.PathLike[str] | None = None,
    validation: int | None = None,
) -> Dataset:
    """Loads a data set by name: normalised inputs, labels, and a fixed split.

    Args:
        name: one of ``names()``.
        directory: folder of the official files, or the folder above, in which they lie under
            ``name``. None looks into ``$FDFA_DATA/name``. Not needed for ``digits``.
        validation: how many training examples to set apart for validation, chosen with a fixed
            seed; None takes 200 for ``digits`` and 5,000 for the others.

    Returns:
        The data set, whole in memory on the CPU.

    Raises:
        ConfigError: if the name is unknown or ``validation`` is out of range.
        DataError: if a file is missing, damaged, or not what it has to be.

    Example:
        >>> digits = load("digits", validation=100)
        >>> digits.train_inputs.shape, digits.train_labels.dtype
        (torch.Size([1397, 1, 8, 8]), torch.int64)
    """
    if name not in VALIDATION:
        raise ConfigError(unknown_name("data set", name, names()))
    if validation is None:
        validation = VALIDATION[name]
    if name == "digits":
        return load_digits(validation=validation)
    return load_mnist(name, directory=directory, validation=validation)

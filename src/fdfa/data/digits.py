"""The 1797 handwritten digits of 8 x 8 pixels that the package carries (README.md beside this)."""

from __future__ import annotations

from importlib.resources import files

import safetensors.torch
from safetensors import SafetensorError

from fdfa.data.dataset import Dataset, assemble, shuffled_order
from fdfa.data.pixels import Normalization
from fdfa.errors import DataError, briefly

__all__ = ["load_digits"]

BRIGHTEST = 16
CLASSES = 10
TEST_EXAMPLES = 300


def load_digits(*, validation: int) -> Dataset:
    """Loads the digits: 300 for the test, the rest for training and validation.

    The digits are ordered by writer, so the test part is drawn from a fixed shuffle; it does not
    depend on ``validation``.

    Args:
        validation: how many of the 1497 training digits to set apart.

    Returns:
        The data set, inputs of shape (N, 1, 8, 8).

    Raises:
        DataError: if the file inside the installed package is missing or damaged.
        ConfigError: if ``validation`` is out of range.

    Example:
        >>> load_digits(validation=0).train.inputs.shape
        torch.Size([1497, 1, 8, 8])
    """
    file = files("fdfa.data").joinpath("digits.safetensors")
    try:
        content = safetensors.torch.load(file.read_bytes())
        images, labels = content["images"], content["labels"]
    except (OSError, SafetensorError, KeyError) as error:
        raise DataError(
            f"data set 'digits': {file} cannot be read ({briefly(error)}): the installed package "
            "is damaged. Install fdfa again."
        ) from error
    inputs, targets = images.unsqueeze(1), labels.long()
    order = shuffled_order(len(targets))
    test, train = order[:TEST_EXAMPLES], order[TEST_EXAMPLES:]
    return assemble(
        "digits",
        train=(inputs[train], targets[train]),
        test=(inputs[test], targets[test]),
        classes=CLASSES,
        validation=validation,
        normalization=Normalization(brightest=BRIGHTEST),
    )

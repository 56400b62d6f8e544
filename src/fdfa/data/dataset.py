"""What a data set is here, and how validation examples are cut out of the training part."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fdfa.errors import ConfigError

__all__ = ["Dataset", "assemble", "normalized", "shuffled_order"]

# Fixed for good: another seed is another split, and no number measured before could be repeated.
SPLIT_SEED = 2212_07282


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A classification data set in three parts, whole in memory.

    The validation part is always cut out of the training part, with a fixed seed; nothing is ever
    chosen on the test part.

    Attributes:
        name: the name under which it was loaded.
        train_inputs: float32 of shape (N, C, H, W), normalised to -1 ... 1.
        train_labels: int64 of shape (N,), values 0 ... classes - 1.
        validation_inputs: as ``train_inputs``; may hold no examples.
        validation_labels: as ``train_labels``.
        test_inputs: as ``train_inputs``.
        test_labels: as ``train_labels``.
        classes: number of classes.

    Example:
        >>> import fdfa.data
        >>> digits = fdfa.data.load("digits")
        >>> digits.image, digits.classes
        ((1, 8, 8), 10)
        >>> len(digits.train_labels), len(digits.validation_labels), len(digits.test_labels)
        (1297, 200, 300)
    """

    name: str
    train_inputs: Tensor
    train_labels: Tensor
    validation_inputs: Tensor
    validation_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    classes: int

    @property
    def image(self) -> tuple[int, int, int]:
        """Shape of one input: channels, height, width.

        Returns:
            (C, H, W).

        Example:
            >>> import fdfa.data
            >>> fdfa.data.load("digits").image
            (1, 8, 8)
        """
        channels, height, width = self.train_inputs.shape[1:]
        return channels, height, width


def shuffled_order(examples: int) -> Tensor:
    """The fixed pseudo-random order of the examples from which every split is cut.

    Args:
        examples: how many there are.

    Returns:
        A permutation of 0 ... examples - 1, the same on every machine.

    Example:
        >>> sorted(shuffled_order(4).tolist())
        [0, 1, 2, 3]
    """
    # A generator of its own: loading data must not move the user's random state.
    return torch.randperm(examples, generator=torch.Generator().manual_seed(SPLIT_SEED))


def normalized(images: Tensor, *, brightest: int) -> Tensor:
    """Turns raw pixels into inputs, as the paper does: ``(x / brightest - 0.5) / 0.5``.

    Args:
        images: uint8 of shape (N, H, W), grey.
        brightest: the pixel value that becomes 1.

    Returns:
        float32 of shape (N, 1, H, W); 0 becomes -1, ``brightest`` becomes 1.

    Example:
        >>> normalized(torch.tensor([[[0, 8, 16]]], dtype=torch.uint8), brightest=16)
        tensor([[[[-1.,  0.,  1.]]]])
    """
    # In place: for 60,000 images each temporary would be another 188 MB.
    return images.unsqueeze(1).to(torch.float32).div_(brightest).sub_(0.5).div_(0.5)


def assemble(
    name: str,
    *,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: int,
    validation: int,
) -> Dataset:
    """Cuts the validation part out of the training part and puts the data set together.

    Args:
        name: name of the data set.
        train: inputs (N, C, H, W) and labels (N,) of the whole training part.
        test: the same of the test part, which is passed on as it is.
        classes: number of classes.
        validation: how many training examples to set apart.

    Returns:
        The data set; what remains for training stays in its original order.

    Raises:
        ConfigError: if ``validation`` is negative or would leave nothing to train on.

    Example:
        >>> inputs, labels = torch.zeros(5, 1, 2, 2), torch.zeros(5, dtype=torch.int64)
        >>> parts = assemble(
        ...     "toy", train=(inputs, labels), test=(inputs, labels), classes=2, validation=2
        ... )
        >>> len(parts.train_labels), len(parts.validation_labels), len(parts.test_labels)
        (3, 2, 5)
    """
    inputs, labels = train
    if not 0 <= validation < len(labels):
        raise ConfigError(
            f"data set {name!r}: validation={validation} is not possible, since the training part "
            f"holds {len(labels)} examples and must keep at least one. "
            f"Choose 0 ... {len(labels) - 1}."
        )
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    held_out[shuffled_order(len(labels))[:validation]] = True
    return Dataset(
        name=name,
        train_inputs=inputs[~held_out],
        train_labels=labels[~held_out],
        validation_inputs=inputs[held_out],
        validation_labels=labels[held_out],
        test_inputs=test[0],
        test_labels=test[1],
        classes=classes,
    )

"""What a data set is here, and how validation examples are cut out of the training part."""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib

import torch
from torch import Tensor

from fdfa.data.examples import Examples
from fdfa.data.pixels import Augmentation, Normalization
from fdfa.data.streamed import StreamedExamples
from fdfa.errors import ConfigError

__all__ = ["Dataset", "assemble", "held_out", "sha256", "shuffled_order"]

# Fixed for good: another seed is another split, and no number measured before could be repeated.
SPLIT_SEED = 2212_07282


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A classification data set in three parts.

    The validation part is always cut out of the training part, with a fixed seed; nothing is ever
    chosen on the test part.

    Attributes:
        name: the name under which it was loaded.
        train: what is learned from; inputs (N, C, H, W).
        validation: what choices are made on; may hold no examples.
        test: looked at once, when everything is chosen.
        classes: number of classes; labels are 0 ... classes - 1.

    Example:
        >>> import fdfa.data
        >>> digits = fdfa.data.load("digits")
        >>> digits.shape, digits.classes
        ((1, 8, 8), 10)
        >>> len(digits.train), len(digits.validation), len(digits.test)
        (1297, 200, 300)
    """

    name: str
    train: Examples | StreamedExamples
    validation: Examples | StreamedExamples
    test: Examples | StreamedExamples
    classes: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input; of a picture (channels, height, width).

        Returns:
            Such as (C, H, W).

        Example:
            >>> import fdfa.data
            >>> fdfa.data.load("digits").shape
            (1, 8, 8)
        """
        return tuple(self.train.first(1)[0].shape[1:])

    def augmented(self, augmentation: Augmentation | None) -> Dataset:
        """The same data set whose training inputs are changed at random.

        Args:
            augmentation: how; None for not at all.

        Returns:
            A data set that shares this one's tensors.
        """
        return dataclasses.replace(self, train=self.train.augmented(augmentation))

    def to(self, device: torch.device | str) -> Dataset:
        """The same data set with the parts that lie in memory on a device, if it has room.

        Args:
            device: where to.

        Returns:
            A data set there; parts that do not fit stay where they are.
        """
        parts = {name: getattr(self, name).to(device) for name in ("train", "validation", "test")}
        return dataclasses.replace(self, **parts)

    def checksum(self) -> str:
        """SHA-256 over everything that the three parts consist of.

        Returns:
            64 hexadecimal digits.
        """
        parts = (self.train, self.validation, self.test)
        return sha256(*(tensor for part in parts for tensor in part.content()))


def sha256(*tensors: Tensor) -> str:
    """SHA-256 over the bytes of tensors; of what is on the CPU no copy is made.

    Args:
        *tensors: wherever they are.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> sha256(torch.tensor([1, 2], dtype=torch.uint8))[:8]  # of the bytes 01 02
        'a12871fe'
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        held = tensor.detach().cpu().contiguous()
        # torch without numpy offers no buffer of its own.
        digest.update((ctypes.c_ubyte * held.nbytes).from_address(held.data_ptr()))
    return digest.hexdigest()


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


def held_out(name: str, *, examples: int, validation: int) -> Tensor:
    """Which training examples are set apart for validation.

    Args:
        name: of the data set, for the text of an error.
        examples: how many the training part holds.
        validation: how many to set apart.

    Returns:
        A bool mask of shape (examples,).

    Raises:
        ConfigError: if ``validation`` is negative or would leave nothing to train on.

    Example:
        >>> int(held_out("toy", examples=5, validation=2).sum())
        2
    """
    if isinstance(validation, bool) or not isinstance(validation, int):
        raise ConfigError(f"validation={validation!r} is not possible. Give a whole number from 0.")
    if not 0 <= validation < examples:
        raise ConfigError(
            f"data set {name!r}: validation={validation} is not possible, since the training part "
            f"holds {examples} examples and must keep at least one. "
            f"Choose 0 ... {examples - 1}."
        )
    mask = torch.zeros(examples, dtype=torch.bool)
    mask[shuffled_order(examples)[:validation]] = True
    return mask


def assemble(
    name: str,
    *,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: int,
    validation: int,
    normalization: Normalization | None = None,
) -> Dataset:
    """Cuts the validation part out of the training part and puts the data set together.

    Args:
        name: name of the data set.
        train: inputs (N, ...) as they are stored and labels (N,) of the whole training part.
        test: the same of the test part, which is passed on as it is.
        classes: number of classes.
        validation: how many training examples to set apart.
        normalization: of stored inputs.

    Returns:
        The data set; what remains for training stays in its original order.

    Raises:
        ConfigError: if ``validation`` is negative or would leave nothing to train on.

    Example:
        >>> inputs, labels = torch.zeros(5, 1, 2, 2), torch.zeros(5, dtype=torch.int64)
        >>> parts = assemble(
        ...     "toy", train=(inputs, labels), test=(inputs, labels), classes=2, validation=2
        ... )
        >>> len(parts.train), len(parts.validation), len(parts.test)
        (3, 2, 5)
    """
    inputs, labels = train
    mask = held_out(name, examples=len(labels), validation=validation)
    return Dataset(
        name=name,
        train=Examples(inputs[~mask], labels[~mask], normalization),
        validation=Examples(inputs[mask], labels[mask], normalization),
        test=Examples(*test, normalization),
        classes=classes,
    )

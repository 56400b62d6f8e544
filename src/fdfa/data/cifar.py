"""CIFAR-10 and CIFAR-100, from the official binary or python files, or the archives of them.

Krizhevsky 2009, "Learning multiple layers of features from tiny images".
"""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Final, Literal, Protocol

import torch
from torch import Tensor

from fdfa.data.archives import tar_files
from fdfa.data.cifar_binary import read_binary_batch
from fdfa.data.cifar_python import read_python_batch
from fdfa.data.dataset import Dataset, assemble
from fdfa.data.pixels import Normalization
from fdfa.data.reading import Stream, checked_labels, existing, opened, refuse
from fdfa.errors import ConfigError, DataError, unknown_name

__all__ = ["load_cifar10", "load_cifar100"]

EXAMPLES = (50_000, 10_000)
BYTES_A_PICTURE = 3 * 32 * 32
CLASSES: Final = {"fine": 100, "coarse": 20}

# Pictures (N, 3, 32, 32) and labels (N,), by file name.
Batches = dict[str, tuple[Tensor, Tensor]]


class Reader(Protocol):
    """Reads one batch."""

    def __call__(self, stream: Stream, *, place: str, examples: int) -> tuple[Tensor, Tensor]:
        """Gives pictures and labels."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """One of the forms in which a data set is given out.

    Attributes:
        folder: the folder inside the archive.
        archive: the archive.
        train: the batches of the training part, in their order.
        test: the batch of the test part.
        read: reads a batch.
    """

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    read: Reader


def load_cifar10(folder: Path, *, validation: int, examples: tuple[int, int] = EXAMPLES) -> Dataset:
    """Loads CIFAR-10.

    Args:
        folder: holds ``cifar-10-batches-bin``, ``cifar-10-batches-py`` (as folders, or the files
            out of them), ``cifar-10-binary.tar.gz`` or ``cifar-10-python.tar.gz``; of several the
            first.
        validation: how many training pictures to set apart.
        examples: how many pictures the training part (in five batches) and the test part must
            hold.

    Returns:
        The data set, inputs of shape (N, 3, 32, 32), 10 classes.

    Raises:
        DataError: if a file is missing, damaged, or not what it has to be.
        ConfigError: if ``validation`` is out of range.

    Example:
        >>> import tempfile
        >>> record = bytes([7]) + bytes(3072)  # label, pixels
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for file in [f"data_batch_{batch}.bin" for batch in range(1, 6)] + [
        ...         "test_batch.bin"
        ...     ]:
        ...         _ = (Path(name) / file).write_bytes(record)
        ...     load_cifar10(Path(name), validation=1, examples=(5, 1)).train.labels
        tensor([7, 7, 7, 7])
    """
    train = tuple(f"data_batch_{batch}" for batch in range(1, 6))
    binary = Layout(
        folder="cifar-10-batches-bin",
        archive="cifar-10-binary.tar.gz",
        train=tuple(f"{batch}.bin" for batch in train),
        test="test_batch.bin",
        read=partial(read_binary_batch, labels=1, column=0),
    )
    python = Layout(
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        train=train,
        test="test_batch",
        read=partial(read_python_batch, key="labels"),
    )
    return _load(
        "cifar10", folder, (binary, python), examples=examples, classes=10, validation=validation
    )


def load_cifar100(
    folder: Path,
    *,
    validation: int,
    labels: Literal["fine", "coarse"] = "fine",
    examples: tuple[int, int] = EXAMPLES,
) -> Dataset:
    """Loads CIFAR-100.

    Args:
        folder: holds ``cifar-100-binary``, ``cifar-100-python`` (as folders, or the files out of
            them), ``cifar-100-binary.tar.gz`` or ``cifar-100-python.tar.gz``; of several the first.
        validation: how many training pictures to set apart.
        labels: ``"fine"`` for the 100 classes, ``"coarse"`` for the 20 that each hold five of them.
        examples: how many pictures the training and the test part must hold.

    Returns:
        The data set, inputs of shape (N, 3, 32, 32).

    Raises:
        DataError: if a file is missing, damaged, or not what it has to be.
        ConfigError: if ``labels`` is unknown or ``validation`` out of range.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for batch in ("train.bin", "test.bin"):  # coarse label, fine label, pixels
        ...         _ = (Path(name) / batch).write_bytes(bytes([11, 98]) + bytes(3072))
        ...     load_cifar100(Path(name), validation=0, examples=(1, 1)).train.labels
        tensor([98])
    """
    if labels not in CLASSES:
        raise ConfigError(unknown_name("label kind", str(labels), tuple(CLASSES)))
    binary = Layout(
        folder="cifar-100-binary",
        archive="cifar-100-binary.tar.gz",
        train=("train.bin",),
        test="test.bin",
        read=partial(read_binary_batch, labels=2, column=int(labels == "fine")),
    )
    python = Layout(
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        train=("train",),
        test="test",
        read=partial(read_python_batch, key=f"{labels}_labels"),
    )
    return _load(
        "cifar100",
        folder,
        (binary, python),
        examples=examples,
        classes=CLASSES[labels],
        validation=validation,
    )


def _load(
    name: str,
    folder: Path,
    layouts: tuple[Layout, ...],
    *,
    examples: tuple[int, int],
    classes: int,
    validation: int,
) -> Dataset:
    """Reads the first layout that is there, all of it or nothing."""
    train_examples, test_examples = examples
    for layout in layouts:
        counts = dict.fromkeys(layout.train, train_examples // len(layout.train))
        counts[layout.test] = test_examples
        batches = _batches(folder, layout, counts=counts, classes=classes)
        if batches is None:
            continue
        train = [batches[file] for file in layout.train]
        return assemble(
            name,
            train=(torch.cat([inputs for inputs, _ in train]), torch.cat([y for _, y in train])),
            test=batches[layout.test],
            classes=classes,
            validation=validation,
            normalization=Normalization(),
        )
    raise DataError(
        f"data set {name!r}: {folder} holds none of "
        f"{', '.join(f'{layout.folder}, {layout.archive}' for layout in layouts)}. Put one of the "
        "official archives there, unpacked or not."
    )


def _batches(
    folder: Path, layout: Layout, *, counts: dict[str, int], classes: int
) -> Batches | None:
    """All batches by file name, or None where nothing of this layout is to be found."""
    for place in (folder / layout.folder, folder):
        if (place != folder and place.exists()) or any(existing(place, file) for file in counts):
            return _from_folder(place, layout, counts=counts, classes=classes)
    if (folder / layout.archive).exists():
        return _from_archive(folder / layout.archive, layout, counts=counts, classes=classes)
    return None


def _from_folder(folder: Path, layout: Layout, *, counts: dict[str, int], classes: int) -> Batches:
    """All batches, each a file that may be gzipped."""
    batches = {}
    for file, examples in counts.items():
        path = existing(folder, file)
        if path is None:
            raise DataError(
                f"{folder} holds neither {file} nor {file}.gz, which belongs to the data set. "
                f"Unpack {layout.archive} again."
            )
        with opened(path) as stream:
            batches[file] = _checked(layout, stream, str(path), examples, classes)
    return batches


def _from_archive(
    archive: Path, layout: Layout, *, counts: dict[str, int], classes: int
) -> Batches:
    """All batches, read in one go through the archive."""
    batches: Batches = {}
    # Twice the pictures: room for file names, the page that explains the format, and no bomb.
    limit = 2 * BYTES_A_PICTURE * sum(counts.values()) + 2**20
    with opened(archive) as stream:
        for name, content in tar_files(stream, place=archive, limit=limit):
            folder, _, file = name.removeprefix("./").rpartition("/")
            if folder != layout.folder or file not in counts:
                continue
            place = f"{archive} ({name})"
            if file in batches:
                refuse(place, "is there twice")
            batches[file] = _checked(layout, content, place, counts[file], classes)
    missing = [file for file in counts if file not in batches]
    if missing:
        refuse(archive, f"lacks {', '.join(missing)} in {layout.folder}")
    return batches


def _checked(
    layout: Layout, stream: Stream, place: str, examples: int, classes: int
) -> tuple[Tensor, Tensor]:
    """One batch whose labels all name a class."""
    pictures, labels = layout.read(stream, place=place, examples=examples)
    return pictures, checked_labels(labels, classes=classes, place=place)

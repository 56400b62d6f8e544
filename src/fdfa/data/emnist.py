"""EMNIST, handwritten letters and digits, from its official IDX files or the archive of them.

Cohen, Afshar, Tapson & van Schaik 2017, arXiv:1702.05373.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from torch import Tensor

from fdfa.data.archives import zip_file
from fdfa.data.dataset import Dataset, assemble
from fdfa.data.idx import read_idx_stream
from fdfa.data.pixels import Normalization
from fdfa.data.reading import Stream, checked_labels, existing, opened
from fdfa.errors import ConfigError, DataError, unknown_name

__all__ = ["load_emnist"]

SIDE = 28
ARCHIVE = "gzip.zip"


@dataclasses.dataclass(frozen=True)
class Split:
    """What is known of a split.

    Attributes:
        classes: number of classes.
        train: examples in the training part.
        test: examples in the test part.
        first: the label of the first class.
    """

    classes: int
    train: int
    test: int
    first: int = 0


SPLITS: Final = {
    "balanced": Split(47, 112_800, 18_800),
    "byclass": Split(62, 697_932, 116_323),
    "bymerge": Split(47, 697_932, 116_323),
    "letters": Split(26, 124_800, 20_800, first=1),
    "digits": Split(10, 240_000, 40_000),
    "mnist": Split(10, 60_000, 10_000),
}


def load_emnist(
    folder: Path,
    *,
    validation: int,
    split: Literal["balanced", "byclass", "bymerge", "letters", "digits", "mnist"] = "balanced",
    examples: tuple[int, int] | None = None,
) -> Dataset:
    r"""Loads a split of EMNIST.

    The files hold every picture mirrored at its diagonal; here all are set upright.

    Args:
        folder: holds the split's four files ``emnist-SPLIT-...-ubyte``, gzipped or not, or a folder
            ``gzip`` with them, or the official ``gzip.zip``.
        validation: how many training pictures to set apart.
        split: ``"balanced"`` and ``"bymerge"`` (47 classes), ``"byclass"`` (62), ``"letters"``
            (26), ``"digits"`` and ``"mnist"`` (10).
        examples: how many pictures the training and the test part must hold; None for as many as
            the official files do.

    Returns:
        The data set ``emnist-SPLIT``, inputs of shape (N, 1, 28, 28).

    Raises:
        DataError: if a file is missing, damaged, or not what it has to be.
        ConfigError: if the split is unknown or ``validation`` out of range.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for part, count in (("train", 3), ("test", 2)):
        ...         images = bytes([0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 28, 0, 0, 0, 28])
        ...         path = Path(name) / f"emnist-letters-{part}-images-idx3-ubyte"
        ...         _ = path.write_bytes(images + bytes(count * 784))
        ...         path = Path(name) / f"emnist-letters-{part}-labels-idx1-ubyte"
        ...         _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, count]) + b"\x1a" * count)
        ...     letters = load_emnist(Path(name), validation=0, split="letters", examples=(3, 2))
        >>> letters.shape, letters.train.labels
        ((1, 28, 28), tensor([25, 25, 25]))
    """
    if split not in SPLITS:
        raise ConfigError(unknown_name("split", str(split), tuple(SPLITS)))
    known = SPLITS[split]
    if examples is not None:
        known = dataclasses.replace(known, train=examples[0], test=examples[1])
    return assemble(
        f"emnist-{split}",
        train=_read_part(folder, f"emnist-{split}-train", examples=known.train, split=known),
        test=_read_part(folder, f"emnist-{split}-test", examples=known.test, split=known),
        classes=known.classes,
        validation=validation,
        normalization=Normalization(),
    )


def _read_part(folder: Path, part: str, *, examples: int, split: Split) -> tuple[Tensor, Tensor]:
    """Inputs (N, 1, 28, 28) and labels (N,) of one part; the small file first, to fail early."""
    with _file_in(folder, f"{part}-labels-idx1-ubyte") as (stream, place):
        values = read_idx_stream(stream, place=place, shape=(examples,))
        labels = checked_labels(values, classes=split.classes, first=split.first, place=place)
    with _file_in(folder, f"{part}-images-idx3-ubyte") as (stream, place):
        lying = read_idx_stream(stream, place=place, shape=(examples, SIDE, SIDE))
    # Their authors wrote the pictures column by column (MATLAB), unlike MNIST's.
    return lying.mT.contiguous().unsqueeze(1), labels


@contextlib.contextmanager
def _file_in(folder: Path, file: str) -> Iterator[tuple[Stream, str]]:
    """The unpacked content of a file, and what to call it; loose files come before the archive."""
    path = existing(folder, file) or existing(folder / "gzip", file)
    if path is not None:
        with opened(path) as stream:
            yield stream, str(path)
        return
    archive = folder / ARCHIVE
    if not archive.exists():
        raise DataError(
            f"data set 'emnist': {folder} holds neither {file}, nor {file}.gz, nor {ARCHIVE}. Put "
            f"the official archive {ARCHIVE} there, or what it holds."
        )
    member = f"gzip/{file}.gz"
    with zip_file(archive, member) as packed, gzip.GzipFile(fileobj=packed, mode="rb") as stream:
        yield stream, f"{archive} ({member})"

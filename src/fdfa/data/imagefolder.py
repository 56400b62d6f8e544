"""A folder of pictures with a folder for each class: Tiny ImageNet, and many sets of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from fdfa.data.dataset import Dataset, assemble, held_out
from fdfa.data.memory import available_memory
from fdfa.data.picture_files import Listing, annotated_pictures, class_folders, pictures_by_class
from fdfa.data.pictures import PictureForm, form_of, read_picture, require_pillow
from fdfa.data.pixels import Normalization
from fdfa.data.streamed import StreamedExamples
from fdfa.errors import ConfigError, DataError

__all__ = ["load_imagefolder"]

ANNOTATIONS = "val_annotations.txt"


def load_imagefolder(
    folder: Path,
    *,
    validation: int,
    size: int | None = None,
    colour: bool | None = None,
    workers: int = 0,
    memory: int | None = None,
) -> Dataset:
    """Loads pictures out of folders: ``train/CLASS/...`` and ``test/CLASS/...``.

    A class may keep its pictures in a folder ``images`` of its own. Where ``test`` is missing or
    has no classes, ``val`` is the test part, by folders or by Tiny ImageNet's
    ``val_annotations.txt``; else ``val`` is not read. Classes are numbered by their names. Pictures
    are held as bytes in memory where there is twice the room for them; otherwise each batch is
    decoded when it is asked for.

    Args:
        folder: holds ``train``, and ``test`` or ``val``.
        validation: how many training pictures to set apart.
        size: height and width that every picture is scaled and cropped to; None asks that all be of
            one size.
        colour: True for 3 channels, False for 1; None for as many as the first picture has.
        workers: processes that decode ahead where pictures are not held in memory.
        memory: bytes that may be taken for pictures; None for half of what is available.

    Returns:
        The data set ``imagefolder``, inputs of shape (N, C, H, W).

    Raises:
        DataError: if a folder is missing, empty, or of a class that the training part does not
            have, or a file is no picture, damaged, or of another size.
        ConfigError: if an option is out of range, or Pillow is not installed.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for part in ("train", "test"):
        ...         for grey, kind in ((0, "day"), (9, "night")):
        ...             (Path(name) / part / kind).mkdir(parents=True)
        ...             Image.new("L", (6, 8), color=grey).save(Path(name) / part / kind / "1.png")
        ...     pictures = load_imagefolder(Path(name), validation=0, size=4)
        >>> pictures.shape, pictures.classes, pictures.train.labels
        ((1, 4, 4), 2, tensor([0, 1]))
    """
    for option, value, least in (("size", size, 1), ("workers", workers, 0), ("memory", memory, 0)):
        if value is not None and (isinstance(value, bool) or value < least):
            raise ConfigError(f"{option}={value!r} is not possible. Give a number from {least}.")
    require_pillow()
    train, test, classes = _parts(folder)
    # Before anything is decoded, which may take minutes.
    apart = held_out("imagefolder", examples=len(train), validation=validation)
    form = form_of(train.root / train.names[0], size=size, colour=colour)
    sources = PictureFiles(train, form), PictureFiles(test, form)
    needed = sum(source.nbytes for source in sources)
    if needed <= (available_memory() // 2 if memory is None else memory):
        return assemble(
            "imagefolder",
            train=sources[0].all(),
            test=sources[1].all(),
            classes=classes,
            validation=validation,
            normalization=Normalization(),
        )
    everything = torch.ones(len(test), dtype=torch.bool)
    parts = zip((sources[0], sources[0], sources[1]), (~apart, apart, everything), strict=True)
    streamed = [_streamed(source, chosen, workers=workers) for source, chosen in parts]
    return Dataset(
        name="imagefolder",
        train=streamed[0],
        validation=streamed[1],
        test=streamed[2],
        classes=classes,
    )


class PictureFiles(TorchDataset[tuple[Tensor, int]]):
    """Pictures that are decoded when they are asked for.

    Args:
        listing: which.
        form: what each has to become.

    Attributes:
        labels: int64 of shape (N,).
    """

    def __init__(self, listing: Listing, form: PictureForm) -> None:
        self._listing = listing
        self._form = form
        self.labels = torch.tensor(listing.labels)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._listing)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One picture, uint8 of shape (C, H, W), and its label."""
        path = self._listing.root / self._listing.names[index]
        return read_picture(path, self._form), self._listing.labels[index]

    @property
    def nbytes(self) -> int:
        """Memory that all would take."""
        channels, height, width = self._form.shape
        return len(self) * channels * height * width

    def all(self) -> tuple[Tensor, Tensor]:
        """Decodes all.

        Returns:
            Pictures, uint8 of shape (N, C, H, W), and labels (N,).
        """
        pictures = torch.empty((len(self), *self._form.shape), dtype=torch.uint8)
        for index in range(len(self)):
            pictures[index] = self[index][0]
        return pictures, self.labels

    def content(self) -> Iterator[Tensor]:
        """What a checksum can be made of without decoding: names, sizes and labels.

        Yields:
            Tensors.
        """
        lines = zip(self._listing.names, self._listing.sizes, strict=True)
        text = "".join(f"{name}\0{size}\n" for name, size in lines)
        yield torch.frombuffer(bytearray(text, "utf-8", "surrogateescape"), dtype=torch.uint8)
        yield self.labels


def _streamed(source: PictureFiles, chosen: Tensor, *, workers: int) -> StreamedExamples:
    """Some of the pictures, decoded batch by batch."""
    return StreamedExamples(
        source,
        torch.nonzero(chosen).flatten(),
        source.labels[chosen],
        normalization=Normalization(),
        workers=workers,
    )


def _parts(folder: Path) -> tuple[Listing, Listing, int]:
    """Training part, test part, number of classes."""
    remedy = "Put the pictures into train/CLASS/ and test/CLASS/."
    if not (folder / "train").is_dir():
        raise DataError(f"data set 'imagefolder': {folder} holds no folder train. {remedy}")
    classes = class_folders(folder / "train")
    if not classes:
        raise DataError(f"{folder / 'train'} holds no folder for any class. {remedy}")
    train = pictures_by_class(folder / "train", classes)
    return train, _test_part(folder, classes, remedy=remedy), len(classes)


def _test_part(folder: Path, classes: list[str], *, remedy: str) -> Listing:
    """The pictures of ``test`` where it has classes, else those of ``val``."""
    test, val = folder / "test", folder / "val"
    # Tiny ImageNet's own test part is one folder of pictures without labels.
    if test.is_dir() and set(class_folders(test)) - ({"images"} - set(classes)):
        return pictures_by_class(test, classes)
    if (val / ANNOTATIONS).exists():
        return annotated_pictures(val / "images", val / ANNOTATIONS, classes)
    if val.is_dir() and class_folders(val):
        return pictures_by_class(val, classes)
    raise DataError(
        f"data set 'imagefolder': {folder} holds neither in test nor in val a folder for any "
        f"class. {remedy}"
    )

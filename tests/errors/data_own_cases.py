"""The user's own data: arrays, folders of pictures, and what is made of them."""

from __future__ import annotations

import dataclasses
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch.utils.data import TensorDataset

from fdfa.data import Augmentation, Examples, Normalization, StreamedExamples
from fdfa.data.dataset import Dataset, assemble
from fdfa.data.imagefolder import load_imagefolder
from fdfa.data.pixel_scales import scaled
from fdfa.data.tensors import load_tensors
from fdfa.data.tiny_imagenet import load_tiny_imagenet
from fdfa.errors import ConfigError, DataError
from tests.data.picture_folders import encoded, picture, three_classes
from tests.data.writers import write
from tests.errors.provoke import Case, Here

__all__ = ["DATA_OWN_CASES"]


def _arrays(
    name: str, *, error: type[Exception] = DataError, options: Any = (), **changes: Any
) -> Case:
    """Arrays of six examples for training and four for the test; some are others, or missing."""

    def run(here: Here) -> None:
        content = {
            "train_inputs": np.zeros((6, 2, 3), np.float32),
            "train_labels": np.arange(6) % 3,
            "test_inputs": np.zeros((4, 2, 3), np.float32),
            "test_labels": np.arange(4) % 3,
            **changes,
        }
        for file, array in content.items():
            if array is not None:
                np.save(here.folder / f"{file}.npy", array)
        load_tensors(here.folder, **{"validation": 0, **dict(options)})

    return Case(f"tensors: {name}", error, run)


def _two_kinds(here: Here) -> None:
    np.save(here.folder / "train_inputs.npy", np.zeros((6, 2)))
    write(here.folder, {"own.safetensors": b""})
    load_tensors(here.folder, validation=0)


def _no_room(here: Here) -> None:
    here.patch.setattr("fdfa.data.tensors.available_memory", lambda: 1000)
    write(here.folder, {"train_inputs.npy": bytes(2000)})
    load_tensors(here.folder, validation=0)


def _damaged_safetensors(here: Here) -> None:
    load_tensors(write(here.folder, {"own.safetensors": b"damaged"}), validation=0)


def _unknown_in_safetensors(here: Here) -> None:
    file = here.folder / "own.safetensors"
    safetensors.torch.save_file({"train_images": torch.zeros(2, 3)}, file)
    load_tensors(file, validation=0)


UINT8, FLOAT = np.zeros((4, 2, 3), np.uint8), np.zeros((4, 2, 3), np.float32)
OWN_PART = {"validation_inputs": FLOAT, "validation_labels": np.arange(4) % 3}
INFINITE = np.where(np.arange(24).reshape(4, 2, 3) == 10, np.inf, 0)
TENSORS = [
    Case("tensors: both kinds of files", DataError, _two_kinds),
    Case("tensors: more than the memory holds", DataError, _no_room),
    Case("tensors: damaged safetensors", DataError, _damaged_safetensors),
    Case("tensors: an unknown name in safetensors", DataError, _unknown_in_safetensors),
    _arrays("an array is missing", test_labels=None),
    _arrays("an unknown name", test_label=np.arange(4)),
    _arrays("no classes", error=ConfigError, options={"classes": 0}),
    _arrays("two validation parts", error=ConfigError, options={"validation": 2}, **OWN_PART),
    _arrays("labels that are numbers", test_labels=np.zeros(4)),
    _arrays("a label that counts nothing", test_labels=np.array([0, 1, 2, 99])),
    _arrays("a label out of range", options={"classes": 3}, test_labels=np.array([0, 1, 2, 3])),
    _arrays("inputs that are whole numbers", test_inputs=np.zeros((4, 2, 3), np.int64)),
    _arrays("inputs of another shape", test_inputs=np.zeros((4, 2, 2), np.float32)),
    _arrays("inputs of another kind", test_inputs=UINT8),
    _arrays("more inputs than labels", test_labels=np.arange(3)),
    _arrays("inputs that are not finite", test_inputs=INFINITE),
]


def _npy(name: str, content: bytes | Callable[[bytes], bytes]) -> Case:
    """A file of three whole numbers is another, or changed."""

    def run(here: Here) -> None:
        path = here.folder / "train_labels.npy"
        np.save(path, np.array([0, 1, 2], np.int16))
        good = path.read_bytes()
        path.write_bytes(content if isinstance(content, bytes) else content(good))
        load_tensors(here.folder, validation=0)

    return Case(f"npy: {name}", DataError, run)


def _replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """Another word in the header, of whatever length."""

    def change(content: bytes) -> bytes:
        words, values = content[10:-6].replace(old, new).strip(), content[-6:]
        return content[:10] + words.ljust(117) + b"\n" + values

    return change


def _shorter_meanwhile(here: Here) -> None:
    """As if another process had cut the file in the middle of reading."""

    def takes_less(stream: Any, count: int) -> bytearray:
        content = bytearray(stream.read(count))
        return content[:-1] if count == 24 else content

    np.save(here.folder / "train_labels.npy", np.arange(3))
    here.patch.setattr("fdfa.data.npy.take", takes_less)
    load_tensors(here.folder, validation=0)


NPY = [
    _npy("no such file", b"1, 2, 3\n"),
    _npy("an unknown version", lambda content: content[:6] + b"\x09" + content[7:]),
    _npy("a header that is too long", lambda content: content[:8] + b"\xff\xff" + content[10:]),
    _npy("cut off in the header", lambda content: content[:40]),
    _npy("no header", _replaced(b"descr", b"drescr")),
    _npy("text", _replaced(b"<i2", b"<U3")),
    _npy("a shape that is none", _replaced(b"(3,)", b"(3)")),
    _npy("no numbers", _replaced(b"(3,)", b"(0,)")),
    _npy("a value too few", lambda content: content[:-2]),
    _npy(
        "truth that is none",
        _replaced(
            b"'<i2', 'fortran_order': False, 'shape': (3,)",
            b"'|b1', 'fortran_order': False, 'shape': (6,)",
        ),
    ),
    Case("npy: a file that is cut while it is read", DataError, _shorter_meanwhile),
]


def _folder(
    name: str,
    *,
    error: type[Exception] = DataError,
    files: dict[str, bytes | None] | None = None,
    good: bool = True,
    grey: bool = False,
    **options: Any,
) -> Case:
    """Three classes of pictures, with some files more, or others; None is an empty folder."""

    def run(here: Here) -> None:
        if good:
            three_classes(here.folder, grey=grey)
        for file, content in (files or {}).items():
            if content is None:
                (here.folder / file).mkdir(parents=True, exist_ok=True)
            else:
                write(here.folder, {file: content})
        load_imagefolder(here.folder, **{"validation": 0} | options)

    return Case(f"imagefolder: {name}", error, run)


def _empty_class(here: Here) -> None:
    three_classes(here.folder)
    for file in (here.folder / "train" / "bee").iterdir():
        file.unlink()
    load_imagefolder(here.folder, validation=0)


def _without_pillow(here: Here) -> None:
    here.patch.setitem(sys.modules, "PIL", None)
    here.patch.setitem(sys.modules, "PIL.Image", None)
    load_imagefolder(here.folder, validation=0)


def _unreadable(here: Here) -> None:
    def scandir(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    three_classes(here.folder)
    here.patch.setattr("fdfa.data.picture_files.os.scandir", scandir)
    load_imagefolder(here.folder, validation=0)


def _gone_away(here: Here) -> None:
    """In the middle of a training that reads batch by batch."""
    three_classes(here.folder)
    loaded = load_imagefolder(here.folder, validation=0, memory=0)
    (here.folder / "train" / "ape" / "0.png").unlink()
    list(loaded.train.batches([torch.arange(3)]))


def _png(width: int, height: int) -> bytes:
    """A picture that claims a size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def _list(name: str, lines: bytes | None, *pictures: str) -> Case:
    """Two classes, and a test part whose classes stand in a list, as in Tiny ImageNet."""
    names = pictures or ("a.png", "b.png")
    files: dict[str, bytes | None] = {
        **{f"train/{kind}/0.png": GOOD for kind in ("ape", "bee")},
        "val/images": None,
        **{f"val/images/{file}": GOOD for file in names},
        "val/val_annotations.txt": lines,
    }
    return _folder(name, files=files, good=False)


GOOD = encoded(picture(0))
WIDE = encoded(picture(0, grey=True).astype("uint16"))
FIRST = "train/ape/0.png"
LINES = b"a.png\tape\t0\nb.png\tbee\t0\n"
PICTURES = [
    _folder("no size", error=ConfigError, size=0),
    Case("imagefolder: without Pillow", ConfigError, _without_pillow),
    _folder("nothing there", good=False),
    _folder("no class", files={"train": None}, good=False),
    _folder("no test part", files={FIRST: GOOD}, good=False),
    _folder("a picture outside the classes", files={"train/stray.png": GOOD}),
    _folder("a class of the test alone", files={"test/dog/0.png": GOOD}),
    Case("imagefolder: a class without pictures", DataError, _empty_class),
    _folder("a folder in a class", files={"train/ape/more/0.png": GOOD}),
    _folder("a folder in a class's images", files={"train/ape/images/more/0.png": GOOD}),
    _folder("a file that is no picture", files={"train/ape/0.tiff": GOOD}),
    Case("imagefolder: a folder that may not be read", DataError, _unreadable),
    Case("imagefolder: a picture that goes away", DataError, _gone_away),
    _folder("colour where the first is grey", files={"test/bee/x.png": GOOD}, grey=True),
    _folder("another size", files={"test/bee/x.png": encoded(picture(0, width=7))}),
    _folder("a damaged picture", files={FIRST: GOOD[:-60]}),
    _folder("a picture that claims too much", files={FIRST: _png(30_000, 5_000)}),
    _folder("a picture of more than bytes", files={FIRST: WIDE}),
    _list("list: folders beside the pictures", LINES, "a.png", "more/b.png"),
    _list("list: a picture is missing in it", b"a.png\tape\n"),
    _list("list: a picture that is not there", LINES + b"c.png\tape\n"),
    _list("list: too long", LINES + b" " * 3000),
    _list("list: no text", LINES.replace(b"a.png", b"\xff.png")),
    _list("list: a picture twice", LINES + b"a.png\tape\n"),
    _list("list: an unknown class", b"a.png\tdog\nb.png\tape\n"),
    Case(
        "tiny-imagenet: pictures are missing",
        DataError,
        lambda here: load_tiny_imagenet(three_classes(here.folder), validation=0),
    ),
]


def _dataset(normalization: Normalization | None = None) -> Dataset:
    """Five black pictures."""
    part = (FIVE.to(torch.uint8), LABELS)
    return assemble(
        "mine", train=part, test=part, classes=2, validation=0, normalization=normalization
    )


def _streamed() -> Dataset:
    train = StreamedExamples(SOURCE, torch.arange(5), LABELS, PIXELS)
    return dataclasses.replace(_dataset(PIXELS), train=train)


PIXELS = Normalization()
FIVE = torch.zeros(5, 1, 4, 4)
LABELS = torch.zeros(5, dtype=torch.int64)
SOURCE = TensorDataset(FIVE, LABELS)
TENSOR_OBJECTS = [
    Case("examples: fewer labels", DataError, lambda here: Examples(FIVE, LABELS[:4])),
    Case(
        "streamed: fewer labels",
        DataError,
        lambda here: StreamedExamples(SOURCE, torch.arange(5), LABELS[:4]),
    ),
    Case(
        "streamed: negative workers",
        ConfigError,
        lambda here: StreamedExamples.of(SOURCE, LABELS, workers=-1),
    ),
    Case("normalization by zero", ConfigError, lambda here: Normalization(deviation=0.0)),
    Case("normalization by infinity", ConfigError, lambda here: Normalization(mean=np.inf)),
    Case(
        "normalization for other channels",
        ConfigError,
        lambda here: Normalization(mean=(0.5, 0.4, 0.3))(FIVE),
    ),
    Case("augmentation: negative padding", ConfigError, lambda here: Augmentation(padding=-1)),
    Case("augmentation: no pictures", ConfigError, lambda here: Augmentation()(FIVE[:, 0])),
    Case("pixels: an unknown scale", ConfigError, lambda here: scaled(_dataset(), "whitened")),
    Case("pixels: of numbers", ConfigError, lambda here: scaled(_dataset(), "unit")),
    Case("pixels: all the same", ConfigError, lambda here: scaled(_dataset(PIXELS), "standard")),
    Case("pixels: in a stream", ConfigError, lambda here: scaled(_streamed(), "standard")),
]

DATA_OWN_CASES = [*TENSORS, *NPY, *PICTURES, *TENSOR_OBJECTS]

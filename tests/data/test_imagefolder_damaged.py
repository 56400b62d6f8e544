"""Folders of pictures where something is missing, damaged, hostile, or too much."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fdfa.data.imagefolder import load_imagefolder
from fdfa.data.pictures import PictureForm, read_picture
from fdfa.errors import DataError
from tests.data.fuzz import damaged, or_refused
from tests.data.picture_folders import encoded, picture, three_classes
from tests.data.writers import write


def refused(folder: Path, reason: str, **options: object) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        load_imagefolder(folder, validation=0, **options)
    assert str(folder) in str(caught.value)


def png(width: int, height: int, *, rows: bytes = b"") -> bytes:
    """A picture of one bit a pixel that claims a size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


GOOD = encoded(picture(0))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be decoded"),
        (b"no picture", "cannot be decoded: cannot identify image file"),
        (GOOD[:-60], "cannot be decoded: "),
        (GOOD[:40], "cannot be decoded"),
        (GOOD[:50] + b"\xff" + GOOD[51:], "cannot be decoded"),
        (encoded(picture(0), form="GIF"), "cannot be decoded: cannot identify"),
        (encoded(picture(0), form="TIFF"), "cannot be decoded: cannot identify"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\n", "cannot be decoded"),
        (encoded(picture(0, grey=True).astype("uint16")), "pixels of the kind 'I;16', not bytes"),
        (
            png(30_000, 5_000),
            r"claims 30000 x 5000 pixels, more than .* read\. Replace or remove the file",
        ),
        (png(60_000, 60_000), "cannot be decoded: Image size .* exceeds limit"),
        (png(2**31 - 1, 2**31 - 1), "cannot be decoded"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_bad_pictures(tmp_path: Path, content: bytes, reason: str, first: bool) -> None:
    three_classes(tmp_path)
    name = "train/ape/0.png" if first else "test/bee/x.png"
    write(tmp_path, {name: content})
    refused(tmp_path, rf"{name} .*{reason}")
    refused(tmp_path, rf"{name} .*{reason}", size=4)


def test_a_text_chunk_that_never_ends(tmp_path: Path) -> None:
    content = zlib.compress(bytes(2**26), 9)
    body = b"zTXta\0\0" + content
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    three_classes(tmp_path)
    write(tmp_path, {"train/ape/0.png": GOOD[:33] + chunk + GOOD[33:]})
    refused(tmp_path, r"ape/0\.png cannot be decoded: Decompressed data too large")


def test_a_picture_of_extreme_proportions_takes_no_memory(tmp_path: Path) -> None:
    Image.new("1", (2**22, 1)).save(tmp_path / "line.png")
    form = PictureForm(colour=True, height=64, width=64, fit=True, convert=True)
    assert read_picture(tmp_path / "line.png", form).shape == (3, 64, 64)


def test_missing_folders(tmp_path: Path) -> None:
    refused(tmp_path, r"holds no folder train\. Put the pictures into train/CLASS/")
    (tmp_path / "train").mkdir()
    refused(tmp_path, "train holds no folder for any class")
    write(tmp_path, {"train/ape/0.png": GOOD})
    refused(tmp_path, "holds neither in test nor in val a folder for any class")
    (tmp_path / "test").mkdir()
    (tmp_path / "val").mkdir()
    refused(tmp_path, "holds neither in test nor in val a folder for any class")
    write(tmp_path, {"test/images/0.png": GOOD})
    refused(tmp_path, "holds neither in test nor in val a folder for any class")


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_empty_class(tmp_path: Path, part: str) -> None:
    three_classes(tmp_path)
    for file in (tmp_path / part / "bee").iterdir():
        file.unlink()
    refused(tmp_path, f"{part}/bee holds no pictures")
    (tmp_path / part / "bee" / "images").mkdir()
    refused(tmp_path, f"{part}/bee holds no pictures")


def test_a_class_that_only_the_test_part_has(tmp_path: Path) -> None:
    write(three_classes(tmp_path), {"test/dog/0.png": GOOD})
    refused(tmp_path, r"test/dog is of a class that the training part .* has \(ape, bee, cat\)")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("train/stray.png", "stray.png lies outside the folders of the classes"),
        ("test/stray.jpg", "stray.jpg lies outside the folders of the classes"),
        ("train/ape/more/0.png", "train/ape/more is a folder where pictures are expected"),
        ("train/ape/images/more/0.png", "images/more is a folder too many"),
        ("train/ape/0.tiff", "0.tiff is of no kind that is read"),
        ("train/ape/noname", "noname is of no kind that is read"),
    ],
)
def test_what_would_be_left_out_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    write(three_classes(tmp_path), {name: GOOD})
    refused(tmp_path, reason)


def test_links(tmp_path: Path) -> None:
    three_classes(tmp_path / "real")
    (tmp_path / "linked").mkdir()
    for part in ("train", "test"):
        (tmp_path / "linked" / part).symlink_to(tmp_path / "real" / part)
    assert len(load_imagefolder(tmp_path / "linked", validation=0).train) == 6
    loop = tmp_path / "real" / "train" / "ape" / "loop.png"
    loop.symlink_to(loop)
    refused(tmp_path / "real", "(loop.png is no picture|train/ape cannot be read)")
    loop.unlink()
    loop.symlink_to(tmp_path / "nowhere.png")
    refused(tmp_path / "real", "loop.png is of no kind that is read")
    loop.unlink()
    loop.symlink_to(tmp_path / "real" / "train")
    refused(tmp_path / "real", "loop.png is a folder where pictures are expected")
    loop.unlink()
    (tmp_path / "real" / "train" / "round").symlink_to(tmp_path / "real" / "train")
    refused(tmp_path / "real", "train/round/ape is a folder where pictures are expected")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    three_classes(tmp_path)
    os.mkfifo(tmp_path / "train" / "ape" / "pipe.png")
    refused(tmp_path, r"pipe\.png is of no kind that is read")


def test_a_picture_that_goes_away(tmp_path: Path) -> None:
    three_classes(tmp_path)
    loaded = load_imagefolder(tmp_path, validation=0, memory=0)
    (tmp_path / "train" / "ape" / "0.png").unlink()
    with pytest.raises(DataError, match=r"ape/0\.png is no file"):
        loaded.train.first(1)


LINES = b"a.png\tape\t0\nb.png\tbee\t0\n"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (b"", "annotations.txt does not tell the class of a.png"),
        (b"a.png\tape\n", "annotations.txt does not tell the class of b.png"),
        (LINES + b"c.png\tape\n", r"tells the class of c\.png, which .* lacks"),
        (LINES + b"a.png\tape\n", "names a picture again in line 3"),
        (b"a.png\tdog\nb.png\tape\n", "names 'dog' in line 1"),
        (b"a.png\nb.png\tape\n", "names '' in line 1, which is no class"),
        (LINES + b"\n", "names '' in line 3"),
        (LINES.replace(b"a.png", b"\xff.png"), "annotations.txt is no text"),
        (LINES + b" " * 3000, "is longer than 2,048 bytes"),
    ],
)
def test_bad_annotations(tmp_path: Path, lines: bytes, reason: str) -> None:
    write(tmp_path, {f"train/{name}/0.png": GOOD for name in ("ape", "bee")})
    write(tmp_path, {f"val/images/{name}.png": GOOD for name in "ab"})
    write(tmp_path, {"val/val_annotations.txt": LINES})
    assert load_imagefolder(tmp_path, validation=0).test.labels.tolist() == [0, 1]
    write(tmp_path, {"val/val_annotations.txt": lines})
    refused(tmp_path, reason)


def test_annotations_without_pictures(tmp_path: Path) -> None:
    write(tmp_path, {"train/ape/0.png": GOOD, "val/val_annotations.txt": LINES})
    refused(tmp_path, "val/images cannot be read")
    (tmp_path / "val" / "images").mkdir()
    refused(tmp_path, "val/images has to hold pictures and no folders")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


PALETTE = Image.new("P", (6, 6))
GOOD_ONES = [GOOD, encoded(picture(0, grey=True))]
GOOD_ONES += [encoded(picture(0), form=form) for form in ("JPEG", "BMP", "WEBP", "PPM")]


@settings(max_examples=200)
@given(
    content=st.binary(max_size=60)
    | st.builds(bytes.__add__, st.just(GOOD[:33]), st.binary())
    | damaged(*GOOD_ONES),
    fit=st.booleans(),
    colour=st.booleans(),
)
def test_fuzz_a_picture(folder: Path, content: bytes, fit: bool, colour: bool) -> None:
    (folder / "a.png").write_bytes(content)
    form = PictureForm(colour=colour, height=6, width=6, fit=fit, convert=True)
    found = or_refused(lambda: read_picture(folder / "a.png", form))
    assert found is None or found.shape == form.shape


@settings(max_examples=50)
@given(lines=damaged(LINES) | st.binary(max_size=50))
def test_fuzz_annotations(folder: Path, lines: bytes) -> None:
    write(folder, {f"train/{name}/0.png": GOOD for name in ("ape", "bee")})
    write(folder, {f"val/images/{name}.png": GOOD for name in "ab"})
    write(folder, {"val/val_annotations.txt": lines})
    or_refused(lambda: load_imagefolder(folder, validation=1))

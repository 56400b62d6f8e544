"""Folders of pictures: which are found, what they become, and where they are held."""

from __future__ import annotations

import builtins
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fdfa.data import imagefolder
from fdfa.data.dataset import Dataset
from fdfa.data.examples import Examples
from fdfa.data.imagefolder import load_imagefolder
from fdfa.data.streamed import StreamedExamples
from fdfa.errors import ConfigError, DataError
from tests.data.picture_folders import encoded, picture, planes, three_classes
from tests.data.writers import write


def load(folder: Path, **options: object) -> Dataset:
    return load_imagefolder(folder, **{"validation": 0} | options)


def stored(part: Examples | StreamedExamples) -> tuple[list, list[int]]:
    """Pixels and labels in their order, whatever holds them."""
    if isinstance(part, Examples):
        return part.inputs.tolist(), part.labels.tolist()
    pictures = [part.source[int(index)] for index in part.indices]
    return [pixels.tolist() for pixels, _ in pictures], [label for _, label in pictures]


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("test", ["test", "val"])
def test_pictures_come_in_the_order_of_names(tmp_path: Path, test: str, grey: bool) -> None:
    loaded = load(three_classes(tmp_path, test=test, grey=grey))
    expected = [planes(picture(seed, grey=grey)) for seed in (0, 1, 10, 11, 20, 21)]
    assert stored(loaded.train) == (expected, [0, 0, 1, 1, 2, 2])
    assert stored(loaded.test) == (
        [planes(picture(seed, grey=grey)) for seed in (5, 15, 25)],
        [0, 1, 2],
    )
    assert (loaded.name, loaded.classes) == ("imagefolder", 3)
    assert loaded.shape == (1 if grey else 3, 6, 6)
    assert isinstance(loaded.train, Examples)


def test_the_order_is_not_that_of_the_disk(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(20)
    files = {f"train/{n % 2}/{n:02}.png": encoded(picture(n)) for n in order}
    write(tmp_path, files | {"test/0/0.png": encoded(picture(0))})
    expected = [planes(picture(n)) for n in (*range(0, 20, 2), *range(1, 20, 2))]
    assert stored(load(tmp_path).train) == (expected, [0] * 10 + [1] * 10)


@pytest.mark.parametrize("memory", [None, 0])
def test_held_or_streamed_is_the_same_data_set(tmp_path: Path, memory: int | None) -> None:
    three_classes(tmp_path)
    whole, loaded = load(tmp_path, validation=2), load(tmp_path, validation=2, memory=memory)
    for part in ("train", "validation", "test"):
        assert stored(getattr(loaded, part)) == stored(getattr(whole, part))
        assert torch.equal(getattr(loaded, part).labels, getattr(whole, part).labels)
        for mine, its in zip(
            getattr(loaded, part).first(2), getattr(whole, part).first(2), strict=True
        ):
            assert torch.equal(mine, its)
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (4, 2, 3)
    assert isinstance(loaded.train, Examples if memory is None else StreamedExamples)


def test_the_memory_decides_to_the_byte(tmp_path: Path, monkeypatch) -> None:
    three_classes(tmp_path)
    size = 9 * 3 * 6 * 6
    for memory, kind in ((size, Examples), (size - 1, StreamedExamples)):
        assert isinstance(load(tmp_path, memory=memory).test, kind)
        # Unless it is named, half of what the machine has left.
        monkeypatch.setattr(imagefolder, "available_memory", lambda memory=memory: 2 * memory)
        assert isinstance(load(tmp_path).test, kind)


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_batches_equal_held_ones(tmp_path: Path, workers: int) -> None:
    three_classes(tmp_path)
    held, streamed = load(tmp_path), load(tmp_path, memory=0, workers=workers)
    order = torch.tensor([4, 0, 3, 1, 2]).split(2)
    before = torch.get_rng_state()
    for mine, its in zip(streamed.train.batches(order), held.train.batches(order), strict=True):
        assert torch.equal(mine[0], its[0])
        assert torch.equal(mine[1], its[1])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_picture_in_a_stream_is_named(tmp_path: Path, workers: int) -> None:
    three_classes(tmp_path)
    write(tmp_path, {"train/bee/1.png": b"no picture"})
    loaded = load(tmp_path, memory=0, workers=workers)
    with pytest.raises(DataError, match=r"bee/1\.png cannot be decoded"):
        list(loaded.train.batches(torch.arange(6).split(3)))


def test_streams_of_other_files_have_other_checksums(tmp_path: Path) -> None:
    three_classes(tmp_path)
    sums = {load(tmp_path, memory=0).checksum()}
    assert sums == {load(tmp_path, memory=0).checksum()}
    sums.add(load(tmp_path, memory=0, validation=1).checksum())
    (tmp_path / "test" / "bee" / "x.png").rename(tmp_path / "test" / "bee" / "y.png")
    sums.add(load(tmp_path, memory=0).checksum())
    with (tmp_path / "train" / "cat" / "0.png").open("ab") as file:
        file.write(b"\0")
    sums.add(load(tmp_path, memory=0).checksum())
    assert len(sums) == 4


@pytest.mark.parametrize("form", ["PNG", "BMP", "PPM", "WEBP", "JPEG"])
def test_all_formats(tmp_path: Path, form: str) -> None:
    pixels = np.full((6, 6, 3), (30, 60, 90), np.uint8)
    options = {"lossless": True} if form == "WEBP" else {"quality": 100} if form == "JPEG" else {}
    content = encoded(pixels, form=form, **options)
    suffix = {"JPEG": "JPEG"}.get(form, form.lower())
    write(tmp_path, {f"{part}/only/a.{suffix}": content for part in ("train", "test")})
    found = load(tmp_path).train.inputs[0].int() - torch.tensor(planes(pixels))
    assert found.abs().max() <= (2 if form == "JPEG" else 0)


MODES = {
    "1": [255, 0],
    "L": [200, 7],
    "LA": [(200, 9), (7, 255)],
    "RGB": [(1, 2, 3), (4, 5, 6)],
    "RGBA": [(1, 2, 3, 9), (4, 5, 6, 255)],
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("colour", [True, False, None])
def test_kinds_of_pixels(tmp_path: Path, mode: str, colour: bool | None) -> None:
    image = Image.new(mode, (2, 1))
    image.putdata(MODES[mode])
    for part in ("train", "test"):
        (tmp_path / part / "only").mkdir(parents=True)
        image.save(tmp_path / part / "only" / "a.png")
    rgb = mode.startswith("RGB")
    found = load(tmp_path, colour=colour).train.inputs[0]
    expected = np.array([np.ravel(pixel)[: 3 if rgb else 1] for pixel in MODES[mode]])
    if colour is False and rgb:  # luma of ITU-R BT.601
        expected = np.round(expected @ [[0.299], [0.587], [0.114]])
    elif colour and not rgb:
        expected = expected.repeat(3, axis=1)
    assert found.tolist() == expected.T[:, None].tolist()


def test_palettes_with_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    for part in ("train", "test"):
        (tmp_path / part / "only").mkdir(parents=True)
        image.save(tmp_path / part / "only" / "a.png", transparency=b"\0\x80")
    assert load(tmp_path).train.inputs.tolist() == [[[[10, 40]], [[20, 50]], [[30, 60]]]]


def test_a_grey_picture_among_coloured_ones(tmp_path: Path) -> None:
    three_classes(tmp_path)
    write(tmp_path, {"train/bee/0.png": encoded(picture(3, grey=True))})
    assert load(tmp_path).train.inputs[2].tolist() == [picture(3, grey=True).tolist()] * 3


def test_a_coloured_picture_among_grey_ones_is_not_made_grey_unasked(tmp_path: Path) -> None:
    three_classes(tmp_path, grey=True)
    write(tmp_path, {"train/bee/0.png": encoded(picture(3))})
    with pytest.raises(DataError, match=r"bee/0\.png is in colour, but the first picture is grey"):
        load(tmp_path)
    assert load(tmp_path, colour=False).shape == (1, 6, 6)
    assert load(tmp_path, colour=True).shape == (3, 6, 6)


def test_pictures_of_two_sizes(tmp_path: Path) -> None:
    three_classes(tmp_path)
    write(tmp_path, {"train/bee/0.png": encoded(picture(3, height=5, width=7))})
    with pytest.raises(
        DataError, match=r"bee/0\.png is of 7 x 5 pixels, .* of 6 x 6\. Choose a size"
    ):
        load(tmp_path)
    assert load(tmp_path, size=4).shape == (3, 4, 4)


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(8, 8, 4), (8, 24, 4), (24, 8, 4), (8, 24, 1), (24, 8, 7), (5, 15, 9), (1, 3, 5), (6, 6, 6)],
)
def test_size_scales_and_crops_the_middle(
    tmp_path: Path, height: int, width: int, size: int
) -> None:
    pixels = picture(1, height=height, width=width)
    write(tmp_path, {f"{part}/only/a.png": encoded(pixels) for part in ("train", "test")})
    # In two steps, of sides that divide.
    scale = size / min(height, width)
    scaled = (round(width * scale), round(height * scale))
    left, top = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    expected = Image.fromarray(pixels).resize(scaled, Image.Resampling.BILINEAR)
    expected = expected.crop((left, top, left + size, top + size))
    assert load(tmp_path, size=size).train.inputs[0].tolist() == planes(np.asarray(expected))


@pytest.mark.parametrize(("height", "width"), [(8, 20), (9, 31), (3, 5), (1, 41), (40, 7)])
@pytest.mark.parametrize("size", [1, 4, 7, 11])
def test_any_proportions_can_be_scaled(tmp_path: Path, height: int, width: int, size: int) -> None:
    content = encoded(picture(1, height=height, width=width))
    write(tmp_path, {f"{part}/only/a.png": content for part in ("train", "test")})
    assert load(tmp_path, size=size).shape == (3, size, size)


def test_tiny_imagenet(tmp_path: Path) -> None:
    files, lines = {}, []
    for number, name in enumerate(("n01443537", "n01629819")):
        files[f"train/{name}/{name}_boxes.txt"] = b"0\t0\t5\t5\n"
        for index in range(2):
            content = encoded(picture(10 * number + index), form="PNG")
            files[f"train/{name}/images/{name}_{index}.png"] = content
    for index, name in ((0, "n01629819"), (1, "n01443537"), (10, "n01629819")):
        files[f"val/images/val_{index}.png"] = encoded(picture(100 + index))
        lines.append(f"val_{index}.png\t{name}\t0\t0\t5\t5\n")
    files["val/val_annotations.txt"] = "".join(lines).encode()
    files["test/images/test_0.png"] = encoded(picture(7))
    files["wnids.txt"] = b"n01629819\nn01443537\n"
    loaded = load(write(tmp_path, files))
    assert loaded.classes == 2
    assert stored(loaded.train) == ([planes(picture(s)) for s in (0, 1, 10, 11)], [0, 0, 1, 1])
    assert stored(loaded.test) == ([planes(picture(s)) for s in (100, 101, 110)], [1, 0, 1])


def test_a_class_may_be_called_images(tmp_path: Path) -> None:
    content = encoded(picture(1))
    write(tmp_path, {f"{part}/images/a.png": content for part in ("train", "test")})
    assert load(tmp_path).classes == 1


def test_pictures_beside_the_nested_ones_count_too(tmp_path: Path) -> None:
    three_classes(tmp_path)
    write(tmp_path, {"train/ape/images/0.png": encoded(picture(77)), "train/ape/.DS_Store": b"\0"})
    assert stored(load(tmp_path).train)[0][:2] == [planes(picture(77)), planes(picture(0))]


@pytest.mark.parametrize(
    "options", [{"size": 0}, {"size": True}, {"workers": -1}, {"memory": -1}, {"size": -3}]
)
def test_impossible_options(tmp_path: Path, options: dict[str, int]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(ConfigError, match=f"{name}={value} is not possible"):
        load(tmp_path, **options)


@pytest.mark.parametrize("validation", [-1, 6])
def test_impossible_validation_is_told_before_decoding(tmp_path: Path, validation: int) -> None:
    three_classes(tmp_path)
    write(tmp_path, {"train/ape/0.png": b"no picture"})
    with pytest.raises(ConfigError, match=f"validation={validation}"):
        load(tmp_path, validation=validation)


def test_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("PIL"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'fdfa\[images\]'"):
        load(tmp_path)

"""CIFAR where something is missing, damaged, or a lie."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fdfa.errors import DataError
from tests.data.cifar_files import (
    BATCH,
    COUNTS,
    LAYOUTS,
    PLACES,
    Files,
    archived,
    binary,
    binary10,
    load,
    python10,
    unpacked,
)
from tests.data.fuzz import damaged, or_refused
from tests.data.writers import cifar_batch, pictures, python2_pickle, tar, write


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_missing_batch_is_named(
    tmp_path: Path, layout: str, place: Callable[..., Files]
) -> None:
    make, *names = LAYOUTS[layout]
    for number, missing in enumerate(make()):
        files = {name: content for name, content in make().items() if name != missing}
        folder = write(tmp_path / str(number), place(files, *names))
        with pytest.raises(DataError, match=missing):
            load(folder, layout)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_batch_must_be_whole(tmp_path: Path, layout: str, place: Callable[..., Files]) -> None:
    make, *names = LAYOUTS[layout]
    for number, name in enumerate(make()):
        for kind, change in (("cut", lambda content: content[:-1]), ("long", lambda c: c + b"x")):
            files = make()
            files[name] = change(files[name])
            folder = write(tmp_path / f"{number}{kind}", place(files, *names))
            with pytest.raises(DataError, match=rf"{name}.* (is cut off|goes on|is no whole)"):
                load(folder, layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_out_of_range(tmp_path: Path, layout: str) -> None:
    images = pictures(COUNTS[0] if "100" in layout else BATCH)
    count, classes = len(images), 100 if "100" in layout else 10
    wrong = np.zeros(count, np.uint8)
    wrong[2] = classes
    files = LAYOUTS[layout][0]()
    first = next(iter(files))
    files[first] = {
        "binary 10": lambda: binary(images, wrong),
        "binary 100": lambda: binary(images, wrong * 0, wrong),
        "python 10": lambda: cifar_batch(images, labels=wrong),
        "python 100": lambda: cifar_batch(images, coarse_labels=wrong * 0, fine_labels=wrong),
    }[layout]()
    with pytest.raises(DataError, match=rf"{first} holds the label {classes} at position 2"):
        load(write(tmp_path, files), layout)


def batch(**changes: object) -> dict[str, object]:
    good = {"data": pictures(BATCH).reshape(BATCH, 3072), "labels": [1] * BATCH}
    return {key: value for key, value in (good | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("thing", "reason"),
    [
        ([1], "holds no dict"),
        (batch(data=None), "holds no array 'data'"),
        (batch(data=[1]), "holds no array 'data'"),
        (batch(data=pictures(BATCH)), r"'data' of a shape other than \(3, 3072\)"),
        (batch(data=pictures(2).reshape(2, 3072)), "'data' of a shape other than"),
        (batch(labels=None), "holds no list 'labels'"),
        (batch(labels=(1, 1, 1)), "holds no list 'labels'"),
        (batch(labels=[1, 1]), "holds 2 entries in 'labels' where 3 are expected"),
        (batch(labels=[1, 1, "1"]), "something in 'labels' that is no label"),
        (batch(labels=[1, True, 1]), "something in 'labels' that is no label"),
        (batch(labels=[1, -1, 1]), "something in 'labels' that is no label"),
        (batch(labels=[1, 2**31 - 1, 1]), "something in 'labels' that is no label"),
        (batch(labels=[1, 2**70, 1]), "something in 'labels' that is no label"),
    ],
)
def test_batches_that_lie(tmp_path: Path, thing: object, reason: str) -> None:
    files = python10() | {"data_batch_3": python2_pickle(thing)}
    with pytest.raises(DataError, match=rf"data_batch_3 .*{reason}"):
        load(write(tmp_path, files), "python 10")


def test_an_array_that_says_it_is_larger_than_it_is(tmp_path: Path) -> None:
    good = python10()["data_batch_1"]
    content = pictures(BATCH, seed=0).tobytes()
    head = b"T" + len(content).to_bytes(4, "little")
    lying = good.replace(head + content, b"T\xe8\3\0\0" + content[:1000])
    assert lying != good
    with pytest.raises(DataError, match="holds 1,000 of 9,216 bytes of 'data'"):
        load(write(tmp_path, python10() | {"data_batch_1": lying}), "python 10")


def test_a_hostile_batch_is_named_and_not_executed(tmp_path: Path) -> None:
    files = python10() | {"data_batch_4": b"cos\nsystem\n(U\x10touch /tmp/ownedtR."}
    with pytest.raises(
        DataError, match=r"data_batch_4 is refused: its pickle asks for 'os\.system"
    ):
        load(write(tmp_path, files), "python 10")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'cifar10': .* holds none of cifar-10-batches-bin, cifar"):
        load(tmp_path, "binary 10")
    with pytest.raises(DataError, match=r"'cifar100': .*cifar-100-python\.tar\.gz\. Put one"):
        load(tmp_path, "binary 100")


def test_an_empty_folder_of_the_right_name_is_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path, archived(python10(), *LAYOUTS["python 10"][1:]))
    (tmp_path / "cifar-10-batches-bin").mkdir()
    with pytest.raises(
        DataError, match=r"cifar-10-batches-bin holds neither data_batch_1\.bin nor"
    ):
        load(tmp_path, "binary 10")


def test_batches_of_two_layouts_are_not_mixed(tmp_path: Path) -> None:
    files = binary10() | python10()
    del files["data_batch_2.bin"]
    with pytest.raises(DataError, match=r"holds neither data_batch_2\.bin"):
        load(write(tmp_path, files), "binary 10")


def test_a_batch_that_is_in_the_archive_twice(tmp_path: Path) -> None:
    content = io.BytesIO(gzip.decompress(tar(unpacked(binary10(), "cifar-10-batches-bin", ""))))
    with tarfile.open(fileobj=content, mode="a") as archive:
        member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        archive.addfile(member)
    write(tmp_path, {"cifar-10-binary.tar.gz": content.getvalue()})
    with pytest.raises(DataError, match=r"tar\.gz \(.*/test_batch\.bin\) is there twice"):
        load(tmp_path, "binary 10")


@pytest.fixture(scope="module", params=LAYOUTS)
def fuzzed(request: pytest.FixtureRequest, tmp_path_factory) -> tuple[Path, str, Files]:
    make, *names = LAYOUTS[request.param]
    files = make() | archived(make(), *names)
    return write(tmp_path_factory.mktemp("fuzz"), make()), request.param, files


@settings(max_examples=40)
@given(data=st.data())
def test_fuzz_a_batch(fuzzed: tuple[Path, str, Files], data: st.DataObject) -> None:
    folder, layout, files = fuzzed
    name = next(iter(files))
    content = files[name]
    broken = data.draw(st.binary(max_size=100) | damaged(content, content[:50], content[-200:]))
    write(folder, {name: broken})
    loaded = or_refused(lambda: load(folder, layout))
    assert loaded is None or (len(loaded.train), len(loaded.test)) == COUNTS
    write(folder, {name: content})


@settings(max_examples=40)
@given(data=st.data())
def test_fuzz_an_archive(tmp_path_factory, fuzzed: tuple, data: st.DataObject) -> None:
    _, layout, files = fuzzed
    folder = tmp_path_factory.getbasetemp() / f"archive {layout}"
    name, content = list(files.items())[-1]
    write(folder, {name: data.draw(damaged(content, gzip.decompress(content)))})
    loaded = or_refused(lambda: load(folder, layout))
    assert loaded is None or (len(loaded.train), len(loaded.test)) == COUNTS

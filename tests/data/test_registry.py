"""Data sets by name: what is known of them, where they are read from, when they are fetched."""

from __future__ import annotations

import dataclasses
import gzip
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from fdfa import data
from fdfa.data import catalogue, registry
from fdfa.data.official import LOCK, OfficialFile
from fdfa.errors import ConfigError, DataError
from tests.data.idx_files import idx, write_mnist
from tests.data.mirror_server import Mirror, fingerprint, mirror

LABELS = np.arange(5, dtype=np.uint8)
PICTURES = np.zeros((5, 28, 28), dtype=np.uint8)
CONTENTS = {
    "train-images-idx3-ubyte.gz": PICTURES,
    "train-labels-idx1-ubyte.gz": LABELS,
    "t10k-images-idx3-ubyte.gz": PICTURES,
    "t10k-labels-idx1-ubyte.gz": LABELS,
}


@pytest.fixture(autouse=True)
def _here_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No data of the machine, and no address out of it."""
    monkeypatch.delenv("FDFA_DATA", raising=False)
    monkeypatch.setenv("FDFA_CACHE", str(tmp_path / "cache"))
    real = catalogue.official_files

    def unreachable(name: str) -> tuple[OfficialFile, ...]:
        mirrors = ("http://127.0.0.1:9/",)
        return tuple(dataclasses.replace(file, mirrors=mirrors) for file in real(name))

    monkeypatch.setattr(catalogue, "official_files", unreachable)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """An MNIST of five digits, whose official files a server on this machine has."""
    files = []
    with mirror(b"") as server:
        for name, array in CONTENTS.items():
            content = idx(array)
            packed = gzip.compress(content, mtime=0)
            server.files[name] = packed
            files.append(
                OfficialFile(
                    name=name,
                    packed=fingerprint(packed),
                    content=fingerprint(content),
                    mirrors=(server.url("good", name),),
                )
            )
        monkeypatch.setattr(catalogue, "official_files", lambda name: tuple(files))
        record = data.describe("mnist")

        def load_five(folder: Path, *, validation: int) -> data.Dataset:
            return record.loader(folder, validation=validation, examples=(5, 5))

        shrunk = dataclasses.replace(record, loader=load_five, validation=1)
        monkeypatch.setattr(registry, "CATALOGUE", (shrunk,))
        yield server


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {LOCK}


def test_every_record_is_complete() -> None:
    assert len(set(data.names())) == len(data.names())
    for name in data.names():
        record = data.describe(name)
        assert record.summary
        assert record.licence
        assert record.source
        assert bool(record.traces) == (name != "digits")
        for file in record.files:  # what is downloaded is found again
            assert any(Path(file.name).match(trace) for trace in record.traces)
            assert file.mirrors


def test_records_agree_with_what_is_loaded() -> None:
    loaded, record = data.load("digits"), data.describe("digits")
    assert record.shape == loaded.shape
    assert record.classes == loaded.classes
    assert record.validation == len(loaded.validation)
    assert record.examples == (len(loaded.train) + len(loaded.validation), len(loaded.test))


def test_options_are_those_of_the_loader() -> None:
    assert data.describe("digits").options() == {}
    assert data.describe("emnist").options() == {"split": "balanced"}
    assert data.describe("cifar100").options() == {"labels": "fine"}


@pytest.mark.parametrize("ask", [data.load, data.describe, registry.get])
def test_an_unknown_name(ask) -> None:
    with pytest.raises(ConfigError, match=r"unknown data set 'mnits'\. Did you mean 'mnist'\?"):
        ask("mnits")


def test_an_unknown_option() -> None:
    with pytest.raises(
        ConfigError,
        match=r"data set 'emnist': unknown option 'splits'\. Did you mean 'split'\? Valid options",
    ):
        data.load("emnist", splits="letters")
    with pytest.raises(ConfigError, match="data set 'digits': unknown option 'split'"):
        data.load("digits", split="letters")
    with pytest.raises(ConfigError, match="unknown option 'examples'"):  # for tests alone
        data.load("mnist", examples=(5, 5))


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_full_size_through_the_public_name(tmp_path: Path, monkeypatch, name: str) -> None:
    write_mnist(tmp_path / "sets" / name, counts=(60_000, 10_000))
    monkeypatch.setenv("FDFA_DATA", str(tmp_path / "sets"))
    loaded = data.load(name)
    assert loaded.name == name
    assert loaded.train.inputs.shape == (55_000, 1, 28, 28)
    assert loaded.validation.inputs.shape == (5_000, 1, 28, 28)
    assert loaded.test.inputs.shape == (10_000, 1, 28, 28)


def test_folders_in_torchvisions_order_are_found(tmp_path: Path, small: Mirror) -> None:
    write_mnist(tmp_path / "MNIST" / "raw", counts=(5, 5))
    assert len(data.load("mnist", directory=tmp_path, download=False).train) == 4


def test_what_is_nowhere_is_downloaded_into_the_cache(tmp_path: Path, small: Mirror) -> None:
    told = set()
    loaded = data.load("mnist", progress=lambda name, done, total: told.add(name))
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (4, 1, 5)
    assert files_in(tmp_path / "cache" / "mnist") == set(CONTENTS) == told
    asked = len(small.asked)
    data.load("mnist")
    assert len(small.asked) == asked  # only when missing


def test_downloads_go_into_the_directory_if_there_is_one(tmp_path: Path, small: Mirror) -> None:
    with pytest.raises(DataError, match="is in none of"):  # misspelt, maybe
        data.load("mnist", directory=tmp_path / "given")
    assert small.asked == []
    (tmp_path / "given").mkdir()
    data.load("mnist", directory=tmp_path / "given")
    assert files_in(tmp_path / "given" / "mnist") == set(CONTENTS)
    assert not (tmp_path / "cache").exists()


def test_without_download_the_error_names_places_and_remedies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Mirror
) -> None:
    monkeypatch.setenv("FDFA_DATA", str(tmp_path / "sets"))
    with pytest.raises(DataError, match="data set 'mnist' is in none of") as caught:
        data.load("mnist", directory=tmp_path / "given", download=False)
    text = str(caught.value)
    for place in ("given/mnist", "given,", "sets/mnist", "cache/mnist"):
        assert f"{tmp_path}/{place}" in text
    for remedy in ("`fdfa data get mnist`", "--data-dir", "FDFA_DATA", *CONTENTS):
        assert remedy in text
    assert small.asked == []


def test_a_set_of_the_users_own_is_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'tensors' is in none of .* Put its files") as caught:
        data.load("tensors", directory=tmp_path)
    assert "data get" not in str(caught.value)
    with pytest.raises(
        ConfigError, match=r"'tensors' has no files to download: it is your own\. Put"
    ):
        registry.get("tensors")


def test_a_folder_of_the_users_that_lacks_a_file_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Mirror
) -> None:
    own = tmp_path / "given" / "mnist"
    write_mnist(own, counts=(5, 5))
    (own / "t10k-labels-idx1-ubyte").unlink()
    write_mnist(tmp_path / "sets" / "mnist", counts=(5, 5))  # whole, but another folder
    monkeypatch.setenv("FDFA_DATA", str(tmp_path / "sets"))
    with pytest.raises(DataError, match=r"lacks t10k-labels-idx1-ubyte\.gz\. Run `fdfa data get"):
        data.load("mnist", directory=tmp_path / "given")
    assert small.asked == []
    registry.get("mnist", directory=tmp_path / "given")  # said in so many words
    assert [name for name, _ in small.asked] == ["good"]
    assert len(data.load("mnist", directory=tmp_path / "given").train) == 4


def test_a_download_that_broke_off_between_files_goes_on(tmp_path: Path, small: Mirror) -> None:
    data.load("mnist")
    cache = tmp_path / "cache" / "mnist"
    (cache / "t10k-labels-idx1-ubyte.gz").rename(cache / "t10k-labels-idx1-ubyte.gz.part")
    with pytest.raises(DataError, match="lacks t10k-labels"):
        data.load("mnist", download=False)
    data.load("mnist")
    assert files_in(cache) == set(CONTENTS)


def test_a_download_that_fails_says_so() -> None:
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz cannot be downloaded into"):
        data.load("cifar10")


def test_an_archive_that_was_unpacked_is_not_downloaded(tmp_path: Path) -> None:
    (tmp_path / "cifar10" / "cifar-10-batches-bin").mkdir(parents=True)
    with pytest.raises(DataError, match=r"data_batch_1\.bin"):
        data.load("cifar10", directory=tmp_path)
    assert registry.get("cifar10", directory=tmp_path) == tmp_path / "cifar10"


def test_importing_needs_no_library_for_downloads() -> None:
    code = "import sys, fdfa, fdfa.data; print([m for m in ('urllib3', 'PIL') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_an_imagefolder_of_the_users_own(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for kind in ("day", "night"):
            (tmp_path / part / kind).mkdir(parents=True)
            Image.new("L", (9, 9)).save(tmp_path / part / kind / "0.png")
    loaded = data.load("imagefolder", directory=tmp_path, size=8)
    assert (loaded.shape, loaded.classes, len(loaded.train)) == ((1, 8, 8), 2, 2)


def test_a_file_of_arrays_of_the_users_own(tmp_path: Path) -> None:
    arrays = {
        f"{part}_{kind}": torch.zeros(3, dtype=torch.int64)
        if kind == "labels"
        else torch.rand(3, 2)
        for part in ("train", "test")
        for kind in ("inputs", "labels")
    }
    safetensors.torch.save_file(arrays, tmp_path / "flowers.safetensors")
    for directory in (tmp_path, tmp_path / "flowers.safetensors"):
        assert data.load("tensors", directory=directory, classes=4).classes == 4

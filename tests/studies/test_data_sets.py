"""What `fdfa data list`, `get` and `verify` will tell, on small files made here."""

from __future__ import annotations

import dataclasses
import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import fdfa.data
from fdfa.data import catalogue, registry
from fdfa.data.official import OfficialFile
from fdfa.errors import ConfigError, DataError
from fdfa.studies.data_sets import CheckedFile, get, list_data_sets, verify
from tests.data.idx_files import idx
from tests.data.mirror_server import Mirror, fingerprint, mirror

ARRAYS = {
    "train-images-idx3-ubyte": np.zeros((5, 28, 28), dtype=np.uint8),
    "train-labels-idx1-ubyte": np.arange(5, dtype=np.uint8),
    "t10k-images-idx3-ubyte": np.zeros((3, 28, 28), dtype=np.uint8),
    "t10k-labels-idx1-ubyte": np.arange(3, dtype=np.uint8),
}
PACKED = {f"{name}.gz": gzip.compress(idx(array), mtime=0) for name, array in ARRAYS.items()}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Mirror]:
    """MNIST, shrunk to eight digits, with its official files on a server on this machine."""
    monkeypatch.delenv("FDFA_DATA", raising=False)
    monkeypatch.setenv("FDFA_CACHE", str(tmp_path / "cache"))
    with mirror(b"") as running:
        running.files |= PACKED
        files = tuple(
            OfficialFile(
                name=f"{name}.gz",
                packed=fingerprint(PACKED[f"{name}.gz"]),
                content=fingerprint(idx(array)),
                mirrors=(running.url("good", f"{name}.gz"),),
            )
            for name, array in ARRAYS.items()
        )
        known = {"mnist": files}
        monkeypatch.setattr(catalogue, "official_files", lambda name: known.get(name, ()))
        record = fdfa.data.describe("mnist")

        def load_eight(folder: Path, *, validation: int) -> fdfa.data.Dataset:
            return record.loader(folder, validation=validation, examples=(5, 3))

        shrunk = dataclasses.replace(record, loader=load_eight)
        others = [other for other in catalogue.CATALOGUE if other.name != "mnist"]
        monkeypatch.setattr(registry, "CATALOGUE", (shrunk, *others))
        yield running


def test_the_list_says_what_is_where(tmp_path: Path, server: Mirror) -> None:
    before = {listed.source.name: listed for listed in list_data_sets()}
    assert list(before) == list(fdfa.data.names())
    assert before["mnist"].folder is None
    assert before["mnist"].size == sum(map(len, PACKED.values()))
    assert before["digits"].size == before["tensors"].size == 0
    get("mnist", directory=tmp_path / "given")
    assert {listed.folder for listed in list_data_sets()} == {None}
    after = {listed.source.name: listed for listed in list_data_sets(directory=tmp_path / "given")}
    assert after["mnist"].folder == tmp_path / "given" / "mnist"


def test_get_tells_what_came(tmp_path: Path, server: Mirror) -> None:
    told: list[tuple[str, int, int]] = []
    fetched = get("mnist", progress=lambda *t: told.append(t))
    assert fetched.folder == tmp_path / "cache" / "mnist"
    assert fetched.files == tuple(PACKED)
    assert {(name, done) for name, done, total in told if done == total} == {
        (name, len(content)) for name, content in PACKED.items()
    }
    assert get("mnist").files == ()


def test_verify_official_files(server: Mirror) -> None:
    folder = get("mnist").folder
    found = verify("mnist")
    assert found.files == tuple(
        CheckedFile(name, folder / name, len(content), "official")
        for name, content in PACKED.items()
    )
    assert found.sound
    assert (found.folder, found.problem) == (folder, None)
    assert (found.shape, found.classes, found.examples) == ((1, 28, 28), 10, (5, 3))


@pytest.mark.parametrize("form", ["unpacked", "packed again"])
def test_verify_knows_official_content_in_another_form(server: Mirror, form: str) -> None:
    folder = get("mnist").folder
    for name in PACKED:
        content = gzip.decompress((folder / name).read_bytes())
        (folder / name).unlink()
        if form == "unpacked":
            (folder / name.removesuffix(".gz")).write_bytes(content)
        else:
            (folder / name).write_bytes(gzip.compress(content, compresslevel=1, mtime=7))
    found = verify("mnist")
    assert [file.state for file in found.files] == ["repacked"] * 4
    assert [file.size for file in found.files] == [file.path.stat().st_size for file in found.files]
    assert found.sound


def test_verify_tells_readable_files_that_are_not_the_official_ones(server: Mirror) -> None:
    folder = get("mnist").folder
    other = idx(np.ones((5, 28, 28), dtype=np.uint8))
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(other))
    found = verify("mnist")
    assert [file.state for file in found.files] == ["differs", "official", "official", "official"]
    assert found.problem is None
    assert not found.sound


@pytest.mark.parametrize("cut", [3, -1])
def test_verify_tells_why_a_file_cannot_be_read(server: Mirror, cut: int) -> None:
    folder = get("mnist").folder
    labels = "t10k-labels-idx1-ubyte.gz"
    (folder / labels).write_bytes(PACKED[labels][:cut])
    found = verify("mnist")
    assert [file.state for file in found.files] == ["official"] * 3 + ["differs"]
    assert labels in found.problem
    assert "cannot be read" in found.problem
    assert (found.sound, found.examples, found.shape) == (False, None, None)


def test_verify_tells_what_is_missing_and_fetches_nothing(server: Mirror) -> None:
    folder = get("mnist").folder
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    asked = len(server.asked)
    found = verify("mnist")
    assert found.files[-1] == CheckedFile("t10k-labels-idx1-ubyte.gz", None, None, "missing")
    assert "lacks t10k-labels-idx1-ubyte.gz" in found.problem
    assert not found.sound
    assert len(server.asked) == asked


def test_verify_what_is_nowhere(server: Mirror) -> None:
    with pytest.raises(DataError, match="'mnist' is in none of"):
        verify("mnist")
    assert server.asked == []


def test_verify_takes_the_options_of_the_set(server: Mirror) -> None:
    with pytest.raises(ConfigError, match="unknown option 'split'"):
        verify("digits", split="letters")


def test_verify_a_set_of_the_users_own(tmp_path: Path, server: Mirror) -> None:
    for part, count in (("train", 6), ("test", 3)):
        np.save(tmp_path / f"{part}_inputs.npy", np.zeros((count, 4), dtype=np.float32))
        np.save(tmp_path / f"{part}_labels.npy", np.arange(count) % 3)
    found = verify("tensors", directory=tmp_path)
    assert (found.sound, found.files) == (True, ())
    assert (found.shape, found.classes, found.examples) == ((4,), 3, (6, 3))
    (tmp_path / "test_labels.npy").write_bytes(b"junk")
    found = verify("tensors", directory=tmp_path)
    assert not found.sound
    assert "test_labels.npy" in found.problem

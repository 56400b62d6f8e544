"""Tiny ImageNet: downloaded, unpacked, and never half of it."""

from __future__ import annotations

import dataclasses
import functools
import io
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from fdfa import data
from fdfa.data import catalogue, registry
from fdfa.data.official import LOCK, OfficialFile
from fdfa.errors import DataError
from tests.data.mirror_server import Mirror, fingerprint, mirror

TINY = "tiny-imagenet-200"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Mirror]:
    """A Tiny ImageNet of two classes, in the official order, on a server on this machine."""
    monkeypatch.delenv("FDFA_DATA", raising=False)
    monkeypatch.setenv("FDFA_CACHE", str(tmp_path / "cache"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, shade in (("train/n1/images/n1_0", 9), ("train/n2/images/n2_0", 90)):
            archive.writestr(f"{TINY}/{name}.JPEG", picture(shade))
        archive.writestr(f"{TINY}/val/images/val_0.JPEG", picture(200))
        archive.writestr(f"{TINY}/val/val_annotations.txt", "val_0.JPEG\tn2\t0\t0\t62\t62\n")
        archive.writestr(f"{TINY}/test/images/test_0.JPEG", picture(0))
    with mirror(packed.getvalue()) as server:
        file = OfficialFile(
            name=f"{TINY}.zip",
            packed=fingerprint(packed.getvalue()),
            mirrors=(server.url("good", f"{TINY}.zip"),),
        )
        monkeypatch.setattr(catalogue, "official_files", lambda name: (file,))
        record = data.describe("tiny-imagenet")
        load = functools.partial(record.loader, examples=(2, 1))
        monkeypatch.setattr(registry, "CATALOGUE", (dataclasses.replace(record, loader=load),))
        yield server


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {LOCK}


def picture(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (64, 64), shade).save(stream, "JPEG")
    return stream.getvalue()


def test_tiny_imagenet_is_downloaded_and_unpacked(tmp_path: Path, tiny: Mirror) -> None:
    told = set()
    loaded = data.load(
        "tiny-imagenet", validation=1, progress=lambda name, done, total: told.add(name)
    )
    assert (loaded.name, loaded.shape, loaded.classes) == ("tiny-imagenet", (3, 64, 64), 2)
    assert loaded.test.labels.tolist() == [1]
    assert told == {TINY, f"{TINY}.zip"}
    cache = tmp_path / "cache" / "tiny-imagenet"
    assert files_in(cache) == {TINY, f"{TINY}.zip"}
    # Again, and pointed at the inner folder as others unpack it: nothing is asked for.
    data.load("tiny-imagenet", validation=0)
    data.load("tiny-imagenet", validation=0, directory=cache / TINY)
    assert len(tiny.asked) == 1


def test_half_of_tiny_imagenet_is_refused(tmp_path: Path, tiny: Mirror) -> None:
    folder = registry.get("tiny-imagenet", directory=tmp_path)
    (folder / TINY / "train" / "n2" / "images" / "n2_0.JPEG").unlink()
    with pytest.raises(DataError, match="train holds 1 pictures where 2 are expected"):
        data.load("tiny-imagenet", validation=0, directory=tmp_path)


def test_what_a_stopped_unpacking_left_is_thrown_away(tmp_path: Path, tiny: Mirror) -> None:
    folder = registry.get("tiny-imagenet", directory=tmp_path)
    left = folder / f".unpacking-{TINY}" / TINY / "train" / "n3"
    left.mkdir(parents=True)
    shutil.rmtree(folder / TINY)
    assert data.load("tiny-imagenet", validation=0, directory=tmp_path).classes == 2
    assert files_in(folder) == {TINY, f"{TINY}.zip"}
    assert len(tiny.asked) == 1


def test_a_zip_of_the_users_own_is_unpacked_only_on_demand_and_only_if_official(
    tmp_path: Path, tiny: Mirror
) -> None:
    (tmp_path / f"{TINY}.zip").write_bytes(tiny.content)
    with pytest.raises(DataError, match=rf"holds {TINY}\.zip, which has to be unpacked\. Run"):
        data.load("tiny-imagenet", directory=tmp_path)
    (tmp_path / f"{TINY}.zip").write_bytes(tiny.content[:-1])
    with pytest.raises(DataError, match=r"\.zip is not the official file"):
        registry.get("tiny-imagenet", directory=tmp_path)
    assert files_in(tmp_path) == {f"{TINY}.zip"}
    (tmp_path / f"{TINY}.zip").write_bytes(tiny.content)
    assert registry.get("tiny-imagenet", directory=tmp_path) == tmp_path
    assert len(data.load("tiny-imagenet", directory=tmp_path, validation=0).train) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"no zip at all", "cannot be unpacked: File is not a zip file"), (None, "holds no folder")],
)
def test_an_archive_of_another_kind(
    tmp_path: Path,
    tiny: Mirror,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes | None,
    reason: str,
) -> None:
    if content is None:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("other/file", b"")
        content = stream.getvalue()
    tiny.content = content
    (file,) = data.describe("tiny-imagenet").files
    other = dataclasses.replace(file, packed=fingerprint(content))
    monkeypatch.setattr(catalogue, "official_files", lambda name: (other,))
    with pytest.raises(DataError, match=reason):
        data.load("tiny-imagenet", directory=tmp_path)
    assert not (tmp_path / "tiny-imagenet" / TINY).exists()

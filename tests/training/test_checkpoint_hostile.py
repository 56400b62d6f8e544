"""A checkpoint made to do harm, its manifest fitting: an error in bounded memory, nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fdfa.errors import CheckpointError
from fdfa.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from tests.training.checkpoint_cases import (
    FILES,
    STEP,
    complaint,
    example,
    sealed,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A whole checkpoint, to be damaged."""
    return write_checkpoint(tmp_path, example(STEP))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole one for many small damages, each of which is repaired at once."""
    return write_checkpoint(tmp_path_factory.mktemp("kept"), example(STEP))


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and write it as tidily as the original."""
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def deep(brackets: str) -> str:
    return brackets * 100_000


@pytest.mark.parametrize("version", [0, 2, 10**30])
def test_a_format_of_another_version_is_named(path: Path, version: int) -> None:
    changed(path, lambda manifest: manifest.update(format=version))
    text = complaint(path)
    assert f"says format {version}, and this version of fdfa knows 1 alone" in text
    assert "Install the version that wrote it" in text


HOSTILE_CHANGES = {
    "format is true": lambda m: m.update(format=True),
    "format is 1.0": lambda m: m.update(format=1.0),
    "format is null": lambda m: m.update(format=None),
    "no format": lambda m: m.pop("format"),
    "step is true": lambda m: m.update(step=True),
    "step is another": lambda m: m.update(step=2),
    "step is 1.0": lambda m: m.update(step=1.0),
    "no step": lambda m: m.pop("step"),
    "no files": lambda m: m.pop("files"),
    "files is a list": lambda m: m.update(files=[1, 2]),
    "files is a string": lambda m: m.update(files="model.safetensors"),
    "a file is missing": lambda m: m["files"].pop("values.json"),
    "a file is a list": lambda m: m["files"].update({"values.json": [1]}),
    "a file too many": lambda m: m["files"].update({"../../secret": {"bytes": 1, "sha256": ""}}),
    "another order": lambda m: m.update(files=dict(reversed(m["files"].items()))),
    "another key": lambda m: m.update(more=1),
    "bytes is negative": lambda m: m["files"]["values.json"].update(bytes=-1),
    "bytes is huge": lambda m: m["files"]["values.json"].update(bytes=10**30),
    "bytes is text": lambda m: m["files"]["values.json"].update(bytes="41"),
    "bytes is a float": lambda m: m["files"]["values.json"].update(bytes=41.0),
    "bytes is nan": lambda m: m["files"]["values.json"].update(bytes=float("nan")),
    "bytes is a dict": lambda m: m["files"]["values.json"].update(bytes={"a": 1}),
    "hash is a number": lambda m: m["files"]["values.json"].update(sha256=0),
    "hash is null": lambda m: m["files"]["values.json"].update(sha256=None),
    "hash is in capitals": lambda m: m["files"]["values.json"].update(
        sha256=m["files"]["values.json"]["sha256"].upper()
    ),
    "hash is a surrogate": lambda m: m["files"]["values.json"].update(sha256="\ud800"),
}


@pytest.mark.parametrize("change", HOSTILE_CHANGES.values(), ids=HOSTILE_CHANGES.keys())
def test_hostile_manifests(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    changed(path, change)
    text = complaint(path)
    assert "manifest.json is damaged" in text or "values.json is damaged" in text


@pytest.mark.parametrize(
    "raw",
    [
        deep("[").encode(),
        deep('{"a":').encode(),
        b"9" * 5000,
        b'{"format": ' + b"9" * 5000 + b"}",
        b"[]", b"null", b"3", b'"text"', b"{}", b"", b"\xff\xfe", b"NaN",
        '{"format": 1}'.encode("utf-16"),
        b"\0" * 60_000,
    ],
    ids=lambda raw: repr(raw[:12]),
)  # fmt: skip
def test_manifests_that_are_none(path: Path, raw: bytes) -> None:
    (path / "manifest.json").write_bytes(raw[: 1 << 16])
    assert "manifest.json is damaged: it is no manifest" in complaint(path)


def test_a_manifest_of_gigabytes_is_not_read(path: Path) -> None:
    os.truncate(path / "manifest.json", 1 << 40)  # sparse: takes no room, but would take memory
    assert "manifest.json is damaged: it has 1099511627776 bytes" in complaint(path)


@pytest.mark.parametrize("name", FILES[1:])
def test_a_file_of_gigabytes_is_not_read(path: Path, name: str) -> None:
    os.truncate(path / name, 1 << 40)
    assert f"{name} is damaged: it has 1099511627776 bytes instead of" in complaint(path)


def test_even_if_the_manifest_agrees_to_gigabytes(path: Path) -> None:
    """Then there is nothing to do but try, and say that memory does not suffice."""
    os.truncate(
        path / "values.json", 1 << 60 if shutil.disk_usage(path).total > 1 << 60 else 1 << 43
    )
    size = (path / "values.json").stat().st_size
    changed(path, lambda manifest: manifest["files"]["values.json"].update(bytes=size))
    with pytest.raises(CheckpointError, match="does not fit into memory"):
        read_checkpoint(path.parent)


def header(text: str | bytes, data: bytes = b"") -> bytes:
    """A safetensors file of any header."""
    raw = text.encode() if isinstance(text, str) else text
    return len(raw).to_bytes(8, "little") + raw + data


def entry(**changes: Any) -> str:
    """A header of one tensor of 2 float32, with something changed."""
    return json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}})


HOSTILE_TENSORS = {
    "nothing": b"",
    "three bytes": b"\1\0\0",
    "header of 2^62": (1 << 62).to_bytes(8, "little"),
    "header of 2^64 - 1": b"\xff" * 8,
    "header longer than the file": (100).to_bytes(8, "little") + b"{}",
    "header of 100 MB": (100 << 20).to_bytes(8, "little") + b"{" + b" " * 1000,
    "deep header": header(deep('{"a":')),
    "deep list": header(deep("[")),
    "header no JSON": header("{]"),
    "header no UTF-8": header(b'{"\xff": 1}'),
    "header a list": header("[]"),
    "unknown type": header(entry(dtype="F31"), bytes(8)),
    "type that torch cannot load": header(entry(dtype="F8_E8M0", shape=[8]), bytes(8)),
    "type of half bytes": header(entry(dtype="F4", shape=[16]), bytes(8)),
    "negative shape": header(entry(shape=[-2]), bytes(8)),
    "huge shape": header(entry(shape=[2**63, 2**63]), bytes(8)),
    "overflowing shape": header(entry(shape=[2**32, 2**32, 2]), bytes(8)),
    "shape that does not fit": header(entry(shape=[3]), bytes(8)),
    "offsets past the end": header(entry(data_offsets=[0, 80], shape=[20]), bytes(8)),
    "offsets backwards": header(entry(data_offsets=[8, 0]), bytes(8)),
    "offsets with a gap": header(entry(data_offsets=[4, 12]), bytes(12)),
    "trailing bytes": header(entry(), bytes(9)),
    "huge empty shape": header(entry(shape=[0, 2**62, 2**62], data_offsets=[0, 0])),
    "empty shape beyond 64 bits": header(entry(shape=[0, 2**63], data_offsets=[0, 0])),
}


@pytest.mark.parametrize("raw", HOSTILE_TENSORS.values(), ids=HOSTILE_TENSORS.keys())
@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors"])
def test_hostile_tensors_in_a_fitting_manifest(path: Path, name: str, raw: bytes) -> None:
    sealed(path, name, raw)
    text = complaint(path)
    assert f"{name} is no safetensors file (" in text
    assert "\n" not in text


@given(raw=st.binary(max_size=100).map(header) | st.binary(max_size=100))
@settings(deadline=None)
def test_garbage_in_a_fitting_manifest(kept: Path, raw: bytes) -> None:
    for name in FILES[1:]:
        before = {each: (kept / each).read_bytes() for each in FILES}
        sealed(kept, name, raw)
        try:
            found = read_checkpoint(kept.parent)
        except CheckpointError as error:
            assert name in str(error)  # noqa: PT017  # both are right, nothing else is
        else:
            assert isinstance(found, Checkpoint)
        finally:
            for each, whole in before.items():
                (kept / each).write_bytes(whole)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (deep("[").encode(), "is no JSON that can be read"),
        (deep('{"a":').encode(), "is no JSON that can be read"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is no JSON that can be read"),
        (b"\xff", "is no JSON that can be read"),
        (b"", "is no JSON that can be read"),
        (b"{'a': 1}", "is no JSON that can be read"),
        (b"[1]", "is no JSON object but a list"),
        (b"null", "is no JSON object but a NoneType"),
        (b"NaN", "is no JSON object but a float"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_hostile_values_in_a_fitting_manifest(path: Path, raw: bytes, text: str) -> None:
    sealed(path, "values.json", raw)
    assert f"values.json {text}" in complaint(path)


def test_the_attacker_of_these_tests_can_seal_a_file(path: Path) -> None:
    """Else the tests above would show nothing: a well-formed foreign file does load."""
    sealed(path, "values.json", b'{"a": 1}')
    sealed(path, "model.safetensors", header(entry(), bytes(8)))
    found = read_checkpoint(path.parent)
    assert found.values == {"a": 1}
    assert torch.equal(found.model["w"], torch.zeros(2))

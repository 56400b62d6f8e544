"""A damaged, foreign or hostile checkpoint is an error that says what to do, and nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fdfa.errors import CheckpointError
from fdfa.training.checkpoint import read_checkpoint, write_checkpoint
from tests.training.checkpoint_cases import (
    FILES,
    STEP,
    complaint,
    example,
    example_step,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A whole checkpoint, to be damaged."""
    return write_checkpoint(tmp_path, example(STEP))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole one for many small damages, each of which is repaired at once."""
    return write_checkpoint(tmp_path_factory.mktemp("kept"), example(STEP))


def assert_noticed(path: Path, name: str, raw: bytes) -> str:
    """The damage is noticed, in the right file; afterwards it is repaired."""
    file = path / name
    whole = file.read_bytes()
    assert raw != whole
    file.write_bytes(raw)
    try:
        text = complaint(path)
    finally:
        file.write_bytes(whole)
    assert f"': {name} " in text or name == "manifest.json"
    return text


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_noticed(kept: Path, name: str) -> None:
    whole = (kept / name).read_bytes()
    assert len(whole) > 40
    with (kept / name).open("r+b", buffering=0) as file:  # in place: the disk is not waited for
        for place, byte in enumerate(whole):
            for bit in range(8):
                file.seek(place)
                file.write(bytes([byte ^ 1 << bit]))
                assert f"': {name} " in complaint(kept) or name == "manifest.json"
            file.seek(place)
            file.write(bytes([byte]))
    assert example_step(kept.parent) == STEP


@pytest.mark.parametrize("name", FILES)
def test_every_truncation_is_noticed(kept: Path, name: str) -> None:
    whole = (kept / name).read_bytes()
    for length in range(len(whole)):
        assert " is damaged" in assert_noticed(kept, name, whole[:length])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("more", [b"\0", b"\n", b" ", b"}", b"\0" * 100_000])
def test_every_byte_too_many_is_noticed(kept: Path, name: str, more: bytes) -> None:
    whole = (kept / name).read_bytes()
    assert " is damaged" in assert_noticed(kept, name, whole + more)
    assert " is damaged" in assert_noticed(kept, name, more + whole)


@given(name=st.sampled_from(FILES), raw=st.binary(max_size=600))
@settings(deadline=None)
def test_garbage_is_noticed(kept: Path, name: str, raw: bytes) -> None:
    assert_noticed(kept, name, raw)


@given(data=st.data(), name=st.sampled_from(FILES))
@settings(deadline=None)
def test_any_stretch_replaced_is_noticed(kept: Path, data: st.DataObject, name: str) -> None:
    whole = (kept / name).read_bytes()
    start = data.draw(st.integers(0, len(whole) - 1))
    end = data.draw(st.integers(start, len(whole)))
    raw = whole[:start] + data.draw(st.binary(max_size=40)) + whole[end:]
    if raw != whole:
        assert_noticed(kept, name, raw)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(path: Path, name: str) -> None:
    (path / name).unlink()
    assert f"{name} is missing" in complaint(path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "put",
    [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")],
    ids=["folder", "pipe", "endless device"],
)
def test_what_only_looks_like_a_file_is_not_waited_for(
    path: Path, name: str, put: Callable[[Path], None]
) -> None:
    (path / name).unlink()
    put(path / name)
    assert f"{name} is damaged: it is no file" in complaint(path)


@pytest.mark.parametrize("name", FILES)
def test_a_link_in_a_circle(path: Path, name: str) -> None:
    (path / name).unlink()
    (path / name).symlink_to(name)
    assert f"{name} cannot be read" in complaint(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_one_may_not_read(path: Path, name: str) -> None:
    (path / name).chmod(0)
    assert f"{name} cannot be read" in complaint(path)


@pytest.mark.parametrize("name", FILES)
def test_files_of_two_checkpoints_do_not_mix(tmp_path: Path, path: Path, name: str) -> None:
    other = write_checkpoint(tmp_path / "other", example(STEP + 1))
    shutil.copy(other / name, path / name)
    assert " is damaged" in complaint(path)


def test_a_whole_one_under_the_name_of_another_step(path: Path) -> None:
    lying = path.rename(path.with_name("step-00000002"))
    assert "manifest.json is damaged, or of another step than 2" in complaint(lying)


def test_two_tensor_files_swapped(path: Path) -> None:
    model, state = path / "model.safetensors", path / "state.safetensors"
    model.rename(path / "model")
    state.rename(model)
    (path / "model").rename(state)
    assert "model.safetensors is damaged" in complaint(path)


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(CheckpointError, match=r"holds no checkpoint.*Check the path, or start"):
            read_checkpoint(folder)
    assert not (tmp_path / "none").exists()


def test_half_written_folders_are_no_checkpoints(tmp_path: Path, path: Path) -> None:
    for name in (".writing-step-00000009-0a1b2c3d", ".removing-step-00000009-0a1b2c3d"):
        shutil.copytree(path, tmp_path / name)
    assert example_step(tmp_path) == STEP
    shutil.rmtree(path)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        read_checkpoint(tmp_path)


def test_with_one_before_it_the_remedy_is_to_go_on_from_there(tmp_path: Path, path: Path) -> None:
    aside = path.rename(tmp_path / "aside")
    damaged = write_checkpoint(tmp_path, example(7))
    aside.rename(path)  # as if the power had failed before it was removed
    (damaged / "values.json").write_text("{}")
    with pytest.raises(
        CheckpointError, match=r"values.json is damaged.*go on from 'step-00000001'"
    ):
        read_checkpoint(tmp_path)
    shutil.rmtree(damaged)
    assert example_step(tmp_path) == STEP

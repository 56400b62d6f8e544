"""Only the newest checkpoint stays, and it is the one that is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fdfa.errors import CheckpointError
from fdfa.training.checkpoint import read_checkpoint, write_checkpoint
from fdfa.training.checkpoint_names import latest
from tests.training.checkpoint_cases import FILES, example, example_step


def test_only_the_newest_stays(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    for step in (0, 1, 99_999_999, 100_000_000, 100_000_001):  # digits grow: no order by name
        path = write_checkpoint(folder, example(step))
        assert path == latest(folder) == folder / f"step-{step:08d}"
        assert example_step(folder) == step
        assert sorted(os.listdir(folder)) == [".lock", path.name]
        assert sorted(os.listdir(path)) == sorted(FILES)


@pytest.mark.parametrize(
    ("older", "newer", "newest_step"),
    [
        ("step-00000009", "step-00000010", 10),
        ("step-99999999", "step-100000000", 100_000_000),
        ("step-00000007", "step-00000007.2", 7),
        ("step-00000007.9", "step-00000007.10", 7),
        ("step-00000007.10", "step-00000008", 8),
    ],
)
def test_the_newest_of_two_is_read(
    tmp_path: Path, older: str, newer: str, newest_step: int
) -> None:
    """Both stand there when the power failed before the older one was removed."""
    for name, size in ((older, 3), (newer, 4)):
        step = int(name[5:].split(".")[0])
        written = write_checkpoint(tmp_path / f"of {name}", example(step, size=size))
        written.rename(tmp_path / name)
    assert latest(tmp_path) == tmp_path / newer
    assert example_step(tmp_path) == newest_step
    assert len(read_checkpoint(tmp_path).model["0.weight"]) == 4


def test_the_same_step_again_replaces_the_one_there(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, example(7, size=2))
    for name, size in (("step-00000007.2", 4), ("step-00000007.3", 6)):
        assert write_checkpoint(tmp_path, example(7, size=size)).name == name
        assert len(read_checkpoint(tmp_path).model["0.weight"]) == size
        assert sorted(os.listdir(tmp_path)) == [".lock", name]
    assert write_checkpoint(tmp_path, example(8)).name == "step-00000008"
    assert sorted(os.listdir(tmp_path)) == [".lock", "step-00000008"]


def test_a_tenth_time_at_a_step_comes_after_the_ninth(tmp_path: Path) -> None:
    for number in range(2, 13):
        write_checkpoint(tmp_path, example(7, size=number))
        assert len(read_checkpoint(tmp_path).model["0.weight"]) == number


def test_an_older_one_than_there_is_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, example(7))
    with pytest.raises(CheckpointError, match=r"step 6 would be older than '.*step-00000007'"):
        write_checkpoint(tmp_path, example(6))
    assert example_step(tmp_path) == 7


def test_strangers_in_the_folder_are_left_alone_and_not_read(tmp_path: Path) -> None:
    for name in ("step-99999999x", "step-1", "Step-99999999", "step-99999999.", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-99999999").write_text("a file, no folder")
    write_checkpoint(tmp_path, example(7))
    assert example_step(tmp_path) == 7
    assert len(os.listdir(tmp_path)) == 8

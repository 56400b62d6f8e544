"""The run folder: nothing of anyone else's is touched, and no file is ever half there."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import pytest
import torch

from fdfa.errors import ConfigError
from fdfa.studies.environment import checksum
from fdfa.studies.json_values import plain
from fdfa.studies.run_folder import RunFolder
from fdfa.training import Score


def test_a_new_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a" / "b")
    folder.write_json("config.json", {"x": 1})
    assert json.loads((tmp_path / "a" / "b" / "config.json").read_text()) == {"x": 1}
    assert folder.files == [tmp_path / "a" / "b" / "config.json"]


def test_a_folder_with_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("old")
    with pytest.raises(ConfigError, match=r"not empty \(it holds config\.json\).*--overwrite"):
        RunFolder(tmp_path)
    assert (tmp_path / "config.json").read_text() == "old"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        RunFolder(tmp_path / "runs", overwrite=True)


def test_overwriting_takes_away_our_files_and_no_other(tmp_path: Path) -> None:
    for name in ("config.json", "metrics.jsonl", "results.json", "learning_curves.png", "thesis"):
        (tmp_path / name).write_text("old")
    (tmp_path / "pictures").mkdir()
    RunFolder(tmp_path, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", "thesis"]
    assert (tmp_path / "thesis").read_text() == "old"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_json("results.json", 1)

    def write_half() -> None:
        with folder.replacing("results.json") as path:
            path.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert (tmp_path / "results.json").read_text() == "1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_json("results.json", 1)
    with folder.replacing("results.json") as path:
        path.write_text("2")
        assert (tmp_path / "results.json").read_text() == "1\n"
    assert (tmp_path / "results.json").read_text() == "2"


def test_who_reads_the_old_file_goes_on_reading_the_old_file(tmp_path: Path) -> None:
    """Fails if the file is written over in place instead of being replaced."""
    folder = RunFolder(tmp_path)
    folder.write_json("results.json", "old")
    with (tmp_path / "results.json").open() as reader:
        folder.write_json("results.json", "new")
        assert reader.read() == '"old"\n'
    assert (tmp_path / "results.json").read_text() == '"new"\n'


def test_lines_are_appended_whole(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.append_line("metrics.jsonl", {"loss": float("inf")})
    folder.append_line("metrics.jsonl", {"loss": 2.0})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"loss": None}, {"loss": 2.0}]


def test_plain_values() -> None:
    assert plain(Score(0.5, float("nan"))) == {"accuracy": 0.5, "loss": None}
    assert plain({1: (True, None, Path("a/b"))}) == {"1": [True, None, "a/b"]}


def test_the_checksum_is_of_the_bytes_in_their_order() -> None:
    numbers = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    expected = hashlib.sha256(struct.pack("<4f", 1, 3, 2, 4) + b"\x07").hexdigest()
    assert checksum(numbers.T, torch.tensor([7], dtype=torch.uint8)) == expected

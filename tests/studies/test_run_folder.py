"""The run folder: nothing of anyone else's is touched, and no file is ever half there."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import pytest
import torch

from fdfa.data.dataset import sha256
from fdfa.errors import CheckpointError, ConfigError
from fdfa.studies.json_values import plain
from fdfa.studies.run_folder import RunFolder
from fdfa.training import Checkpoint, Score, write_checkpoint
from tests.training.checkpoint_faults import at_each_operation, killed_at


def everything(folder: Path) -> dict[str, str]:
    """Every file below a folder, but for the lock, with its content."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes().decode("latin1") for path in paths}


def test_a_new_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    with RunFolder.fresh(tmp_path / "a" / "b") as folder:
        folder.write_json("config.json", {"x": 1})
    assert json.loads((tmp_path / "a" / "b" / "config.json").read_text()) == {"x": 1}
    assert folder.files == [tmp_path / "a" / "b" / "config.json"]


def test_a_folder_with_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("old")
    with (
        pytest.raises(ConfigError, match=r"not empty \(it holds config\.json\).*--overwrite"),
        RunFolder.fresh(tmp_path),
    ):
        pass
    assert everything(tmp_path) == {"config.json": "old"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_no_folder(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "runs").write_text("old")
    with (
        pytest.raises(ConfigError, match="is a file"),
        RunFolder.fresh(tmp_path / "runs", overwrite=overwrite),
    ):
        pass
    assert (tmp_path / "runs").read_text() == "old"


def test_the_folder_above_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("old")
    with pytest.raises((ConfigError, CheckpointError)), RunFolder.fresh(tmp_path / "notes" / "run"):
        pass


def test_a_lock_that_stayed_behind_is_no_file_of_anyone(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("1\n")
    with RunFolder.fresh(tmp_path) as folder:
        folder.write_json("config.json", 1)


STUDY = {kind: json.dumps({kind: {}, "environment": {}}) for kind in ("train", "compare")}


def fill_with_a_run(folder: Path, kind: str = "train") -> None:
    """All that `train` and `compare` write into one folder."""
    for name in (
        "config.json",
        "metrics.jsonl",
        "timings.jsonl",
        "steps.jsonl",
        "costs.json",
        "results.json",
        "model.safetensors",
        "learning_curves.png",
        "learning_curves.svg",
        ".4711.results.json",  # of a killed process
    ):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(STUDY[kind] if name == "config.json" else "old")
    write_checkpoint(folder / "checkpoints", Checkpoint({"w": torch.ones(1)}, {}, {}, 3))
    (folder / "tensorboard").mkdir()
    (folder / "tensorboard" / "events.out.tfevents.17.host.4.0").write_text("old")


def test_overwriting_takes_away_our_files_and_no_other(tmp_path: Path) -> None:
    fill_with_a_run(tmp_path)
    (tmp_path / "thesis").write_text("mine")
    (tmp_path / "pictures").mkdir()
    with RunFolder.fresh(tmp_path, overwrite=True):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "pictures", "thesis"]
    assert (tmp_path / "thesis").read_text() == "mine"


def test_overwriting_a_comparison_leaves_others_files_in_every_folder(tmp_path: Path) -> None:
    """Beside ours, in runs/, in a run, in checkpoints/, in tensorboard/."""
    fill_with_a_run(tmp_path, "compare")
    own = tmp_path / "runs" / "fdfa-seed-0"
    fill_with_a_run(own)
    empty = tmp_path / "runs" / "dfa-seed-0"
    fill_with_a_run(empty)
    mine = (
        tmp_path / "thesis.tex",
        tmp_path / "config.json.bak",
        tmp_path / ".hidden",
        tmp_path / ".4711.thesis.tex",
        tmp_path / "checkpoints" / "best.txt",
        tmp_path / "checkpoints" / "best" / "model.safetensors",
        tmp_path / "checkpoints" / "model.safetensors",
        tmp_path / "tensorboard" / "settings.json",
        tmp_path / "runs" / "README",
        tmp_path / "runs" / "others" / "data.csv",
        own / "thesis.tex",
        own / "checkpoints" / "mine",
    )
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    with RunFolder.fresh(tmp_path, overwrite=True):
        pass
    assert everything(tmp_path) == {str(path.relative_to(tmp_path)): "mine" for path in mine}
    assert not empty.exists()


def test_overwriting_a_run_leaves_a_folder_of_others_runs_alone(tmp_path: Path) -> None:
    """What lies in `runs` belongs to a comparison, if there is one; else it is someone's own."""
    (tmp_path / "config.json").write_text(STUDY["train"])
    other = tmp_path / "runs" / "first"
    fill_with_a_run(other)
    before = everything(other)
    with RunFolder.fresh(tmp_path, overwrite=True):
        pass
    assert everything(other) == before
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "checkpoints", "tensorboard", "runs"]
)
def test_overwriting_follows_no_link(name: str, tmp_path: Path) -> None:
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    fill_with_a_run(elsewhere, "compare")
    fill_with_a_run(elsewhere / "runs" / "fdfa-seed-0")
    before = everything(elsewhere)
    here.mkdir()
    (here / "config.json").write_text(STUDY["compare"])
    (here / name).unlink(missing_ok=True)
    (here / name).symlink_to(elsewhere / name)
    with RunFolder.fresh(here, overwrite=True):
        pass
    assert everything(elsewhere) == before


@pytest.mark.parametrize(
    "config", [None, '{"architectures": ["Bert"]}', '{"train": {}}', "not JSON", "[]"]
)
def test_files_of_our_names_that_we_did_not_write_are_refused(
    config: str | None, tmp_path: Path
) -> None:
    """``config.json`` and ``model.safetensors`` are what others call theirs."""
    fill_with_a_run(tmp_path)
    (tmp_path / "config.json").unlink()
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    before = everything(tmp_path)
    with (
        pytest.raises(ConfigError, match="which no run of fdfa wrote"),
        RunFolder.fresh(tmp_path, overwrite=True),
    ):
        pass
    assert everything(tmp_path) == before


@pytest.mark.parametrize("kind", ["train", pytest.param("compare", marks=pytest.mark.slow)])
def test_killed_while_it_clears(kind: str, tmp_path: Path) -> None:
    """At each moment: what is left is still known as ours, and the next one clears it."""

    def once(operation: int) -> bool:
        here = tmp_path / str(operation)
        fill_with_a_run(here, kind)
        if kind == "compare":
            fill_with_a_run(here / "runs" / "fdfa-seed-0")
        (here / "thesis").write_text("mine")

        def clear() -> None:
            with RunFolder.fresh(here, overwrite=True):
                pass

        killed = killed_at(operation, clear)
        clear()
        assert everything(here) == {"thesis": "mine"}, f"killed at {operation}"
        return killed

    assert at_each_operation(once) > 10


def test_a_second_process_is_told_and_changes_nothing(tmp_path: Path) -> None:
    fill_with_a_run(tmp_path)
    with RunFolder(tmp_path).held():
        before = everything(tmp_path)
        with (
            pytest.raises(CheckpointError, match="another process is training in this folder"),
            RunFolder.fresh(tmp_path, overwrite=True),
        ):
            pass
        assert everything(tmp_path) == before


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


def test_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    """JSON has no word for it, and other readers stop at the one that Python makes up."""
    folder = RunFolder(tmp_path)
    folder.write_json("results.json", {"loss": float("inf"), "others": [float("nan"), 2.0]})
    text = (tmp_path / "results.json").read_text()
    assert json.loads(text) == {"loss": None, "others": [None, 2.0]}


def test_plain_values() -> None:
    assert plain(Score(0.5, float("nan"))) == {"accuracy": 0.5, "loss": None}
    assert plain({1: (True, None, Path("a/b"))}) == {"1": [True, None, "a/b"]}


def test_the_checksum_is_of_the_bytes_in_their_order() -> None:
    numbers = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    expected = hashlib.sha256(struct.pack("<4f", 1, 3, 2, 4) + b"\x07").hexdigest()
    assert sha256(numbers.T, torch.tensor([7], dtype=torch.uint8)) == expected

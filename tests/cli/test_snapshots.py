"""What every command prints, as it was last looked at: to change it is a reviewed diff.

``FDFA_UPDATE_SNAPSHOTS=1 pytest -n0 tests/cli/test_snapshots.py`` writes the files anew.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from fdfa.cli import main
from fdfa.cli.parsing import COMMANDS
from fdfa.cli.reproducing import REPRODUCED
from fdfa.studies.memory import StepMemory
from fdfa.studies.speed import StepTime
from tests.studies.tables import written

SNAPSHOTS = Path(__file__).parents[1] / "snapshots" / "cli"
WIDTHS = (80, 120)
QUICK = ["--epochs", "2", "--batch-size", "128", "--model-options", "width=32", "depth=1"]
WILD = [
    *("--optimizer", "sgd", "--learning-rate", "1e30", "--epochs", "2"),
    *("--model-options", "batch_norm=no", "width=8", "depth=1"),
]

HELP = {
    "help": [],
    **{f"help-{name}": [name, "--help"] for name in COMMANDS},
    **{f"help-data-{action}": ["data", action, "--help"] for action in ("list", "get", "verify")},
    **{f"help-reproduce-{name}": ["reproduce", name, "--help"] for name in REPRODUCED},
}
ANSWERS = {
    "methods": ["methods"],
    "models": ["models"],
    "data-list": ["data", "list"],
    "data-verify": ["data", "verify", "digits"],
    "explain": ["explain", "--options", "probe_every=4"],
    "explain-backpropagation": ["explain", "--method", "backpropagation"],
    "explain-resnet": ["explain", "--model", "resnet20", "--method", "dfa"],
    "recommend": ["recommend", "--steps", "20", "--model-options", "width=32", "depth=3"],
    "train": ["train", *QUICK, "--out", "runs/new"],
    "train-without-a-folder": ["train", *QUICK, "--validation", "0"],
    "train-dry-run": ["train", *QUICK, "--dry-run", "--out", "runs/new"],
    "train-that-fails": ["train", "--method", "dfa", *WILD],
    "compare": ["compare", *QUICK, "--seeds", "2", "--out", "runs/new"],
    "compare-dry-run": ["compare", *QUICK, "--seeds", "2", "--dry-run"],
    "compare-with-a-failure": ["compare", "--methods", "dfa", "fdfa", "--seeds", "1", *WILD],
    "resume-what-is-finished": ["resume", "runs/first"],
    "reproduce-list": ["reproduce", "list"],
    "reproduce": [
        *("reproduce", "multi-tangent", "--parts", "sphere", "styblinski-tang"),
        *("--steps", "4", "--seeds", "1", "--out", "runs/new"),
    ],
    "reproduce-study": [
        *("reproduce", "study", "small.toml", "--workers", "1", "--seeds", "1", "--epochs", "1"),
        *("--rules", "dfa", "--out", "runs/new"),
    ],
    "evaluate": ["evaluate", "runs/first"],
    "report": ["report", "runs/compared", "runs/first", "-o", "page.html", "--overwrite"],
    "diagnose": ["diagnose", "runs/compared", "--draws", "2", "--out", "runs/new"],
    "evaluate-validation": ["evaluate", "runs/first", "--part", "validation"],
}
COMPLAINTS = {
    "unknown-command": ["trian"],
    "unknown-data-command": ["data", "lst"],
    "unknown-reproduction": ["reproduce", "multi-tangnt"],
    "unknown-column": ["reproduce", "study", "small.toml", "--tasks", "narow"],
    "unknown-budget": ["reproduce", "multi-tangent", "--budget", "hours=1"],
    "study-is-not-there": ["reproduce", "study", "none.toml"],
    "unknown-option": ["train", "--epoch", "3"],
    "unknown-option-far-off": ["train", "--frobnicate"],
    "unknown-word": ["train", "fdfa"],
    "unknown-method": ["train", "--method", "fdfb"],
    "unknown-method-option": ["train", "--options", "feedback_rte=1"],
    "unknown-model": ["train", "--model", "resnet-20"],
    "unknown-model-option": ["train", "--model-options", "widht=3"],
    "unknown-data": ["train", "--data", "digit"],
    "unknown-data-option": ["train", "--data", "emnist", "--data-options", "splt=letters"],
    "unknown-optimizer": ["train", "--optimizer", "adm"],
    "unknown-augmentation": ["train", "--augment", "flop"],
    "no-number": ["train", "--epochs", "three"],
    "out-of-range": ["train", "--epochs", "0"],
    "no-method-named": ["compare", "--options", "depth=2"],
    "given-twice": ["train", "--options", "depth=2", "--options", "seed=1"],
    "too-small-a-picture": ["train", "--model", "lenet"],
    "nothing-to-tap": ["train", "--model-options", "depth=0"],
    "own-model-that-is-not-there": ["train", "--model", "nowhere:network"],
    "no-validation-to-wait-for": ["train", "--validation", "0", "--patience", "2"],
    "too-small-a-batch": ["train", "--batch-size", "1"],
    "folder-in-use": ["train", *QUICK, "--out", "runs/first"],
    "folder-of-others": ["train", *QUICK, "--out", "others"],
    "out-is-a-file": ["train", *QUICK, "--out", "others/notes.txt"],
    "no-run-to-resume": ["resume", "runs/nothing"],
    "no-run-to-evaluate": ["evaluate", "others"],
    "no-run-to-diagnose": ["diagnose", "others"],
    "run-is-missing": ["resume"],
    "evaluate-a-comparison": ["evaluate", "runs/compared"],
    "report-of-no-run": ["report", "others", "-o", "others.html"],
    "report-over-something-else": ["report", "runs/first", "-o", "others/notes.txt", "--overwrite"],
    "report-without-a-file": ["report", "runs/first"],
    "config-of-the-other-command": ["train", "--config", "runs/compared"],
    "config-misspelt": ["train", "--config", "others/misspelt.json"],
    "config-is-not-there": ["train", "--config", "others/config.json"],
    "data-are-not-there": ["data", "verify", "mnist"],
    "no-such-device": ["train", "--device", "gpu"],
}
# Lines of theirs are longer than 80 columns: a summary, a usage and an answer in one piece.
TOO_WIDE = (
    *("help", "help-compare", "help-report", "help-reproduce"),
    *("help-data-verify", "data-verify"),
)
# What else than 0 they end with.
STATUS = {"train-that-fails": 1, "compare-with-a-failure": 1, "data-are-not-there": 1}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, a comparison, and what is someone else's."""
    place = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        _steady(patch)
        assert main(["train", *QUICK, "--quiet", "--json", "--out", "runs/first"]) == 0
        argv = ["compare", *QUICK, "--seeds", "1", "--quiet", "--json", "--out", "runs/compared"]
        assert main(argv) == 0
    written(place)
    (place / "others").mkdir()
    (place / "others" / "notes.txt").write_text("mine")
    (place / "others" / "misspelt.json").write_text('{"train": {"training": {"epoch": 3}}}')
    return place


def _steady(patch: pytest.MonkeyPatch) -> None:
    """What differs from machine to machine, and from moment to moment, is made up."""
    for name in ("FDFA_DATA", "FDFA_CACHE", "XDG_CACHE_HOME"):
        patch.delenv(name, raising=False)
    patch.setenv("HOME", "/home/user")

    def times(learners: Mapping[str, object], *_: object, **__: object) -> dict[str, StepTime]:
        ratios = {"backpropagation": 1.0, "dfa": 0.89}
        return {name: StepTime(0.0012, ratios.get(name, 1.38), 400) for name in learners}

    def memory(learners: Mapping[str, object], *_: object, **__: object) -> dict[str, StepMemory]:
        ratios = {"backpropagation": 1.0, "dfa": 1.02}
        return {name: StepMemory(4096, 4096, ratios.get(name, 1.18)) for name in learners}

    patch.setattr("fdfa.studies.costs.step_times", times)
    patch.setattr("fdfa.studies.costs.step_memory", memory)


def masked(text: str, *, measured: bool) -> str:
    """Measured numbers as ``#``, as long as they were; the version of torch as a word."""
    text = text.replace(torch.__version__, "TORCH")
    if measured:
        text = re.sub(r"\(\d+\.\d+ s\)", "(#.# s)", text)
        text = re.sub(r"\d+\.\d+", lambda found: re.sub(r"\d", "#", found[0]), text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def picture(argv: list[str], width: int, place: Path) -> tuple[str, int]:
    """What the command prints at this width, and its status."""
    shutil.rmtree(place / "runs" / "new", ignore_errors=True)
    # As the shell's streams: by their encoding they tell that they can show a frame.
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("COLUMNS", str(width))
        _steady(patch)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(argv)
    texts = []
    for stream in (out, err):
        stream.seek(0)
        texts.append(stream.read())
    assert "\x1b" not in "".join(texts), "colours where there is no terminal"
    measured = (
        argv[:1]
        in (
            ["train"],
            ["compare"],
            ["resume"],
            ["evaluate"],
            ["diagnose"],
            ["reproduce"],
            ["report"],
        )
        and "--help" not in argv
    )
    parts = [f"$ fdfa {' '.join(argv)}  # status {status}"]
    parts += [masked(text, measured=measured) for text in texts if text]
    return "\n".join(parts), status


@pytest.fixture
def compared(
    place: Path,
) -> Callable[[str, list[str], int], int]:
    def compare(name: str, argv: list[str], width: int) -> int:
        found, status = picture(argv, width, place)
        path = SNAPSHOTS / f"{name}.{width}.txt"
        if os.environ.get("FDFA_UPDATE_SNAPSHOTS") == "1":
            path.parent.mkdir(exist_ok=True)
            path.write_text(found)
        assert found == path.read_text(), f"{path.name} differs"
        # Plain lines of progress and paths are never broken, so that they can be searched.
        loose = re.compile(r"\$ |Written to |fdfa, seed|\[\d|.*/|.*epoch ")
        for line in found.splitlines():
            assert len(line) <= width or loose.match(line) or name in TOO_WIDE, line
        return status

    return compare


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", HELP)
def test_help(name: str, width: int, compared: Callable[[str, list[str], int], int]) -> None:
    assert compared(name, HELP[name], width) == 0


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ANSWERS)
def test_answers(name: str, width: int, compared: Callable[[str, list[str], int], int]) -> None:
    assert compared(name, ANSWERS[name], width) == STATUS.get(name, 0)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", COMPLAINTS)
def test_complaints(name: str, width: int, compared: Callable[[str, list[str], int], int]) -> None:
    assert compared(name, COMPLAINTS[name], width) == STATUS.get(name, 2)


def test_no_picture_is_left_of_what_is_gone() -> None:
    names = {*HELP, *ANSWERS, *COMPLAINTS}
    assert {path.name for path in SNAPSHOTS.iterdir()} == {
        f"{name}.{width}.txt" for name in names for width in WIDTHS
    }

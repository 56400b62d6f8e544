"""Commands as they can be typed, and what they call."""

from __future__ import annotations

from pathlib import Path

import pytest

__all__ = ["CALLS", "COMPARE", "QUICK", "Capture", "every_answer", "words"]

Capture = pytest.CaptureFixture[str]
QUICK = ["--epochs", "1", "--batch-size", "256", "--model-options", "width=8", "depth=1"]
COMPARE = ["compare", *QUICK, "--seeds", "1", "--timing-rounds", "10"]


def words(text: str) -> str:
    """The text of a panel without its frame and line breaks."""
    return " ".join(text.replace("│", " ").split())


def every_answer(made: Path) -> dict[str, list[str]]:
    """Each command once, as it can be typed."""
    return {
        "train": ["train", *QUICK],
        "train --dry-run": ["train", *QUICK, "--dry-run"],
        "train without validation": ["train", *QUICK, "--validation", "0"],
        "compare": [*COMPARE, "--methods", "dfa", "fdfa"],
        "compare --dry-run": [*COMPARE, "--methods", "dfa", "fdfa", "--dry-run"],
        "resume a run": ["resume", str(made / "run")],
        "resume a comparison": ["resume", str(made / "comparison")],
        "evaluate": ["evaluate", str(made / "run")],
        "report": [
            *("report", str(made / "comparison"), str(made / "run")),
            *("-o", str(made / "page.html"), "--overwrite"),
        ],
        "diagnose": [
            *("diagnose", str(made / "run"), "--draws", "2"),
            *("--examples", "16", "--out", str(made / "diagnosis")),
        ],
        "recommend": ["recommend", "--model-options", "width=8", "--steps", "20"],
        "explain": ["explain", "--model-options", "width=8"],
        "methods": ["methods"],
        "models": ["models"],
        "data list": ["data", "list"],
        "data verify": ["data", "verify", "digits"],
        "reproduce list": ["reproduce", "list"],
        "reproduce multi-tangent": [
            *("reproduce", "multi-tangent", "--parts", "sphere", "--steps", "3", "--seeds", "1")
        ],
        "reproduce study": [
            *("reproduce", "study", str(made / "small.toml"), "--workers", "1"),
            *("--tasks", "narrow", "--rules", "dfa", "--seeds", "1", "--epochs", "1"),
        ],
    }


# Each command is one call: the function, and where the command line takes it from.
CALLS = {
    "train": ("fdfa.studies.train.train", "fdfa.cli.training.train"),
    "compare": ("fdfa.studies.compare.compare", "fdfa.cli.training.compare"),
    "resume": ("fdfa.studies.resume.resume", "fdfa.cli.training.resume"),
    "evaluate": ("fdfa.studies.evaluate.evaluate_run", "fdfa.cli.training.evaluate_run"),
    "report": ("fdfa.studies.page.write_page", "fdfa.cli.reporting.write_page"),
    "diagnose": ("fdfa.studies.diagnose.diagnose_runs", "fdfa.cli.diagnosing.diagnose_runs"),
    "recommend": ("fdfa.studies.recommend.recommend", "fdfa.cli.recommending.recommend"),
    "explain": ("fdfa.studies.preview.preview", "fdfa.cli.looking.preview"),
    "methods": ("fdfa.methods", "fdfa.cli.looking.methods"),
    "models": ("fdfa.models.networks", "fdfa.cli.looking.networks"),
    "data list": ("fdfa.studies.data_sets.list_data_sets", "fdfa.cli.data_sets.list_data_sets"),
    "data get": ("fdfa.studies.data_sets.get", "fdfa.cli.data_sets.get"),
    "data verify": ("fdfa.studies.data_sets.verify", "fdfa.cli.data_sets.verify"),
    "reproduce list": (
        "fdfa.studies.reproduce.reproductions",
        "fdfa.cli.reproducing.reproductions",
    ),
    "reproduce multi-tangent": (
        "fdfa.studies.reproduce.reproduce",
        "fdfa.cli.reproducing.reproduce",
    ),
    "reproduce study": ("fdfa.studies.reproduce.reproduce", "fdfa.cli.reproducing.reproduce"),
    "train --dry-run": (
        "fdfa.studies.rehearsal.rehearse_study",
        "fdfa.cli.training.rehearse_study",
    ),
}

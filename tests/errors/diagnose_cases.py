"""Runs that cannot be diagnosed, and folders that cannot take what is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from fdfa.cli.diagnosing import Diagnose
from fdfa.errors import CheckpointError, ConfigError
from fdfa.studies.diagnose import diagnose_runs
from fdfa.studies.diagnosis_files import diagnosis_folder
from fdfa.training import Checkpoint, write_checkpoint
from tests.errors.provoke import Case, Here

__all__ = ["DIAGNOSE_CASES"]

TRAIN = {"train": {"method": "dfa", "task": {"model_options": {"width": 4, "depth": 1}}}}
COMPARE = {"compare": {"methods": ["dfa"]}, "environment": {}}


def _run(folder: Path, content: Any = None, **environment: str) -> Path:
    folder.mkdir(parents=True)
    content = content or {**TRAIN, "environment": environment}
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def _without_checkpoint(here: Here) -> None:
    diagnose_runs([_run(here.folder / "run")])


def _comparison_without_checkpoints(here: Here) -> None:
    folder = _run(here.folder / "compared", COMPARE)
    _run(folder / "runs" / "dfa-seed-0")
    diagnose_runs([folder])


def _comparison_without_runs(here: Here) -> None:
    diagnose_runs([_run(here.folder / "compared", COMPARE)])


def _of_another_method(here: Here) -> None:
    folder = _run(here.folder / "run")
    write_checkpoint(folder / "checkpoints", Checkpoint({}, {}, {"method": "fdfa"}, 3))
    diagnose_runs([folder])


def _on_different_data(here: Here) -> None:
    runs = [_run(here.folder / name, data_sha256=name * 64) for name in ("a", "b")]
    diagnose_runs(runs, out=here.folder / "new")


def _of_others(here: Here) -> None:
    (here.folder / "mine").mkdir()
    (here.folder / "mine" / "diagnosis.json").write_text("[]")
    diagnosis_folder([here.folder], here.folder / "mine")


def _a_file(here: Here) -> None:
    (here.folder / "notes").write_text("mine")
    diagnosis_folder([here.folder], here.folder / "notes" / "new")


def _nothing_named(here: Here) -> None:
    Diagnose(run_folders=()).run(Console(), Console())


DIAGNOSE_CASES = [
    Case("diagnose: without a checkpoint", CheckpointError, _without_checkpoint),
    Case("diagnose: none has a checkpoint", CheckpointError, _comparison_without_checkpoints),
    Case("diagnose: a comparison without runs", ConfigError, _comparison_without_runs),
    Case("diagnose: of another method", CheckpointError, _of_another_method),
    Case("diagnose: on different data", ConfigError, _on_different_data),
    Case("diagnose: into a folder of others", ConfigError, _of_others),
    Case("diagnose: into a file", ConfigError, _a_file),
    Case(
        "diagnose: several, and no folder", ConfigError, lambda here: diagnosis_folder("ab", None)
    ),
    Case("diagnose: nothing", ConfigError, _nothing_named),
]

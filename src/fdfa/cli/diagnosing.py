"""``fdfa diagnose``: why a trained rule learned."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar

import tyro
from rich.console import Console

from fdfa.cli.command import Shown, print_files, print_json
from fdfa.cli.training import settings
from fdfa.errors import ConfigError
from fdfa.studies.diagnose import DiagnoseConfig, diagnose_runs
from fdfa.studies.diagnosis_report import diagnosis_report

__all__ = ["Diagnose"]


@dataclasses.dataclass(frozen=True)
class Diagnose(Shown, DiagnoseConfig):
    """Show why a trained rule learned, in tables and pictures.

    Attributes:
        run_folders: runs or comparisons on the same data, as --out named them; rules side by side.
        out: folder for diagnosis.json and the pictures; default: that of the run, if it is one.
    """

    EXAMPLE: ClassVar = "fdfa diagnose runs/first"

    run_folders: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(name="run", metavar="RUN [RUN ...]")
    ]
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None

    def run(self, out: Console, err: Console) -> int:
        """Diagnose, and show the tables."""
        if not self.run_folders:
            raise ConfigError("run: there is nothing to diagnose. Name the folder of a run.")
        found = diagnose_runs(self.run_folders, settings(self, DiagnoseConfig), out=self.out)
        if self.json:
            print_json(found.report())
        else:
            out.print(diagnosis_report(found))
            print_files(out, found.files)
        return 0

"""``fdfa report``: runs side by side, on a page."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar

import tyro
from rich.console import Console
from rich.text import Text

from fdfa.cli.command import Shown, print_json
from fdfa.studies.page import write_page
from fdfa.studies.tables import plural_s, size

__all__ = ["Report"]


@dataclasses.dataclass(frozen=True)
class Report(Shown):
    """Put runs side by side on one page that opens from the disk.

    Attributes:
        runs: folders of runs or comparisons, as --out named them; also unfinished ones.
        out: the page to write, as in page.html.
        against: the method that the others are compared with; default: backpropagation if it took
            part, else the first.
        overwrite: replace an earlier page; any other file is left alone.
    """

    EXAMPLE: ClassVar = "fdfa report runs/first -o page.html"

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUNS ...")]
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE")]
    against: Annotated[str | None, tyro.conf.arg(metavar="METHOD")] = None
    overwrite: bool = False

    def run(self, out: Console, err: Console) -> int:
        """Write the page, and say what it shows."""
        page = write_page(self.runs, out=self.out, against=self.against, overwrite=self.overwrite)
        if self.json:
            print_json(page.report())
            return 0
        for note in page.notes:
            err.print(Text(note), soft_wrap=True)
        told = (
            f"{page.runs} run{plural_s(page.runs)}, {len(page.figures)} "
            f"figure{plural_s(len(page.figures))}, {size(page.size)}"
        )
        out.print(Text(f"Written to {page.page}: {told}. Open it in a browser."), soft_wrap=True)
        return 0

"""``fdfa data list | get | verify``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeAlias

import tyro
from rich.console import Console
from rich.text import Text

from fdfa.cli.command import Shown, first_line, print_json
from fdfa.studies.data_sets import get, list_data_sets, verify
from fdfa.studies.listings import data_sets_report, verification_report
from fdfa.studies.options import data_set_options
from fdfa.studies.progress import reported_download

__all__ = ["ACTIONS", "Data"]

_Name: TypeAlias = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Found(Shown):
    """Where data sets are looked for.

    Attributes:
        data_dir: look here first; then in $FDFA_DATA and the cache.
    """

    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None


@dataclasses.dataclass(frozen=True)
class List(_Found):
    """List the data sets, and where they are on this machine."""

    EXAMPLE: ClassVar = "fdfa data list"

    def run(self, out: Console, err: Console) -> int:
        """Show the table."""
        found = list_data_sets(directory=self.data_dir)
        if self.json:
            print_json([_described(listed) for listed in found])
        else:
            out.print(data_sets_report(found))
        return 0


@dataclasses.dataclass(frozen=True)
class Get(_Found):
    """Download what is missing of a data set.

    Attributes:
        name: of the data set.
        quiet: show no progress.
    """

    EXAMPLE: ClassVar = "fdfa data get mnist"

    name: _Name
    quiet: bool = False

    def run(self, out: Console, err: Console) -> int:
        """Download, and say where it is."""
        with reported_download(err, quiet=self.quiet) as progress:
            found = get(self.name, directory=self.data_dir, progress=progress)
        if self.json:
            print_json(found)
        else:
            what = ", ".join(found.files) or "nothing: every file is there"
            text = f"{found.name} is in {found.folder}. Downloaded: {what}."
            out.print(Text(text), soft_wrap=True)
        return 0


@dataclasses.dataclass(frozen=True)
class Verify(_Found):
    """Compare a data set's files with the official ones, and read all of it.

    Attributes:
        name: of the data set.
        data_options: of the data set, as in split=letters.
    """

    EXAMPLE: ClassVar = "fdfa data verify digits"

    name: _Name
    data_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def run(self, out: Console, err: Console) -> int:
        """Compare, read, and show what was found."""
        options = data_set_options(self.name, self.data_options)
        found = verify(self.name, directory=self.data_dir, **options)
        if self.json:
            print_json({**dataclasses.asdict(found), "sound": found.sound})
        else:
            out.print(verification_report(found), soft_wrap=True)
        return 0 if found.sound else 1


ACTIONS = {"list": List, "get": Get, "verify": Verify}


@dataclasses.dataclass(frozen=True)
class Data:
    """List, fetch or check data sets."""

    EXAMPLE: ClassVar = "fdfa data list"

    action: (
        Annotated[List, tyro.conf.subcommand("list", description=first_line(List))]
        | Annotated[Get, tyro.conf.subcommand("get", description=first_line(Get))]
        | Annotated[Verify, tyro.conf.subcommand("verify", description=first_line(Verify))]
    )

    def run(self, out: Console, err: Console) -> int:
        """Do what was asked.

        Args:
            out: for the answer.
            err: for all else.

        Returns:
            The exit status.
        """
        return self.action.run(out, err)


def _described(listed: Any) -> dict[str, Any]:
    source = listed.source
    names = ("name", "summary", "classes", "shape", "examples", "validation", "licence", "source")
    return {
        **{name: getattr(source, name) for name in names},
        "options": source.options(),
        "download_bytes": listed.size,
        "folder": listed.folder,
    }

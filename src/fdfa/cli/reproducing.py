"""``fdfa reproduce list``, and a command for each reproduction."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro
from rich.console import Console
from rich.text import Text

from fdfa.cli.command import Shown, first_line, print_files, print_json
from fdfa.errors import ConfigError
from fdfa.studies.reproduce import Reproduction, declared_in, reproduce, reproductions
from fdfa.studies.reproduce.planned_runs import TableSettings
from fdfa.studies.reproduce.report import findings_report, reproductions_report
from fdfa.studies.typed_options import typed_options

__all__ = ["REPRODUCED", "Reproduce"]


@dataclasses.dataclass(frozen=True)
class List(Shown):
    """List the published results that can be made again."""

    EXAMPLE: ClassVar = "fdfa reproduce list"

    def run(self, out: Console, err: Console) -> int:
        """Show the table."""
        known = reproductions().values()
        if self.json:
            names = ("name", "summary", "source")
            print_json([{name: getattr(each, name) for name in names} for each in known])
        else:
            out.print(reproductions_report(known))
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Made(Shown):
    """How a published result is made again.

    Attributes:
        out: a folder for settings, measurements, results, report and a picture; where the same was
            begun there, it goes on.
        budget: scale the study down until it takes no longer, as in minutes=30.
        overwrite: replace the files of an earlier run in that folder; others are left alone.
        quiet: show no progress.
    """

    reproduction: ClassVar[Reproduction]

    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    budget: Mapping[str, str] = dataclasses.field(default_factory=dict)
    overwrite: bool = False
    quiet: bool = False

    def study(self) -> Reproduction:
        """What is made."""
        return self.reproduction

    def run(self, out: Console, err: Console) -> int:
        """Make it again, and show what was found beside what was expected."""

        def told(line: str) -> None:
            if not self.quiet:
                err.print(Text(line), soft_wrap=True)

        study = self.study()
        kind = study.settings
        settings = kind(**{f.name: getattr(self, f.name) for f in dataclasses.fields(kind)})
        try:
            found = reproduce(
                study,
                settings,
                out=self.out,
                overwrite=self.overwrite,
                minutes=_minutes(self.budget),
                told=told,
            )
        except KeyboardInterrupt:
            how = "The same command goes on." if self.out else "--out FOLDER would have kept it."
            err.print(Text(f"Interrupted. {how}"), soft_wrap=True)
            return 130
        if self.json:
            print_json(found.report())
        else:
            out.print(findings_report(found))
            print_files(out, found.files)
        return 1 if found.failed or found.failed_runs else 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Declared(_Made, TableSettings):
    """Train every rule on every task of a study that a file of your own declares.

    Attributes:
        file: of the study, TOML.
    """

    EXAMPLE: ClassVar = "fdfa reproduce study mine.toml --out runs/mine"

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]

    def study(self) -> Reproduction:
        """What the file declares."""
        found = declared_in(self.file)
        if not issubclass(type(self), found.settings):
            raise ConfigError(
                f"{self.file} declares a measurement, whose settings this command does not know. "
                "Make it in Python, by reproduce(declared_in(...), settings) of "
                "fdfa.studies.reproduce, or declare a table of trainings."
            )
        return found


def _minutes(budget: Mapping[str, str]) -> float | None:
    """What was typed behind ``--budget``."""

    def kept_to(minutes: float) -> float:
        return minutes

    given = typed_options(budget, kept_to, valid=["minutes"], owner="budget")
    return given.get("minutes")


def _command(reproduction: Reproduction) -> Any:
    """The command with the settings of a reproduction as its options."""
    name = "".join(word.title() for word in reproduction.name.split("-"))
    summary = reproduction.summary
    return dataclasses.make_dataclass(
        name,
        [],
        bases=(_Made, reproduction.settings),
        namespace={
            "__doc__": f"{summary[0].upper()}{summary[1:]}.",
            "__module__": __name__,
            "EXAMPLE": f"fdfa reproduce {reproduction.name} --out runs/{reproduction.name}",
            "reproduction": reproduction,
        },
        frozen=True,
        kw_only=True,
    )


REPRODUCED: dict[str, Any] = {
    "list": List,
    "study": _Declared,
    **{name: _command(reproduction) for name, reproduction in reproductions().items()},
}


# Made at run time, of all that the registry holds.
_Action: Any = typing.Union[  # noqa: UP007
    tuple(
        Annotated[kind, tyro.conf.subcommand(name, description=first_line(kind))]
        for name, kind in REPRODUCED.items()
    )
]


@dataclasses.dataclass(frozen=True)
class Reproduce:
    """Make a published result again, beside what was expected of it."""

    EXAMPLE: ClassVar = "fdfa reproduce list"

    action: _Action

    def run(self, out: Console, err: Console) -> int:
        """Do what was asked.

        Args:
            out: for the answer.
            err: for all else.

        Returns:
            The exit status.
        """
        return int(self.action.run(out, err))

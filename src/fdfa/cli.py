"""The command ``fdfa``: one thin layer over the studies.

Exit status: 0 if all went well, 1 if a run failed, 2 for a mistake in what was asked, 130 after
Ctrl-C.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import traceback
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.text import Text

import fdfa
from fdfa.errors import ConfigError, FDFAError, unknown_name
from fdfa.methods import methods
from fdfa.studies.compare import CompareConfig, StudyInterrupted, compare
from fdfa.studies.json_values import plain
from fdfa.studies.options import assignments, method_options, options_by_method
from fdfa.studies.preview import PreviewConfig, preview
from fdfa.studies.progress import reported_progress
from fdfa.studies.report import (
    comparison_report,
    error_panel,
    explanation_report,
    failures_panel,
    files_line,
    methods_report,
    training_report,
)
from fdfa.studies.runs import Run
from fdfa.studies.task import resolved, typed
from fdfa.studies.train import TrainConfig, train

__all__ = ["main"]

_ConfigT = typing.TypeVar("_ConfigT")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Shown:
    """How a command answers.

    Attributes:
        json: print the answer as JSON.
        debug: show the traceback of an error.
    """

    json: bool = False
    debug: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Kept(_Shown):
    """Where a command keeps what it finds.

    Attributes:
        out: a new folder for configuration, metrics, results and learning curves.
        overwrite: replace the files of an earlier run in that folder; others are left alone.
        quiet: show no progress.
    """

    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    overwrite: bool = False
    quiet: bool = False


@dataclasses.dataclass(frozen=True)
class Train(_Kept, TrainConfig):
    """Train one network by one method."""

    EXAMPLE: typing.ClassVar = (
        "fdfa train --data digits --method fdfa --epochs 5 --options feedback_rate=0.05"
    )

    def run(self, out: Console, err: Console) -> int:
        """Train, and show how well it went."""
        config = _settings(self, TrainConfig)
        config = dataclasses.replace(
            config, options=method_options(config.method, config.options), task=typed(config.task)
        )
        epochs = config.training.epochs
        try:
            with reported_progress(err, runs=1, epochs=epochs, quiet=self.quiet) as observer:
                report = train(config, out=self.out, overwrite=self.overwrite, observer=observer)
        except KeyboardInterrupt:
            kept = "" if self.out is None else f" {self.out}/metrics.jsonl has what was finished."
            err.print(Text(f"Interrupted.{kept}"), soft_wrap=True)
            return 130
        if self.json:
            _print_json(report.report())
        elif report.run.failure is None:
            out.print(training_report(report))
            _print_files(out, report.files)
        return _status(err, [report.run])


@dataclasses.dataclass(frozen=True)
class Compare(_Kept, CompareConfig):
    """Train several methods from the same weights, on the same examples, and compare them."""

    EXAMPLE: typing.ClassVar = (
        "fdfa compare --data digits --methods backpropagation dfa fdfa \\\n"
        "      --epochs 20 --seeds 3 --out runs/first"
    )

    def run(self, out: Console, err: Console) -> int:
        """Compare, and show the table."""
        config = _settings(self, CompareConfig)
        config = dataclasses.replace(
            config,
            options=options_by_method(config.methods, dict[str, Any](config.options)),
            task=typed(config.task),
        )
        runs, epochs = len(config.methods) * config.seeds, config.training.epochs
        try:
            with reported_progress(err, runs=runs, epochs=epochs, quiet=self.quiet) as observer:
                comparison = compare(
                    config, out=self.out, overwrite=self.overwrite, observer=observer
                )
        except StudyInterrupted as stop:
            comparison = stop.comparison
        if self.json:
            _print_json(comparison.report())
        elif comparison.runs:
            out.print(comparison_report(config, comparison))
            _print_files(out, comparison.files)
        if not comparison.complete:
            err.print(f"Interrupted: {len(comparison.runs)} of {runs} runs were finished.")
            return 130
        return _status(err, comparison.runs)


@dataclasses.dataclass(frozen=True)
class Methods(_Shown):
    """List the methods: what they need, what they cost."""

    EXAMPLE: typing.ClassVar = "fdfa methods"

    def run(self, out: Console, err: Console) -> int:
        """Show the table."""
        if self.json:
            _print_json(
                [{**plain(method), "options": method.options()} for method in methods().values()]
            )
        else:
            out.print(methods_report())
        return 0


@dataclasses.dataclass(frozen=True)
class Explain(_Shown, PreviewConfig):
    """Show what a method would do to a network, before any training."""

    EXAMPLE: typing.ClassVar = "fdfa explain --data digits --model resnet20 --method fdfa"

    def run(self, out: Console, err: Console) -> int:
        """Show taps, blocks, costs and obstacles."""
        config = _settings(self, PreviewConfig)
        config = dataclasses.replace(
            config, options=method_options(config.method, config.options), task=typed(config.task)
        )
        found = preview(config)
        if self.json:
            _print_json(found.report())
        else:
            task = resolved(config.task)
            out.print(explanation_report(found, subject=f"{task.data}, {task.model}"))
        return 0


_COMMANDS: dict[str, type[Train | Compare | Methods | Explain]] = {
    "train": Train,
    "compare": Compare,
    "methods": Methods,
    "explain": Explain,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: what stands behind ``fdfa``; None takes the process's own.

    Returns:
        The exit status.

    Example:
        >>> main(["--version"])
        fdfa 0.1.0
        0
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    out, err = Console(highlight=False), Console(stderr=True, highlight=False)
    try:
        return _dispatch(argv, out, err)
    except SystemExit as stop:  # tyro has printed help, or a mistake with the nearest option
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        err.print("Interrupted.")
        return 130
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (FDFAError, ValueError, OSError) as error:
        if "--debug" in argv:
            traceback.print_exception(error)
        err.print(error_panel(str(error)))
        return 2 if isinstance(error, ValueError) else 1  # a mistake in what was asked, or bad luck


def _dispatch(argv: list[str], out: Console, err: Console) -> int:
    if argv and argv[0] in ("--version", "-V"):
        out.print(f"fdfa {fdfa.__version__}")
        return 0
    if argv and not argv[0].startswith("-") and argv[0] not in _COMMANDS:
        raise ConfigError(unknown_name("command", argv[0], list(_COMMANDS)))
    given = [word.partition("=")[0].replace("_", "-") for word in argv if word.startswith("--")]
    for option in ("--methods", "--options", "--model-options"):
        if given.count(option) > 1:
            raise ConfigError(
                f"{option} is given twice: the first would be lost. Give it once: {option} A B."
            )
    # A network of the user's own lies where the user stands, as with `python -m`.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    command = tyro.cli(
        _parser_type(argv),
        prog="fdfa",
        description=f"Train any network without a backward pass:\n  {Compare.EXAMPLE}",
        args=argv or ["--help"],
        registry=_registry(),
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone),
    )
    return int(command.run(out, err))


def _parser_type(argv: Sequence[str]) -> Any:
    """All commands; the one that was asked for shows its example in its help."""
    kinds = []
    for name, kind in _COMMANDS.items():
        summary = (kind.__doc__ or "").partition("\n")[0]
        if argv[:1] == [name]:
            summary += f"\n\nExample:\n  {kind.EXAMPLE}"
        kinds.append(Annotated[kind, tyro.conf.subcommand(name, description=summary)])
    return typing.Union[tuple(kinds)]  # noqa: UP007  # made at run time


def _registry() -> tyro.constructors.ConstructorRegistry:
    """Teaches tyro to read ``NAME=VALUE NAME=VALUE`` for a mapping."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def read_assignments(
        info: tyro.constructors.PrimitiveTypeInfo,
    ) -> tyro.constructors.PrimitiveConstructorSpec[dict[str, str]] | None:
        if typing.get_origin(info.type) is not Mapping:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs="*",
            metavar="NAME=VALUE ...",
            instance_from_str=assignments,
            is_instance=lambda value: isinstance(value, dict),
            str_from_instance=lambda value: [f"{k}={v}" for k, v in value.items()] or ["none"],
        )

    return registry


def _settings(command: Any, kind: type[_ConfigT]) -> _ConfigT:
    """The part of a command that is a configuration."""
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: getattr(command, name) for name in names})


def _status(err: Console, runs: Sequence[Run]) -> int:
    """Shows what failed; the exit status that says so."""
    if (panel := failures_panel(runs)) is not None:
        err.print(panel)
    return 0 if panel is None else 1


def _print_files(out: Console, files: Sequence[Path]) -> None:
    if files:
        out.print(Text(files_line(files)), soft_wrap=True)  # a path must stay in one piece


def _print_json(content: Any) -> None:
    print(json.dumps(plain(content), indent=2, allow_nan=False))

"""From what was typed to a command with its settings."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

import tyro
from rich.console import Console

from fdfa.cli.command import first_line
from fdfa.cli.data_sets import ACTIONS, Data
from fdfa.cli.diagnosing import Diagnose
from fdfa.cli.looking import Explain, Methods, Models
from fdfa.cli.recommending import Recommend
from fdfa.cli.reporting import Report
from fdfa.cli.reproducing import REPRODUCED, Reproduce
from fdfa.cli.training import Compare, Evaluate, Resume, Train
from fdfa.errors import ConfigError, unknown_name
from fdfa.studies import setup
from fdfa.studies.json_values import plain
from fdfa.studies.options import assignments
from fdfa.studies.resume import read_config

__all__ = ["COMMANDS", "Command", "parse"]

COMMANDS: dict[str, Any] = {
    "train": Train,
    "compare": Compare,
    "resume": Resume,
    "evaluate": Evaluate,
    "report": Report,
    "diagnose": Diagnose,
    "explain": Explain,
    "recommend": Recommend,
    "methods": Methods,
    "models": Models,
    "data": Data,
    "reproduce": Reproduce,
}
# Commands that have commands of their own.
_ACTIONS = {"data": ACTIONS, "reproduce": REPRODUCED}
_SHELLS = ("bash", "zsh")  # tyro needs another package for tcsh
# Typed twice, the second would silently take the place of the first.
_ONCE = (
    "config",
    "methods",
    "options",
    "rate-shares",
    "model-options",
    "data-options",
    "augment",
    "log",
    "diagnose",
    "budget",
    "tasks",
    "rules",
)


class Command(Protocol):
    """What was asked for, complete."""

    def run(self, out: Console, err: Console) -> int:
        """Do it.

        Args:
            out: for the answer.
            err: for all else.

        Returns:
            The exit status.
        """


def parse(argv: Sequence[str]) -> Command:
    """Read a command line; print help, or a complaint with the nearest option, and leave.

    Args:
        argv: what stands behind ``fdfa``.

    Returns:
        The command.

    Raises:
        ConfigError: if something in it cannot be.
        SystemExit: after help, and where an option is misspelt.

    Example:
        >>> parse(["train", "--epochs", "3"]).training.epochs
        3
    """
    argv = list(argv)
    if argv[:1] == ["--completion"]:
        if argv[1:] not in [[shell] for shell in _SHELLS]:
            raise ConfigError(
                f"--completion {' '.join(argv[1:])!r}: no shell that is known. Give "
                f"{' or '.join(_SHELLS)}."
            )
        argv = ["--tyro-print-completion", argv[1]]
    given = [word.partition("=")[0].replace("_", "-") for word in argv if word.startswith("--")]
    for option in (f"--{name}" for name in _ONCE):
        if given.count(option) > 1:
            raise ConfigError(f"{option} is given twice: the first would be lost. Give it once.")
    actions = _ACTIONS.get(argv[0], {}) if argv else {}
    action = argv[1] if actions and len(argv) > 1 else "-"
    if not action.startswith("-") and action not in actions:
        known = [f"{argv[0]} {name}" for name in actions]
        raise ConfigError(unknown_name("command", f"{argv[0]} {action}", known))
    command: Command = _read(argv)
    return command


def _read(argv: Sequence[str]) -> Any:
    """What tyro makes of it: with one command's options if it is named, else all commands."""
    config = (
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.OmitArgPrefixes,
        tyro.conf.OmitSubcommandPrefixes,
        tyro.conf.DisallowNone,
    )
    if argv and argv[0] in COMMANDS:
        kind, words = COMMANDS[argv[0]], 1
        actions = _ACTIONS.get(argv[0], {})
        if argv[1:2] and argv[1] in actions:
            kind, words = actions[argv[1]], 2
        default = _from_config(kind, argv)
        return tyro.cli(
            kind,
            prog=f"fdfa {' '.join(argv[:words])}",
            description=f"{first_line(kind)}\n\nExample:\n  {kind.EXAMPLE}",
            args=argv[words:],
            registry=_registry(),
            config=config,
            **({} if default is None else {"default": default}),
        )
    kinds = [
        Annotated[kind, tyro.conf.subcommand(name, description=first_line(kind))]
        for name, kind in COMMANDS.items()
    ]
    every_kind: Any = typing.Union[tuple(kinds)]  # noqa: UP007  # made at run time
    return tyro.cli(
        every_kind,
        prog="fdfa",
        description=(
            f"Train any network without a backward pass:\n  {Compare.EXAMPLE}\n\n"
            "Completion for your shell: source <(fdfa --completion bash)"
        ),
        args=argv or ["--help"],
        registry=_registry(),
        config=config,
    )


def _from_config(kind: Any, argv: Sequence[str]) -> Any:
    """The command with the settings that ``--config`` names; options are merged by the command."""
    path = None
    for number, word in enumerate(argv):
        if word == "--config" and number + 1 < len(argv):
            path = argv[number + 1]
        elif word.startswith("--config="):
            path = word.partition("=")[2]
    if path is None or kind not in (Train, Compare):
        return None
    config, _ = read_config(path)
    if not issubclass(kind, type(config)):
        other = "compare" if kind is Train else "train"
        raise ConfigError(
            f"config: '{path}' is of `fdfa {other}`. Write fdfa {other} --config {path}."
        )
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    values["options"] = {}
    if "rate_shares" in values:
        values["rate_shares"] = {}
    values["task"] = dataclasses.replace(config.task, model_options={}, data_options={})
    return kind(**values)


def _registry() -> tyro.constructors.ConstructorRegistry:
    """Teaches tyro to read ``NAME=VALUE NAME=VALUE`` for a mapping, and choices as words."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def read_choice(
        info: tyro.constructors.PrimitiveTypeInfo,
    ) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
        # The record that takes the choice checks it, and names the nearest.
        choices = typing.get_args(info.type)
        several = typing.get_origin(info.type) is tuple
        if several and typing.get_origin(choices[0]) is typing.Literal:
            choices = typing.get_args(choices[0])
        elif typing.get_origin(info.type) is not typing.Literal:
            return None
        shown = "{" + ",".join(choices) + "}"
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs="*" if several else 1,
            metavar=f"{shown} ..." if several else shown,
            instance_from_str=tuple if several else lambda words: words[0],
            is_instance=lambda value: isinstance(value, tuple if several else str),
            str_from_instance=lambda value: (list(value) or ["none"]) if several else [value],
        )

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

    @registry.primitive_rule
    def read_diagnose(
        info: tyro.constructors.PrimitiveTypeInfo,
    ) -> tyro.constructors.PrimitiveConstructorSpec[setup.Diagnose | None] | None:
        if info.type != setup.Diagnose | None:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs="*",
            metavar="NAME=VALUE ...",
            instance_from_str=setup.Diagnose.from_words,
            is_instance=lambda value: value is None or isinstance(value, setup.Diagnose),
            str_from_instance=lambda value: (
                ["none"] if value is None else [f"{k}={v}" for k, v in plain(value).items()]
            ),
        )

    return registry

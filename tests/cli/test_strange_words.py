"""Whatever is typed, the answer is help, an answer, or one panel."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NoReturn

import pytest

from fdfa.cli import main
from fdfa.cli.parsing import COMMANDS
from fdfa.errors import ConfigError
from tests.cli.typed import CALLS, Capture


@pytest.fixture(autouse=True)
def _narrow_terminal_and_few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("fdfa.studies.speed._ENOUGH_SECONDS", 0.0)


# Whatever is typed, the answer is help, an answer, or one panel.
STRANGE_WORDS = [
    *("", " ", "-", "--", "---", "-x", "--=", "--=x", "=", "=x", "a=b=c", "\n", "\t", "\x00", "é"),
    *("🙂", "[red]", "{}", "%s", "$HOME", "../..", "/", "~", "None", "nan", "1e999", "-1", "0x10"),
    *(
        "--help=x",
        "--json=1",
        "--out=",
        "--config=",
        "--epochs=",
        "@file",
        "--no-json",
        "--json",
        "*",
    ),
    "x" * 5000,
]


@pytest.mark.parametrize("command", [*COMMANDS, "data verify", ""])
def test_strange_words_are_one_panel_each(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)

    def far_enough(*_: object, **__: object) -> NoReturn:
        raise ConfigError("far enough")

    for _, used in CALLS.values():
        monkeypatch.setattr(used, far_enough)
    for word in STRANGE_WORDS:
        status = main([*command.split(), word])
        captured = capsys.readouterr()
        assert status in (0, 1, 2), word
        assert "Traceback" not in captured.err, word
        assert status == 0 or captured.err.strip(), word
        assert captured.err.count("╭") <= 1, word
    assert list(tmp_path.iterdir()) == []


OPTIONS_OF_TRAIN = [
    *("method", "options", "seed", "config", "out", "data", "data-dir", "data-options", "augment"),
    *("validation", "model", "model-options", "epochs", "batch-size", "accumulate", "optimizer"),
    *("learning-rate", "schedule", "decay", "warmup-epochs", "momentum", "weight-decay", "device"),
    *("clip-norm", "patience", "precision", "checkpoint-seconds", "checkpoint-steps", "log"),
    *("log-steps", "diagnose", "threads", "pixels", "loss"),
]
STRANGE_VALUES = ["", "x", "-1", "0", "1.5", "nan", "inf", "1e400", "9" * 30, "a=b", "None", "é"]


def test_every_option_of_train_is_tried_below() -> None:
    import dataclasses
    import typing

    from fdfa.studies.setup import TrainConfig

    hints = typing.get_type_hints(TrainConfig)
    names = {"config", "out"}
    for field in dataclasses.fields(TrainConfig):
        kind = hints[field.name]
        inner = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else [field]
        names |= {each.name.replace("_", "-") for each in inner}
    assert names == set(OPTIONS_OF_TRAIN)


@pytest.mark.slow
def test_strange_values_of_every_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Up to where the training would start: a panel, or a dry run that found nothing."""
    monkeypatch.chdir(tmp_path)
    for option, value in itertools.product(OPTIONS_OF_TRAIN, STRANGE_VALUES):
        argv = ["train", "--dry-run", "--model-options", "width=8", f"--{option}", value]
        if option == "model-options":
            del argv[2:4]
        status = main(argv)
        captured = capsys.readouterr()
        assert status in (0, 2), f"--{option} {value!r}: {captured.err}"
        assert "Traceback" not in captured.err
        assert captured.err.count("╭") <= 1
    assert list(tmp_path.iterdir()) == []

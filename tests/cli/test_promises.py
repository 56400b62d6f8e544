"""What is promised of every command: JSON alone, silence, plain lines, a call in Python."""

from __future__ import annotations

import importlib
import itertools
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

import fdfa
from fdfa.cli import main
from fdfa.cli.parsing import COMMANDS
from fdfa.errors import CheckpointError, ConfigError, DataError

Capture = pytest.CaptureFixture[str]
QUICK = ["--epochs", "1", "--batch-size", "256", "--model-options", "width=8", "depth=1"]
COMPARE = ["compare", *QUICK, "--seeds", "1", "--timing-rounds", "10", "--methods", "dfa", "fdfa"]


@pytest.fixture(autouse=True)
def _narrow_terminal_and_few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("fdfa.studies.speed._ENOUGH_SECONDS", 0.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run and a comparison."""
    made = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fdfa.studies.speed._ENOUGH_SECONDS", 0.0)
        assert main(["train", *QUICK, "--quiet", "--json", "--out", str(made / "run")]) == 0
        assert main([*COMPARE, "--quiet", "--json", "--out", str(made / "comparison")]) == 0
    return made


def words(text: str) -> str:
    """The text of a panel without its frame and line breaks."""
    return " ".join(text.replace("│", " ").split())


def strict(text: str) -> Any:
    """JSON as the standard has it: no NaN, no Infinity, nothing behind it."""

    def refuse(word: str) -> NoReturn:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def every_answer(made: Path) -> dict[str, list[str]]:
    """Each command once, as it can be typed."""
    return {
        "train": ["train", *QUICK],
        "train --dry-run": ["train", *QUICK, "--dry-run"],
        "train without validation": ["train", *QUICK, "--validation", "0"],
        "compare": COMPARE,
        "compare --dry-run": [*COMPARE, "--dry-run"],
        "resume a run": ["resume", str(made / "run")],
        "resume a comparison": ["resume", str(made / "comparison")],
        "evaluate": ["evaluate", str(made / "run")],
        "explain": ["explain", "--model-options", "width=8"],
        "methods": ["methods"],
        "models": ["models"],
        "data list": ["data", "list"],
        "data verify": ["data", "verify", "digits"],
    }


NAMES = list(every_answer(Path()))


def test_each_command_is_tried() -> None:
    tried = {argv[0] for argv in every_answer(Path()).values()}
    assert tried == set(COMMANDS)


@pytest.mark.parametrize("name", NAMES)
def test_json_is_nothing_but_json(name: str, made: Path, capsys: Capture) -> None:
    assert main([*every_answer(made)[name], "--json"]) == 0
    found = strict(capsys.readouterr().out)
    assert found
    assert isinstance(found, (dict, list))


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name.split()[0] in ("train", "compare", "resume")]
)
def test_quiet_says_nothing_but_the_answer(name: str, made: Path, capsys: Capture) -> None:
    assert main([*every_answer(made)[name], "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out != ""


@pytest.mark.parametrize("name", NAMES)
def test_where_there_is_no_terminal_lines_are_plain(name: str, made: Path, capsys: Capture) -> None:
    """No colours, no bar, no line that is written over."""
    assert main(every_answer(made)[name]) == 0
    captured = capsys.readouterr()
    assert not {"\x1b", "\r", "\b", "━"} & set(captured.out + captured.err)


def test_a_run_that_failed_is_json_as_well(tmp_path: Path, capsys: Capture) -> None:
    """What is not a number is null; and what is read back is the same failure."""
    wild = ["--optimizer", "sgd", "--learning-rate", "1e30", "--model-options", "batch_norm=no"]
    argv = ["train", "--epochs", "2", *wild, "--json", "--quiet", "--out", str(tmp_path / "run")]
    assert main(argv) == 1
    captured = capsys.readouterr()
    run = strict(captured.out)["run"]
    assert (run["cosine"], run["test"]) == (None, None)
    assert "the loss is" in run["failure"]
    assert captured.err.count("╭") == 1
    assert main(["resume", str(tmp_path / "run"), "--json", "--quiet"]) == 1
    assert strict(capsys.readouterr().out)["run"] == run
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_json_of_a_run_is_its_results_file(made: Path, capsys: Capture) -> None:
    for name in ("run", "comparison"):
        assert main(["resume", str(made / name), "--json", "--quiet"]) == 0
        assert strict(capsys.readouterr().out) == strict((made / name / "results.json").read_text())


# Each command is one call: the function, and where the command line takes it from.
CALLS = {
    "train": ("fdfa.studies.train.train", "fdfa.cli.training.train"),
    "compare": ("fdfa.studies.compare.compare", "fdfa.cli.training.compare"),
    "resume": ("fdfa.studies.resume.resume", "fdfa.cli.training.resume"),
    "evaluate": ("fdfa.studies.evaluate.evaluate_run", "fdfa.cli.training.evaluate_run"),
    "explain": ("fdfa.studies.preview.preview", "fdfa.cli.looking.preview"),
    "methods": ("fdfa.methods", "fdfa.cli.looking.methods"),
    "models": ("fdfa.models.networks", "fdfa.cli.looking.networks"),
    "data list": ("fdfa.studies.data_sets.list_data_sets", "fdfa.cli.data_sets.list_data_sets"),
    "data get": ("fdfa.studies.data_sets.get", "fdfa.cli.data_sets.get"),
    "data verify": ("fdfa.studies.data_sets.verify", "fdfa.cli.data_sets.verify"),
    "train --dry-run": (
        "fdfa.studies.rehearsal.rehearse_study",
        "fdfa.cli.training.rehearse_study",
    ),
}


def test_every_command_is_one_call_in_python(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """And it is a function that anyone can import, with an example in its documentation."""
    assert {name.split()[0] for name in CALLS} == set(COMMANDS)
    answers = {**every_answer(made), "data get": ["data", "get", "mnist"]}
    for name, (public, used) in CALLS.items():
        module, _, function = public.rpartition(".")
        found = getattr(importlib.import_module(module), function)
        assert function in importlib.import_module(module).__all__
        assert ">>>" in (found.__doc__ or ""), public
        calls = []

        def instead(*args: object, calls: list[str] = calls, name: str = name, **_: object) -> Any:
            calls.append(name)
            raise ConfigError("called")

        with monkeypatch.context() as patch:
            patch.setattr(used, instead)
            argv = answers.get("resume a run" if name == "resume" else name, [])
            assert main([*argv, "--json"]) == 2
        assert calls == [name], capsys.readouterr().err
        capsys.readouterr()


def test_what_the_command_line_answers_is_what_python_gets(made: Path, capsys: Capture) -> None:
    from fdfa.studies.data_sets import list_data_sets
    from fdfa.studies.evaluate import evaluate_run

    assert main(["evaluate", str(made / "run"), "--json"]) == 0
    assert strict(capsys.readouterr().out) == evaluate_run(made / "run").report()
    assert main(["data", "list", "--json"]) == 0
    names = [entry["name"] for entry in strict(capsys.readouterr().out)]
    assert names == [listed.source.name for listed in list_data_sets()]
    assert main(["models", "--json"]) == 0
    names = [entry["name"] for entry in strict(capsys.readouterr().out)]
    assert names == list(importlib.import_module("fdfa.models").networks())


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_is_a_script_that_the_shell_accepts(
    shell: str, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["--completion", shell]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    for word in (*COMMANDS, "--epochs", "--checkpoint-steps", "verify"):
        assert word in captured.out, word
    path = shutil.which(shell)
    if path is not None:
        (tmp_path / "script").write_text(captured.out)
        command = [path, "-n", str(tmp_path / "script")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_completion_in_bash_offers_commands_and_options(tmp_path: Path, capsys: Capture) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    assert main(["--completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    ask = """
    source "$1"; shift
    function=$(complete -p fdfa | sed 's/.*-F \\([^ ]*\\).*/\\1/')
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
    $function fdfa "${COMP_WORDS[$COMP_CWORD]}" "${COMP_WORDS[$((COMP_CWORD - 1))]}"
    printf '%s\\n' "${COMPREPLY[@]}"
    """

    def offered(*typed: str) -> list[str]:
        command = [bash, "-c", ask, "ask", str(tmp_path / "script"), *typed]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return sorted(line.strip() for line in done.stdout.splitlines())

    assert offered("fdfa", "m") == ["methods", "models"]
    assert "--learning-rate" in offered("fdfa", "train", "--le")


@pytest.mark.parametrize(
    "argv", [["--completion"], ["--completion", "fish"], ["--completion", "bash", "x"]]
)
def test_no_completion_for_what_is_no_shell(argv: list[str], capsys: Capture) -> None:
    assert main(argv) == 2
    assert "bash or zsh" in words(capsys.readouterr().err)


# What goes wrong, and how each command ends then: 2 for a mistake, 1 for bad luck.
ACCIDENTS: dict[str, tuple[Callable[[], Exception], int, str]] = {
    "mistake": (lambda: ConfigError("x is not possible."), 2, "x is not possible."),
    "value": (lambda: ValueError("not that"), 2, "not that"),
    "data": (lambda: DataError("truncated"), 1, "truncated"),
    "checkpoint": (lambda: CheckpointError("damaged"), 1, "damaged"),
    "disk": (lambda: OSError(28, "No space left on device"), 1, "No space left on device"),
    "memory": (lambda: MemoryError(), 1, "MemoryError"),
    "torch": (lambda: RuntimeError("CUDA out of memory."), 1, "CUDA out of memory."),
    "key": (lambda: KeyError("lost"), 1, "KeyError: 'lost'"),
    "brackets": (lambda: ConfigError("[red]x[/red] [/] {a}"), 2, "[red]x[/red] [/] {a}"),
}


@pytest.mark.parametrize("accident", ACCIDENTS)
@pytest.mark.parametrize("name", ["train", "compare", "resume", "evaluate", "explain"])
def test_whatever_goes_wrong_is_one_panel(
    name: str, accident: str, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    make, status, text = ACCIDENTS[accident]

    def fail(*_: object, **__: object) -> NoReturn:
        raise make()

    monkeypatch.setattr(CALLS[name][1], fail)
    argv = every_answer(made)["resume a run" if name == "resume" else name]
    assert main(argv) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("╭") == 1
    assert text in words(captured.err)
    assert "Traceback" not in captured.err
    assert main([*argv, "--debug"]) == status
    captured = capsys.readouterr()
    assert "Traceback (most recent call last)" in captured.err
    assert "in fail" in captured.err


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
    *("log-steps", "threads"),
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


def test_versions_agree(capsys: Capture) -> None:
    for argv in (["--version"], ["-V"]):
        assert main(argv) == 0
        assert capsys.readouterr().out == f"fdfa {fdfa.__version__}\n"

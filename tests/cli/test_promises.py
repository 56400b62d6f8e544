"""What is promised of every command: JSON alone, silence, plain lines, a call in Python."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

import fdfa
from fdfa.cli import main
from fdfa.cli.parsing import COMMANDS
from fdfa.errors import CheckpointError, ConfigError, DataError
from tests.cli.typed import CALLS, QUICK, Capture, every_answer, words
from tests.studies.tables import written


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, a comparison, and the file of a study."""
    made = tmp_path_factory.mktemp("made")
    written(made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fdfa.studies.speed._ENOUGH_SECONDS", 0.0)
        assert main(["train", *QUICK, "--quiet", "--json", "--out", str(made / "run")]) == 0
        compare = every_answer(made)["compare"]
        assert main([*compare, "--quiet", "--json", "--out", str(made / "comparison")]) == 0
    return made


def strict(text: str) -> Any:
    """JSON as the standard has it: no NaN, no Infinity, nothing behind it."""

    def refuse(word: str) -> NoReturn:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


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


def test_versions_agree(capsys: Capture) -> None:
    for argv in (["--version"], ["-V"]):
        assert main(argv) == 0
        assert capsys.readouterr().out == f"fdfa {fdfa.__version__}\n"

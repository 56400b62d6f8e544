"""The commands as a user types them, run in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fdfa
from fdfa.cli import main
from fdfa.cli.parsing import COMMANDS
from fdfa.cli.reproducing import REPRODUCED
from tests.cli.typed import COMPARE, QUICK, Capture, words


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fdfa {fdfa.__version__}\n"


INNER_COMMANDS = [
    *("data list", "data get", "data verify"),
    *(f"reproduce {name}" for name in REPRODUCED),
]


@pytest.mark.parametrize("command", [*COMMANDS, *INNER_COMMANDS])
def test_help_teaches_with_an_example_that_can_be_typed(command: str, capsys: Capture) -> None:
    assert main([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Example:\n  fdfa {command}" in text
    loose = ("Train several", "usage: ")
    assert all(len(line) <= 80 or line.startswith(loose) for line in text.splitlines())


def test_help_lists_the_commands(capsys: Capture) -> None:
    for argv in ([], ["--help"]):
        assert main(argv) == 0
        text = capsys.readouterr().out
        assert all(f"• {name} " in text for name in COMMANDS)
        assert "fdfa compare --data digits" in text


def test_the_examples_in_the_help_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """With fewer epochs and seeds; whatever else the help says must be accepted.

    One after the other in one folder: what the first makes, the next ones name.
    """
    monkeypatch.chdir(tmp_path)
    examples = {name: kind.EXAMPLE.replace("\\\n", " ").split() for name, kind in COMMANDS.items()}
    small = {
        "train": QUICK,
        "compare": [*QUICK, "--seeds", "1", "--timing-rounds", "10"],
        "explain": ["--model", "fully-connected"],
    }
    for name, (program, *argv) in examples.items():
        assert (program, argv[0]) == ("fdfa", name)
        if name == "evaluate":  # a single run
            assert main(["train", *QUICK, "--overwrite", "--quiet", "--out", argv[1]]) == 0
        assert main([*argv, *small.get(name, [])]) == 0, capsys.readouterr().err


def test_methods_as_json(capsys: Capture) -> None:
    assert main(["methods", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [method["name"] for method in found] == list(fdfa.methods())
    (options,) = (method["options"] for method in found if method["name"] == "fdfa")
    assert options["feedback_rate"] == 0.01


def test_compare_prints_one_table_and_names_the_files(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "first"
    argv = [*COMPARE, "--methods", "backpropagation", "fdfa", "--out", str(out)]
    assert main([*argv, "--options", "fdfa.probe_every=2", "fdfa.noise=rademacher"]) == 0
    captured = capsys.readouterr()
    assert "[2/2] fdfa, seed 0" in captured.err
    lines = captured.out.splitlines()
    assert sum(line.startswith((" backpropagation ", " fdfa ")) for line in lines) == 2
    assert lines[-1] == (
        f"Written to {out}: config.json, costs.json, learning_curves.png, learning_curves.svg, "
        "results.json"
    )
    saved = json.loads((out / "config.json").read_text())["compare"]["options"]["fdfa"]
    assert (saved["probe_every"], saved["noise"]) == (2, "rademacher")


def test_compare_as_json_is_nothing_but_json(capsys: Capture) -> None:
    assert main([*COMPARE, "--methods", "dfa", "--json", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["summaries"][0]["method"] == "dfa"
    assert captured.err == ""


def test_a_second_run_into_the_same_folder(tmp_path: Path, capsys: Capture) -> None:
    argv = [*COMPARE, "--methods", "dfa", "--quiet", "--out", str(tmp_path)]
    (tmp_path / "thesis.tex").write_text("do not touch")
    assert main(argv) == 2
    assert "is not empty" in words(capsys.readouterr().err)
    assert main([*argv, "--overwrite"]) == 0
    assert (tmp_path / "thesis.tex").read_text() == "do not touch"
    assert (tmp_path / "results.json").exists()


def test_rules_that_learn_from_the_targets(tmp_path: Path, capsys: Capture) -> None:
    """Training, rehearsal, timing and the cosine tell each pass its targets."""
    argv = ["train", *QUICK, "--method", "drtp", "--quiet", "--out", str(tmp_path / "run")]
    assert main(argv) == 0
    assert main([*COMPARE, "--methods", "drtp", "ifa", "--json", "--quiet"]) == 0
    text = capsys.readouterr().out
    found = json.loads(text[text.index("{") :])["summaries"]
    assert [each["method"] for each in found] == ["drtp", "ifa"]


def test_train(tmp_path: Path, capsys: Capture) -> None:
    argv = ["train", *QUICK, "--method", "fdfa", "--options", "feedback_rate=0.05"]
    assert main([*argv, "--out", str(tmp_path / "run")]) == 0
    captured = capsys.readouterr()
    assert "epoch 1/1" in captured.err
    assert "fdfa: test accuracy" in captured.out
    saved = json.loads((tmp_path / "run" / "config.json").read_text())["train"]
    assert saved["options"]["feedback_rate"] == 0.05
    assert saved["task"]["model_options"] == {"width": 8, "depth": 1, "batch_norm": True}
    assert main([*argv, "--json", "--quiet"]) == 0
    run = json.loads(capsys.readouterr().out)["run"]
    assert run == json.loads((tmp_path / "run" / "results.json").read_text())["run"]


def test_explain_as_json(capsys: Capture) -> None:
    argv = ["explain", "--model", "fully_connected", "--data", "digits", "--method", "fdfa"]
    assert main([*argv, "--batch-size", "32", "--options", "depth=2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [tap["name"] for tap in found["taps"]] == ["relu2"]
    assert found["samples"] == 32


def test_explain_a_network_of_ones_own_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "mine_for_the_cli.py").write_text(
        "from torch import nn\n"
        "def network(inputs, classes, width: int = 3):\n"
        "    layers = nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, classes)\n"
        "    return nn.Sequential(nn.Flatten(), *layers)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    argv = ["explain", "--model", "mine_for_the_cli:network", "--model-options", "width=5"]
    assert main(argv) == 0
    assert " 2 " in capsys.readouterr().out


MISTAKES = [
    (["compar"], "unknown command 'compar'. Did you mean 'compare'?"),
    (["compare", "--epoch", "3"], "--epochs INT"),
    (["compare", "--epochs", "three"], "--epochs"),
    (["compare", "--optimizer", "adm"], "'adam'"),
    (["compare", "--data", "digit"], "Did you mean 'digits'?"),
    (["compare", "--methods", "fdfb"], "unknown method 'fdfb'. Did you mean 'fdfa'?"),
    (["compare", "--methods"], "nothing to compare"),
    (["compare", "--methods", "dfa", "--methods", "fdfa"], "--methods is given twice"),
    (["train", "--options", "depth=2", "--options=probe_every=4"], "--options is given twice"),
    (["train", "--model_options=depth=2", "--model-options", "width=4"], "-options is given twice"),
    (["compare", "--options", "depth=2"], "does not say which method"),
    (["compare", "--options", "depth"], "is not of the form NAME=VALUE"),
    (["compare", "--epochs", "0"], "epochs=0 is not possible"),
    (["train", "--options", "feedback_rte=1"], "Did you mean 'feedback_rate'?"),
    (["train", "--options", "projection_rate=fast"], "takes a number, not 'fast'"),
    (["train", "--options", "feedback_rate=2"], "feedback_rate=2.0"),
    (["train", "--options", "taps=relu9,relu1"], "unknown tap 'relu9'. Did you mean"),
    (["train", "--model", "lenett"], "Did you mean 'lenet'?"),
    (["train", "--model", "lenet"], "too small for 'lenet'"),
    (["train", "--model", "torch:nothing"], "cannot be imported"),
    (["train", "--model-options", "depth=0"], "no tap was found"),
    (["train", "--model-options", "widht=3"], "Did you mean 'width'?"),
    (["train", "--threads", "0"], "threads=0"),
    (["train", "--seed", "-1"], "seed=-1"),
    (["explain", "--batch-size", "0"], "batch_size=0"),
    (["explain", "--method", "dfaa"], "Did you mean 'dfa'?"),
]


@pytest.mark.parametrize(("argv", "expected"), MISTAKES, ids=[" ".join(m[0]) for m in MISTAKES])
def test_a_mistake_is_one_panel_and_status_2(
    argv: list[str], expected: str, capsys: Capture
) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert expected in words(captured.err)
    assert captured.err.count("╭") <= 1  # tyro draws none where it does not see a terminal
    assert "Traceback" not in captured.err
    assert all(len(line) <= 80 for line in captured.err.splitlines())


def test_debug_shows_the_traceback(capsys: Capture) -> None:
    assert main(["train", "--model", "lenet", "--debug"]) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


WILD = ["--optimizer", "sgd", "--learning-rate", "1e30", "--epochs", "2"]
PLAIN = ["--model-options", "batch_norm=no", "width=8", "depth=1"]


def test_a_run_that_fails_has_status_1(capsys: Capture) -> None:
    assert main(["train", "--method", "dfa", *WILD, *PLAIN]) == 1
    captured = capsys.readouterr()
    assert "dfa, seed 0: the loss is" in words(captured.err)
    assert "test accuracy" not in captured.out


def test_a_comparison_with_a_failed_run_has_a_table_and_status_1(capsys: Capture) -> None:
    argv = ["compare", "--methods", "dfa", "--seeds", "1", *WILD, *PLAIN, "--timing-rounds", "10"]
    assert main(argv) == 1
    captured = capsys.readouterr()
    assert " dfa       failed " in captured.out
    assert "the loss is" in words(captured.err)


def test_a_folder_that_cannot_be_written_has_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def refuse(path: Path, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert main(["train", *QUICK, "--out", str(tmp_path / "locked"), "--quiet"]) == 1
    assert "Permission denied" in words(capsys.readouterr().err)

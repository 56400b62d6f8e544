"""What is typed beside ``--config`` counts more, and leaves the rest as it was."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from fdfa.cli import main
from fdfa.cli import training as commands
from fdfa.errors import ConfigError
from fdfa.studies.resume import read_config
from tests.studies.config_files import Path_, changed, saved


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command line hands to `train` or `compare`, which then do nothing."""
    found: list[Any] = []

    def keep(config: Any, **_: object) -> Any:
        found.append(config)
        raise ConfigError("far enough")

    monkeypatch.setattr(commands, "train", keep)
    monkeypatch.setattr(commands, "compare", keep)
    return found


class TestFlagsBesideIt:
    def test_without_any_it_is_what_it_says(self, run: Path, captured: list[Any]) -> None:
        main(["train", "--config", str(run)])
        assert captured == [read_config(run)[0]]

    @pytest.mark.parametrize(
        ("flags", "way", "value"),
        [
            (["--epochs", "5"], ("training", "epochs"), 5),
            (["--epochs=20"], ("training", "epochs"), 20),  # the default counts if it is typed
            (["--seed", "0"], ("seed",), 0),
            (["--batch-size", "64"], ("training", "batch_size"), 64),
            (["--checkpoint-steps", "9"], ("records", "checkpoint_steps"), 9),
            (["--device", "auto"], ("machine", "device"), "auto"),
            (["--augment", "flip"], ("task", "augment"), ("flip",)),
            (["--augment"], ("task", "augment"), ()),
            (["--validation", "7"], ("task", "validation"), 7),
            (["--options", "probe_every=4"], ("options", "probe_every"), 4),
            (["--model-options", "width=5"], ("task", "model_options", "width"), 5),
        ],
    )
    def test_a_flag_counts_more_and_leaves_the_others(
        self, flags: list[str], way: Path_, value: object, run: Path, captured: list[Any]
    ) -> None:
        """Option mappings are merged, entry by entry."""
        main(["train", "--config", str(run), *flags])
        expected = changed(dataclasses.asdict(read_config(run)[0]), way, value)
        assert [dataclasses.asdict(config) for config in captured] == [expected]
        captured.clear()
        main(["train", *flags, f"--config={run}"])
        assert [dataclasses.asdict(config) for config in captured] == [expected]

    def test_options_of_another_method_are_not_taken_over(
        self, run: Path, captured: list[Any]
    ) -> None:
        main(["train", "--config", str(run), "--method", "dfa", "--options", "depth=2"])
        assert captured[0].options == {"depth": 2}
        assert captured[0].task == read_config(run)[0].task

    def test_options_of_another_network_are_not_taken_over(
        self, run: Path, captured: list[Any]
    ) -> None:
        main(["train", "--config", str(run), "--model", "gru", "--model-options", "depth=1"])
        assert captured[0].task.model_options == {"depth": 1}
        assert captured[0].options["probe_every"] == 2

    def test_of_a_comparison(
        self, tmp_path: Path, captured: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = {
            "compare": {
                "methods": ["dfa", "fdfa"],
                "options": {"fdfa": {"probe_every": 2}, "dfa": {"depth": 2}},
                "seeds": 2,
            }
        }
        argv = ["compare", "--config", str(saved(tmp_path, content))]
        main(argv)
        assert captured.pop().options == {"fdfa": {"probe_every": 2}, "dfa": {"depth": 2}}
        main([*argv, "--options", "fdfa.noise=rademacher", "dfa.depth=1", "--seeds", "4"])
        found = captured.pop()
        assert found.options == {
            "fdfa": {"probe_every": 2, "noise": "rademacher"},
            "dfa": {"depth": 1},
        }
        assert (found.seeds, found.methods) == (4, ("dfa", "fdfa"))
        main([*argv, "--methods", "backpropagation", "fdfa"])
        found = captured.pop()
        assert found.methods == ("backpropagation", "fdfa")
        assert found.options == {"fdfa": {"probe_every": 2}}

    def test_shares_of_the_learning_rate(self, tmp_path: Path, captured: list[Any]) -> None:
        shares = {"fg-w": 0.5, "spsa": 0.25}
        content = {"compare": {"methods": ["fg-w", "spsa"], "rate_shares": shares}}
        argv = ["compare", "--config", str(saved(tmp_path, content))]
        main(argv)
        assert captured.pop().rate_shares == shares
        main([*argv, "--rate-shares", "fg-w=0.125"])
        assert captured.pop().rate_shares == {"fg-w": 0.125, "spsa": 0.25}
        main([*argv, "--methods", "spsa", "dfa"])
        assert captured.pop().rate_shares == {"spsa": 0.25}

    @pytest.mark.parametrize("kind", ["train", "compare"])
    def test_of_the_other_command(self, kind: str, tmp_path: Path, capsys: Any) -> None:
        other = {"train": "compare", "compare": "train"}[kind]
        path = saved(tmp_path, {other: {}})
        assert main([kind, "--config", str(path)]) == 2
        said = " ".join(capsys.readouterr().err.replace("│", " ").split())
        assert f"is of `fdfa {other}`. Write fdfa {other} --config" in said

    def test_two_of_them_are_one_too_many(self, run: Path, capsys: Any) -> None:
        assert main(["train", "--config", str(run), "--config", "x"]) == 2
        assert "--config is given twice" in capsys.readouterr().err

"""``config.json``: holds everything, and comes back as it was."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import typing
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

import fdfa
import fdfa.data
from fdfa.cli import main
from fdfa.errors import ConfigError
from fdfa.studies.compare import CompareConfig, compare
from fdfa.studies.environment import git_state
from fdfa.studies.records import from_json
from fdfa.studies.resume import read_config
from fdfa.studies.setup import Records, TrainConfig
from fdfa.studies.task import Task
from fdfa.studies.train import TrainReport, spelled_out, train
from fdfa.training import TrainingSettings
from tests.studies.config_files import UNUSUAL, Json, Path_
from tests.studies.folders import assert_same_comparisons, assert_same_runs


def leaves(content: Json, above: Path_ = ()) -> Iterator[Path_]:
    """The way to every value that holds no others."""
    if isinstance(content, dict) and content:
        for key, value in content.items():
            yield from leaves(value, (*above, key))
    else:
        yield above


def as_json(content: Json) -> Json:
    """A tuple and a list are the same there."""
    return json.loads(json.dumps(content))


class TestWhatIsWritten:
    def test_every_field_of_every_record(self, written: dict[str, Json]) -> None:
        def check(kind: Any, content: Json, where: str) -> None:
            hints = typing.get_type_hints(kind)
            assert set(content) == {field.name for field in dataclasses.fields(kind)}, where
            for name, value in content.items():
                if dataclasses.is_dataclass(hints[name]):
                    check(hints[name], value, f"{where}.{name}")

        check(TrainConfig, written["train"], "train")

    def test_every_default_is_spelled_out(self, tmp_path: Path) -> None:
        """Also those that depend on data, network and machine."""
        quick = TrainConfig(
            training=TrainingSettings(epochs=1, batch_size=512),
            task=Task(model_options={"width": 8}),
        )
        train(quick, out=tmp_path / "run")
        found = json.loads((tmp_path / "run" / "config.json").read_text())["train"]
        defaults = fdfa.methods()["fdfa"].options()
        assert found["options"] == defaults
        assert found["task"]["validation"] == 200
        assert found["task"]["model_options"] == {"width": 8, "depth": 2, "batch_norm": True}
        assert found["machine"] == {"threads": 1, "device": "cpu"}
        again = json.loads(json.dumps(found))
        assert dataclasses.asdict(from_json(TrainConfig, again, where="x")) == {
            **dataclasses.asdict(spelled_out(quick)),
            "machine": {"threads": 1, "device": "cpu"},
        }

    def test_the_environment(self, written: dict[str, Json]) -> None:
        found = written["environment"]
        assert found["fdfa"] == version("fdfa")
        assert found["torch"] == torch.__version__
        assert found["python"].count(".") == 2
        assert (found["threads"], found["processes"], found["device"]) == (1, 1, "cpu")

    def test_the_checksum_is_of_the_data_as_they_were_split(self, written: dict[str, Json]) -> None:
        data = fdfa.data.load("digits", validation=100)
        digest = hashlib.sha256()
        for part in (data.train, data.validation, data.test):
            digest.update(bytes(part.inputs.flatten().tolist()))
            for label in part.labels.tolist():
                digest.update(label.to_bytes(8, "little"))
        assert written["environment"]["data_sha256"] == digest.hexdigest()

    def test_the_state_of_the_users_code(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        git = shutil.which("git")
        if git is None:
            pytest.skip("needs git")

        def tell(*words: str) -> str:
            identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
            command = [git, "-C", str(tmp_path), *identity, *words]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            return done.stdout.strip()

        tell("init", "--quiet")
        assert git_state(tmp_path) is None, "there is no commit yet"
        (tmp_path / "network.py").write_text("one = 1\n")
        tell("add", "network.py")
        tell("commit", "--quiet", "-m", "one")
        commit = tell("rev-parse", "HEAD")
        (tmp_path / "notes.txt").write_text("not tracked")
        (tmp_path / "below").mkdir()
        assert git_state(tmp_path / "below") == {"commit": commit, "changed": False}
        (tmp_path / "network.py").write_text("one = 2\n")
        assert git_state(tmp_path) == {"commit": commit, "changed": True}
        monkeypatch.chdir(tmp_path)
        quick = TrainConfig(method="backpropagation", training=TrainingSettings(epochs=1))
        train(quick, out=tmp_path / "run")
        found = json.loads((tmp_path / "run" / "config.json").read_text())
        assert found["environment"]["git"] == {"commit": commit, "changed": True}
        monkeypatch.setenv("PATH", "")
        assert git_state(tmp_path) is None


class TestRoundTrip:
    def test_it_comes_back_as_it_was_given(self, run: Path) -> None:
        config, environment = read_config(run)
        assert isinstance(config, TrainConfig)
        chosen = dataclasses.asdict(UNUSUAL)
        chosen["options"] = {**fdfa.methods()["fdfa"].options(), **UNUSUAL.options}
        chosen["task"]["data_options"] = {}
        assert as_json(dataclasses.asdict(config)) == as_json(chosen)
        assert environment["torch"] == torch.__version__

    @pytest.mark.parametrize("name", ["config.json", ""], ids=["file", "folder"])
    def test_train_by_it_gives_the_same_to_the_last_bit(
        self, name: str, run: Path, tmp_path: Path
    ) -> None:
        argv = ["train", "--config", str(run / name), "--out", str(tmp_path / "again"), "--quiet"]
        assert main(argv) == 0
        assert_same_runs(tmp_path / "again", run)

    def test_compare_by_it_gives_the_same_to_the_last_bit(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fdfa.studies.speed._ENOUGH_SECONDS", 0.0)
        config = CompareConfig(
            methods=("dfa", "fdfa"),
            options={"fdfa": {"probe_every": 2}},
            seeds=1,
            first_seed=3,
            timing_rounds=11,
            task=Task(model_options={"width": 9}),
            training=TrainingSettings(epochs=1, batch_size=256),
        )
        compare(config, out=tmp_path / "first")
        argv = ["compare", "--config", str(tmp_path / "first"), "--quiet", "--out"]
        assert main([*argv, str(tmp_path / "again")]) == 0
        assert_same_comparisons(tmp_path / "again", tmp_path / "first")

    @pytest.mark.parametrize("generator", ["random", "numpy", "torch"])
    def test_a_network_that_draws_from_other_generators_comes_again(
        self, generator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        draws = {
            "random": "random.random()",
            "numpy": "numpy.random.rand()",
            "torch": "torch.rand(())",
        }
        (tmp_path / f"draws_{generator}.py").write_text(
            f"import {generator}\n"
            "from torch import nn\n"
            "class Network(nn.Module):\n"
            "    def __init__(self, inputs, classes):\n"
            "        super().__init__()\n"
            "        self.first, self.second = nn.Linear(inputs, 8), nn.Linear(8, classes)\n"
            "        for p in self.parameters():\n"
            "            p.data.copy_(p.data.new_ones(p.numel()).cumsum(0).cos().view_as(p) / 4)\n"
            "    def forward(self, x):\n"
            "        h = self.first(x.flatten(1)).relu()\n"
            f"        return self.second(h * (0.5 + {draws[generator]}) if self.training else h)\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        config = TrainConfig(
            task=Task(model=f"draws_{generator}:Network"),
            training=TrainingSettings(epochs=1, batch_size=2000),  # in whatever order: one batch
        )
        train(config, out=tmp_path / "first")
        train(config, out=tmp_path / "second")
        assert_same_runs(tmp_path / "second", tmp_path / "first")
        other = train(dataclasses.replace(config, seed=1)).run.epochs[0].train.loss
        assert abs(other - train(config).run.epochs[0].train.loss) > 1e-3, "the seed is not used"

    def test_a_network_without_bounds_on_its_records(self, tmp_path: Path) -> None:
        """What Python accepts must be readable when the run is resumed."""
        try:
            records = Records(checkpoint_seconds=float("inf"))
        except ConfigError:
            return
        quick = TrainConfig(records=records, training=TrainingSettings(epochs=1, batch_size=512))
        train(quick, out=tmp_path / "run")
        read_config(tmp_path / "run")


def test_a_report_of_a_run_that_holds_no_files_is_whole(run: Path) -> None:
    """``results.json`` is what `train` returns, and what `resume` returns of a finished run."""
    from fdfa.studies.resume import resume

    report = resume(run)
    assert isinstance(report, TrainReport)
    assert report.report() == json.loads((run / "results.json").read_text())

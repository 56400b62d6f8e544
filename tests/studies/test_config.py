"""``config.json``: holds everything, comes back as it was, and refuses what nobody wrote."""

from __future__ import annotations

import copy
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
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import fdfa
import fdfa.data
from fdfa.cli import main
from fdfa.cli import training as commands
from fdfa.errors import ConfigError
from fdfa.studies.compare import CompareConfig, compare
from fdfa.studies.environment import git_state
from fdfa.studies.records import from_json
from fdfa.studies.resume import read_config
from fdfa.studies.setup import Machine, Records, TrainConfig
from fdfa.studies.task import Task
from fdfa.studies.train import TrainReport, spelled_out, train
from fdfa.training import TrainingSettings
from tests.studies.folders import assert_same_comparisons, assert_same_runs

Json = Any
Path_ = tuple[str | int, ...]

# No value is its default, so that none can be lost unseen.
UNUSUAL = TrainConfig(
    method="fdfa",
    options={"feedback_rate": 0.05, "probe_every": 2, "noise": "rademacher", "taps": ("relu1",)},
    seed=11,
    task=Task(
        validation=100,
        augment=("crop",),
        model_options={"width": 9, "depth": 2, "batch_norm": False},
    ),
    training=TrainingSettings(
        epochs=3,
        batch_size=128,
        accumulate=2,
        optimizer="sgd",
        learning_rate=0.02,
        schedule="cosine",
        decay=0.9,
        warmup_epochs=0.5,
        momentum=0.8,
        weight_decay=1e-4,
        clip_norm=3.0,
        patience=2,
        precision="bfloat16",
    ),
    records=Records(checkpoint_seconds=33.0, checkpoint_steps=7, log_steps=3),
    machine=Machine(threads=1, device="cpu"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all that is unusual."""
    out = tmp_path_factory.mktemp("config") / "run"
    assert train(UNUSUAL, out=out).run.failure is None
    return out


@pytest.fixture(scope="module")
def written(run: Path) -> dict[str, Json]:
    content: dict[str, Json] = json.loads((run / "config.json").read_text())
    return content


def leaves(content: Json, above: Path_ = ()) -> Iterator[Path_]:
    """The way to every value that holds no others."""
    if isinstance(content, dict) and content:
        for key, value in content.items():
            yield from leaves(value, (*above, key))
    else:
        yield above


def keys(content: Json, above: Path_ = ()) -> Iterator[Path_]:
    """The way to every key."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield (*above, key)
            yield from keys(value, (*above, key))


def at(content: Json, way: Path_) -> Json:
    for key in way:
        content = content[key]
    return content


def changed(content: Json, way: Path_, value: Json) -> Json:
    content = copy.deepcopy(content)
    at(content, way[:-1])[way[-1]] = value
    return content


def as_json(content: Json) -> Json:
    """A tuple and a list are the same there."""
    return json.loads(json.dumps(content))


def saved(folder: Path, content: Json) -> Path:
    path = folder / "mine.json"
    path.write_text(json.dumps(content))
    return path


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


def misspelt(key: str) -> str:
    return key[:-1] + "x" if len(key) > 4 else key + "x"


class TestWhatNobodyWrote:
    def test_every_misspelt_key_is_told_with_the_nearest(
        self, written: dict[str, Json], tmp_path: Path
    ) -> None:
        """One at a time, at every depth."""
        tried = 0
        for way in keys({"train": written["train"]}):
            content = copy.deepcopy(written)
            record = at(content, way[:-1])
            key = way[-1]
            assert isinstance(key, str)
            record[misspelt(key)] = record.pop(key)
            with pytest.raises(ConfigError) as caught:
                _read_and_resolve(saved(tmp_path, content))
            text = str(caught.value)
            if len(way) > 1:
                assert f"'{misspelt(key)}'" in text, way
                assert f"Did you mean '{key}'" in text, way
            else:
                assert misspelt(key) in text
            tried += 1
        assert tried > 40

    @pytest.mark.parametrize(
        ("way", "value", "words"),
        [
            (("seed",), "3", r"train.seed must be a whole number, not '3'"),
            (("seed",), 1.0, r"train.seed must be a whole number, not 1\.0"),
            (("seed",), True, "train.seed must be a whole number, not true"),
            (("seed",), None, "train.seed must be a whole number, not null"),
            (("seed",), -1, "seed=-1"),
            (("seed",), 10**30, "seed=10000"),
            (("method",), None, "train.method must be a text"),
            (("method",), "fdfb", "Did you mean 'fdfa'"),
            (("options",), [], "train.options must be an object"),
            (("options",), {"depht": 2}, "Did you mean 'depth'"),
            (("task",), None, "train.task must be an object"),
            (("task", "augment"), "crop", "train.task.augment must be a list"),
            (("task", "augment"), ["flop"], r"augment\[0\].*Did you mean 'flip'"),
            (("task", "validation"), 1.5, "train.task.validation must be a whole number"),
            (("task", "data"), "digit", "Did you mean 'digits'"),
            (("task", "model"), "lenett", "Did you mean 'lenet'"),
            (("task", "model_options"), {"widht": 3}, "Did you mean 'width'"),
            (("task", "data_dir"), 3, "train.task.data_dir must be a text"),
            (("training", "epochs"), 0, "epochs=0"),
            (("training", "optimizer"), "adm", "Did you mean 'adam'"),
            (("training", "optimizer"), None, "optimizer"),
            (("training", "learning_rate"), "fast", "learning_rate must be a number"),
            (("training", "learning_rate"), None, "learning_rate"),
            (("training", "learning_rate"), 10**400, "learning_rate"),
            (("training", "patience"), "2", "train.training.patience must be a whole number"),
            (("records", "log"), ["tensorbord"], "Did you mean 'tensorboard'"),
            (("records", "checkpoint_seconds"), None, "checkpoint_seconds"),
            (("machine", "threads"), 0, "threads=0"),
            (("machine", "threads"), 10**9, "threads=1000000000"),
            (("machine", "device"), None, "train.machine.device must be a text"),
        ],
    )
    def test_a_value_that_cannot_be_is_told_with_its_place(
        self, way: Path_, value: Json, words: str, written: dict[str, Json], tmp_path: Path
    ) -> None:
        path = saved(tmp_path, changed(written, ("train", *way), value))
        with pytest.raises(ConfigError, match=words):
            _read_and_resolve(path)

    @pytest.mark.parametrize(
        "text",
        [
            *("", "{", "null", "3", "[]", "{}", '"train"', "\x00", "[" * 100_000, "NaN"),
            *('{"train": {}, "compare": {}}', '{"trian": {}}', '{"train": {}, "more": 1}'),
            *('{"train": null}', '{"train": []}', '{"environment": {}}', '{"compare": 1}'),
            '{"train": {"seed": 1' + "0" * 5000 + "}}",
        ],
        ids=range(18),
    )
    def test_what_is_no_configuration(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(text)
        for path in (tmp_path, tmp_path / "config.json"):
            with pytest.raises(ConfigError, match=r"config\.json"):
                read_config(path)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="there is no run"):
            read_config(tmp_path / "nothing")

    def test_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_bytes(b'{"train": {"method": "\xff\xfe"}}')
        with pytest.raises(ConfigError, match="cannot be read"):
            read_config(tmp_path)


def _read_and_resolve(path: Path) -> None:
    """As far as a configuration is looked at without data."""
    config, _ = read_config(path)
    assert isinstance(config, TrainConfig)
    spelled_out(config)


# Every kind of value that JSON knows, those at the borders above all.
anything = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([0, 1, -1, 2**63, 10**400]),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(["fdfa", "digits", "auto", "adam", "crop", "train", "resnet20", "a:b"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


class TestAnyFile:
    """A configuration or a ConfigError, never anything else."""

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(content=anything)
    @example(content={"train": {"task": {"model_options": None}}})
    def test_any_json(self, content: Json, scratch: Path) -> None:
        self.is_read_or_refused(scratch, content)
        self.is_read_or_refused(scratch, {"train": content})
        self.is_read_or_refused(scratch, {"compare": content, "environment": content})

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.data())
    def test_one_value_changed(
        self, data: st.DataObject, written: dict[str, Json], scratch: Path
    ) -> None:
        content = {"train": written["train"]}
        way = data.draw(st.sampled_from(sorted(keys(content), key=str)))
        self.is_read_or_refused(scratch, changed(content, way, data.draw(anything)))

    @staticmethod
    def is_read_or_refused(folder: Path, content: Json) -> None:
        path = saved(folder, content)
        try:
            config, environment = read_config(path)
            assert isinstance(environment, dict)
            if isinstance(config, TrainConfig) and ":" not in config.task.model:
                spelled_out(config)
        except ConfigError as error:
            assert str(error)  # noqa: PT017  # it has something to say


def test_a_report_of_a_run_that_holds_no_files_is_whole(run: Path) -> None:
    """``results.json`` is what `train` returns, and what `resume` returns of a finished run."""
    from fdfa.studies.resume import resume

    report = resume(run)
    assert isinstance(report, TrainReport)
    assert report.report() == json.loads((run / "results.json").read_text())

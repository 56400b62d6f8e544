"""``config.json`` that nobody wrote is refused, with the place of what is wrong."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fdfa.errors import ConfigError
from fdfa.studies.resume import read_config
from fdfa.studies.setup import TrainConfig
from fdfa.studies.train import spelled_out
from tests.studies.config_files import Json, Path_, at, changed, keys, saved


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

"""What is sent to sinks, and that ours send it on: TensorBoard's own reader, stand-ins for W&B."""

from __future__ import annotations

import pathlib
import sys
import tomllib
import types
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from fdfa.errors import ConfigError
from fdfa.training import (
    Callback,
    LogTo,
    Processes,
    Sink,
    StepResult,
    TensorBoard,
    Trainer,
    TrainingInterrupted,
    TrainingSettings,
    WeightsAndBiases,
    capture,
    restore,
)
from tests.training.networks import dense, points

SETTINGS = TrainingSettings(epochs=2, batch_size=8, decay=0.5)  # 3 steps an epoch


class Listener:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def open(self, step: int) -> None:
        self.heard.append(("open", step))

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        self.heard.append((step, dict(values)))

    def close(self) -> None:
        self.heard.append("close")


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        trainer.stop_requested = result.step == self.step


def trained(sink: Sink, *, stop: int = 0, every: int | None = None) -> tuple[Trainer, Any]:
    trainer = Trainer(dense(), SETTINGS, callbacks=[LogTo(sink, every_steps=every), StopAt(stop)])
    if stop:
        with pytest.raises(TrainingInterrupted):
            trainer.fit(points(), points(12))
        return trainer, None
    return trainer, trainer.fit(points(), points(12))


def test_each_epoch_by_name() -> None:
    listener = Listener()
    _, results = trained(listener)
    assert listener.heard == [
        ("open", 0),
        *(
            (
                result.step,
                {
                    "train/accuracy": result.train.accuracy,
                    "train/loss": result.train.loss,
                    "validation/accuracy": result.validation.accuracy,
                    "validation/loss": result.validation.loss,
                    "learning_rate": result.learning_rate,
                    "seconds": result.seconds,
                },
            )
            for result in results
        ),
        "close",
    ]


def test_without_validation() -> None:
    listener = Listener()
    Trainer(dense(), SETTINGS, callbacks=[LogTo(listener)]).fit(points())
    assert set(listener.heard[1][1]) == {"train/accuracy", "train/loss", "learning_rate", "seconds"}


def test_steps_on_demand() -> None:
    listener = Listener()
    trained(listener, every=2)
    steps = [entry for entry in listener.heard[1:-1] if "step/loss" in entry[1]]
    assert [step for step, _ in steps] == [2, 4, 6]
    assert [values["step/learning_rate"] for _, values in steps] == [0.001, 0.0005, 0.0005]
    assert all(set(values) == {"step/loss", "step/learning_rate"} for _, values in steps)


@pytest.mark.parametrize("every", [0, -1, 1.5])
def test_a_number_of_steps_that_is_none_is_refused(every: Any) -> None:
    with pytest.raises(ConfigError, match=rf"every_steps={every!r}"):
        LogTo(Listener(), every_steps=every)


def test_closed_when_stopped_and_opened_again_where_it_goes_on() -> None:
    first, second = Listener(), Listener()
    trainer, _ = trained(first, stop=4)
    assert first.heard[-1] == "close"
    again = Trainer(dense(5), SETTINGS, callbacks=[LogTo(second)])
    restore(again, capture(trainer))
    again.fit(points(), points(12))
    assert second.heard[0] == ("open", 4)
    assert [entry[0] for entry in second.heard[1:-1]] == [6]


def test_only_the_first_process_speaks() -> None:
    listener = Listener()
    trainer = Trainer(dense(), SETTINGS)
    trainer.processes = Processes(rank=1, count=2)
    log = LogTo(listener, every_steps=1)
    log.training_started(trainer)
    log.step_finished(trainer, StepResult(1, 1, 0.5, 1.0, 0.1))
    log.training_finished(trainer)
    log.training_interrupted(trainer)
    assert listener.heard == []


# ----- TensorBoard.


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither package is installed, whatever is."""
    for name in ("torch.utils.tensorboard", "tensorboard", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("without")
def test_a_missing_package_is_named_with_the_way_to_install_it(tmp_path: pathlib.Path) -> None:
    text = r"TensorBoard needs the package tensorboard.*pip install 'fdfa\[tensorboard\]'"
    with pytest.raises(ConfigError, match=text):
        TensorBoard(tmp_path)
    text = r"Weights & Biases needs the package wandb.*pip install 'fdfa\[wandb\]'"
    with pytest.raises(ConfigError, match=text):
        WeightsAndBiases(project="p", name="n", folder=tmp_path)


def test_the_extras_that_the_texts_speak_of_exist() -> None:
    text = pathlib.Path(__file__).parents[2].joinpath("pyproject.toml").read_text(encoding="utf-8")
    assert {"tensorboard", "wandb"} <= tomllib.loads(text)["project"][
        "optional-dependencies"
    ].keys()


class Writer:
    """Stands in for ``SummaryWriter``; keeps to its signature."""

    made: list[Writer]

    def __init__(self, log_dir: Any = None, *, purge_step: int | None = None) -> None:
        self.log_dir, self.purge_step = log_dir, purge_step
        self.calls: list[Any] = []
        self.made.append(self)

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.calls.append((tag, scalar_value, global_step))

    def flush(self) -> None:
        self.calls.append("flush")

    def close(self) -> None:
        self.calls.append("close")


def test_tensorboard_stand_in(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Writer.made = []
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    trainer, _ = trained(TensorBoard(tmp_path), stop=4)
    again = Trainer(dense(5), SETTINGS, callbacks=[LogTo(TensorBoard(tmp_path))])
    restore(again, capture(trainer))
    again.fit(points(), points(12))
    first, second = Writer.made
    assert (first.purge_step, second.purge_step) == (1, 5)
    assert first.log_dir == tmp_path
    assert {call[2] for call in first.calls if isinstance(call, tuple)} == {3}
    assert first.calls[-2:] == ["flush", "close"]
    assert ("train/loss", 6) in {(call[0], call[2]) for call in second.calls[:-2]}


def test_tensorboard_reads_it_back(tmp_path: pathlib.Path) -> None:
    """After a resume each step stands once, though lines after the checkpoint were written."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, results = trained(TensorBoard(tmp_path / "whole"), every=1)
    trained(TensorBoard(tmp_path / "cut"), stop=5, every=1)
    checkpoint = capture(trained(Listener(), stop=4)[0])  # a step before the last that was sent
    log = LogTo(TensorBoard(tmp_path / "cut"), every_steps=1)
    again = Trainer(dense(5), SETTINGS, callbacks=[log])
    restore(again, checkpoint)
    again.fit(points(), points(12))
    found = []
    for folder in (tmp_path / "whole", tmp_path / "cut"):
        reader = EventAccumulator(str(folder))
        reader.Reload()
        tags = set(reader.Tags()["scalars"])
        found.append(
            {
                tag: [(event.step, event.value) for event in reader.Scalars(tag)]
                for tag in tags - {"seconds"}
            }
        )
    assert found[0] == found[1]
    assert [step for step, _ in found[0]["step/loss"]] == [1, 2, 3, 4, 5, 6]
    expected = [torch.tensor(result.validation.loss).item() for result in results]  # float32
    assert [value for _, value in found[0]["validation/loss"]] == expected


# ----- Weights & Biases.


class Run:
    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.calls: list[Any] = []

    def log(self, data: dict[str, Any], step: int | None = None) -> None:
        self.calls.append((step, data))

    def finish(self) -> None:
        self.calls.append("finish")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The runs that a stand-in for wandb was asked for."""
    found: list[Run] = []
    identities = iter(["first", "second", "third"])

    def init(**options: Any) -> Run:
        found.append(Run(options))
        return found[-1]

    module = types.ModuleType("wandb")
    module.init = init  # type: ignore[attr-defined]
    module.util = types.SimpleNamespace(  # type: ignore[attr-defined]
        generate_id=lambda: next(identities)
    )
    monkeypatch.setitem(sys.modules, "wandb", module)
    return found


def board(folder: pathlib.Path) -> WeightsAndBiases:
    return WeightsAndBiases(project="p", name="n", folder=folder, config={"epochs": 2})


def test_weights_and_biases_goes_on_in_the_same_run(
    tmp_path: pathlib.Path, runs: list[Run]
) -> None:
    trainer, _ = trained(board(tmp_path / "new"), stop=4)
    again = Trainer(dense(5), SETTINGS, callbacks=[LogTo(board(tmp_path / "new"))])
    restore(again, capture(trainer))
    results = again.fit(points(), points(12))
    assert [run.options["id"] for run in runs] == ["first", "first"]
    assert [run.options["resume"] for run in runs] == ["allow", "allow"]
    for run in runs:
        assert (run.options["project"], run.options["name"]) == ("p", "n")
        assert run.options["config"] == {"epochs": 2}
        assert run.calls[-1] == "finish"
    step, values = runs[1].calls[0]
    assert step == 6
    assert values["train/loss"] == results[-1].train.loss


def test_weights_and_biases_starts_a_run_of_its_own_for_a_new_training(
    tmp_path: pathlib.Path, runs: list[Run]
) -> None:
    """Also in a folder that an earlier one has used."""
    for _ in range(2):
        trained(board(tmp_path))
    assert [run.options["id"] for run in runs] == ["first", "second"]

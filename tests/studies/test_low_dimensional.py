"""The reproduction of low-dimensional feedback: what it trains, measures and expects."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from fdfa.studies.reproduce import low_dimensional_feedback as low
from fdfa.studies.reproduce import reproduce
from fdfa.studies.reproduce.findings import Findings
from fdfa.studies.reproduce.low_dimensional_feedback import LowDimensionalFeedbackSettings
from fdfa.training import StepResult, Trainer

FEEDBACK = LowDimensionalFeedbackSettings(data="digits", ranks=(2,), epochs=1, seeds=1, width=8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Findings, Path]:
    """The smallest low-dimensional feedback."""
    out = tmp_path_factory.mktemp("low") / "run"
    return reproduce("low-dimensional-feedback", FEEDBACK, out=out), out


class TestLowDimensionalFeedback:
    def test_every_training_has_a_folder_of_its_own(self, made: tuple[Findings, Path]) -> None:
        found, out = made
        names = [
            "backpropagation, seed 0",
            "Q and P fixed, rank 2, seed 0",
            "Q learned, rank 2, seed 0",
            "Q and P learned, rank 2, seed 0",
        ]
        assert list(found.units) == names
        options = {}
        for folder in (out / "runs").iterdir():
            config = json.loads((folder / "config.json").read_text())["train"]
            options[folder.name] = config["options"]
            assert config["training"]["optimizer"] == "sgd"
            assert config["task"]["model_options"] == {
                "width": 8,
                "depth": 4,
                "batch_norm": False,
            }
        learned = {
            name: (given["learn_q"], given["learn_p"], given["rank"])
            for name, given in options.items()
            if "rank" in given
        }
        assert learned == {
            "q-and-p-fixed-rank-2-seed-0": (False, False, 2),
            "q-learned-rank-2-seed-0": (True, False, 2),
            "q-and-p-learned-rank-2-seed-0": (True, True, 2),
        }
        # eta lam / (1 - mu), at the rate 0.02
        assert options["q-learned-rank-2-seed-0"]["decay"] == pytest.approx(0.02 * 1e-3 / 0.1)

    def test_what_is_measured(self, made: tuple[Findings, Path]) -> None:
        found, out = made
        assert found.units == json.loads((out / "results.json").read_text())["units"]
        exact = found.units["backpropagation, seed 0"]
        assert 0 <= exact["accuracy"] <= 1
        assert list(exact["cosines"].values()) == pytest.approx([1.0] * 5, abs=1e-6)
        other = found.units["Q and P fixed, rank 2, seed 0"]
        assert list(other["cosines"]) == list(exact["cosines"])
        assert next(iter(other["cosines"].values())) < 0.9
        assert list(other["cosines"].values())[-1] == pytest.approx(1.0, abs=1e-6)

    def test_the_same_call_goes_on(
        self, made: tuple[Findings, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is there is not trained again, only what is missing."""
        found, out = made
        kept = json.loads((out / "units.json").read_text())
        lost = kept.pop("Q learned, rank 2, seed 0")
        (out / "units.json").write_text(json.dumps(kept))
        trained = []
        real = low.perform

        def watched(config: Any, *args: Any, **more: Any) -> Any:
            trained.append(config.options.get("learn_q"))
            return real(config, *args, **more)

        monkeypatch.setattr(low, "perform", watched)
        again = reproduce("low-dimensional-feedback", FEEDBACK, out=out)
        assert trained == [True]
        assert again.units["Q learned, rank 2, seed 0"] == lost
        assert again.report()["expectations"] == found.report()["expectations"]

    @pytest.mark.slow
    def test_a_training_goes_on_where_it_was_interrupted(
        self, made: tuple[Findings, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In the middle of the last training: the end is that without an interruption."""

        class Impatient(low._Epochs):
            def step_finished(self, trainer: Trainer, result: StepResult) -> None:
                steps.append(result.step)
                if impatient and self.name.startswith("Q and P learned") and result.step == 5:
                    trainer.stop_requested = True

        steps: list[int] = []
        impatient = [True]
        monkeypatch.setattr(low, "_Epochs", Impatient)
        with pytest.raises(KeyboardInterrupt):
            reproduce("low-dimensional-feedback", FEEDBACK, out=tmp_path / "run")
        steps.clear()
        impatient.clear()
        found = reproduce("low-dimensional-feedback", FEEDBACK, out=tmp_path / "run")
        assert steps == list(range(6, 22))
        assert found.units == made[0].units

    def test_long_trainings_speak_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(low._Epochs, "SILENCE", 0.0)
        lines: list[str] = []
        reproduce("low-dimensional-feedback", FEEDBACK, told=lines.append)
        assert lines[0] == "backpropagation, seed 0: epoch 1/1"
        assert lines[1].startswith("backpropagation, seed 0: test accuracy ")

    def test_the_knee(self) -> None:
        """With accuracies made up: learned feedback has all it needs at rank 9."""
        settings = LowDimensionalFeedbackSettings(seeds=2)
        accuracy = {2: 0.3, 5: 0.4, 9: 0.52, 10: 0.52, 64: 0.525}
        units: dict[str, Any] = {}

        def put(name: str, accuracy: float, cosine: float) -> None:
            cosines = {str(layer): cosine for layer in range(5)}
            for seed, off in ((0, -0.01), (1, 0.01)):
                units[f"{name}, seed {seed}"] = {"accuracy": accuracy + off, "cosines": cosines}

        put("backpropagation", 0.525, 1.0)
        for rank, value in accuracy.items():
            put(f"Q and P fixed, rank {rank}", value - 0.1, 0.2)
            put(f"Q learned, rank {rank}", value - 0.05, 0.4)
            put(f"Q and P learned, rank {rank}", value, 0.7)
        found = low.expectations(settings, units)
        assert [expectation.met for expectation in found] == [True] * 6
        assert [expectation.found for expectation in found] == pytest.approx(
            [-0.005, 0.1, 0.7, 0.2, 0.005, 0.115]
        )
        put("Q and P learned, rank 9", 0.45, 0.7)
        put("Q and P fixed, rank 10", 0.515, 0.5)
        met = [expectation.met for expectation in low.expectations(settings, units)]
        assert met == [True, False, True, False, False, False]
        for change in ({"epochs": 2}, {"width": 8}, {"data": "mnist"}, {"learning_rate": 0.5}):
            other = dataclasses.replace(settings, **change)
            assert [e.met for e in low.expectations(other, units)] == [None] * 6

    def test_the_data_set_says_how_many_classes_there_are(self) -> None:
        settings = LowDimensionalFeedbackSettings(data="emnist", ranks=(5, 10, 46, 47, 64), seeds=1)
        units: dict[str, Any] = {"backpropagation, seed 0": {"accuracy": 0.9, "cosines": {}}}
        for rank in settings.ranks:
            for rule, more in (("Q and P fixed", 0), ("Q and P learned", 10)):
                unit = {"accuracy": (rank + more) / 100, "cosines": {"0": rank / 100}}
                units[f"{rule}, rank {rank}, seed 0"] = unit
        found = [(e.what, e.found, e.met) for e in low.expectations(settings, units)]
        assert [(what[:7], met) for what, _, met in found[:4]] == [("rank 47", None)] * 4
        assert [value for _, value, _ in found] == pytest.approx(
            [-0.33, 0.1, 0.47, 0.47, 0.18, 0.23]
        )
        assert found[-1][0].endswith("from rank 5 to 46, less that from 46 to 64")
        marks = {panel.marks for panel in low.panels(settings, units | _of_both(settings))}
        assert marks == {(46.0,)}
        unknown = dataclasses.replace(settings, data="tensors")
        assert low.expectations(unknown, units) == []
        assert {panel.marks for panel in low.panels(unknown, units | _of_both(unknown))} == {()}


def _of_both(settings: LowDimensionalFeedbackSettings) -> dict[str, Any]:
    return {
        f"Q learned, rank {rank}, seed 0": {"accuracy": 0.5, "cosines": {"0": 0.5}}
        for rank in settings.ranks
    }

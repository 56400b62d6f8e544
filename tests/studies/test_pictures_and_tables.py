"""Learning curves and tables from results made up by hand."""

from __future__ import annotations

import importlib.util
import io
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from rich.console import Console, RenderableType
from torch import nn

import fdfa
from fdfa.methods import methods
from fdfa.studies.explain import explain
from fdfa.studies.explanation_report import explanation_report
from fdfa.studies.listings import methods_report
from fdfa.studies.plots import learning_curves, write_learning_curves
from fdfa.studies.progress import reported_progress
from fdfa.studies.report import files_line, training_report
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.runs import Run
from fdfa.studies.train import TrainReport
from fdfa.training import EpochResult, Score, StepResult, Trainer, TrainingSettings


def epoch(number: int, accuracy: float) -> EpochResult:
    validation = Score(accuracy, 1 - accuracy)
    return EpochResult(number, 10 * number, Score(0.5, 1.0), validation, 0.1, 2.0)


def run(method: str, seed: int, *accuracies: float, failure: str | None = None) -> Run:
    epochs = tuple(epoch(number, accuracy) for number, accuracy in enumerate(accuracies, 1))
    test = None if failure else Score(accuracies[-1], 0.25)
    cosine = math.nan if failure else 0.5
    return Run(method, seed, epochs, test, {}, cosine, failure)


RUNS = (
    run("backpropagation", 0, 0.5, 0.9),
    run("backpropagation", 1, 0.7, 0.9),
    run("fdfa", 0, 0.4, 0.875),
    run("fdfa", 1, 0.6, failure="the loss is nan"),
)


def shown(renderable: RenderableType, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(renderable)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_curves_show_mean_and_band_of_the_validation() -> None:
    figure = learning_curves(RUNS, subject="digits")
    accuracy, loss = figure.axes
    line = accuracy.get_lines()[0]
    assert line.get_label() == "backpropagation"
    assert list(line.get_xdata()) == [1, 2]
    assert list(line.get_ydata()) == pytest.approx([60, 90])
    # fdfa's second run went on for one epoch only: its mean is over the runs that got there
    assert list(accuracy.get_lines()[1].get_ydata()) == pytest.approx([50, 87.5])
    band = accuracy.collections[0].get_paths()[0].get_extents()
    assert (band.ymin, band.ymax) == pytest.approx((50, 90))
    assert list(loss.get_lines()[0].get_ydata()) == pytest.approx([0.4, 0.1])


def test_curves_say_what_they_are() -> None:
    figure = learning_curves(RUNS, subject="digits, lenet")
    labels = [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes]
    assert labels == [
        ("epoch", "validation accuracy (%)"),
        ("epoch", "validation loss (nats per example)"),
    ]
    assert "digits, lenet" in figure.get_suptitle()
    assert "2 seeds" in figure.get_suptitle()


def test_methods_differ_in_colour_and_in_style() -> None:
    names = [f"method {number}" for number in range(5)]
    figure = learning_curves([run(name, 0, 0.5, 0.6) for name in names], subject="digits")
    lines = figure.axes[0].get_lines()
    assert len({line.get_color() for line in lines}) == 5
    # the public linestyle of a dash pattern is "--" for all of them
    assert len({str(line._unscaled_dash_pattern) for line in lines}) == 5


def test_many_methods_leave_the_curves_their_room() -> None:
    figure = learning_curves([run(name, 0, 0.5, 0.6) for name in methods()], subject="digits")
    figure.canvas.draw()
    heights = [axes.get_window_extent().height for axes in figure.axes]
    assert min(heights) > 0.4 * figure.bbox.height
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(methods())


def test_pictures_are_written_and_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with RunFolder.fresh(tmp_path / name) as folder:
            assert write_learning_curves(RUNS, folder, subject="digits") == ()
    png = (tmp_path / "a" / "learning_curves.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    svg = (tmp_path / "a" / "learning_curves.svg").read_bytes()
    picture = ElementTree.fromstring(svg)  # noqa: S314  # our own
    texts = [element.text for element in picture.iter() if element.text]
    assert "validation accuracy (%)" in texts, "text became outlines"
    assert png == (tmp_path / "b" / "learning_curves.png").read_bytes()
    assert svg == (tmp_path / "b" / "learning_curves.svg").read_bytes()


def test_without_matplotlib_a_note_says_how_to_get_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (note,) = write_learning_curves(RUNS, RunFolder(tmp_path), subject="digits")
    assert "pip install 'fdfa[plots]'" in note
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("width", [80, 120])
def test_the_methods_have_one_line_each(width: int) -> None:
    lines = shown(methods_report(), width)
    assert all(len(line) <= width for line in lines)
    for method in methods().values():
        (row,) = [line for line in lines if line.startswith(f" {method.name} ")]
        words = row.split()
        answers = ["no", "yes"]
        assert words[:5] == [
            method.name,
            answers[not method.backward_pass_free],
            answers[not method.weight_transport_free],
            answers[method.forward_unlocked],
            answers[method.probes],
        ]
        assert row.endswith(f" {method.products}")
        assert any(line.startswith(f"{method.name} ") for line in lines), "no sentence about it"


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("method", ["backpropagation", "dfa", "fdfa"])
def test_an_explanation_has_one_line_a_tap_and_layer(method: str, width: int) -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2304, 10))
    found = explain(fdfa.wrap(method, model), torch.zeros(64, 3, 8, 8))
    lines = shown(explanation_report(found, subject="made up"), width)
    assert all(len(line) <= width for line in lines)
    assert lines[0] == f"{method} on made up: batches of 64, output (64, 10)"
    taps = [line.split() for line in lines if line.startswith(" 2 ")]
    if method == "backpropagation":
        assert "No taps: nothing is cut" in lines
    else:
        assert ["2", "Flatten", "64x2304", "2,304", "10x2304", "90.0", "KiB"] in taps
    (convolution,) = [line.split() for line in lines if line.startswith(" 0 ")]
    assert convolution == ["0", "3.98", "3.98", "-", "-"]
    assert any(f"{found.products.ratio:.2f} times" in line for line in lines)


def test_an_obstacle_is_shown() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    found = explain(fdfa.FDFA(model), torch.zeros(4, 2))
    found = type(found)(**{**vars(found), "obstacles": ("module '1' has no forward derivative",)})
    text = " ".join(shown(explanation_report(found, subject="made up"), 80))
    assert "Cannot be probed: module '1' has no forward derivative" in text
    assert "passes through the whole network" not in text


def test_the_end_of_a_training() -> None:
    (line,) = shown(training_report(TrainReport(RUNS[0], 12)), 200)
    assert "test accuracy 90.00 %, test loss 0.2500" in line
    assert shown(training_report(TrainReport(RUNS[3], 12)), 200) == ["fdfa: failed"]


def test_files_are_named() -> None:
    assert files_line([]) == ""
    paths = [Path("runs/a b/config.json"), Path("runs/a b/results.json")]
    assert files_line(paths) == "Written to runs/a b: config.json, results.json"


def narrate(console: Console, *, runs: int, quiet: bool = False) -> None:
    trainer = Trainer(nn.Linear(2, 2), TrainingSettings(epochs=2))
    with reported_progress(console, runs=runs, epochs=2, quiet=quiet) as observer:
        observer.measuring_costs()
        for made in RUNS[:runs]:
            observer.run_started(made.method, made.seed)
            for result in made.epochs:
                step = StepResult(result.epoch, result.step, 1.0, 0.5, result.learning_rate)
                observer.step_finished(trainer, step)
                observer.epoch_finished(trainer, result)
            observer.run_finished(made)


def said(*, runs: int, quiet: bool = False, terminal: bool = False) -> str:
    out = io.StringIO()
    narrate(Console(file=out, width=80, force_terminal=terminal), runs=runs, quiet=quiet)
    return out.getvalue()


def test_a_file_gets_one_plain_line_a_run() -> None:
    lines = said(runs=4).splitlines()
    numbers = "train loss 1.0000, validation loss 0.1000, accuracy 90.00 %"
    assert lines[0] == "measuring time and memory of a step ..."
    assert [line.split(" (")[0] for line in lines[1:]] == [
        f"[1/4] backpropagation, seed 0: {numbers}",
        f"[2/4] backpropagation, seed 1: {numbers}",
        "[3/4] fdfa, seed 0: train loss 1.0000, validation loss 0.1250, accuracy 87.50 %",
        "[4/4] fdfa, seed 1: failed after 1 of 2 epochs",
    ]


def test_a_single_run_gets_a_line_an_epoch() -> None:
    lines = said(runs=1).splitlines()
    assert [line.split(",")[1] for line in lines[1:]] == [
        " seed 0: epoch 1/2",
        " seed 0: epoch 2/2",
    ]


def test_long_runs_speak_up_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fdfa.studies.progress.PlainProgress.SILENCE", 0.0)
    assert said(runs=2).count("epoch ") == 4


def test_quiet_is_quiet() -> None:
    assert said(runs=2, quiet=True) == said(runs=2, quiet=True, terminal=True) == ""


def test_a_terminal_gets_a_bar() -> None:
    text = said(runs=2, terminal=True)
    assert "fdfa" not in text
    assert "[2/2] backpropagation, seed 1:" in text
    assert "\x1b[" in text

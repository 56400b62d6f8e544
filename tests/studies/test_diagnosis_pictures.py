"""Curves and pictures of diagnoses, from lines and networks made up by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fdfa.studies.diagnosed import Likeness
from fdfa.studies.diagnosis_curves import Diagnoses, band_of, read_diagnoses
from fdfa.studies.diagnosis_pictures import angle_picture, error_picture, feedback_picture
from fdfa.studies.network_pictures import first_kernels, kernel_picture, representation_picture
from fdfa.studies.run_folder import RunFolder

LAYERS = ("one.weight", "two.weight")
PARTS = {"noise": 0.1, "lag": 0.2, "spread": 0.1, "projection": 0.0, "coupling": 0.15}


def made(*angles: float, taps: bool = True, feedback: float = 0.5) -> Diagnoses:
    tap = {"feedback_error": feedback, "total": 0.5, "interaction": -0.05, **PARTS}
    return Diagnoses(
        {
            100 * number: {
                "parameters": {"one.weight": {"angle": angle}, "two.weight": {"angle": 5.0}},
                "taps": {"relu1": tap, "relu2": tap} if taps else {},
            }
            for number, angle in enumerate(angles, 1)
        }
    )


RULES = {
    "backpropagation": [made(0.0, 0.0, taps=False), made(0.0, 0.0, taps=False)],
    "fdfa": [made(60.0, 20.0), made(40.0, 30.0)],
}


def line_of(axes: Any, label: str) -> Any:
    (found,) = [line for line in axes.get_lines() if line.get_label() == label]
    return found


def bands(axes: Any) -> list[Any]:
    return [c.get_paths()[0].get_extents() for c in axes.collections]


def test_angles_are_means_with_bands_layer_by_layer() -> None:
    figure = angle_picture(RULES, LAYERS, subject="digits, dense")
    first, second = figure.axes
    assert (first.get_title(), second.get_title()) == LAYERS
    assert list(line_of(first, "fdfa").get_xdata()) == [100, 200]
    assert list(line_of(first, "fdfa").get_ydata()) == [50, 25]
    assert [(band.ymin, band.ymax) for band in bands(first)] == [(0, 0), (20, 60)]
    assert figure.get_supylabel() == "angle to the true gradient (°)"
    assert {axes.get_xlabel() for axes in figure.axes} == {"optimiser steps"}
    assert figure.get_suptitle() == (
        "digits, dense; mean of 2 seeds, bands from the lowest to the highest"
    )
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["backpropagation", "fdfa"]


def test_one_seed_has_no_band() -> None:
    figure = angle_picture({"dfa": [made(80.0, 70.0)]}, LAYERS, subject="digits")
    assert [bands(axes) for axes in figure.axes] == [[], []]
    assert "seed" not in figure.get_suptitle()


def test_what_is_no_number_is_a_gap() -> None:
    nan = math.nan
    figure = angle_picture({"fdfa": [made(60.0, nan, 20.0)]}, LAYERS, subject="digits")
    heights = list(line_of(figure.axes[0], "fdfa").get_ydata())
    assert heights == pytest.approx([60, nan, 20], nan_ok=True)
    # of two seeds the other one stays
    band = band_of([{1: nan, 2: 4.0}, {1: 2.0, 2: 6.0}, {1: nan}])
    assert (band.mean, band.low, band.high) == ((2.0, 5.0), (2.0, 4.0), (2.0, 6.0))
    assert (band.seeds, band.gaps) == (3, 2)
    assert not band_of([{1: nan}]).drawable


def test_rules_differ_in_colour_dash_and_marker() -> None:
    rules = {f"rule {number}": [made(10.0 * number, 5.0)] for number in range(5)}
    lines = [
        line_of(angle_picture(rules, LAYERS, subject="digits").axes[0], rule) for rule in rules
    ]
    for said in (
        [line.get_color() for line in lines],
        [str(line._unscaled_dash_pattern) for line in lines],
        [line.get_marker() for line in lines],
    ):
        assert len(set(said)) == 5


@pytest.mark.slow
def test_a_rule_looks_the_same_in_every_picture() -> None:
    """Backpropagation has no feedback, and is not drawn there; the other keeps its colour."""
    angles = angle_picture(RULES, LAYERS, subject="digits")
    feedback = feedback_picture(RULES, subject="digits")
    assert feedback is not None
    lines = [line_of(figure.axes[0], "fdfa") for figure in (angles, feedback)]
    assert lines[0].get_color() == lines[1].get_color()
    assert lines[0].get_marker() == lines[1].get_marker()
    (legend,) = feedback.legends
    assert [text.get_text() for text in legend.get_texts()] == ["fdfa"]
    assert list(lines[1].get_ydata()) == [0.5, 0.5]
    assert feedback.axes[0].get_yscale() == "log"
    assert feedback.get_supylabel() == "relative error of the feedback map"


@pytest.mark.parametrize("feedback", [0.95, 0.75, 0.02])
def test_errors_can_be_read_from_their_axis(feedback: float) -> None:
    """However few decades it has, two of its ticks or more are there to be read."""
    figure = feedback_picture({"fdfa": [made(9.0, feedback=feedback)]}, subject="digits")
    assert figure is not None
    figure.canvas.draw()
    axes = figure.axes[0]
    low, high = axes.get_ylim()
    ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    assert len([at for at, label in ticks if low <= at <= high and label.get_text()]) >= 2


def test_shares_of_the_error_add_up_to_a_hundred() -> None:
    figure = error_picture(RULES, subject="digits")
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == ["fdfa, relu1", "fdfa, relu2"]
    parts = ["(a) noise", "(b) lag", "(c) spread", "the rest"]
    shares = [line_of(figure.axes[0], part).get_ydata()[0] for part in parts]
    assert shares == pytest.approx([20, 40, 20, 20])
    assert figure.get_supylabel() == "share of the credit's squared error (%)"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == parts


def test_without_feedback_there_is_no_picture_of_it() -> None:
    rules = {"backpropagation": RULES["backpropagation"]}
    assert feedback_picture(rules, subject="digits") is None
    assert error_picture(rules, subject="digits") is None


def test_of_many_layers_some_are_shown_and_the_title_says_so() -> None:
    names = [f"layer{number}.weight" for number in range(30)]
    lines = {10: {"parameters": {name: {"angle": 30.0} for name in names}, "taps": {}}}
    figure = angle_picture({"dfa": [Diagnoses(lines)]}, names, subject="digits")
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert len(titles) == 12
    assert (titles[0], titles[-1]) == (names[0], names[-1])
    assert "12 of 30 layers" in figure.get_suptitle()


@pytest.mark.parametrize(
    "damage",
    [
        b'{"step": 30, "param',
        b"[1, 2]",
        b'{"step": "thirty", "parameters": {}}',
        b'{"step": -1, "parameters": {}}',
        b'{"step": true, "parameters": {}}',
        b'{"epoch": 1}',
        b'{"step": 30, "parameters": {"one.weight": 3}}',
        b'{"step": 30, "parameters": {"one.weight": {"angle": "wide"}}}',
        b'{"step": 30, "parameters": [1]}',
        b'{"step": 30, "taps": {"relu": {"noise": []}}}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_line_is_skipped_and_counted(damage: bytes, tmp_path: Path) -> None:
    good = {"step": 20, "parameters": {"one.weight": {"angle": None}}, "taps": {}}
    (tmp_path / "diagnosis.jsonl").write_bytes(damage + b"\n" + json.dumps(good).encode() + b"\n")
    found = read_diagnoses(RunFolder(tmp_path))
    assert found is not None
    assert found.damaged == 1
    assert list(found.lines) == [20]
    (angle,) = found.curve("parameters", "one.weight", lambda of: of["angle"]).values()
    assert math.isnan(angle)


def test_a_run_that_was_never_diagnosed(tmp_path: Path) -> None:
    assert read_diagnoses(RunFolder(tmp_path)) is None


def dense(channels: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(channels * 6), nn.Linear(channels * 6, 40))


def test_kernels_of_a_matrix_are_its_rows_as_pictures() -> None:
    network = dense(1)
    kernels = first_kernels(network, (1, 2, 3))
    assert kernels is not None
    assert kernels.shape == (40, 1, 2, 3)
    assert torch.equal(kernels[7].flatten(), network[2].weight[7])  # type: ignore[index]
    convolution = nn.Conv2d(3, 5, 4)
    found = first_kernels(nn.Sequential(convolution, nn.Flatten()), (3, 8, 8))
    assert found is not None
    assert torch.equal(found, convolution.weight)
    assert first_kernels(nn.Sequential(nn.Linear(5, 3)), (5,)) is None
    assert first_kernels(nn.Sequential(nn.Embedding(9, 4)), (1, 2, 3)) is None


def test_a_table_of_positions_is_no_kernel() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 2), nn.Flatten(), nn.Linear(5, 4))
    model.positions = nn.Parameter(torch.zeros(4, 6))
    assert next(iter(model.parameters())) is model.positions
    assert first_kernels(model, (3, 2, 2)) is not None


def test_a_kernel_stands_in_the_picture_as_it_is() -> None:
    weights = torch.arange(40 * 6, dtype=torch.float64).view(40, 1, 2, 3) - 100
    figure = kernel_picture({"dfa": weights, "fdfa": 2 * weights}, subject="digits")
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == [
        "dfa: first 32 of 40 units",
        "fdfa: first 32 of 40 units",
    ]
    largest = weights[:32].abs().max()
    for axes in panels:
        (image,) = axes.images
        picture = torch.tensor(image.get_array().tolist())
        assert picture.shape == (4 * 3 - 1, 8 * 4 - 1)
        number, top, left = 13, 3, 20  # second row, sixth column
        torch.testing.assert_close(
            picture[top : top + 2, left : left + 3], (weights[number, 0] / largest).float()
        )
        assert image.get_clim() == (-1, 1)
    bars = [axes for axes in figure.axes if not axes.get_title()]
    assert [bar.get_ylabel() for bar in bars] == ["weight", "weight"]
    ticks = [text.get_text() for text in bars[1].get_yticklabels()]
    assert ticks == [f"{-2 * largest:.2g}", "0", f"{2 * largest:.2g}"]


def test_kernels_of_colour_pictures_lie_about_middle_grey() -> None:
    kernels = torch.zeros(3, 3, 2, 2)
    kernels[1, 0] = 0.5
    figure = kernel_picture({"fdfa": kernels}, subject="cifar10")
    picture = torch.tensor(figure.axes[0].images[0].get_array().tolist())
    assert picture.shape == (2, 8 * 3 - 1, 3)
    assert picture[0, 0].tolist() == [0.5, 0.5, 0.5]
    assert picture[0, 3].tolist() == [1.0, 0.5, 0.5]


def clusters(shift: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(10)
    hidden = torch.randn(30, 6, generator=generator) + shift * labels[:, None]
    return hidden, labels


def test_representations_show_each_example_as_its_class() -> None:
    hidden, labels = clusters(5.0)
    figure = representation_picture(
        {"backpropagation": hidden, "fdfa": -hidden.flip(1)},
        labels,
        tap="relu2",
        likeness={"fdfa": Likeness(0.876, 0.8, 0.95, 2)},
        subject="digits, dense",
    )
    left, right = figure.axes
    assert left.get_title() == "backpropagation"
    assert right.get_title() == "fdfa: linear CKA with backpropagation 0.88 (0.80 to 0.95)"
    assert "relu2" in figure.get_suptitle()
    centred = hidden.double() - hidden.double().mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    expected = centred @ vectors[:, -1]
    share = (values[-1] / values.sum()).item()
    assert left.get_xlabel() == f"1st principal component ({100 * share:.0f} % of the variance)"
    for axes in (left, right):  # mirrored and turned, it is the same cloud: the same way round
        assert len(axes.collections) == 3
        for number, collection in enumerate(axes.collections):
            assert collection.get_label() == str(number)
            drawn = torch.tensor(collection.get_offsets().tolist())[:, 0]
            torch.testing.assert_close(
                drawn.abs(), expected[labels == number].abs().float(), rtol=1e-4, atol=1e-4
            )
    firsts = [torch.tensor(axes.collections[2].get_offsets().tolist()) for axes in (left, right)]
    torch.testing.assert_close(firsts[0], firsts[1], rtol=1e-4, atol=1e-4)

"""``fdfa reproduce variance``: what it measures, judges, keeps and shows."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import random
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

import fdfa.data
from fdfa.cli import main
from fdfa.methods.fdfa import FDFA
from fdfa.methods.fg_a import FGA
from fdfa.studies.reproduce import reproduce
from fdfa.studies.reproduce.findings import Findings
from fdfa.studies.reproduce.pictures import write_panels
from fdfa.studies.reproduce.variance import expectations, panels
from fdfa.studies.reproduce.variance.bands import largest, share_of_band
from fdfa.studies.reproduce.variance.cases import Case
from fdfa.studies.reproduce.variance.draws import _mean, warm_up
from fdfa.studies.reproduce.variance.settings import (
    INNOVATION,
    MOMENTUM,
    RULES,
    GridPoint,
    VarianceSettings,
    places,
)
from fdfa.studies.run_folder import RunFolder

SMALL = VarianceSettings(
    data=("digits",), widths=(16,), depths=(1,), width=16, depth=1, batch=8, draws=32
)
ONE = dataclasses.replace(SMALL, networks=("relu",))
WORDS = [
    *("reproduce", "variance", "--data", "digits", "--networks", "relu", "--widths", "16"),
    *("--depths", "1", "--width", "16", "--depth", "1", "--batch", "8", "--draws", "32"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Findings, Path]:
    out = tmp_path_factory.mktemp("variance") / "run"
    with pytest.MonkeyPatch.context() as patch:  # a picture takes longer than all else
        patch.setattr("fdfa.studies.reproduce.measuring.write_panels", lambda *_, title: ())
        return reproduce("variance", SMALL, out=out), out


class TestStudy:
    def test_every_number_is_within_its_band(self, made: tuple[Findings, Path]) -> None:
        found, _ = made
        assert found.failed == 0
        on_lines = [f"digits, {kind}, {rule}" for kind in ("linear", "ReLU") for rule in RULES]
        names = [expectation.what for expectation in found.expectations]
        assert set(on_lines) < set(names)
        assert "digits, linear, FDFA / FG-A, share of bound" in names
        assert "digits, linear, FDFA, innovation, decay" in names
        assert all(expectation.judged for expectation in found.expectations)

    def test_what_is_kept_of_a_rule(self, made: tuple[Findings, Path]) -> None:
        found, out = made
        assert found.units == json.loads((out / "results.json").read_text())["units"]
        unit = found.units["digits, linear, 1 x 16, FG-W"]
        P = 64 * 16 + 16 + 16 * 10 + 10
        assert unit["weights"] == P
        assert unit["variance"]["expected"] == pytest.approx(P + 1)
        assert unit["slope"]["expected"] == pytest.approx(1)
        assert list(unit["layers"]) == ["linear1", "output"]
        exact = found.units["digits, linear, 1 x 16, FG-A"]["layers"]["output"]
        assert exact["expected"] == 0.0
        assert exact["found"] < 1e-20
        projection = found.units["digits, ReLU, 1 x 16, multi-tangent, projection"]
        assert projection["squared bias"] == pytest.approx((1 - 4 / P) ** 2)
        innovation = found.units["digits, ReLU, 1 x 16, FDFA, innovation"]
        assert (innovation["rate"], innovation["probes"]) == (0.1, 40)

    def test_what_was_measured_is_not_measured_again(
        self, made: tuple[Findings, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found, out = made
        monkeypatch.setattr(Case, "measured", lambda *_: pytest.fail("measured again"))
        monkeypatch.setattr(Case, "decay", lambda *_: pytest.fail("measured again"))
        monkeypatch.setattr("fdfa.studies.reproduce.measuring.write_panels", lambda *_, title: ())
        again = reproduce("variance", SMALL, out=out)
        assert again.expectations == found.expectations

    def test_tables(self, made: tuple[Findings, Path]) -> None:
        found, _ = made
        by_width = found.grids[0]
        assert by_width.title == "digits, linear, depth 1: variance / |g|^2"
        value = found.units["digits, linear, 1 x 16, FG-W"]["variance"]["found"]
        assert by_width.rows[0][:2] == ("16", f"{value:.3g}")

    def test_panels(self, made: tuple[Findings, Path]) -> None:
        """Measured points stand on lines of theory; a projection is scaled to the gradient."""
        units = made[0].units
        *by_size, shares, _, decay = panels(SMALL, units)
        assert len(by_size) == 4
        assert [*shares.lines][-1] == "bound, alpha / (2 - alpha)"
        assert decay.points["digits"][-1][1] < 1e-24
        name = "multi-tangent, projection"
        P = units["digits, linear, 1 x 16, FG-W"]["weights"]
        [(x, y)] = by_size[0].lines[f"{name}, times P/k"]
        assert (x, y) == (16, pytest.approx(P / 4 - 1))
        [(x, y, low, high)] = by_size[0].points[f"{name}, times P/k"]
        found = units[f"digits, linear, 1 x 16, {name}"]["variance"]["found"]
        assert (x, y) == (16, pytest.approx(found * (P / 4) ** 2))
        assert 0 < low < y < high
        assert high / y == pytest.approx(y / low)

    @pytest.mark.slow
    def test_picture(self, made: tuple[Findings, Path], tmp_path: Path) -> None:
        with RunFolder.fresh(tmp_path / "run") as folder:
            assert write_panels(panels(SMALL, made[0].units), folder, title="variance") == ()
        picture = (tmp_path / "run" / "reproduction.svg").read_text(encoding="utf-8")
        for text in ("bound, alpha / (2 - alpha)", "FDFA, innovation", "digits, ReLU, depth 1"):
            assert text in picture

    def test_a_network_is_measured_once_for_width_and_depth(self) -> None:
        found = places(VarianceSettings(data=("digits",), networks=("relu",)))
        sizes = [(place.width, place.depth) for place in found]
        assert sizes == [
            *((width, 2) for width in (64, 128, 256, 512, 1024, 2048, 4096)),
            *((256, depth) for depth in (1, 4, 8)),
        ]


class TestWrongRules:
    """A rule that is off is found, and the command says so by its exit status."""

    def test_a_credit_that_is_too_long(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        right = FGA.credits

        def wrong(self: FGA, e: torch.Tensor, lesson: Any) -> Any:
            return right(self, 3 * e, lesson)

        monkeypatch.setattr(FGA, "credits", wrong)
        assert main([*WORDS, "--quiet"]) == 1
        assert "FAIL" in capsys.readouterr().out

    @pytest.mark.parametrize("update", ["momentum", "innovation"])
    def test_maps_that_learn_at_another_rate(
        self, update: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        right = FDFA.teach

        def wrong(self: FDFA, lesson: Any) -> None:
            if self.feedback_update == update:
                self.feedback_rate = 0.2
            right(self, lesson)

        monkeypatch.setattr(FDFA, "teach", wrong)
        case = Case(ONE, GridPoint("digits", "relu", 16, 1), fdfa.data.load("digits"))
        rule = MOMENTUM if update == "momentum" else INNOVATION
        assert share_of_band(case.measured(rule)["variance"], 1 - 1e-5) > 1

    def test_a_nan_is_never_in_its_band(self, made: tuple[Findings, Path]) -> None:
        """Nor is what JSON makes of it."""
        for value in (math.nan, math.inf, None):
            units = copy.deepcopy(dict(made[0].units))
            units["digits, ReLU, 1 x 16, FG-A"]["layers"]["linear1"]["found"] = value
            failed = [e.what for e in expectations(SMALL, units) if e.met is False]
            assert failed == ["digits, ReLU, FG-A"]

    def test_a_nan_that_was_kept_is_judged_when_it_goes_on(
        self, made: tuple[Findings, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fdfa.studies.reproduce.measuring.write_panels", lambda *_, title: ())
        out = tmp_path / "kept"
        shutil.copytree(made[1], out)
        units = json.loads((out / "units.json").read_text())
        units["digits, ReLU, 1 x 16, FG-A"]["variance"]["found"] = None
        units["digits, linear, 1 x 16, FDFA, innovation, decay"][-1]["found"] = None
        (out / "units.json").write_text(json.dumps(units))
        failed = [e.what for e in reproduce("variance", SMALL, out=out).expectations if not e.met]
        assert "digits, ReLU, FG-A" in failed
        assert any("innovation, after" in what for what in failed)

    def test_a_share_above_the_bound(self, made: tuple[Findings, Path]) -> None:
        units = copy.deepcopy(dict(made[0].units))
        bound = 0.1 / 1.9
        theirs = units["digits, linear, 1 x 16, FG-A"]["variance"]["found"]
        units["digits, linear, 1 x 16, FDFA, momentum"]["variance"]["found"] = 3 * bound * theirs
        found = {e.what: e for e in expectations(SMALL, units)}
        share = found["digits, linear, FDFA / FG-A, share of bound"]
        assert share.met is False
        assert share.found == pytest.approx(3)

    def test_noise_that_stays(self, made: tuple[Findings, Path]) -> None:
        units = copy.deepcopy(dict(made[0].units))
        path = units["digits, linear, 1 x 16, FDFA, innovation, decay"]
        for point in path:
            point["found"] = path[0]["found"]
        met = {e.what: e.met for e in expectations(SMALL, units) if "innovation, " in e.what}
        assert list(met.values()) == [False, False]


def test_a_wide_network_is_measured_in_float32_but_for_its_decay() -> None:
    data, place = fdfa.data.load("digits"), GridPoint("digits", "linear", 1024, 2)
    narrow = dataclasses.replace(place, width=64)
    assert Case(ONE, place, data).batch[0].dtype == torch.float32
    assert Case(ONE, narrow, data).batch[0].dtype == torch.float64
    assert Case(ONE, place, data, exactly=True).batch[0].dtype == torch.float64


class TestBands:
    def test_what_is_zero_in_theory_may_be_rounding(self) -> None:
        number = {"expected": 0.0, "found": 1e-12, "error": 0.0, "degrees": 10}
        assert share_of_band(number, 0.99) == 0.0
        assert share_of_band({**number, "found": 1e-3, "error": 1.0}, 0.99) == math.inf

    def test_a_band_is_on_the_logarithm(self) -> None:
        number = {"found": 1.0, "error": 0.1, "degrees": 10**9}
        for expected in (math.exp(0.2), math.exp(-0.2)):
            share = share_of_band({**number, "expected": expected}, 0.9545)
            assert share == pytest.approx(1, abs=1e-3)
        below = {**number, "found": -0.1, "expected": 0.1}  # where there is no logarithm
        assert share_of_band(below, 0.9545) == pytest.approx(1, abs=1e-3)

    def test_without_a_spread_nothing_but_theory_will_do(self) -> None:
        number = {"expected": 1.0, "found": 1.0, "error": 0.0, "degrees": 10}
        assert share_of_band(number, 0.99) == 0.0
        assert share_of_band({**number, "found": 1.1}, 0.99) == math.inf

    def test_the_largest_is_a_nan_if_there_is_one(self) -> None:
        assert largest([1.0, 3.0, 2.0]) == 3.0
        assert math.isnan(largest([1.0, math.nan, 2.0]))

    def test_errors_of_a_chain_count_its_memory(self) -> None:
        """Means of 400 chains spread as far as each of them says."""
        draw = random.Random(3)
        kept, means, errors = 0.8, [], []
        for _ in range(400):
            x, path = draw.gauss(0, 1), []
            for _ in range(200):
                x = kept * x + math.sqrt(1 - kept**2) * draw.gauss(0, 1)
                path.append(x)
            found = _mean(path, kept)
            means.append(found.value)
            errors.append(found.variance)
        assert found.degrees == 21  # 200 (1 - 0.8) / (1 + 0.8) = 22 are worth as much
        # the variance of 400 normal numbers is known to 7 %, four times over
        spread = statistics.variance(means)
        assert statistics.fmean(errors) == pytest.approx(spread, rel=4 * math.sqrt(2 / 400))
        assert _mean(path, 0.0).variance < 0.5 * spread

    def test_a_chain_warms_up_until_a_millionth_is_missing(self) -> None:
        for rate in (0.01, 0.1, 0.5, 0.999):
            assert (1 - rate) ** (2 * warm_up(rate)) <= 1e-6
            assert (1 - rate) ** (2 * (warm_up(rate) - 1)) > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linear", "relu"])
@pytest.mark.parametrize("rule", RULES)
def test_the_librarys_own_rules_at_20_000_draws(rule: str, kind: Any) -> None:
    """Every total and layer within 4 standard errors, and a law that is 20 % off outside.

    Of the momentum 5,000 draws' worth, of the innovation 1,250 learners.
    """
    settings = dataclasses.replace(SMALL, draws=20_000, feedback_rate=0.5, batch=4)
    case = Case(settings, GridPoint("digits", kind, 4, 2), fdfa.data.load("digits"))
    unit = case.measured(rule)
    four = 0.99993666  # of a normal distribution
    for number in (unit["variance"], unit["slope"], *unit["layers"].values()):
        assert share_of_band(number, four) <= 1
    wrong = {**unit["variance"], "expected": 1.2 * unit["variance"]["expected"]}
    assert share_of_band(wrong, four) > 1

"""The page as a file: what stands in it, whose it is, and that it is whole or not there."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from fdfa.errors import ConfigError
from fdfa.studies.page import write_page
from tests.page.folders import COSINES, comparison, curve, run
from tests.page.parsed import figures_of, parsed

TESTS = {"backpropagation": [0.75, 0.8, 0.7], "dfa": [0.5, 0.6, 0.4], "fdfa": [0.7, 0.85, 0.75]}


@pytest.fixture
def compared(tmp_path: Path) -> Path:
    return comparison(tmp_path / "all", TESTS)


def test_the_table_of_results(compared: Path, tmp_path: Path) -> None:
    report = write_page([compared], out=tmp_path / "page.html")
    rows = parsed(tmp_path / "page.html").tables["scores"]
    assert [row["method"] for row in rows] == list(TESTS)
    for row, tests in zip(rows, TESTS.values(), strict=True):
        mean, deviation = 100 * statistics.fmean(tests), 100 * statistics.stdev(tests)
        assert row["test accuracy (%)"] == f"{mean:.2f} ± {deviation:.2f}"
        assert row["test accuracy (%)"].value == pytest.approx(mean, rel=1e-12)
        assert (row["finished"], row["seeds"]) == ("3 of 3", "0 to 2")
    best, dfa, fdfa = rows
    assert (best["difference (points)"], best["p"]) == ("baseline", "-")
    assert (dfa["difference (points)"], dfa["pairs"]) == ("-25.00 ± 5.00", "3")
    # All three differences have one sign: of 8 choices of signs, 2 lie as far out.
    assert (dfa["p"].value, dfa["p (Holm)"].value) == (0.25, 0.5)
    # -5, +5, +5: |sum| is 5 or 15, and never less than what was found.
    assert (fdfa["p"].value, fdfa["p (Holm)"].value) == (1.0, 1.0)
    assert dict(report.scores[1])["p"] == dfa["p"]


def test_the_baseline_can_be_chosen(compared: Path, tmp_path: Path) -> None:
    write_page([compared], out=tmp_path / "page.html", against="dfa")
    rows = parsed(tmp_path / "page.html").tables["scores"]
    assert [row["difference (points)"] for row in rows] == [
        "+25.00 ± 5.00",
        "baseline",
        "+26.67 ± 7.64",
    ]
    with pytest.raises(ConfigError, match=r"unknown baseline 'fdaf'\. Did you mean 'fdfa'"):
        write_page([compared], out=tmp_path / "other.html", against="fdaf")


def test_figures_and_their_tables_are_the_metrics(compared: Path, tmp_path: Path) -> None:
    """Every number of the files stands in a table, unrounded, and in the figure."""
    page = tmp_path / "page.html"
    write_page([compared], out=page)
    tables, figures = parsed(page).tables, figures_of(page)
    for key, value in {
        "validation-accuracy": lambda line: 100 * line["validation"]["accuracy"],
        "validation-loss": lambda line: line["validation"]["loss"],
        "training-loss": lambda line: line["train"]["loss"],
    }.items():
        rows = {(row["method"], int(row["epoch"])): row for row in tables[f"{key}-data"]}
        lines = {m: [t for t in figures[key]["data"] if t.get("name") == m] for m in TESTS}
        for method in TESTS:
            (line,) = lines[method]
            for epoch in (1, 2, 3):
                values = [
                    value(json.loads(path.read_text().splitlines()[epoch - 1]))
                    for path in sorted(compared.glob(f"runs/{method}-seed-*/metrics.jsonl"))
                ]
                cells = list(rows[method, epoch].values())[2:]
                expected = [
                    statistics.fmean(values),
                    statistics.stdev(values),
                    min(values),
                    max(values),
                    3,
                ]
                assert [cell.value for cell in cells] == pytest.approx(expected, rel=1e-12)
                assert line["y"][epoch - 1] == cells[0].value
    assert {
        row["weight matrix"]: row["cosine"].value for row in tables["alignment-by-layer-data"]
    } == {name: cosine for name, cosine in COSINES.items() if "weight" in name}
    times = [row for row in tables["accuracy-by-time-data"] if row["method"] == "dfa"]
    assert [row["training time (s)"].value for row in times] == [0.5, 1.5, 3.0]
    # A band goes round: along the highest, back along the lowest.
    bands = [trace for trace in figures["validation-accuracy"]["data"] if trace.get("fill")]
    assert [band["meta"] for band in bands] == [0, 1, 2]
    assert bands[1]["x"] == [1, 2, 3, 3, 2, 1, None]
    rows = [row for row in tables["validation-accuracy-data"] if row["method"] == "dfa"]
    around = [row["highest"].value for row in rows] + [row["lowest"].value for row in rows[::-1]]
    assert bands[1]["y"] == [*around, None]


def test_costs_of_a_step(compared: Path, tmp_path: Path) -> None:
    write_page([compared], out=tmp_path / "page.html")
    rows = parsed(tmp_path / "page.html").tables["costs"]
    assert [row["step time (relative)"] for row in rows] == ["1.00", "2.00", "3.00"]
    assert {row["step memory"] for row in rows} == {"2.0 KiB"}
    assert {row["training time (s)"] for row in rows} == {"3.00 ± 0.00"}
    assert {row["peak memory (MiB)"] for row in rows} == {"3.0 ± 0.0"}


def test_settings_stand_in_one_table_each(tmp_path: Path) -> None:
    one = run(tmp_path / "one", options={"feedback_rate": 0.1})
    two = run(tmp_path / "two", options={"feedback_rate": 0.2})
    three = run(tmp_path / "three", "dfa", options={"start": "uniform"})
    write_page([one, two, three], out=tmp_path / "page.html")
    tables = parsed(tmp_path / "page.html").tables
    differ = {row["setting"]: list(row.values())[1:] for row in tables["differences"]}
    assert differ == {
        "method": ["fdfa", "fdfa", "dfa"],
        "options.feedback_rate": ["0.1", "0.2", "-"],
    }
    assert [row["setting"] for row in tables["only-some"]] == ["options.start"]
    common = {row["setting"]: row["value"] for row in tables["common"]}
    assert common["task.data"] == "digits"
    assert not set(common) & {"seed", "method", "options.start", "options.feedback_rate"}


def test_one_seed_has_no_spread_and_no_test(tmp_path: Path) -> None:
    both = [run(tmp_path / method, method, test=0.5) for method in ("backpropagation", "dfa")]
    write_page(both, out=tmp_path / "page.html")
    page = parsed(tmp_path / "page.html")
    shown = [
        (r["test accuracy (%)"], r["difference (points)"], r["p"]) for r in page.tables["scores"]
    ]
    assert shown == [("50.00", "baseline", "-"), ("50.00", "+0.00", "-")]
    assert "no spread, and no test" in page.text
    assert {row["standard deviation"] for row in page.tables["validation-loss-data"]} == {"-"}
    assert not [t for t in figures_of(tmp_path / "page.html")["time"]["data"] if t.get("fill")]


def test_runs_on_different_data_are_said_to_be(tmp_path: Path) -> None:
    folders = [
        run(tmp_path / "a", "backpropagation", test=0.5),
        run(tmp_path / "b", "dfa", test=0.25),
        run(tmp_path / "c", "dfa", test=0.75, checksum="a" * 64),
    ]
    report = write_page(folders, out=tmp_path / "page.html")
    assert "different data (digits 00000000, digits aaaaaaaa)" in report.notes[0]
    page = parsed(tmp_path / "page.html")
    assert report.notes[0] in page.text
    rows = [(row["data"], row["difference (points)"]) for row in page.tables["scores"]]
    assert rows == [
        ("digits 00000000", "baseline"),
        ("digits 00000000", "-25.00"),
        ("digits aaaaaaaa", "baseline"),
    ]


def test_unfinished_and_failed_runs_are_said_to_be(compared: Path, tmp_path: Path) -> None:
    (compared / "runs" / "dfa-seed-2" / "results.json").unlink()
    failed = run(tmp_path / "failed", "spsa", test=None, failure="the loss is nan.")
    report = write_page([compared, failed], out=tmp_path / "page.html")
    page = parsed(tmp_path / "page.html")
    rows = {row["method"]: row for row in page.tables["scores"]}
    assert (rows["dfa"]["finished"], rows["dfa"]["pairs"]) == ("2 of 3", "2")
    assert rows["dfa"]["test accuracy (%)"] == "55.00 ± 7.07"
    assert (rows["spsa"]["test accuracy (%)"], rows["spsa"]["finished"]) == ("-", "0 of 1")
    assert any("dfa-seed-2: unfinished: 3 of 3 epochs" in note for note in report.notes)
    assert any("failed: the loss is nan. The results" in note for note in report.notes)
    assert {row["status"] for row in page.tables["runs"]} >= {
        "failed: the loss is nan.",
        "finished",
    }


def test_a_gap_is_said_to_be_one(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", lines=curve(0.25, None, 0.75))
    write_page([folder], out=tmp_path / "page.html")
    page = parsed(tmp_path / "page.html")
    assert "fdfa: not a number at epoch 2. The curve has a gap there." in page.text
    assert [row["accuracy (%)"] for row in page.tables["validation-accuracy-data"]] == [
        "25.00",
        "not a number",
        "75.00",
    ]
    (line,) = figures_of(tmp_path / "page.html")["validation-accuracy"]["data"]
    assert line["y"] == [25.0, None, 75.0]


def test_every_text_of_a_run_is_escaped(tmp_path: Path) -> None:
    evil = '</script><img src=x onerror="alert(1)">&amp;'
    folder = run(tmp_path / "<b>&", options={"noise": evil}, test=None, failure=evil)
    other = run(tmp_path / "other", options={"noise": "normal"})
    page = tmp_path / "page.html"
    write_page([folder, other], out=page)
    found = parsed(page)
    assert not {"img", "b"} & {tag for tag, _ in found.tags}
    assert f"failed: {evil}" in {row["status"] for row in found.tables["runs"]}
    assert str(folder) in {row["folder"] for row in found.tables["runs"]}
    assert set(figures_of(page)) >= {"validation-loss"}


def test_nothing_is_fetched(compared: Path, tmp_path: Path) -> None:
    write_page([compared], out=tmp_path / "page.html")
    for tag, attributes in parsed(tmp_path / "page.html").tags:
        assert tag not in ("link", "iframe", "object", "base"), tag
        assert not {"src", "srcset", "action", "style"} & set(attributes), (tag, attributes)
        assert (attributes.get("href") or "#").startswith("#")


def test_the_same_runs_give_the_same_bytes(compared: Path, tmp_path: Path) -> None:
    pages = [tmp_path / "one.html", tmp_path / "two.html"]
    for page in pages:
        write_page([compared], out=page)
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_what_is_there_is_not_written_over(compared: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_page([compared], out=page)
    before = page.read_bytes()
    with pytest.raises(ConfigError, match="is there already"):
        write_page([compared], out=page)
    assert page.read_bytes() == before
    write_page([compared], out=page, overwrite=True, against="dfa")
    assert page.read_bytes() != before
    page.write_text("<html>mine</html>")
    with pytest.raises(ConfigError, match="was not written by fdfa"):
        write_page([compared], out=page, overwrite=True)
    assert page.read_text() == "<html>mine</html>"


def test_nothing_half_written_is_left(
    compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither beside an earlier page, which stays as it was, nor where there was none."""
    (tmp_path / "pages").mkdir()
    page = tmp_path / "pages" / "page.html"
    write_page([compared], out=page)
    before = page.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fdfa.training.atomic.os.fsync", full)
    for name in ("page.html", "new.html"):
        with pytest.raises(OSError, match="No space left"):
            write_page([compared], out=page.with_name(name), overwrite=True)
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]
    assert page.read_bytes() == before

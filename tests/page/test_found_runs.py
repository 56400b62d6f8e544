"""What is read of folders of runs: damaged, unfinished, failed, twice, of older versions."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from fdfa.errors import ConfigError
from fdfa.studies.page.contestants import contestants
from fdfa.studies.page.curves import Chart, charts
from fdfa.studies.page.found_runs import FoundRun, found_runs
from fdfa.studies.setup import Diagnose, Records, TrainConfig
from fdfa.studies.task import Task
from fdfa.studies.train import train
from fdfa.training import TrainingSettings
from tests.page.folders import comparison, curve, run, write_lines


def found(*folders: Path) -> tuple[list[FoundRun], list[str]]:
    runs, notes = found_runs(folders)
    return list(runs), list(notes)


def chart_of(key: str, *folders: Path) -> Chart:
    entries, _ = contestants(found_runs(folders)[0])
    (chart,) = [chart for chart in charts(entries) if chart.key == key]
    return chart


def test_a_damaged_line_is_skipped_and_counted(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", lines=curve(0.25, 0.5, 0.75))
    path = folder / "metrics.jsonl"
    first, second, third = path.read_text().splitlines()
    strange = json.dumps({**json.loads(second), "train": "lost"})
    path.write_text("\n".join([first, second[:20], strange, "[]", third]))
    ((one,), _) = found(folder)
    assert [epoch.epoch for epoch in one.epochs] == [1, 3]
    assert one.notes == (f"{path}: 3 damaged lines skipped.",)
    assert one.epochs[1].seconds == 1.5  # its own line of timings, not the next one
    (own,) = chart_of("validation-accuracy", folder).curves
    assert [(point.x, point.values) for point in own.points] == [(1, (25.0,)), (3, (75.0,))]


def test_a_damaged_line_of_timings_costs_one_time(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    path = folder / "timings.jsonl"
    path.write_text(path.read_text().replace('"seconds": 1.0', '"seconds": "soon"'))
    ((one,), _) = found(folder)
    assert one.notes == (f"{path}: 1 damaged line skipped.",)
    (own,) = chart_of("time", folder).curves
    assert [point.x for point in own.points] == [1, 3]
    # What came after it is not known, and no time is made up.
    (own,) = chart_of("accuracy-by-time", folder).curves
    assert [point.x for point in own.points] == [0.5]


def test_a_run_that_goes_on_still(tmp_path: Path) -> None:
    settings = TrainingSettings(epochs=20)
    folder = run(tmp_path / "run", test=None, training=settings)
    ((one,), _) = found(folder)
    assert (one.finished, one.status) == (False, "unfinished: 3 of 20 epochs")
    assert (one.accuracy, one.loss, one.cosine) == (None, None, None)


def test_a_run_that_failed(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", test=None, failure="the loss is nan")
    ((one,), _) = found(folder)
    assert (one.finished, one.status) == (False, "failed: the loss is nan")


def test_damaged_results_leave_the_curves(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    (folder / "results.json").write_text("{")
    ((one,), _) = found(folder)
    assert not one.finished
    assert len(one.epochs) == 3
    assert "results.json cannot be read" in one.notes[0]


def test_a_folder_of_before_memory_was_counted(tmp_path: Path) -> None:
    folder = run(tmp_path / "run", peak=None)
    ((one,), _) = found(folder)
    assert (one.peak_memory, one.notes) == ({}, ())
    entries, _ = contestants([one])
    assert "memory" not in {chart.key for chart in charts(entries)}


def test_memory_by_epoch(tmp_path: Path) -> None:
    (own,) = chart_of("memory", run(tmp_path / "run", peak=2**20)).curves
    assert [point.values for point in own.points] == [(1.0,), (2.0,), (3.0,)]


def test_runs_of_a_comparison_come_as_it_names_its_methods(tmp_path: Path) -> None:
    folder = comparison(tmp_path / "all", {"fdfa": [0.5, 0.5], "dfa": [0.5, 0.5]})
    (folder / "runs" / "dfa-seed-7").mkdir()
    runs, notes = found(folder)
    assert [(r.method, r.seed) for r in runs] == [("fdfa", 0), ("fdfa", 1), ("dfa", 0), ("dfa", 1)]
    left_out = f"'{folder / 'runs' / 'dfa-seed-7'}' holds no run that can be read; it is left out."
    assert notes == [left_out]


def test_what_is_given_twice_counts_once(tmp_path: Path) -> None:
    folder = comparison(tmp_path / "all", {"fdfa": [0.5, 0.75]})
    runs, notes = found(folder, folder / "runs" / "fdfa-seed-1", tmp_path / "all" / ".." / "all")
    assert len(runs) == 2
    assert len(notes) == 3
    assert all("given twice" in note for note in notes)


def test_a_copy_of_a_run_counts_once(tmp_path: Path) -> None:
    shutil.copytree(run(tmp_path / "run"), tmp_path / "copy")
    runs, _ = found(tmp_path / "run", tmp_path / "copy")
    ((entry,), notes) = contestants(runs)
    assert [each.name for each in entry.runs] == [str(tmp_path / "run")]
    assert "one run made twice" in notes[0]


def test_names_tell_apart_what_differs(tmp_path: Path) -> None:
    slow, fast = (TrainingSettings(epochs=3, learning_rate=rate) for rate in (0.001, 0.1))
    runs, _ = found(
        run(tmp_path / "a", training=slow, options={"probe_every": 1}),
        run(tmp_path / "b", training=fast, options={"probe_every": 2}),
        run(tmp_path / "c", "dfa", training=fast),
        run(tmp_path / "d", "dfa", training=fast, data="mnist"),
    )
    entries, _ = contestants(runs)
    assert [entry.name for entry in entries] == [
        "fdfa (probe_every=1, learning_rate=0.001)",
        "fdfa (probe_every=2, learning_rate=0.1)",
        "dfa (digits)",
        "dfa (mnist)",
    ]


def test_what_cannot_be_a_number_is_a_gap(tmp_path: Path) -> None:
    """In the mean too: the runs that can still count would flatter."""
    one = run(tmp_path / "a", seed=0, lines=curve(0.25, None, 0.75))
    two = run(tmp_path / "b", seed=1, lines=curve(0.5, 0.5, 0.5))
    (own,) = chart_of("validation-accuracy", one, two).curves
    assert [point.known for point in own.points] == [True, False, True]
    assert math.isnan(own.points[1].mean)
    assert own.points[1].deviation is None
    assert [point.mean for point in own.points[::2]] == [37.5, 62.5]


def test_alignment_is_the_mean_over_weight_matrices(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    (own,) = chart_of("alignment", folder).curves
    assert [(point.x, point.values) for point in own.points] == [(30, (0.5,))]
    cosines = {"first.weight": 0.1, "first.bias": 0.9, "last.weight": 0.3, "last.bias": None}
    looks = [
        {"step": step, "epoch": 1, "parameters": {n: {"cosine": c} for n, c in cosines.items()}}
        for step in (5, 10)
    ]
    looks[1]["parameters"]["first.weight"]["cosine"] = None  # type: ignore[index]
    write_lines(folder / "diagnosis.jsonl", [*looks, {"step": 15}])
    ((one,), _) = found(folder)
    assert one.notes == (f"{folder / 'diagnosis.jsonl'}: 1 damaged line skipped.",)
    (own,) = chart_of("alignment", folder).curves
    assert [point.x for point in own.points] == [5, 10]
    assert own.points[0].mean == pytest.approx(0.2, rel=1e-12)
    assert not own.points[1].known  # the other matrix alone would flatter
    (layers,) = chart_of("alignment-by-layer", folder).curves
    assert [(p.x, p.values) for p in layers.points] == [
        ("first.weight", (0.25,)),
        ("last.weight", (0.75,)),
    ]


def test_what_a_training_itself_has_written(tmp_path: Path) -> None:
    """No file by hand: the names and the form are those of today's runs."""
    config = TrainConfig(
        method="fdfa",
        task=Task(model_options={"width": 8, "depth": 1}),
        training=TrainingSettings(epochs=2, batch_size=256),
        records=Records(diagnose=Diagnose(every=3, examples=16)),
    )
    made = train(config, out=tmp_path / "run").run
    ((one,), notes) = found(tmp_path / "run")
    assert (one.notes, notes) == ((), [])
    assert one.finished
    assert one.result is not None
    assert (one.accuracy, one.cosine) == (made.test and made.test.accuracy, made.cosine)
    assert one.epochs == made.epochs
    assert [look.step for look in one.diagnoses] == list(range(3, made.epochs[-1].step + 1, 3))
    (entry,), _ = contestants([one])
    assert entry.matrices == ("linear1.weight", "output.weight")
    keys = {chart.key for chart in charts([entry])}
    assert {"alignment", "alignment-by-layer", "time", "validation-loss"} <= keys


@pytest.mark.parametrize("what", ["nothing", "file", "empty", "foreign"])
def test_what_is_no_run_is_refused_by_name(what: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    if what == "file":
        place.write_text("{}")
    elif what != "nothing":
        place.mkdir()
    if what == "foreign":
        (place / "config.json").write_text('{"mine": 1}')
    with pytest.raises(ConfigError, match=str(place)):
        found(place)

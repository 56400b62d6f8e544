"""Runs diagnosed after the fact: what is measured, what is written, and what is refused.

In the fast suite the snapshots of the command line diagnose a comparison, and ``tests/errors`` has
what is refused.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import fdfa
from fdfa.cli import main
from fdfa.diagnostics import diagnose, linear_cka
from fdfa.errors import CheckpointError, ConfigError
from fdfa.studies.compare import CompareConfig, compare
from fdfa.studies.diagnose import DiagnoseConfig, diagnose_runs
from fdfa.studies.network import build_network
from fdfa.studies.run_groups import rules_of, stored_runs
from fdfa.studies.setup import Diagnose, Records, TrainConfig
from fdfa.studies.task import Task, load_data
from fdfa.studies.train import train
from fdfa.training import Checkpoint, TrainingSettings, read_checkpoint, restore_learner

pytestmark = pytest.mark.slow

TASK = Task(model_options={"width": 12, "depth": 2})
TRAINING = TrainingSettings(epochs=1, batch_size=128)
RECORDS = Records(diagnose=Diagnose(every=4, taps_every=1))
PICTURES = ("angles", "credit_errors", "feedback_errors", "kernels", "representations")
QUICK = DiagnoseConfig(examples=64, draws=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of two rules and two seeds, and a run that was not diagnosed meanwhile."""
    place = tmp_path_factory.mktemp("diagnosed")
    config = CompareConfig(
        methods=("backpropagation", "fdfa"),
        seeds=2,
        timing_rounds=10,
        task=TASK,
        training=TRAINING,
        records=RECORDS,
    )
    compare(config, out=place / "compared")
    train(TrainConfig(method="dfa", task=TASK, training=TRAINING), out=place / "alone")
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith("diagnosis")}


def test_a_comparison_is_measured_drawn_and_written(place: Path) -> None:
    found = diagnose_runs([place / "compared"], QUICK)
    files = {f"diagnosis_{name}.{ending}" for name in PICTURES for ending in ("png", "svg")}
    assert names(place / "compared") == {"diagnosis.json", *files}
    assert {path.name for path in found.files} == {"diagnosis.json", *files}
    assert [(run.rule, run.seed) for run in found.runs] == [
        ("backpropagation", 0),
        ("backpropagation", 1),
        ("fdfa", 0),
        ("fdfa", 1),
    ]
    content = json.loads((place / "compared" / "diagnosis.json").read_text())["diagnosis"]
    angle = content["runs"][2]["gradients"]["parameters"]["linear1.weight"]["angle"]["value"]
    assert angle == found.runs[2].gradients.parameters["linear1.weight"].angle.value
    assert 0 < angle < 180
    assert found.runs[0].credits == {}
    assert list(found.runs[2].credits) == ["relu1", "relu2"]
    assert found.likeness["fdfa"]["relu2"].seeds == 2


def test_the_learner_is_that_of_the_last_checkpoint(place: Path) -> None:
    """Its gradients, from a learner that is put together by hand."""
    folder = place / "compared" / "runs" / "fdfa-seed-1"
    found = diagnose_runs([folder], QUICK).runs[0]
    checkpoint = read_checkpoint(folder / "checkpoints")
    data = load_data(TASK)
    learner = fdfa.FDFA(build_network(TASK, data, seed=9), seed=1)
    entries = {f"model.{name}": value for name, value in checkpoint.model.items()}
    prefix = "learner."
    entries |= {
        name[len(prefix) :]: value
        for name, value in checkpoint.state.items()
        if name.startswith(prefix)
    }
    learner.load_state_dict(entries)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))[:64]
    (batch,) = data.validation.batches([order])
    expected = diagnose(learner, F.cross_entropy, [batch], draws=2)
    assert found.step == checkpoint.step == 11
    for name, quality in expected.parameters.items():
        assert found.gradients.parameters[name].angle.value == quality.angle.value


def test_likeness_is_that_of_the_networks_in_eval_mode(place: Path) -> None:
    found = diagnose_runs([place / "compared"], QUICK)
    data = load_data(TASK)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    ((inputs, _),) = data.validation.batches([order])
    values = []
    for seed in (0, 1):
        hidden = []
        for method in ("backpropagation", "fdfa"):
            network = build_network(TASK, data, seed=0)
            folder = place / "compared" / "runs" / f"{method}-seed-{seed}"
            network.load_state_dict(read_checkpoint(folder / "checkpoints").model)
            network.eval()
            with torch.no_grad():
                hidden.append(network[:-1](inputs))  # type: ignore[index]
        values.append(linear_cka(*hidden))
    likeness = found.likeness["fdfa"]["relu2"]
    assert (likeness.low, likeness.high) == pytest.approx((min(values), max(values)), rel=1e-6)


def test_a_run_is_not_changed_and_can_be_diagnosed_again(place: Path) -> None:
    folder = place / "alone"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found = diagnose_runs([folder], QUICK)
    assert all(path.read_bytes() == content for path, content in before.items())
    first = (folder / "diagnosis.json").read_bytes()
    diagnose_runs([folder], QUICK)
    assert (folder / "diagnosis.json").read_bytes() == first
    assert any("was not diagnosed while it trained" in note for note in found.notes)
    assert not (folder / "diagnosis_angles.png").exists()
    train(TrainConfig(method="dfa", task=TASK, training=TRAINING), out=folder, overwrite=True)
    assert names(folder) == set(), "files of the run that was replaced"


def test_damaged_lines_and_gaps_are_reported(place: Path) -> None:
    run = place / "compared" / "runs" / "fdfa-seed-0"
    path = run / "diagnosis.jsonl"
    first, *others = path.read_text().splitlines()
    line = json.loads(first)
    line["parameters"]["linear1.weight"]["angle"] = None
    path.write_text("\n".join([json.dumps(line), *others, '{"step": 3', "]"]) + "\n")
    notes = diagnose_runs([run], QUICK).notes
    assert f"{path}: 2 lines cannot be read and were skipped." in notes
    assert any("1 angle of" in note and "a gap in the curve" in note for note in notes)
    assert "One seed of each rule: the curves have no bands." in notes


def test_a_run_without_checkpoints_is_named(place: Path) -> None:
    shutil.rmtree(place / "alone" / "checkpoints")
    with pytest.raises(CheckpointError, match="alone/checkpoints' holds no checkpoint"):
        diagnose_runs([place / "alone"], QUICK)
    assert names(place / "alone") == set()


def test_one_of_a_comparison_without_checkpoints_is_left_out(place: Path) -> None:
    runs = place / "compared" / "runs"
    shutil.rmtree(runs / "fdfa-seed-0" / "checkpoints")
    found = diagnose_runs([place / "compared"], QUICK)
    assert [(run.rule, run.seed) for run in found.runs][2:] == [("fdfa", 1)]
    assert any("fdfa-seed-0 is left out" in note for note in found.notes)
    for name in ("fdfa-seed-1", "backpropagation-seed-0", "backpropagation-seed-1"):
        shutil.rmtree(runs / name / "checkpoints")
    with pytest.raises(CheckpointError, match="none of the runs has a checkpoint"):
        diagnose_runs([place / "compared"], QUICK)


def test_runs_on_different_data_are_refused(place: Path) -> None:
    path = place / "alone" / "config.json"
    content = json.loads(path.read_text())
    content["environment"]["data_sha256"] = "0" * 64
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"runs on different data: .*compared.*alone"):
        diagnose_runs([place / "compared", place / "alone"], QUICK, out=place / "new")


def test_runs_of_several_folders_side_by_side(place: Path) -> None:
    paths = [place / "compared", place / "alone"]
    with pytest.raises(ConfigError, match="Give --out"):
        diagnose_runs(paths, QUICK)
    found = diagnose_runs(paths, QUICK, out=place / "new")
    assert [run.rule for run in found.runs][-1] == "dfa"
    assert (place / "new" / "diagnosis_kernels.png").exists()
    diagnose_runs(paths, QUICK, out=place / "new")  # its own files may be replaced
    (place / "mine").mkdir()
    (place / "mine" / "diagnosis.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"holds diagnosis\.json, which no diagnosis wrote"):
        diagnose_runs(paths, QUICK, out=place / "mine")
    with pytest.raises(ConfigError, match="is a file"):
        diagnose_runs(paths, QUICK, out=place / "mine" / "diagnosis.json")


def test_runs_that_differ_in_more_than_their_seeds_are_told_apart(place: Path) -> None:
    other = dataclasses.replace(TRAINING, learning_rate=0.01)
    train(TrainConfig(method="dfa", task=TASK, training=other), out=place / "faster")
    rules = rules_of(stored_runs([place / "alone", place / "faster", place / "alone"]))
    assert list(rules) == ["dfa (alone)", "dfa (faster)"]
    assert [len(runs) for runs in rules.values()] == [1, 1]
    seeds = rules_of(stored_runs([place / "compared"]))
    assert {rule: len(runs) for rule, runs in seeds.items()} == {"backpropagation": 2, "fdfa": 2}


def test_a_checkpoint_of_another_method_is_refused(place: Path) -> None:
    checkpoint = read_checkpoint(place / "alone" / "checkpoints")
    learner = fdfa.FDFA(build_network(TASK, load_data(TASK), seed=0))
    with pytest.raises(CheckpointError, match="method 'dfa'"):
        restore_learner(learner, checkpoint)
    with pytest.raises(CheckpointError, match="lacks 'method'"):
        restore_learner(learner, Checkpoint({}, {}, {}, 0))


def test_on_the_command_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["diagnose", str(place / "alone"), "--examples", "32", "--draws", "1"]
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert "angle (°)" in text
    assert "diagnosis_kernels.png" in text
    assert main([*argv, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)["diagnosis"]
    assert content["examples"] == 32

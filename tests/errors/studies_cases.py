"""Studies: options, tasks, machines and configurations that cannot be, folders that are damaged."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

import fdfa.data
from fdfa.errors import CheckpointError, ConfigError
from fdfa.studies.compare import CompareConfig, compare
from fdfa.studies.devices import chosen_device
from fdfa.studies.evaluate import evaluate_run
from fdfa.studies.network import build_network
from fdfa.studies.options import (
    assignments,
    data_set_options,
    method_options,
    options_by_method,
)
from fdfa.studies.preview import PreviewConfig, preview
from fdfa.studies.resume import read_config, resume
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.scoring import score_on
from fdfa.studies.setup import Machine, Records, TrainConfig
from fdfa.studies.task import Task, load_data, model_options, resolved
from fdfa.studies.train import train
from fdfa.training import TrainingSettings
from tests.errors.provoke import Case, Here

__all__ = ["STUDIES_CASES"]


def _refused(name: str, run: Callable[[], object]) -> Case:
    return Case(name, ConfigError, lambda here: run())


OPTIONS = [
    _refused("options: no assignment", lambda: assignments(["depth"])),
    _refused("options: a name twice", lambda: assignments(["depth=2", "depth=3"])),
    _refused(
        "options: without a method",
        lambda: options_by_method(["dfa", "fdfa"], {"probe_every": "4"}),
    ),
    _refused(
        "options: of a method that takes no part",
        lambda: options_by_method(["dfa"], {"fdfa.probe_every": "4"}),
    ),
    _refused(
        "options: of a method that there is not",
        lambda: options_by_method(["dfa"], {"fdaf.probe_every": "4"}),
    ),
    _refused("options: unknown method", lambda: method_options("fdaf", {})),
    _refused("options: unknown option", lambda: method_options("fdfa", {"feedback_rat": "0.1"})),
    _refused(
        "options: a text for a number", lambda: method_options("fdfa", {"feedback_rate": "much"})
    ),
    _refused("options: none of the words", lambda: method_options("fdfa", {"noise": "gaussian"})),
    _refused(
        "options: of a data set, none of the words",
        lambda: data_set_options("emnist", {"split": "leters"}),
    ),
    _refused(
        "options: what no text can say",
        lambda: model_options("tests.errors.networks:shaped", {"layer": "ReLU"}),
    ),
    _refused("options: unknown option of a network", lambda: model_options("vit", {"head": "2"})),
    _refused(
        "options: half a layer",
        lambda: model_options("fully-connected", {"depth": "1.5"}),
    ),
    _refused(
        "options: unknown, given as values",
        lambda: train(TrainConfig(options={"feedback_rat": 0.1})),
    ),
]


def _scored(validation: int, part: Any) -> None:
    score_on(nn.Flatten(), fdfa.data.load("digits", validation=validation), part=part)


SETUPS = [
    _refused("an unknown part", lambda: _scored(200, "tset")),
    _refused("an empty part", lambda: _scored(0, "validation")),
    _refused("no method", lambda: CompareConfig(methods=())),
    _refused("a method twice", lambda: CompareConfig(methods=("dfa", "dfa"))),
    _refused("no seeds", lambda: CompareConfig(seeds=0)),
    _refused("a seed that is too large", lambda: TrainConfig(seed=2**80)),
    _refused("no time between checkpoints", lambda: Records(checkpoint_seconds=0)),
    _refused("an unknown log", lambda: Records(log=("tensorbord",))),
    _refused("a log without a folder", lambda: train(TrainConfig(records=Records(log=("wandb",))))),
    _refused("no threads", lambda: Machine(threads=0)),
    _refused("an unknown device", lambda: chosen_device("gpu")),
    _refused("a device that we do not know", lambda: chosen_device("meta")),
    _refused("a device that is not there", lambda: chosen_device("cuda:99")),
    _refused("no batch to explain", lambda: PreviewConfig(batch_size=0)),
    _refused(
        "options of a method that is not compared",
        lambda: compare(CompareConfig(methods=("dfa",), options={"fdfa": {"probe_every": 4}})),
    ),
    _refused(
        "a step that cannot be made: too few examples",
        lambda: train(TrainConfig(training=TrainingSettings(batch_size=1))),
    ),
    _refused(
        "a step that cannot be made: the network",
        lambda: train(TrainConfig(task=Task(model="tests.errors.networks:Counting"))),
    ),
]


def _in_many_processes(here: Here) -> None:
    here.patch.setenv("WORLD_SIZE", "2")
    compare(CompareConfig())


def _task(name: str, task: Mapping[str, Any], run: Callable[[Task], object] = resolved) -> Case:
    return _refused(f"task: {name}", lambda: run(Task(**task)))


def _own(name: str, factory: str) -> Case:
    task = {"model": f"tests.errors.networks:{factory}"}
    return _task(name, task, lambda given: build_network(given, load_data(given), seed=0))


def _vectors(name: str, **task: Any) -> Case:
    """Inputs that are no pictures."""

    def run(here: Here) -> None:
        arrays = {
            f"{part}_{kind}": value.clone()
            for part in ("train", "test")
            for kind, value in (("inputs", torch.zeros(4, 5)), ("labels", torch.arange(4)))
        }
        safetensors.torch.save_file(arrays, here.folder / "own.safetensors")
        given = Task(data="tensors", data_dir=str(here.folder), validation=0, **task)
        build_network(given, load_data(given), seed=0)

    return Case(f"task: {name}", ConfigError, run)


TASKS = [
    Case("a comparison in many processes", ConfigError, _in_many_processes),
    _task("an unknown augmentation", {"augment": ("rotate",)}),
    _task("an unknown data set", {"data": "mnits"}),
    _task("an unknown option of the data set", {"data_options": {"split": "letters"}}),
    _task("an unknown network", {"model": "resnet21"}),
    _task("an unknown option of the network", {"model_options": {"widht": 3}}),
    _vectors("augmentation of what is no picture", augment=("flip",)),
    _vectors("a network for pictures", model="lenet"),
    _own("a network that is missing", "missing"),
    _own("a network that is a number", "number"),
    _own("a network that is made already", "instance"),
    _own("a network that fails", "broken"),
    _own("a factory that gives nothing", "nothing"),
    _own("a network for other inputs", "wrong_size"),
    _own("a network with too few outputs", "narrow"),
    _refused(
        "explain: a network that is missing",
        lambda: preview(PreviewConfig(task=Task(model="no_such_module:network"))),
    ),
]


def _folder(
    name: str,
    files: Mapping[str, object],
    run: Callable[[Path], object],
    error: type[Exception] = ConfigError,
) -> Case:
    """A folder with files: text and bytes as they are, anything else as JSON."""

    def do(here: Here) -> None:
        folder = here.folder / "run"
        for file, content in files.items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            text = content if isinstance(content, (str, bytes)) else json.dumps(content)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        run(folder)

    return Case(f"folder: {name}", error, do)


def _config(name: str, value: object) -> Case:
    return _folder(f"config.json: {name}", {"config.json": value}, read_config)


def _training(name: str, **values: object) -> Case:
    return _config(name, {"train": values})


def _checked(folder: Path) -> None:
    RunFolder.check(folder, overwrite=False)


def _weights(**tensors: torch.Tensor) -> bytes:
    return bytes(safetensors.torch.save(tensors))


TRAIN = {"train": {"task": {"model_options": {"width": 4, "depth": 1}}}}
OTHER_DATA = {**TRAIN, "environment": {"data_sha256": "0" * 64}}
SPEED = {"dfa": {"seconds": 0.1, "ratio": 2.0}}
FOLDERS = [
    Case(
        "folder: in a file",
        ConfigError,
        lambda here: train(TrainConfig(), out=_file(here) / "run"),
    ),
    _folder("not empty", {"thesis.tex": "", "a": "", "b": "", "c": ""}, _checked),
    _folder("of an earlier run", {"config.json": TRAIN}, _checked),
    _folder(
        "of someone else, to be overwritten",
        {"config.json": {"mine": 1}},
        lambda path: RunFolder.check(path, overwrite=True),
    ),
    Case("folder: nothing there", ConfigError, lambda here: resume(here.folder)),
    _config("no JSON", "{"),
    _config("a list", []),
    _config("something else in it", {"train": {}, "notes": "mine"}),
    _training("an unknown key", epochs=3),
    _training("an unknown key inside", training={"epoch": 3}),
    _training("a text for a number", training={"epochs": "3"}),
    _training("a word for a choice", records={"log": ["wandb", "neptun"]}),
    _training("a number for an object", task=3),
    _training("a number for a list", task={"augment": 3}),
    _training("a list for a number", training={"learning_rate": [0.1]}),
    _training("a number that is too large", training={"learning_rate": 10**400}),
    _training("a text for a number or nothing", training={"clip_norm": "1"}),
    _training("true for a whole number", training={"epochs": True}),
    _training("a number for a text", method=3),
    _training("a value out of range", training={"epochs": 0}),
    _training("an option: a text for a choice", task={"model_options": {"batch_norm": "no"}}),
    _training("an option: nothing for a number", options={"feedback_rate": None}),
    _training("an option: a number for a list", options={"taps": 3}),
    _training("an option: a list for a choice", options={"noise": []}),
    _training("an option: an object", options={"feedback_update": "functools.partial(Adam)"}),
    _training(
        "an option: a class",
        task={"model": "tests.errors.networks:shaped", "model_options": {"layer": "<class 'A'>"}},
    ),
    _folder("results.json: a list", {"config.json": TRAIN, "results.json": []}, resume),
    _folder(
        "results.json: a key is missing",
        {"config.json": TRAIN, "results.json": {"run": {"method": "dfa"}}},
        resume,
    ),
    _folder(
        "speed.json: a key is missing",
        {"config.json": {"compare": {"methods": ["dfa"]}}, "speed.json": SPEED},
        resume,
    ),
    _folder(
        "another number of processes",
        {"config.json": {**TRAIN, "environment": {"processes": 3}}},
        resume,
    ),
    _folder(
        "another run in a comparison",
        {
            "config.json": {"compare": {"methods": ["dfa"], "seeds": 1}},
            "speed.json": {},
            "runs/dfa-seed-0/config.json": TRAIN,
        },
        resume,
    ),
    _folder("other data", {"config.json": OTHER_DATA}, resume),
    _folder("a comparison in place of a run", {"config.json": {"compare": {}}}, evaluate_run),
    _folder(
        "a comparison with runs",
        {
            "config.json": {"compare": {}, "environment": {}},
            "runs/dfa-seed-0/config.json": {**TRAIN, "environment": {}},
        },
        evaluate_run,
    ),
    _folder(
        "damaged weights",
        {"config.json": TRAIN, "model.safetensors": b"damaged"},
        evaluate_run,
        CheckpointError,
    ),
    _folder(
        "weights of another network",
        {"config.json": TRAIN, "model.safetensors": _weights(weight=torch.zeros(2))},
        evaluate_run,
        CheckpointError,
    ),
    _folder("no weights", {"config.json": TRAIN}, evaluate_run, CheckpointError),
]


def _file(here: Here) -> Path:
    path = here.folder / "taken"
    path.write_bytes(b"")
    return path


STUDIES_CASES = [*OPTIONS, *SETUPS, *TASKS, *FOLDERS]

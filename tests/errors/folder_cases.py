"""What is wrong with the folder of a run: not ours, damaged, or of something else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors.torch
import torch

from fdfa.errors import CheckpointError, ConfigError
from fdfa.studies.evaluate import evaluate_run
from fdfa.studies.resume import read_config, resume
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.setup import TrainConfig
from fdfa.studies.train import train
from tests.errors.provoke import Case, Here

__all__ = ["FOLDER_CASES"]


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
COSTS = {"times": {"dfa": {"seconds": 0.1, "ratio": 2.0}}, "memory": {}, "left_out": {}}
FOLDER_CASES = [
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
        "costs.json: a key is missing",
        {"config.json": {"compare": {"methods": ["dfa"]}}, "costs.json": COSTS},
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
            "costs.json": {"times": {}, "memory": {}, "left_out": {}},
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

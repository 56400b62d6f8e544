"""Studies: options, tasks, machines and configurations that cannot be, folders that are damaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import safetensors.torch
import torch
from torch import nn

import fdfa.data
from fdfa.errors import ConfigError
from fdfa.studies.compare import CompareConfig, compare
from fdfa.studies.devices import chosen_device
from fdfa.studies.network import build_network
from fdfa.studies.options import (
    assignments,
    data_set_options,
    method_options,
    options_by_method,
    rate_shares,
)
from fdfa.studies.preview import PreviewConfig, preview
from fdfa.studies.recommend import RecommendConfig, recommend
from fdfa.studies.reproduce import reproduce
from fdfa.studies.reproduce.low_dimensional_feedback import LowDimensionalFeedbackSettings
from fdfa.studies.reproduce.multi_tangent import MultiTangentSettings
from fdfa.studies.reproduce.variance.settings import VarianceSettings
from fdfa.studies.scoring import score_on
from fdfa.studies.setup import Diagnose, Machine, Records, TrainConfig
from fdfa.studies.task import Task, load_data, model_options, resolved
from fdfa.studies.train import train
from fdfa.training import TrainingSettings
from tests.errors.provoke import Case, Here

__all__ = ["STUDIES_CASES"]


_UNBOUNDED = Task(model_options={"batch_norm": False, "width": 8})
_DIAGNOSED = Records(diagnose=Diagnose())


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
    _refused("options: no name of a method", lambda: fdfa.wrap(cast(str, None), nn.Flatten())),
    _refused(
        "options: under two names of a method",
        lambda: options_by_method(["kp"], {"kp.decay": "1", "kolen-pollack.decay": "2"}),
    ),
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
    _refused("diagnose: without a folder", lambda: train(TrainConfig(records=_DIAGNOSED))),
    _refused("a log without a folder", lambda: train(TrainConfig(records=Records(log=("wandb",))))),
    _refused("no threads", lambda: Machine(threads=0)),
    _refused("an unknown device", lambda: chosen_device("gpu")),
    _refused("a device that we do not know", lambda: chosen_device("meta")),
    _refused("a device that is not there", lambda: chosen_device("cuda:99")),
    _refused("no batch to explain", lambda: PreviewConfig(batch_size=0)),
    _refused("no rate to measure with", lambda: RecommendConfig(learning_rate=0.0)),
    _refused(
        "a measurement that diverges",
        lambda: recommend(RecommendConfig(learning_rate=1e30, task=_UNBOUNDED)),
    ),
    _refused("a perfect credit", lambda: RecommendConfig(cosine=1.0)),
    _refused(
        "options of a method that is not compared",
        lambda: compare(CompareConfig(methods=("dfa",), options={"fdfa": {"probe_every": 4}})),
    ),
    _refused("an unknown reproduction", lambda: reproduce("multi-tangnt")),
    _refused("settings of another reproduction", lambda: reproduce("multi-tangent", Task())),
    _refused("an unknown part of a reproduction", lambda: MultiTangentSettings(parts=("cube",))),
    _refused("no ranks", lambda: LowDimensionalFeedbackSettings(ranks=())),
    _refused("no widths", lambda: VarianceSettings(widths=())),
    _refused("an unknown kind of network", lambda: VarianceSettings(networks=("rleu",))),
    _refused("an average that is none", lambda: VarianceSettings(feedback_rate=1.0)),
    _refused("all beside another method", lambda: CompareConfig(methods=("all", "dfa"))),
    _refused(
        "a share of the rate under two names",
        lambda: CompareConfig(rate_shares={"mezo": 0.1, "spsa": 0.2}),
    ),
    _refused("a share of the rate that is no number", lambda: rate_shares({"dfa": "half"})),
    _refused(
        "a share of the rate that is not positive",
        lambda: compare(CompareConfig(methods=("dfa",), rate_shares={"dfa": 0.0})),
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
    _task("an unknown scale of pixels", {"pixels": "whitened"}),
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
STUDIES_CASES = [*OPTIONS, *SETUPS, *TASKS]

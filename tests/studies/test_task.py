"""Networks by name and by import path: built, tried, and refused with a reason."""

from __future__ import annotations

import inspect
import io
from pathlib import Path

import pytest
import safetensors.torch
import torch
from rich.console import Console
from torch import nn

import fdfa.data
import fdfa.models
from fdfa.errors import ConfigError
from fdfa.studies.data_sets import list_data_sets
from fdfa.studies.listings import data_sets_report, models_report
from fdfa.studies.network import build_network
from fdfa.studies.setup import TrainConfig
from fdfa.studies.task import Task, load_data, model_options, resolved
from fdfa.studies.train import train
from fdfa.training import TrainingSettings

OWN = """
import torch
from torch import nn

def network(classes, width: int = 8, *, bias: bool = True):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, width, bias=bias), nn.ReLU(), nn.Linear(width, classes)
    )

class Module(nn.Module):
    def __init__(self, image, classes):
        super().__init__()
        self.layer = nn.Linear(image[1] * image[2], classes)
        self.calls = nn.Buffer(torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.layer(x.flatten(1))

def narrow(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes - 1))

def frozen(classes):
    norm = nn.BatchNorm1d(64).eval()
    return nn.Sequential(nn.Flatten(), norm, nn.Linear(64, classes))

def asleep(classes):
    return frozen(classes).eval()

def wrong_size():
    return nn.Linear(3, 10)

def nothing():
    return None

def broken():
    raise KeyError("lost")

instance = nn.Linear(2, 2)
number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_networks.py").write_text(OWN)
    (tmp_path / "own_broken.py").write_text("import a_package_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)


def build(model: str, **options: object) -> nn.Module:
    task = Task(model=model, model_options=options)
    return build_network(task, load_data(task), seed=0)


@pytest.mark.parametrize("name", ["fully-connected", "fully_connected", "resnet20"])
def test_named_networks_fit_the_digits(name: str) -> None:
    network = build(name)
    assert network(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
    assert all(module.training for module in network.modules())


def test_the_documentation_of_the_task_says_where_all_names_are_listed() -> None:
    text = inspect.getdoc(Task) or ""
    assert "`fdfa data list`" in text
    assert "`fdfa models`" in text
    for report, names in (
        (data_sets_report(list_data_sets()), fdfa.data.names()),
        (models_report(), fdfa.models.names()),
    ):
        out = io.StringIO()
        Console(file=out, width=80).print(report)
        lines = out.getvalue().splitlines()
        for name in names:
            assert any(line.strip().startswith(f"{name} ") for line in lines), name


def test_digits_get_a_network_of_their_size_and_mnist_the_papers() -> None:
    assert resolved(Task(data="digits")).model_options["width"] == 256
    assert resolved(Task(data="mnist")).model_options["width"] == 800
    assert resolved(Task(model_options={"width": 32})).model_options["width"] == 32


def test_the_same_seed_gives_the_same_weights_and_moves_no_random_numbers() -> None:
    task = Task(model_options={"width": 8})
    data, before = load_data(task), torch.get_rng_state()
    first, again, other = (build_network(task, data, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.linear1.weight, again.linear1.weight)
    assert not torch.equal(first.linear1.weight, other.linear1.weight)


@pytest.mark.usefixtures("own")
class TestOwnNetworks:
    def test_a_function_is_told_the_sizes_that_it_asks_for(self) -> None:
        assert build("own_networks:network", width=5)[1].weight.shape == (5, 64)

    def test_a_class_will_do(self) -> None:
        network = build("own_networks:Module")
        assert network.layer.weight.shape == (10, 64)
        assert network.calls == 0, "the trial run left a trace"

    @pytest.mark.parametrize(("model", "norm"), [("frozen", False), ("asleep", True)])
    def test_what_its_factory_froze_stays_frozen(self, model: str, norm: bool) -> None:
        """Unless the network as a whole came in eval mode."""
        network = build(f"own_networks:{model}")
        assert [module.training for module in network] == [True, norm, True]

    def test_options_are_read_by_its_signature(self) -> None:
        assert model_options("own_networks:network", {"width": "3", "bias": "off"}) == {
            "width": 3,
            "bias": False,
        }
        with pytest.raises(ConfigError, match="Did you mean 'width'"):
            model_options("own_networks:network", {"widht": "3"})

    @pytest.mark.parametrize(
        ("model", "words"),
        [
            ("own_networks:missing", "cannot be imported.*missing"),
            ("own_broken:network", "cannot be imported.*a_package_that_is_not_there"),
            ("no_such_module:network", "cannot be imported.*no_such_module"),
            ("own_networks:instance", "object of type Linear, not a function"),
            ("own_networks:number", "object of type int, not a function"),
            ("own_networks:broken", r"cannot be built \(KeyError: 'lost'\)"),
            ("own_networks:nothing", "gave an object of type NoneType"),
            ("own_networks:wrong_size", r"cannot run on inputs of shape \(2, 1, 8, 8\)"),
            ("own_networks:narrow", r"returns \(2, 9\) for 2 examples.*\(2, 10\)"),
        ],
    )
    def test_what_cannot_be_used_says_why(self, model: str, words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            build(model)


def test_a_misspelt_network_gets_the_nearest_and_the_way_to_ones_own() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'resnet20'.*package\.module:factory"):
        resolved(Task(model="resnet-20"))


def test_a_misspelt_option_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'depth'"):
        resolved(Task(model_options={"dept": 2}))


def test_loss_and_pixels_of_the_settings_are_those_of_the_run(tmp_path: Path) -> None:
    config = TrainConfig(
        method="dfa",
        task=Task(model_options={"width": 8, "depth": 1}, pixels="unit"),
        training=TrainingSettings(epochs=1, batch_size=256, loss="squared-error"),
    )
    found = train(config, out=tmp_path / "run").run
    digits = fdfa.data.load("digits")
    network = fdfa.models.fully_connected(64, width=8, depth=1).eval()
    network.load_state_dict(safetensors.torch.load_file(tmp_path / "run" / "model.safetensors"))
    for part, score in ((digits.test, found.test), (digits.validation, found.epochs[0].validation)):
        with torch.no_grad():
            wrong = network(part.inputs / 16) - torch.eye(10)[part.labels]
        assert score is not None
        assert score.loss == pytest.approx((wrong**2).sum().item() / 2 / len(part), rel=1e-5)

"""Networks by name: what can be built, what is said of it, and what is refused."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from fdfa import models
from fdfa.errors import ConfigError
from tests.models.small import build_small

DIGITS, MNIST, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)
NAMES = (
    *("fully-connected", "convolutional", "alexnet", "lenet", "mlp", "resnet20", "resnet56"),
    *("resnet18", "vgg", "vit", "gru", "lstm", "mlp-mixer", "local-mixer"),
)
SMALLEST = {"convolutional": 10, "alexnet": 63, "lenet": 12, "resnet20": 4, "resnet56": 4}
SMALLEST |= {"resnet18": 8, "vit": 4, "mlp-mixer": 4, "local-mixer": 4}
ON_DATA = [
    (name, image)
    for name in NAMES
    for image in (DIGITS, MNIST, CIFAR)
    if image[1] >= SMALLEST.get(name, 1)
]


def test_the_names_are_the_networks_that_can_be_built() -> None:
    assert models.names() == tuple(models.networks()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_record_of_a_network(name: str) -> None:
    network = models.networks()[name]
    assert network.name == name
    assert getattr(models, name.replace("-", "_")) is network.factory
    assert network.smallest == SMALLEST.get(name, 1)
    assert network.source
    assert network.summary
    assert not network.summary.endswith(".")
    described = inspect.getdoc(network.factory) or ""
    assert all(f"    {option}: " in described for option in network.options())


def test_options_are_listed_with_their_defaults() -> None:
    listed = {name: network.options() for name, network in models.networks().items()}
    assert listed == {
        "fully-connected": {"width": 800, "depth": 2, "batch_norm": True},
        "convolutional": {"form": "code"},
        "alexnet": {"resize": None},
        "lenet": {},
        "mlp": {
            **{"width": 800, "depth": 2, "activation": "relu"},
            **{"dropout": 0.0, "input_dropout": 0.0, "start": "uniform"},
        },
        "resnet20": {},
        "resnet56": {},
        "resnet18": {"stem": "auto", "width": 64},
        "vgg": {"depth": 11, "width": 64},
        "vit": {"patch": 4, "dim": 128, "depth": 4, "heads": 4},
        "gru": {"width": 128, "depth": 2},
        "lstm": {"width": 128, "depth": 2},
        "mlp-mixer": {
            **{"patch": 4, "dim": 128, "depth": 4},
            **{"token_width": 64, "channel_width": 512},
        },
        "local-mixer": {"patch": 4, "dim": 512, "depth": 4, "groups": 16},
    }


@pytest.mark.parametrize("name", [name for name in NAMES if name != "alexnet"])
def test_the_smallest_image_works_and_a_smaller_one_does_not(name: str) -> None:
    side = models.networks()[name].smallest
    for height, width in ((side, side), (side, 2 * side), (2 * side, side)):
        y = build_small(name, (2, height, width), 3)(torch.randn(4, 2, height, width))
        assert y.shape == (4, 3)
        assert y.isfinite().all()
    for image in ((2, side - 1, side), (2, side, side - 1)):
        with pytest.raises(ConfigError, match=f"={side - 1}|{side} x {side}"):
            build_small(name, image, 3)


def test_the_smallest_image_of_alexnet() -> None:
    with pytest.raises(ConfigError, match=r"'alexnet'.* at least 63 x 63"):
        models.alexnet(image=(1, 62, 64))
    y = models.alexnet(image=(1, 63, 63), classes=2)(torch.randn(2, 1, 63, 63))
    assert y.shape == (2, 2)
    assert y.isfinite().all()


@pytest.mark.parametrize(("name", "image"), ON_DATA)
def test_build_gives_one_number_a_class(name: str, image: tuple[int, int, int]) -> None:
    model = build_small(name, image, 10)
    assert all(module.training for module in model.modules())
    y = model(torch.randn(2, *image))
    assert y.shape == (2, 10)
    assert y.isfinite().all()


def _refused(text: str, name: str, image: tuple[int, ...] = MNIST, **options: Any) -> Any:
    label = " ".join([name, str(image), *(f"{key}={value}" for key, value in options.items())])
    return pytest.param(name, image, options, text, id=label)


UNKNOWN = r"unknown model 'lenett'. Did you mean 'lenet'\? Valid models: fully-connected, "
MISSPELT = r"model 'fully-connected': unknown option 'widht'. Did you mean 'width'\? Valid options"


@pytest.mark.parametrize(
    ("name", "image", "options", "text"),
    [
        _refused(UNKNOWN, "lenett"),
        _refused(MISSPELT, "fully-connected", widht=3),
        _refused("'lenet': unknown option 'width'. There are no options", "lenet", width=3),
        _refused("unknown option 'inputs'", "fully-connected", inputs=3),
        _refused(r"image=\(8, 8\) is not an image shape", "fully-connected", (8, 8)),
        _refused("channels=0", "convolutional", (0, 28, 28)),
        _refused("width=0 .* at least 1", "fully-connected", width=0),
        _refused("depth=-1 .* at least 0", "fully-connected", depth=-1),
        _refused("depth=True", "fully-connected", depth=True),
        _refused("width='800'", "fully-connected", width="800"),
        _refused("'convolutional'.* at least 10 x 10", "convolutional", (1, 28, 9)),
        _refused("'convolutional'.* 16 x 16", "convolutional", (1, 15, 16), form="announced"),
        _refused(
            r"unknown form 'anounced'. Did you mean 'announced'\? Valid forms: code, announced",
            *("convolutional", MNIST),
            form="anounced",
        ),
        _refused("'resnet18'.* at least 32 x 32", "resnet18", MNIST, stem="7x7"),
        _refused("unknown stem '5x5'.* Valid stems: auto, 3x3, 7x7", "resnet18", stem="5x5"),
        _refused("width=0", "resnet18", width=0),
        _refused("unknown depth '12'.* Valid depths: 11, 13, 16", "vgg", depth=12),
        _refused("width=0", "vgg", width=0),
        _refused("heads=3 does not divide dim=8.* one of 1, 2, 4, 8", "vit", dim=8, heads=3),
        _refused("heads=0", "vit", heads=0),
        _refused("patch=5 .*height=28 and width=28.* 1, 2, 4, 7, 14, 28", "vit", patch=5),
        _refused("patch=8 .*height=4 and width=6.* one of 1, 2", "vit", (1, 4, 6), patch=8),
        _refused("patch=2.0 is not a possible size", "vit", patch=2.0),
        _refused("dim=0", "vit", dim=0),
        _refused("depth=0", "vit", depth=0),
        _refused("patch=5 does not divide", "mlp-mixer", patch=5),
        _refused("token_width=0", "mlp-mixer", token_width=0),
        _refused("channel_width=0", "mlp-mixer", channel_width=0),
        _refused("dim=-1", "mlp-mixer", dim=-1),
        _refused("depth=0", "mlp-mixer", depth=0),
        _refused("patch=5 does not divide", "local-mixer", patch=5),
        _refused("groups=5 does not divide dim=512", "local-mixer", groups=5),
        _refused("dim=0", "local-mixer", dim=0),
        _refused("depth=0", "local-mixer", depth=0),
        _refused("width=0", "gru", width=0),
        _refused("depth=0", "gru", depth=0),
        _refused("width=1.5", "lstm", width=1.5),
        _refused("depth=0", "lstm", depth=0),
    ],
)
def test_what_cannot_be_built(
    name: str, image: tuple[int, int, int], options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        models.build(name, image=image, classes=10, **options)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_without_classes_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="classes=0"):
        models.build(name, image=(1, 64, 64), classes=0)


def test_a_network_without_inputs_is_refused() -> None:
    with pytest.raises(ConfigError, match="inputs=0 is not a possible size"):
        models.fully_connected(0)

"""Every reference network by name: a factory, and one record here."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any

from torch import nn

from fdfa.errors import ConfigError, unknown_name
from fdfa.models.convolution import alexnet, convolutional, lenet, vgg
from fdfa.models.dense import fully_connected
from fdfa.models.local_mixer import local_mixer
from fdfa.models.mixer import mlp_mixer
from fdfa.models.perceptron import mlp
from fdfa.models.recurrent import gru, lstm
from fdfa.models.residual import resnet18, resnet20, resnet56
from fdfa.models.sizes import check_image
from fdfa.models.transformer import vit

__all__ = ["Network", "build", "names", "networks"]

# What a factory is told by the data set; the rest are options.
_FROM_DATA = frozenset({"inputs", "image", "classes"})


@dataclasses.dataclass(frozen=True)
class Network:
    """What there is to know of a reference network before building it.

    Attributes:
        name: for :func:`build` and the command line; the factory's own with hyphens.
        factory: builds it.
        summary: one line.
        source: the paper.
        smallest: height and width in pixels of the smallest image that it takes, with its options
            at their defaults.
    """

    name: str
    factory: Callable[..., nn.Module]
    summary: str
    source: str
    smallest: int

    @property
    def reads_flat(self) -> bool:
        """Whether it is built for a number of inputs, of any shape, and not for an image."""
        return "inputs" in inspect.signature(self.factory).parameters

    def options(self) -> dict[str, Any]:
        """What the factory takes besides sizes that follow from the data, with the defaults."""
        parameters = inspect.signature(self.factory).parameters.values()
        return {p.name: p.default for p in parameters if p.name not in _FROM_DATA}


_REGISTRY = (
    Network(
        "fully-connected",
        fully_connected,
        "linear layers with batch norm and ReLU",
        "Bacho & Chu 2024, arXiv:2212.07282",
        smallest=1,
    ),
    Network(
        "convolutional",
        convolutional,
        "two convolutions and a linear layer: the paper's, as coded or as announced",
        "Bacho & Chu 2024, arXiv:2212.07282",
        smallest=10,
    ),
    Network(
        "alexnet",
        alexnet,
        "five convolutions and three linear layers, with batch norm",
        "Krizhevsky et al. 2012; Bacho & Chu 2024, arXiv:2212.07282",
        smallest=63,
    ),
    Network(
        "lenet",
        lenet,
        "LeNet-5 with ReLU and max pooling",
        "LeCun et al. 1998",
        smallest=12,
    ),
    Network(
        "mlp",
        mlp,
        "linear layers with ReLU, tanh or sigmoid units and dropout, without normalisation",
        "Nokland 2016, arXiv:1609.01596; Akrout et al. 2019, arXiv:1904.05391",
        smallest=1,
    ),
    Network(
        "resnet20",
        resnet20,
        "nine residual blocks for small images, shortcuts without parameters",
        "He et al. 2015, arXiv:1512.03385",
        smallest=4,
    ),
    Network(
        "resnet56",
        resnet56,
        "27 residual blocks for small images, shortcuts without parameters",
        "He et al. 2015, arXiv:1512.03385",
        smallest=4,
    ),
    Network(
        "resnet18",
        resnet18,
        "eight residual blocks for large images, projecting shortcuts",
        "He et al. 2015, arXiv:1512.03385",
        smallest=8,
    ),
    Network(
        "vgg",
        vgg,
        "8, 10 or 13 convolutions of 3 x 3 with batch norm, and a linear layer",
        "Simonyan & Zisserman 2014, arXiv:1409.1556",
        smallest=1,
    ),
    Network(
        "vit",
        vit,
        "Vision Transformer: attention among patches",
        "Dosovitskiy et al. 2020, arXiv:2010.11929",
        smallest=4,
    ),
    Network(
        "gru",
        gru,
        "gated recurrent units that read an image row by row",
        "Cho et al. 2014, arXiv:1406.1078",
        smallest=1,
    ),
    Network(
        "lstm",
        lstm,
        "long short-term memory that reads an image row by row",
        "Hochreiter & Schmidhuber 1997",
        smallest=1,
    ),
    Network(
        "mlp-mixer",
        mlp_mixer,
        "linear layers across patches and within them in turn",
        "Tolstikhin et al. 2021, arXiv:2105.01601",
        smallest=4,
    ),
    Network(
        "local-mixer",
        local_mixer,
        "linear layers across patches, channels and groups, with heads for local losses",
        "Ren et al. 2023, arXiv:2210.03310",
        smallest=4,
    ),
)


def networks() -> dict[str, Network]:
    """Every reference network by name, those of the paper first.

    Returns:
        Name to description.

    Example:
        >>> networks()["vit"].options()
        {'patch': 4, 'dim': 128, 'depth': 4, 'heads': 4}
    """
    return {network.name: network for network in _REGISTRY}


def names() -> tuple[str, ...]:
    """Lists the networks that ``build`` knows.

    Returns:
        The names.

    Example:
        >>> names()[:3]
        ('fully-connected', 'convolutional', 'alexnet')
    """
    return tuple(networks())


def build(name: str, *, image: tuple[int, int, int], classes: int, **options: Any) -> nn.Module:
    """Builds a reference network by name, for a data set's images and classes.

    Args:
        name: one of ``names()``.
        image: (channels, height, width) of one input.
        classes: number of outputs, K.
        **options: what the network takes besides: ``networks()[name].options()`` lists it.

    Returns:
        A network from (N, C, H, W) to (N, K), in training mode.

    Raises:
        ConfigError: if the name, an option or a size is wrong.

    Example:
        >>> build("fully-connected", image=(1, 8, 8), classes=10, width=32, depth=1).linear1
        Linear(in_features=64, out_features=32, bias=True)
    """
    known = networks()
    if name not in known:
        raise ConfigError(unknown_name("model", name, list(known)))
    factory, valid = known[name].factory, list(known[name].options())
    for option in options:
        if option not in valid:
            raise ConfigError(f"model {name!r}: {unknown_name('option', option, valid)}")
    if known[name].reads_flat:
        check_image(image, network=name, smallest=1)
        return factory(math.prod(image), classes=classes, **options)
    return factory(image=image, classes=classes, **options)

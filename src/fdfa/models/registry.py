"""Reference networks by name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, Final

from torch import nn

from fdfa.errors import ConfigError, unknown_name
from fdfa.models.convolution import alexnet, convolutional, lenet
from fdfa.models.dense import fully_connected
from fdfa.models.residual import resnet20
from fdfa.models.sizes import check_image

__all__ = ["build", "names"]

# The fully connected network stands apart: it takes a number of inputs, not an image.
FROM_IMAGE: Final[dict[str, Callable[..., nn.Module]]] = {
    "convolutional": convolutional,
    "alexnet": alexnet,
    "lenet": lenet,
    "resnet20": resnet20,
}


def names() -> tuple[str, ...]:
    """Lists the networks that ``build`` knows.

    Returns:
        The names.

    Example:
        >>> names()
        ('fully-connected', 'convolutional', 'alexnet', 'lenet', 'resnet20')
    """
    return ("fully-connected", *FROM_IMAGE)


def build(name: str, *, image: tuple[int, int, int], classes: int, **options: Any) -> nn.Module:
    """Builds a reference network by name, for a data set's images and classes.

    Args:
        name: one of ``names()``.
        image: (channels, height, width) of one input.
        classes: number of outputs, K.
        **options: what the network takes besides: ``width``, ``depth`` and ``batch_norm`` for
            ``fully-connected``, nothing for the others.

    Returns:
        A network from (N, C, H, W) to (N, K), in training mode.

    Raises:
        ConfigError: if the name, an option or a size is wrong.

    Example:
        >>> build("fully-connected", image=(1, 8, 8), classes=10, width=32, depth=1).linear1
        Linear(in_features=64, out_features=32, bias=True)
    """
    if name not in names():
        raise ConfigError(unknown_name("model", name, names()))
    factory = FROM_IMAGE.get(name, fully_connected)
    known = _options(factory)
    for option in options:
        if option not in known:
            raise ConfigError(f"model {name!r}: {unknown_name('option', option, known)}")
    if factory is fully_connected:
        check_image(image, network=name, smallest=1)
        return fully_connected(math.prod(image), classes=classes, **options)
    return factory(image=image, classes=classes, **options)


def _options(factory: Callable[..., nn.Module]) -> list[str]:
    """What a factory takes besides the sizes that follow from the data set."""
    return [
        name
        for name in inspect.signature(factory).parameters
        if name not in {"inputs", "image", "classes"}
    ]

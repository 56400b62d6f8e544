"""The multilayer perceptron of the feedback alignment papers."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from torch import nn

from fdfa.errors import ConfigError
from fdfa.models.sizes import check_at_least, check_choice

__all__ = ["mlp"]

ACTIVATIONS: Final[Mapping[str, type[nn.Module]]] = MappingProxyType(
    {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
)


def mlp(
    inputs: int,
    *,
    classes: int = 10,
    width: int = 800,
    depth: int = 2,
    activation: Literal["relu", "tanh", "sigmoid"] = "relu",
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    start: Literal["uniform", "normal", "zero"] = "uniform",
) -> nn.Sequential:
    """Builds flatten, ``depth`` times (linear, activation, dropout), linear; no normalisation.

    Nokland (arXiv:1609.01596) takes 2 layers of 800 tanh units that start at zero, Akrout et al.
    (arXiv:1904.05391) one of 500 sigmoid units.

    Args:
        inputs: numbers in one input, after flattening.
        classes: number of outputs, K.
        width: units in each hidden layer.
        depth: hidden layers; 0 gives a linear classifier.
        activation: ``"relu"``, ``"tanh"`` or ``"sigmoid"``.
        dropout: share of the hidden units that are left out at random, in [0, 1).
        input_dropout: the same of the inputs.
        start: of weights and biases: ``"uniform"`` U(+-1/sqrt(fan_in)), PyTorch's own;
            ``"normal"`` N(0, 1/(fan_in + fan_out)); or ``"zero"``, from which feedback alignment
            learns and backpropagation does not.

    Returns:
        A network from (N, ...) to (N, K), with layers named ``dropout0``, ``linear1``, ``tanh1``
        (as the activation is called), ``dropout1``, ..., ``output``; dropout only where there is
        any.

    Raises:
        ConfigError: if a size, a share or a choice is not possible; or if ReLU units would start
            at zero, where their derivative is zero too.

    Example:
        >>> network = mlp(784, activation="tanh", start="zero", dropout=0.5)
        >>> [name for name, _ in network.named_children()]
        ['flatten', 'linear1', 'tanh1', 'dropout1', 'linear2', 'tanh2', 'dropout2', 'output']
        >>> bool(network.linear2.weight.any())
        False
    """
    check_at_least(1, inputs=inputs, classes=classes, width=width)
    check_at_least(0, depth=depth)
    check_choice(tuple(ACTIVATIONS), activation=activation)
    check_choice(("uniform", "normal", "zero"), start=start)
    for name, share in (("dropout", dropout), ("input_dropout", input_dropout)):
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share < 1:
            raise ConfigError(f"{name}={share!r} is not a possible share. Give one in [0, 1).")
    if start == "zero" and activation == "relu" and depth:
        raise ConfigError(
            "start='zero' with activation='relu': all units would be 0, where the derivative of "
            "ReLU is 0 too, and no rule could move a weight. Take activation='tanh' or another "
            "start."
        )
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    if input_dropout:
        layers["dropout0"] = nn.Dropout(input_dropout)
    units = inputs
    for number in range(1, depth + 1):
        layers[f"linear{number}"] = nn.Linear(units, width)
        layers[f"{activation}{number}"] = ACTIVATIONS[activation]()
        if dropout:
            layers[f"dropout{number}"] = nn.Dropout(dropout)
        units = width
    layers["output"] = nn.Linear(units, classes)
    for layer in layers.values():
        if isinstance(layer, nn.Linear):
            _draw(layer, start)
    return nn.Sequential(layers)


def _draw(layer: nn.Linear, start: str) -> None:
    """Weights and biases anew; PyTorch has drawn its own."""
    deviation = 0.0 if start == "zero" else 1 / math.sqrt(layer.in_features + layer.out_features)
    if start != "uniform":
        for parameter in (layer.weight, layer.bias):
            nn.init.normal_(parameter, std=deviation)

"""The paper's fully connected network."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from fdfa.models.sizes import check_at_least

__all__ = ["fully_connected"]


def fully_connected(
    inputs: int,
    *,
    classes: int = 10,
    width: int = 800,
    depth: int = 2,
    batch_norm: bool = True,
) -> nn.Sequential:
    """Builds flatten, ``depth`` times (linear, batch norm, ReLU), linear.

    The paper's MNIST network is 784-800-800-10, its CIFAR-10 network has width 1000 (Bacho & Chu,
    arXiv:2212.07282).

    Args:
        inputs: numbers in one input, after flattening.
        classes: number of outputs, K.
        width: units in each hidden layer.
        depth: hidden layers; 0 gives a linear classifier.
        batch_norm: whether to normalise before each ReLU.

    Returns:
        A network from (N, ...) to (N, K), with layers named ``linear1``, ``norm1``, ``relu1``, ...,
        ``output``.

    Raises:
        ConfigError: if a size is too small.

    Example:
        >>> network = fully_connected(784)
        >>> [name for name, _ in network.named_children()]
        ['flatten', 'linear1', 'norm1', 'relu1', 'linear2', 'norm2', 'relu2', 'output']
        >>> network.linear2
        Linear(in_features=800, out_features=800, bias=True)
    """
    check_at_least(1, inputs=inputs, classes=classes, width=width)
    check_at_least(0, depth=depth)
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    units = inputs
    for number in range(1, depth + 1):
        layers[f"linear{number}"] = nn.Linear(units, width)
        if batch_norm:
            layers[f"norm{number}"] = nn.BatchNorm1d(width)
        layers[f"relu{number}"] = nn.ReLU()
        units = width
    layers["output"] = nn.Linear(units, classes)
    return nn.Sequential(layers)

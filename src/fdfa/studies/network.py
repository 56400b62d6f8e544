"""The network of a task: built for the data, with the weights of a seed, and tried once."""

from __future__ import annotations

import inspect
import math

import torch
from torch import nn

import fdfa.models
from fdfa.data.dataset import Dataset
from fdfa.engine.intercept import untouched_state
from fdfa.engine.random_state import random_state_of
from fdfa.errors import ConfigError, briefly
from fdfa.studies.task import Task, factory_of, resolved
from fdfa.training import eval_mode, start_training

__all__ = ["build_network"]


def build_network(task: Task, data: Dataset, *, seed: int) -> nn.Module:
    """The network of a task with the weights that belong to a seed; it is tried on two examples.

    Args:
        task: names it.
        data: says the sizes of inputs and outputs.
        seed: of the weights. Torch's own random numbers are as before afterwards.

    Returns:
        The network, in training mode; what its factory froze with ``.eval()`` stays frozen.

    Raises:
        ConfigError: if there is no such network, or it does not fit the data.

    Example:
        >>> from fdfa.studies.task import load_data
        >>> task = Task(model_options={"width": 8, "depth": 1})
        >>> build_network(task, load_data(task), seed=0).output
        Linear(in_features=8, out_features=10, bias=True)
    """
    task = resolved(task)
    with random_state_of(seed):
        if ":" in task.model:
            network = _build_own(task, data)
        else:
            network = fdfa.models.build(
                task.model,
                image=_as_image(task, data),
                classes=data.classes,
                **task.model_options,
            )
    start_training(network)
    _try(network, task, data)
    return network


def _as_image(task: Task, data: Dataset) -> tuple[int, int, int]:
    """The shape that our own networks are built for."""
    if len(data.shape) == 3:
        channels, height, width = data.shape
        return channels, height, width
    if fdfa.models.networks()[task.model].reads_flat:
        return 1, 1, math.prod(data.shape)
    raise ConfigError(
        f"model {task.model!r} reads pictures (C, H, W), and the inputs of data set {task.data!r} "
        f"have shape {data.shape}. Take fully-connected, or package.module:factory for a network "
        "of your own."
    )


def _build_own(task: Task, data: Dataset) -> nn.Module:
    """The user's network; its factory is told the sizes that it has parameters for."""
    factory = factory_of(task.model)
    sizes = {"inputs": math.prod(data.shape), "image": data.shape, "classes": data.classes}
    wanted = inspect.signature(factory).parameters
    told = {name: size for name, size in sizes.items() if name in wanted}
    try:
        network = factory(**told, **task.model_options)
    except Exception as error:
        raise ConfigError(
            f"model {task.model!r} cannot be built ({briefly(error, named=True)}). Mend the "
            "factory, or its options (--model-options)."
        ) from error
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"model {task.model!r} gave an object of type {type(network).__name__}, not a "
            "torch.nn.Module. Return the network from the factory."
        )
    return network


def _try(network: nn.Module, task: Task, data: Dataset) -> None:
    """Run the network on two examples: a bad size is found before any training."""
    examples, _ = data.train.first(2)
    expected = (len(examples), data.classes)
    try:
        with torch.no_grad(), untouched_state(network), eval_mode(network):
            outputs = network(examples)
    except Exception as error:
        raise ConfigError(
            f"model {task.model!r} cannot run on inputs of shape {tuple(examples.shape)} of data "
            f"set {task.data!r} ({briefly(error, named=True)}). Let it take inputs of that "
            "shape, or name another data set."
        ) from error
    shape = tuple(getattr(outputs, "shape", ()))
    if shape != expected:
        raise ConfigError(
            f"model {task.model!r} returns {shape or type(outputs).__name__} for "
            f"{len(examples)} examples of data set {task.data!r}, and there are {data.classes} "
            f"classes. Return one output for each, {expected}."
        )

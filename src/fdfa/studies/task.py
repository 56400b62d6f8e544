"""What is learned, and by which network: a data set and a model by name."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import nn

import fdfa.data
import fdfa.models
from fdfa.data.dataset import Dataset
from fdfa.engine.intercept import untouched_state
from fdfa.engine.random_state import random_state_of
from fdfa.errors import ConfigError, briefly, unknown_name
from fdfa.studies.options import typed_options
from fdfa.training import eval_mode, start_training

__all__ = ["Task", "build_network", "factory_of", "load_data", "model_options", "resolved", "typed"]

# 64 inputs do not need the 800 units that the network has for MNIST.
_DEFAULTS: Mapping[tuple[str, str], Mapping[str, Any]] = MappingProxyType(
    {("digits", "fully-connected"): MappingProxyType({"width": 256})}
)
_FROM_DATA = ("inputs", "image", "classes")
_AUGMENTATIONS = ("crop", "flip")
_PADDING = 4  # of a crop: what everyone takes for pictures of 32 x 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What is learned, and by which network.

    Attributes:
        data: name of the data set, as `fdfa data list` lists them.
        data_dir: folder with the data set's files; default: $FDFA_DATA, then the cache, then a
            download. digits needs none.
        data_options: options of the data set, as in split=letters.
        validation: training examples set apart to choose on; default: 200 of digits, 5,000 of
            others.
        augment: change the training pictures at random: crop (padded by 4 pixels), flip.
        model: name of the network, as `fdfa models` lists them; or package.module:factory for one
            of your own.
        model_options: options of the network, as in width=512 depth=3.

    Raises:
        ConfigError: if a way to change pictures is unknown.

    Example:
        >>> Task(data="digits", model_options={"depth": 1}).model
        'fully-connected'
    """

    data: str = "digits"
    data_dir: str | None = None
    data_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    validation: int | None = None
    augment: tuple[Literal["crop", "flip"], ...] = ()
    model: str = "fully-connected"
    model_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the names of the augmentations; data set and network are looked up when needed."""
        for name in self.augment:
            if name not in _AUGMENTATIONS:
                raise ConfigError(unknown_name("augmentation", str(name), _AUGMENTATIONS))


def resolved(task: Task) -> Task:
    """The same task with its names in one spelling and every default in place.

    Args:
        task: as the user gave it.

    Returns:
        What belongs into ``config.json``.

    Raises:
        ConfigError: if the data set, the network or an option of one is unknown.

    Example:
        >>> dict(resolved(Task(model="fully_connected")).model_options)
        {'width': 256, 'depth': 2, 'batch_norm': True}
    """
    source = fdfa.data.describe(task.data)
    for option in task.data_options:
        if option not in source.options():
            problem = unknown_name("option", option, list(source.options()))
            raise ConfigError(f"data set {task.data!r}: {problem}")
    name = _spelling(task.model)
    given = {**_DEFAULTS.get((task.data, name), {}), **task.model_options}
    valid = _valid_options(name)
    for option in given:
        if option not in valid:
            raise ConfigError(f"model {name!r}: {unknown_name('option', option, list(valid))}")
    defaults = {key: value for key, value in valid.items() if value is not inspect.Parameter.empty}
    return dataclasses.replace(
        task,
        data_dir=None if task.data_dir is None else _absolute(task.data_dir),
        data_options={**source.options(), **task.data_options},
        validation=source.validation if task.validation is None else task.validation,
        model=name,
        model_options={**defaults, **given},
    )


def model_options(model: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Options of a network from text, checked against its factory's signature.

    Args:
        model: name of a network, or ``package.module:factory``.
        texts: option to value, as text.

    Returns:
        Keyword arguments for the factory.

    Raises:
        ConfigError: if the network or an option is unknown, or a value is not of its type.

    Example:
        >>> model_options("fully-connected", {"width": "32", "batch_norm": "no"})
        {'width': 32, 'batch_norm': False}
    """
    name = _spelling(model)
    valid = list(_valid_options(name))
    return typed_options(texts, factory_of(name), valid=valid, owner=f"model {name!r}")


def typed(task: Task) -> Task:
    """The same task with its network's options turned from text into what they stand for.

    Args:
        task: as a command line gives it.

    Returns:
        What Python would have been given.

    Raises:
        ConfigError: as :func:`model_options`.

    Example:
        >>> typed(Task(model_options={"width": "32"})).model_options
        {'width': 32}
    """
    return dataclasses.replace(task, model_options=model_options(task.model, task.model_options))


def load_data(task: Task, *, progress: Callable[[str, int, int], None] | None = None) -> Dataset:
    """The data set of a task; downloaded if it is nowhere.

    Args:
        task: names it.
        progress: during a download called with a file's name, the bytes that are there, and its
            size.

    Returns:
        The data set; its training pictures are changed at random where the task says so.

    Raises:
        ConfigError: if a name or an option is wrong.
        DataError: if a file is missing or damaged.
    """
    data = fdfa.data.load(
        task.data,
        directory=task.data_dir,
        validation=task.validation,
        progress=progress,
        **task.data_options,
    )
    if not task.augment:
        return data
    if len(data.shape) != 3:
        raise ConfigError(
            f"augment={', '.join(task.augment)} changes pictures (C, H, W), and the inputs of data "
            f"set {task.data!r} have shape {data.shape}. Leave it out."
        )
    padding = _PADDING if "crop" in task.augment else 0
    return data.augmented(fdfa.data.Augmentation(padding=padding, flip="flip" in task.augment))


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


def _absolute(folder: str) -> str:
    """For a resume that starts somewhere else."""
    return str(Path(folder).expanduser().absolute())


def _spelling(name: str) -> str:
    return name if ":" in name else name.replace("_", "-")


def factory_of(name: str) -> Callable[..., Any]:
    """What builds a network.

    Args:
        name: of a network, or ``package.module:factory``.

    Returns:
        The function or class.

    Raises:
        ConfigError: if there is none.

    Example:
        >>> factory_of("fully-connected").__name__
        'fully_connected'
    """
    name = _spelling(name)
    if ":" in name:
        return _import(name)
    if name not in fdfa.models.names():
        known = ", or package.module:factory for a network of your own"
        raise ConfigError(
            unknown_name("model", name, fdfa.models.names()).rstrip(".") + f"{known}."
        )
    factory: Callable[..., Any] = getattr(fdfa.models, name.replace("-", "_"))
    return factory


def _import(name: str) -> Callable[..., Any]:
    """The factory behind ``package.module:factory``."""
    module_name, _, attribute = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:
        raise ConfigError(
            f"model {name!r} cannot be imported ({briefly(error, named=True)}). Write "
            "package.module:factory, and start where Python finds the package."
        ) from error
    if isinstance(factory, nn.Module) or not callable(factory):
        raise ConfigError(
            f"model {name!r} is an object of type {type(factory).__name__}, not a function that "
            "builds a network: every run needs fresh weights. Name a function or a class."
        )
    result: Callable[..., Any] = factory
    return result


def _valid_options(name: str) -> dict[str, Any]:
    """What a factory takes besides the sizes that follow from the data, with the defaults."""
    parameters = inspect.signature(factory_of(name)).parameters.values()
    return {
        p.name: p.default
        for p in parameters
        if p.name not in _FROM_DATA and p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    }


def _as_image(task: Task, data: Dataset) -> tuple[int, int, int]:
    """The shape that our own networks are built for."""
    if len(data.shape) == 3:
        channels, height, width = data.shape
        return channels, height, width
    if task.model == "fully-connected":
        return 1, 1, math.prod(data.shape)
    raise ConfigError(
        f"model {task.model!r} reads pictures (C, H, W), and the inputs of data set {task.data!r} "
        f"have shape {data.shape}. Take fully-connected, or package.module:factory for a network "
        "of your own."
    )


def _build_own(task: Task, data: Dataset) -> nn.Module:
    """The user's network; its factory is told the sizes that it has parameters for."""
    factory = _import(task.model)
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

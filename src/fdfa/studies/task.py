"""What is learned, and by which network: a data set and a model by name."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from torch import nn

import fdfa.data
import fdfa.models
from fdfa.data.dataset import Dataset
from fdfa.data.pixel_scales import PIXEL_SCALES, PixelScale, scaled
from fdfa.errors import ConfigError, briefly, unknown_name
from fdfa.studies.typed_options import typed_options

__all__ = ["Task", "factory_of", "load_data", "model_options", "resolved"]

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
        pixels: what the pixels become: symmetric, -1 to 1; unit, 0 to 1; standard, mean 0 and
            variance 1 over the training pictures.
        model: name of the network, as `fdfa models` lists them; or package.module:factory for one
            of your own.
        model_options: options of the network, as in width=512 depth=3.

    Raises:
        ConfigError: if a way to change pictures, or a scale of pixels, is unknown.

    Example:
        >>> Task(data="digits", model_options={"depth": 1}).model
        'fully-connected'
    """

    data: str = "digits"
    data_dir: str | None = None
    data_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    validation: int | None = None
    augment: tuple[Literal["crop", "flip"], ...] = ()
    pixels: PixelScale = "symmetric"
    model: str = "fully-connected"
    model_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the names of the augmentations; data set and network are looked up when needed."""
        for name in self.augment:
            if name not in _AUGMENTATIONS:
                raise ConfigError(unknown_name("augmentation", str(name), _AUGMENTATIONS))
        if self.pixels not in PIXEL_SCALES:
            raise ConfigError(unknown_name("pixels", str(self.pixels), PIXEL_SCALES))


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
    data = scaled(data, task.pixels)
    if not task.augment:
        return data
    if len(data.shape) != 3:
        raise ConfigError(
            f"augment={', '.join(task.augment)} changes pictures (C, H, W), and the inputs of data "
            f"set {task.data!r} have shape {data.shape}. Leave it out."
        )
    padding = _PADDING if "crop" in task.augment else 0
    return data.augmented(fdfa.data.Augmentation(padding=padding, flip="flip" in task.augment))


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

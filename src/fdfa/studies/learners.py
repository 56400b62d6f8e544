"""A method around a network of a study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from fdfa.data.dataset import Dataset
from fdfa.engine.estimator import Estimator
from fdfa.engine.heads import LocalHeads
from fdfa.engine.local import LocalEstimator
from fdfa.methods import described, wrap

__all__ = ["make_learner"]


def make_learner(
    method: str, network: nn.Module, data: Dataset, options: Mapping[str, Any]
) -> Estimator:
    """Wrap a network by a method's name, with local heads first where the method needs them.

    Args:
        method: a name of ``fdfa.methods()``.
        network: any.
        data: whose examples show what shapes its activations have.
        options: of the method.

    Returns:
        The estimator.

    Raises:
        ConfigError: if the method or an option is unknown or out of range.
        UnsupportedModelError: if the network cannot be cut for heads.

    Example:
        >>> from fdfa.studies.network import build_network
        >>> from fdfa.studies.task import Task, load_data
        >>> task = Task(model_options={"width": 8, "depth": 1})
        >>> data = load_data(task)
        >>> make_learner("l-bp", build_network(task, data, seed=0), data, {}).head_names
        ('relu1',)
    """
    if issubclass(described(method).estimator, LocalEstimator):
        example = data.train.first(2)[0].to(next(network.parameters()).device)
        network = LocalHeads(network, example)
    return wrap(method, network, **options)

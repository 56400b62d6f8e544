"""An explanation by names: data set, network and method, as a run would use them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fdfa.errors import ConfigError
from fdfa.studies.explain import explain
from fdfa.studies.explanation import Explanation
from fdfa.studies.learners import make_learner
from fdfa.studies.network import build_network
from fdfa.studies.options import resolved_options
from fdfa.studies.task import Task, load_data

__all__ = ["PreviewConfig", "preview"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreviewConfig:
    """What is explained.

    Attributes:
        method: name of the method, as `fdfa methods` lists it.
        options: of the method, as in depth=2 probe_every=4.
        batch_size: examples in one step.
        task: what is learned, and by which network.

    Raises:
        ConfigError: if the batch size is out of range.

    Example:
        >>> PreviewConfig(method="dfa").batch_size
        64
    """

    method: str = "fdfa"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    batch_size: int = 64
    task: Task = dataclasses.field(default_factory=Task)

    def __post_init__(self) -> None:
        """Check the batch size."""
        if self.batch_size < 1:
            raise ConfigError(
                f"batch_size={self.batch_size!r} is not possible. Give a whole number from 1."
            )


def preview(config: PreviewConfig) -> Explanation:
    """Explain what a method would do to a network, on a batch of the training examples.

    Args:
        config: names them.

    Returns:
        Taps, blocks, costs, obstacles.

    Raises:
        ConfigError: if a name or an option is wrong.

    Example:
        >>> [tap.name for tap in preview(PreviewConfig(method="dfa")).taps]
        ['relu1', 'relu2']
    """
    options = resolved_options(config.method, config.options)
    data = load_data(config.task)
    network = build_network(config.task, data, seed=0)
    learner = make_learner(config.method, network, data, options)
    return explain(learner, data.train.first(config.batch_size)[0])

"""FDFA with the settings that came nearest to backpropagation in our own study."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from fdfa.methods.fdfa import FDFA

__all__ = ["recommended"]


def recommended(model: nn.Module, **options: Any) -> FDFA:
    """FDFA as the study ``closing-the-gap`` recommends it; its own defaults are the paper's.

    For every model: maps that learn by innovation, at a rate that adapts itself (the study has the
    adaptive rate on a convolutional network; without convolutions, the constant .01). With
    convolutions, where a fixed map carries too little: each credit enters one block behind its tap
    and is pulled back exactly, the first block learns in one pass of two, and one step in four
    probes, but each of the first 200. In a residual network this was not measured: the study has
    ``relay=2, shift_grid=2`` there, six points behind backpropagation.

    ``DistributedDataParallel`` around it wants ``find_unused_parameters=True``, since the first
    block rests.

    Args:
        model: any module.
        **options: of :class:`fdfa.FDFA`, in place of what is recommended.

    Returns:
        The learner.

    Raises:
        ConfigError: if an option is out of range.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> fdfa.recommended(model).feedback_update
        'innovation'
        >>> convolutional = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
        >>> fdfa.recommended(convolutional).relay, fdfa.recommended(convolutional, relay=2).relay
        (1, 2)
    """
    chosen: dict[str, Any] = {"feedback_update": "innovation", "feedback_rate": "adaptive"}
    if any(isinstance(module, _ConvNd) for module in model.modules()):
        chosen |= {"relay": 1, "first_block_every": 2, "probe_every": 4, "probe_first": 200}
    return FDFA(model, **{**chosen, **options})

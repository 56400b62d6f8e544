"""Every reference network at a size that a test can afford."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from fdfa import models

__all__ = ["SMALL", "build_small"]

SMALL: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "fully-connected": {"width": 6},
        "mlp": {"width": 6},
        "resnet18": {"width": 2},
        "vgg": {"width": 2},
        "vit": {"dim": 8, "depth": 3, "heads": 2},
        "gru": {"width": 5, "depth": 3},
        "lstm": {"width": 5, "depth": 3},
        "mlp-mixer": {"dim": 6, "depth": 3, "token_width": 3, "channel_width": 8},
        "local-mixer": {"dim": 6, "depth": 3, "groups": 2},
    }
)


def build_small(name: str, image: tuple[int, int, int], classes: int, **options: Any) -> nn.Module:
    """The network with few units, where it has options for that."""
    model = models.build(name, image=image, classes=classes, **{**SMALL.get(name, {}), **options})
    if name == "local-mixer":  # starts at zero, where nothing before it would learn at first
        nn.init.normal_(model.get_parameter("output.weight"))
    return model

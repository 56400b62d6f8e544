"""The reference networks: names, options and sizes that cannot be."""

from __future__ import annotations

from typing import Any

import fdfa.models
from fdfa.errors import ConfigError
from tests.errors.provoke import Case

__all__ = ["MODELS_CASES"]


def _built(
    name: str, model: str, image: Any = (1, 28, 28), classes: Any = 10, **options: Any
) -> Case:
    return Case(
        name,
        ConfigError,
        lambda here: fdfa.models.build(model, image=image, classes=classes, **options),
    )


MODELS_CASES = [
    _built("unknown model", "resnet21"),
    _built("unknown option of a model", "fully-connected", widht=3),
    _built("no size", "fully-connected", width=0),
    _built("a size that is no number", "fully-connected", depth=True),
    _built("no classes", "lenet", classes=0),
    _built("a side too small to resize to", "alexnet", resize=32),
    _built("an unknown form", "convolutional", form="cods"),
    _built("an unknown depth", "vgg", image=(3, 32, 32), depth=12),
    _built("an unknown activation", "mlp", activation="tahn"),
    _built("an unknown start", "mlp", start="zeros"),
    _built("dropout of everything", "mlp", dropout=1.0),
    _built("inputs left out by a switch", "mlp", input_dropout=True),
    _built("rectifiers that start at zero", "mlp", start="zero"),
    _built("heads that do not divide", "vit", dim=64, heads=5),
    _built("a patch that does not divide", "vit", patch=3),
    _built("an image without channels", "lenet", image=(28, 28)),
    _built("an image that is too small", "lenet", image=(1, 8, 8)),
    _built("an image with a side of nothing", "gru", image=(1, 0, 8)),
]

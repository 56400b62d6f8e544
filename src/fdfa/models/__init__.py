"""Reference networks: those of the paper, and well-known ones of other structures."""

from __future__ import annotations

from fdfa.models.convolution import alexnet, convolutional, lenet, vgg
from fdfa.models.dense import fully_connected
from fdfa.models.local_mixer import local_mixer
from fdfa.models.mixer import mlp_mixer
from fdfa.models.perceptron import mlp
from fdfa.models.recurrent import gru, lstm
from fdfa.models.registry import Network, build, names, networks
from fdfa.models.residual import resnet18, resnet20, resnet56
from fdfa.models.transformer import vit

__all__ = [
    "Network",
    "alexnet",
    "build",
    "convolutional",
    "fully_connected",
    "gru",
    "lenet",
    "local_mixer",
    "lstm",
    "mlp",
    "mlp_mixer",
    "names",
    "networks",
    "resnet18",
    "resnet20",
    "resnet56",
    "vgg",
    "vit",
]

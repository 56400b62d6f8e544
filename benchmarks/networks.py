"""The two networks on which speed and memory are measured."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import fdfa.models

BATCH = 64


def networks() -> dict[str, tuple[nn.Module, Tensor, Tensor]]:
    """Name to network, inputs and targets: 784-3x800-10, and the paper's CNN in the authors' form.

    Returns:
        The networks, freshly initialised.
    """
    torch.manual_seed(0)
    targets = torch.randint(0, 10, (BATCH,))
    dense = fdfa.models.build("fully-connected", image=(1, 28, 28), classes=10, width=800, depth=3)
    cnn = fdfa.models.build("convolutional", image=(3, 32, 32), classes=10)
    return {
        "fully connected": (dense, torch.randn(BATCH, 1, 28, 28), targets),
        "CNN": (cnn, torch.randn(BATCH, 3, 32, 32), targets),
    }

"""Blocks of LocalMixer: linear layers across tokens, across channels and within groups."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "ChannelLinear",
    "FirstBlock",
    "GroupedLinear",
    "LocalBlock",
    "TokenLinear",
    "normalised",
]


def normalised(x: Tensor) -> Tensor:
    """Layer norm over the last dimension, without weights.

    Args:
        x: of any shape.

    Returns:
        A tensor of the same shape.

    Example:
        >>> normalised(torch.ones(2, 3)).any()
        tensor(False)
    """
    return F.layer_norm(x, x.shape[-1:])


class _Linear(nn.Module):
    """A weight with the paper's start, and a bias.

    The norms around it are functions, not modules: so what lies before the first of them is an
    activation, where taps belong.
    """

    def __init__(self, *shape: int, fan_in: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.weight, std=min(2 / math.sqrt(fan_in), 0.1))


class TokenLinear(_Linear):
    """Norm, linear across tokens, norm; both norms over the channels of a token.

    Args:
        tokens: P.

    Example:
        >>> TokenLinear(4)(torch.zeros(2, 4, 6)).shape
        torch.Size([2, 4, 6])
    """

    def __init__(self, tokens: int) -> None:
        super().__init__(tokens, tokens, fan_in=tokens, outputs=tokens)

    def forward(self, x: Tensor) -> Tensor:
        """Mixes tokens: (N, P, C) to (N, P, C)."""
        mixed = F.linear(normalised(x).transpose(1, 2), self.weight, self.bias)
        return normalised(mixed.transpose(1, 2))

    def positions(self, x: Tensor) -> int:
        """How often each weight is used, for those who count multiplications."""
        return x.shape[0] * x.shape[2]


class ChannelLinear(_Linear):
    """Norm, linear across the channels of a token, norm; the channels come out in groups.

    Args:
        inputs: channels that come in.
        channels: C, that go out.
        groups: G.

    Example:
        >>> ChannelLinear(5, 6, groups=2)(torch.zeros(2, 4, 5)).shape
        torch.Size([2, 4, 2, 3])
    """

    def __init__(self, inputs: int, channels: int, *, groups: int) -> None:
        super().__init__(channels, inputs, fan_in=inputs, outputs=channels)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Mixes channels: (N, P, inputs) to (N, P, G, C / G)."""
        mixed = F.linear(normalised(x), self.weight, self.bias)
        return normalised(mixed).view(*mixed.shape[:2], self.groups, -1)


class GroupedLinear(_Linear):
    """Norm, linear within each group of channels, norm; both norms over the group.

    Args:
        groups: G.
        width: channels of a group, D.

    Example:
        >>> GroupedLinear(groups=2, width=3)(torch.zeros(2, 4, 2, 3)).shape
        torch.Size([2, 4, 2, 3])
    """

    def __init__(self, *, groups: int, width: int) -> None:
        super().__init__(groups, width, width, fan_in=width, outputs=groups * width)

    def forward(self, x: Tensor) -> Tensor:
        """Mixes channels of a group: (N, P, G, D) to (N, P, G, D)."""
        mixed = torch.einsum("npgi,gio->npgo", normalised(x), self.weight)
        return normalised(mixed + self.bias.view(mixed.shape[2:]))

    def positions(self, x: Tensor) -> int:
        """How often each weight is used, for those who count multiplications."""
        return x.shape[0] * x.shape[1]


class FirstBlock(nn.Module):
    """From patches to channels: a linear layer for each patch and a grouped one.

    Args:
        inputs: numbers in a patch.
        channels: C.
        groups: G.

    Example:
        >>> FirstBlock(5, 6, groups=2)(torch.zeros(2, 4, 5)).shape
        torch.Size([2, 4, 2, 3])
    """

    def __init__(self, inputs: int, channels: int, *, groups: int) -> None:
        super().__init__()
        self.mix_channels = ChannelLinear(inputs, channels, groups=groups)
        self.relu1 = nn.ReLU()
        self.mix_group = GroupedLinear(groups=groups, width=channels // groups)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, P, inputs) to (N, P, G, D)."""
        h: Tensor = self.relu2(self.mix_group(self.relu1(self.mix_channels(x))))
        return h


class LocalBlock(nn.Module):
    """Linear layers across tokens, across channels and within groups, and a shortcut.

    Args:
        tokens: P.
        channels: C.
        groups: G.

    Example:
        >>> LocalBlock(4, 6, groups=2)(torch.zeros(2, 4, 2, 3)).shape
        torch.Size([2, 4, 2, 3])
    """

    def __init__(self, tokens: int, channels: int, *, groups: int) -> None:
        super().__init__()
        self.mix_tokens = TokenLinear(tokens)
        self.relu1 = nn.ReLU()
        self.mix_channels = ChannelLinear(channels, channels, groups=groups)
        self.relu2 = nn.ReLU()
        self.mix_group = GroupedLinear(groups=groups, width=channels // groups)
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, P, G, D) to (N, P, G, D)."""
        h = self.relu1(self.mix_tokens(x.flatten(2)))
        h = self.relu2(self.mix_channels(h))
        y: Tensor = self.relu3(self.mix_group(h) + x)
        return y

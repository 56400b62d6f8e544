"""What networks of tokens share: patches, residual blocks, the mean over the tokens.

The mean takes the place of a class token. Either way there is one valid cut after each block, but
with the mean every token leads to the output by itself, and not through attention alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["PatchEmbedding", "TokenBlock", "TokenNetwork", "two_layers"]


def two_layers(units: int, width: int) -> nn.Sequential:
    """Builds linear, GELU, linear, with as many outputs as inputs.

    Args:
        units: numbers that come in and go out.
        width: hidden units.

    Returns:
        A network from (..., units) to (..., units).

    Example:
        >>> two_layers(4, 16).linear2
        Linear(in_features=16, out_features=4, bias=True)
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        linear1=nn.Linear(units, width), gelu=nn.GELU(), linear2=nn.Linear(width, units)
    )
    return nn.Sequential(layers)


class PatchEmbedding(nn.Module):
    """Turns every patch of an image into a token, by one linear map for all.

    Args:
        image: (channels, height, width) of one input.
        patch: side of a patch in pixels.
        dim: D, numbers in a token.
        positions: whether a learned vector is added that says where the patch lay.

    Attributes:
        tokens: T, number of patches.

    Example:
        >>> import torch
        >>> embedding = PatchEmbedding(image=(1, 28, 28), patch=7, dim=8, positions=True)
        >>> embedding(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 16, 8])
    """

    def __init__(
        self, *, image: tuple[int, int, int], patch: int, dim: int, positions: bool
    ) -> None:
        super().__init__()
        channels, height, width = image
        self.tokens = (height // patch) * (width // patch)
        self.conv = nn.Conv2d(channels, dim, kernel_size=patch, stride=patch)
        self.positions: nn.Parameter | None = None
        if positions:
            # The deviation is the authors'; zeros would do as well.
            self.positions = nn.Parameter(0.02 * torch.randn(self.tokens, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Embeds a batch of images.

        Args:
            x: (N, C, H, W).

        Returns:
            (N, T, D).

        Example:
            >>> import torch
            >>> embedding = PatchEmbedding(image=(1, 8, 8), patch=4, dim=6, positions=False)
            >>> embedding(torch.zeros(2, 1, 8, 8)).shape
            torch.Size([2, 4, 6])
        """
        tokens: Tensor = self.conv(x).flatten(2).transpose(1, 2)
        return tokens if self.positions is None else tokens + self.positions


class TokenBlock(nn.Module):
    """Tokens are mixed, then the numbers within each token; both beside a shortcut, norm first.

    Args:
        mix_tokens: maps (N, T, D) to (N, T, D).
        dim: D, numbers in a token.
        width: hidden units of the network within a token.

    Example:
        >>> import torch
        >>> TokenBlock(nn.Identity(), dim=8, width=32)(torch.zeros(3, 5, 8)).shape
        torch.Size([3, 5, 8])
    """

    def __init__(self, mix_tokens: nn.Module, *, dim: int, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.mix_tokens = mix_tokens
        self.norm2 = nn.LayerNorm(dim)
        self.mix_channels = two_layers(dim, width)

    def forward(self, x: Tensor) -> Tensor:
        """Adds what both find to what came in.

        Args:
            x: (N, T, D).

        Returns:
            (N, T, D).

        Example:
            >>> import torch
            >>> TokenBlock(nn.Identity(), dim=4, width=8)(torch.ones(1, 2, 4)).shape
            torch.Size([1, 2, 4])
        """
        x = x + self.mix_tokens(self.norm1(x))
        mixed: Tensor = x + self.mix_channels(self.norm2(x))
        return mixed


class TokenNetwork(nn.Module):
    """Patches, blocks, layer norm, mean over the tokens, linear.

    Args:
        embedding: maps images to (N, T, D).
        blocks: each maps (N, T, D) to (N, T, D).
        dim: D, numbers in a token.
        classes: number of outputs, K.

    Example:
        >>> import torch
        >>> embedding = PatchEmbedding(image=(1, 8, 8), patch=4, dim=6, positions=False)
        >>> network = TokenNetwork(embedding, [], dim=6, classes=3)
        >>> network(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self, embedding: PatchEmbedding, blocks: Sequence[nn.Module], *, dim: int, classes: int
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classifies a batch of images.

        Args:
            x: (N, C, H, W).

        Returns:
            (N, K).

        Example:
            >>> import torch
            >>> embedding = PatchEmbedding(image=(1, 8, 8), patch=2, dim=6, positions=True)
            >>> network = TokenNetwork(embedding, [nn.Identity()], dim=6, classes=4)
            >>> network(torch.zeros(2, 1, 8, 8)).shape
            torch.Size([2, 4])
        """
        tokens = self.norm(self.blocks(self.embedding(x)))  # (N, T, D)
        logits: Tensor = self.output(tokens.mean(dim=1))
        return logits

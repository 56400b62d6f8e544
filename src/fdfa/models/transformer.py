"""The Vision Transformer."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fdfa.models.sizes import check_at_least, check_divides, check_image
from fdfa.models.tokens import PatchEmbedding, TokenBlock, TokenNetwork

__all__ = ["Attention", "vit"]


class Attention(nn.Module):
    """Every token asks all tokens, in several heads.

    Args:
        dim: D, numbers in a token.
        heads: how many; each has D / heads numbers of its own.

    Example:
        >>> import torch
        >>> Attention(dim=8, heads=2)(torch.zeros(3, 5, 8)).shape
        torch.Size([3, 5, 8])
    """

    def __init__(self, *, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ask = nn.Linear(dim, 3 * dim)  # queries, keys and values
        self.merge = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Mixes tokens.

        Args:
            x: (N, T, D).

        Returns:
            (N, T, D).

        Example:
            >>> import torch
            >>> Attention(dim=4, heads=1)(torch.ones(1, 2, 4)).shape
            torch.Size([1, 2, 4])
        """
        samples, tokens, dim = x.shape
        asked = self.ask(x).view(samples, tokens, 3, self.heads, dim // self.heads)
        q, k, v = asked.permute(2, 0, 3, 1, 4).unbind()  # each (N, heads, T, D / heads)
        answer = F.scaled_dot_product_attention(q, k, v)
        merged: Tensor = self.merge(answer.transpose(1, 2).flatten(2))
        return merged


def vit(
    *,
    image: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    patch: int = 4,
    dim: int = 128,
    depth: int = 4,
    heads: int = 4,
) -> TokenNetwork:
    """Builds a Vision Transformer: patches, learned positions, blocks of attention, mean, linear.

    Norms come first in each of the two residual parts of a block, and the network within a token
    has ``4 * dim`` hidden units (Dosovitskiy et al., arXiv:2010.11929). The mean over tokens, which
    they try in appendix D.3, takes the place of their class token; no dropout. By itself
    ``taps="auto"`` finds one tap a block.

    Args:
        image: (channels, height, width) of one input.
        classes: number of outputs, K.
        patch: side of a patch in pixels; divides height and width.
        dim: numbers in a token.
        depth: blocks.
        heads: of each block's attention; divides ``dim``.

    Returns:
        A network from (N, C, H, W) to (N, K), with blocks named ``blocks.0``, ``blocks.1``, ...

    Raises:
        ConfigError: if a size is too small, or ``patch`` or ``heads`` leaves a remainder.

    Example:
        >>> network = vit(image=(1, 28, 28), patch=7, dim=8, depth=2, heads=2)
        >>> network.embedding.tokens, len(network.blocks), network.output
        (16, 2, Linear(in_features=8, out_features=10, bias=True))
    """
    check_image(image, network="vit", smallest=1)
    check_at_least(1, classes=classes, dim=dim, depth=depth)
    check_divides("patch", patch, wholes={"height": image[1], "width": image[2]})
    check_divides("heads", heads, wholes={"dim": dim})
    embedding = PatchEmbedding(image=image, patch=patch, dim=dim, positions=True)
    blocks = [
        TokenBlock(Attention(dim=dim, heads=heads), dim=dim, width=4 * dim) for _ in range(depth)
    ]
    return TokenNetwork(embedding, blocks, dim=dim, classes=classes)

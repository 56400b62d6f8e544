"""MLP-Mixer."""

from __future__ import annotations

from torch import Tensor, nn

from fdfa.models.sizes import check_at_least, check_divides, check_image
from fdfa.models.tokens import PatchEmbedding, TokenBlock, TokenNetwork, two_layers

__all__ = ["TokenMixing", "mlp_mixer"]


class TokenMixing(nn.Module):
    """A small network across tokens, the same for every number in them.

    Args:
        tokens: T.
        width: hidden units.

    Example:
        >>> import torch
        >>> TokenMixing(tokens=5, width=16)(torch.zeros(3, 5, 8)).shape
        torch.Size([3, 5, 8])
    """

    def __init__(self, *, tokens: int, width: int) -> None:
        super().__init__()
        self.mlp = two_layers(tokens, width)

    def forward(self, x: Tensor) -> Tensor:
        """Mixes tokens.

        Args:
            x: (N, T, D).

        Returns:
            (N, T, D).

        Example:
            >>> import torch
            >>> TokenMixing(tokens=2, width=3)(torch.ones(1, 2, 4)).shape
            torch.Size([1, 2, 4])
        """
        mixed: Tensor = self.mlp(x.transpose(1, 2)).transpose(1, 2)
        return mixed


def mlp_mixer(
    *,
    image: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    patch: int = 4,
    dim: int = 128,
    depth: int = 4,
    token_width: int = 64,
    channel_width: int = 512,
) -> TokenNetwork:
    """Builds MLP-Mixer: patches, blocks of one network across and one within tokens, mean, linear.

    Tolstikhin et al., arXiv:2105.01601, whose ratio of the widths the defaults keep: half of
    ``dim`` across tokens, four times ``dim`` within. By itself ``taps="auto"`` finds one tap a
    block.

    Args:
        image: (channels, height, width) of one input.
        classes: number of outputs, K.
        patch: side of a patch in pixels; divides height and width.
        dim: numbers in a token.
        depth: blocks.
        token_width: hidden units of the network across tokens.
        channel_width: hidden units of the network within a token.

    Returns:
        A network from (N, C, H, W) to (N, K), with blocks named ``blocks.0``, ``blocks.1``, ...

    Raises:
        ConfigError: if a size is too small, or ``patch`` leaves a remainder.

    Example:
        >>> network = mlp_mixer(image=(1, 28, 28), patch=7, dim=8, depth=2)
        >>> network.blocks[0].mix_tokens.mlp.linear1
        Linear(in_features=16, out_features=64, bias=True)
    """
    check_image(image, network="mlp-mixer", smallest=1)
    check_at_least(1, classes=classes, dim=dim, depth=depth)
    check_at_least(1, token_width=token_width, channel_width=channel_width)
    check_divides("patch", patch, wholes={"height": image[1], "width": image[2]})
    embedding = PatchEmbedding(image=image, patch=patch, dim=dim, positions=False)
    blocks = [
        TokenBlock(
            TokenMixing(tokens=embedding.tokens, width=token_width), dim=dim, width=channel_width
        )
        for _ in range(depth)
    ]
    return TokenNetwork(embedding, blocks, dim=dim, classes=classes)

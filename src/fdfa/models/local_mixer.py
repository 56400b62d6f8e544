"""LocalMixer: an MLP-Mixer made for local losses, with a loss for every patch and group."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from fdfa.models.aggregating_head import AggregatingHead
from fdfa.models.local_blocks import FirstBlock, LocalBlock, normalised
from fdfa.models.sizes import check_at_least, check_divides, check_image

__all__ = ["LocalMixer", "local_mixer"]


class LocalMixer(nn.Module):
    """Patches, blocks, a mean over the patches and a linear read-out.

    Args:
        image: (channels, height, width) of one input.
        classes: K.
        patch: side of a patch in pixels.
        dim: C, channels.
        depth: blocks.
        groups: G.

    Example:
        >>> network = LocalMixer(image=(1, 8, 8), classes=3, patch=4, dim=6, depth=2, groups=2)
        >>> network(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        *,
        image: tuple[int, int, int],
        classes: int,
        patch: int,
        dim: int,
        depth: int,
        groups: int,
    ) -> None:
        super().__init__()
        pixels, height, width = image
        self.patch, self.groups, self.classes = patch, groups, classes
        tokens = (height // patch) * (width // patch)
        self.blocks = nn.Sequential(
            FirstBlock(pixels * patch * patch, dim, groups=groups),
            *(LocalBlock(tokens, dim, groups=groups) for _ in range(depth - 1)),
        )
        self.output = nn.Linear(dim, classes)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Classifies images.

        Args:
            x: (N, channels, height, width).

        Returns:
            (N, K).

        Example:
            >>> network = LocalMixer(image=(1, 4, 4), classes=3, patch=4, dim=6, depth=1, groups=1)
            >>> network(torch.ones(1, 1, 4, 4))
            tensor([[0., 0., 0.]], grad_fn=<AddmmBackward0>)
        """
        patches = F.unfold(x, self.patch, stride=self.patch).transpose(1, 2)  # (N, P, pixels)
        h = self.blocks(patches).flatten(2).mean(1)
        y: Tensor = self.output(normalised(h))
        return y

    def local_heads(self) -> dict[str, nn.Module]:
        """A head for each block, for :class:`fdfa.LocalHeads`.

        Returns:
            From the blocks' names to the heads, which start at zero.

        Example:
            >>> network = LocalMixer(image=(1, 8, 8), classes=3, patch=4, dim=6, depth=2, groups=2)
            >>> list(network.local_heads())
            ['blocks.0', 'blocks.1']
        """
        width = self.output.in_features // self.groups
        return {
            f"blocks.{number}": AggregatingHead(
                groups=self.groups, width=width, classes=self.classes
            )
            for number in range(len(self.blocks))
        }


def local_mixer(
    *,
    image: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    patch: int = 4,
    dim: int = 512,
    depth: int = 4,
    groups: int = 16,
) -> LocalMixer:
    """Builds LocalMixer: patches, blocks of grouped linear layers, a mean over patches, linear.

    Ren et al., arXiv:2210.03310, whose M/8/16 (8 x 8 patches, 16 groups) for CIFAR-10 the defaults
    are. Layer norm without weights stands before and behind each linear layer, in grouped ones for
    each group; the first block has no layer across tokens. Weights start with a standard deviation
    of min(2 / sqrt(fan-in), 0.1), the read-out at zero. With :class:`fdfa.LocalHeads` each block
    has a head of its own, with a loss for every patch and group.

    Args:
        image: (channels, height, width) of one input.
        classes: number of outputs, K.
        patch: side of a patch in pixels; divides height and width.
        dim: channels of a token.
        depth: blocks.
        groups: of channels; divides ``dim``.

    Returns:
        A network from (N, C, H, W) to (N, K), with blocks named ``blocks.0``, ``blocks.1``, ...

    Raises:
        ConfigError: if a size is too small, or ``patch`` or ``groups`` leaves a remainder.

    Example:
        >>> network = local_mixer(image=(1, 28, 28), patch=28, dim=256, depth=1, groups=1)
        >>> network.blocks[0].mix_channels.weight.shape
        torch.Size([256, 784])
    """
    check_image(image, network="local-mixer", smallest=1)
    check_at_least(1, classes=classes, dim=dim, depth=depth)
    check_divides("patch", patch, wholes={"height": image[1], "width": image[2]})
    check_divides("groups", groups, wholes={"dim": dim})
    return LocalMixer(
        image=image, classes=classes, patch=patch, dim=dim, depth=depth, groups=groups
    )

"""LocalMixer: an MLP-Mixer made for local losses, with a loss for every patch and group."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdfa.models.sizes import check_at_least, check_divides, check_image

__all__ = ["AggregatingHead", "LocalMixer", "local_mixer"]


def _normalised(x: Tensor) -> Tensor:
    """Layer norm over the last dimension, without weights."""
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
        mixed = F.linear(_normalised(x).transpose(1, 2), self.weight, self.bias)
        return _normalised(mixed.transpose(1, 2))

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
        mixed = F.linear(_normalised(x), self.weight, self.bias)
        return _normalised(mixed).view(*mixed.shape[:2], self.groups, -1)


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
        mixed = torch.einsum("npgi,gio->npgo", _normalised(x), self.weight)
        return _normalised(mixed + self.bias.view(mixed.shape[2:]))

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


class AggregatingHead(nn.Module):
    """A linear read-out of all groups, averaged over patches: one loss for every patch and group.

    In the paper's replicated aggregation there is a copy of the result for each patch and group,
    all of one value, and only what comes from that patch and group passes derivatives on. The
    copies are never made: of a loss with gradient e, the derivative along the copy of patch p and
    group g is ``e . W_g t_pg / P``, t the tangent behind the norm, and with ``e W`` at hand that is
    a product for each channel.

    Args:
        groups: G.
        width: channels of a group, D.
        classes: K.

    Example:
        >>> AggregatingHead(groups=2, width=3, classes=5)(torch.ones(4, 6, 2, 3)).shape
        torch.Size([4, 5])
    """

    def __init__(self, *, groups: int, width: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes, groups * width))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, h: Tensor) -> Tensor:
        """(N, P, G, D) to (N, K)."""
        return self.combine(self.parts(h))

    def parts(self, h: Tensor) -> Tensor:
        """What each patch and group is worth to the result, the read-out aside.

        Args:
            h: (N, P, G, D).

        Returns:
            Layer norm within each group, of the same shape.

        Example:
            >>> AggregatingHead(groups=1, width=2, classes=3).parts(torch.ones(4, 6, 1, 2)).any()
            tensor(False)
        """
        return _normalised(h)

    def combine(self, parts: Tensor) -> Tensor:
        """The result of all parts.

        Args:
            parts: (N, P, G, D).

        Returns:
            (N, K).

        Example:
            >>> head = AggregatingHead(groups=2, width=3, classes=5)
            >>> head.combine(torch.ones(4, 6, 2, 3)).shape
            torch.Size([4, 5])
        """
        return F.linear(parts.flatten(2).mean(1), self.weight, self.bias)

    def slopes(self, tangent: Tensor, e: Tensor) -> Tensor:
        """The loss's derivative along a tangent of the parts, by patch and group.

        Args:
            tangent: (N, P, G, D).
            e: (N, K), gradient of the loss with respect to the result.

        Returns:
            (N, P, G).

        Example:
            >>> head = AggregatingHead(groups=2, width=3, classes=5)
            >>> head.slopes(torch.ones(4, 6, 2, 3), torch.ones(4, 5)).shape
            torch.Size([4, 6, 2])
        """
        _, patches, groups, width = tangent.shape
        wide = torch.promote_types(tangent.dtype, torch.float32)
        q = (e.to(wide) @ self.weight.detach().to(wide)).view(-1, groups, width) / patches
        return torch.einsum("npgd,ngd->npg", tangent.to(wide), q)

    def spread(self, slopes: Tensor, dims: int) -> Tensor:
        """For each unit of an activation in the block, the sum of the slopes that it has a part in.

        Behind the linear layer across channels, units (N, P, G, D) reach their own patch and group
        alone; before it, units (N, P, C) reach all groups of their patch.

        Args:
            slopes: (N, P, G).
            dims: number of dimensions of the activation, 4 or 3.

        Returns:
            (N, P, G, 1) or (N, P, 1).

        Example:
            >>> head = AggregatingHead(groups=2, width=3, classes=5)
            >>> head.spread(torch.ones(4, 6, 2), 3)[0, 0]
            tensor([2.])
        """
        return (slopes if dims == 4 else slopes.sum(2)).unsqueeze(-1)


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
        y: Tensor = self.output(_normalised(h))
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

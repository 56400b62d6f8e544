"""A local head of LocalMixer, with a loss for every patch and group."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdfa.models.local_blocks import normalised

__all__ = ["AggregatingHead"]


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
        return normalised(h)

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

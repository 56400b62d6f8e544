"""How far a control variate is to be trusted, estimated in the course of training."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fdfa.engine.distributed import sum_over_processes
from fdfa.engine.feedback import WideBuffers

__all__ = ["RunningCoefficient"]

_RATE = 0.1  # of the averages: ten steps or so, in which maps move little


class RunningCoefficient(WideBuffers):
    """The b that leaves ``x - b y`` the least variance, from running averages of x y and y^2.

    Both averages start at zero; so does b. Errors are measured against their largest entry, so
    that a scaled loss teaches the same.

    Args:
        dtype: of the averages; raised to float32 where narrower.
        device: of the averages.

    Attributes:
        moments: buffer: the averages of x y and of y^2.

    Example:
        >>> coefficient = RunningCoefficient()
        >>> coefficient.observe(torch.ones(3, 2), torch.ones(3, 2), torch.zeros(3, 2))
        >>> coefficient.value()
        1.0
    """

    moments: Tensor

    def __init__(
        self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__()
        wide = torch.promote_types(dtype, torch.float32)
        self.register_buffer("moments", torch.zeros(2, dtype=wide, device=device))

    def value(self) -> float:
        """b, clipped to [0, 1]; 0 where nothing is known yet."""
        xy, yy = self.moments.tolist()
        return min(max(xy / yy, 0.0), 1.0) if yy > 0 else 0.0

    def observe(
        self, e: Tensor, d: Tensor, unforeseen: Tensor, beyond: Tensor | None = None
    ) -> None:
        """Take in one probe: ``x = e . d`` and ``y = e . (d - unforeseen)``, sample by sample.

        A process whose numbers are not finite adds nothing; if none are finite nothing changes.

        Args:
            e: output error (N, K).
            d: the output's derivative (N, K).
            unforeseen: the part of it that the maps did not foresee (N, K).
            beyond: (N, 1), what x has beside e . d, where e and d are projected.
        """
        e = e.to(d.dtype)
        largest = e.abs().max()
        e = e / largest
        x = (e * d).sum(1)
        y = x - (e * unforeseen).sum(1)
        if beyond is not None:
            x = x + beyond.squeeze(1) / largest
        pair = torch.stack([(x * y).mean(), (y * y).mean()])
        finite = math.isfinite(pair.sum().item())
        if not finite:
            pair = torch.zeros_like(pair)
        processes, (summed,) = sum_over_processes(int(finite), [lambda: pair], like=pair)
        if processes:
            self.moments.lerp_((summed / processes).to(self.moments.dtype), _RATE)

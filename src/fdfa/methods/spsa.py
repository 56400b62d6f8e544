"""Simultaneous perturbation: the directional derivative as a difference of two forward passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from fdfa.engine.directions import Directions, DrawnDirection
from fdfa.engine.leaves import Leaf
from fdfa.engine.weight_probe import WeightProbeEstimator
from fdfa.errors import ConfigError, unknown_name
from fdfa.methods.record import Method

__all__ = ["RECORDS", "SPSA"]

_NOISES = ("normal", "rademacher")


class SPSA(WeightProbeEstimator):
    """Two-sided simultaneous perturbation (Spall 1992), as in MeZO (Malladi et al. 2023).

    ``d = (y(w + s z) - y(w - s z)) / 2 s`` and the gradient is ``(e . d) z``, e the output error at
    w itself. No derivative is taken and no graph kept: inference memory, and any operator will do.
    z is never kept either: it is drawn again from (seed, step, process) for backward. Moved copies
    stand in for the weights during the two passes, so the weights themselves are never written to.

    Args:
        model: any module.
        output: which entry of the model's return value is the output (N, K, ...).
        noise: ``"normal"`` (MeZO's) or ``"rademacher"`` (Spall's: a lower variance, cheaper).
        difference_step: s; None takes 1e-3, or 1e-5 in float64.
        seed: of the perturbations; by default torch's seed.

    Raises:
        ConfigError: if an option is unknown or out of range.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LSTM(3, 2))
        >>> learner = SPSA(model, output=0, noise="rademacher")
        >>> learner(torch.ones(5, 4))[0].sum().backward()
        >>> bool(model[0].weight.grad.any())
        True
    """

    method = "spsa"

    def __init__(
        self,
        model: nn.Module,
        *,
        output: str | int | None = None,
        noise: Literal["normal", "rademacher"] = "normal",
        difference_step: float | None = None,
        seed: int | None = None,
    ) -> None:
        if noise not in _NOISES:
            raise ConfigError(unknown_name("noise", str(noise), _NOISES))
        super().__init__(
            model,
            output=output,
            derivative="finite-difference",
            difference_step=difference_step,
            seed=seed,
        )
        self.noise = noise

    def directions(self, leaves: Sequence[Leaf], seeds: Sequence[int]) -> Directions:
        """One, drawn again whenever it is asked for."""
        drawn = DrawnDirection(self.noise, leaves, seeds)
        return Directions([drawn], lambda slopes: slopes)


RECORDS = (
    Method(
        "spsa",
        SPSA,
        "differences of two forward passes with all weights moved at once",
        "Spall 1992; Malladi et al. 2023, arXiv:2305.17333",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=True,
        extra_state="none",
        products="3",
        aliases=("mezo",),
    ),
)

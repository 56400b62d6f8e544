"""Kolen-Pollack learning: feedback weights that get the forward weights' own updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from fdfa.engine.feedback_weight_estimator import FeedbackWeightEstimator
from fdfa.engine.feedback_weights import WeightStart, check_start, draw_start
from fdfa.engine.weight_uses import WeightUses
from fdfa.errors import ConfigError
from fdfa.methods.record import Method

__all__ = ["RECORDS", "KolenPollack"]


class KolenPollack(FeedbackWeightEstimator):
    """Kolen-Pollack learning (Kolen & Pollack 1994; Akrout et al. 2019, arXiv:1904.05391).

    Feedback weights B start at random, get the very updates that W gets, and both decay:
    ``W <- (1 - eta lam) W - eta G``, ``B <- (1 - eta lam) B - eta G``. What they differ by, D = B -
    W, then only decays, ``D_t = (1 - eta lam)^t D_0``: B finds W without ever reading it.

    Kept here is D, and ``B = W + D`` is formed when the error passes; after each learning step ``D
    <- (1 - decay) D``. That is the same rule, but for any optimiser: whatever Adam makes of a
    gradient, B gets it too. Under plain SGD with rate eta and ``weight_decay=lam``, the paper's own
    is ``decay = eta * lam``. A learning step is a forward pass with its backward; so with k
    micro-batches to an optimiser step D decays k times.

    Args:
        model: any module.
        output: which entry of the model's return value is the output (N, K, ...).
        decay: share of B - W that one learning step forgets, in [0, 1); 0 keeps it, which learns as
            feedback alignment with a B that follows W.
        start: B_0 is drawn as in feedback alignment.
        seed: of B_0; by default torch's seed.

    Raises:
        ConfigError: if an option is unknown or out of range.

    Example:
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ... )
        >>> learner = KolenPollack(model, decay=0.5)
        >>> for _ in range(30):
        ...     learner(torch.ones(3, 4)).sum().backward()
        >>> bool(learner.feedback["2.weight"].abs().max() < 1e-8)  # B - W
        True
    """

    method = "kolen-pollack"
    teaches = True
    reads_weights = True

    def __init__(
        self,
        model: nn.Module,
        *,
        output: str | int | None = None,
        decay: float = 1e-3,
        start: WeightStart = "uniform",
        seed: int | None = None,
    ) -> None:
        check_start(start)
        if isinstance(decay, bool) or not isinstance(decay, (int, float)) or not 0 <= decay < 1:
            raise ConfigError(
                f"decay={decay!r}: the share of B - W that one step forgets lies in [0, 1). Pass"
                " the learning rate times the weight decay, or 1e-3, say."
            )
        super().__init__(model, output=output, seed=seed)
        self.decay = decay
        self.start_from = start

    def start(self, name: str, weight: Tensor, generator: torch.Generator) -> Tensor:
        """``D_0 = B_0 - W_0``, B_0 drawn at random."""
        return draw_start(self.start_from, weight, generator).sub_(weight)

    def feedback_for(self, name: str, weight: Tensor, kept: Tensor | None, step: int) -> Tensor:
        """``B = W + D``."""
        return cast(Tensor, kept) + weight

    def teach(self, uses: WeightUses, weights: Mapping[str, Tensor], step: int, heard: Any) -> None:
        """``D <- (1 - decay) D``."""
        for name in uses.products:
            self.feedback[name] = self.feedback[name] * (1 - self.decay)


RECORDS = (
    Method(
        "kolen-pollack",
        KolenPollack,
        "feedback weights that get the weights' own updates, and decay towards them",
        "Akrout et al. 2019, arXiv:1904.05391",
        weight_transport_free=True,
        backward_pass_free=False,
        probes=False,
        extra_state="n_l m_l",
        products="3",
        aliases=("kp",),
    ),
)

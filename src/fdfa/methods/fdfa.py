"""Forward direct feedback alignment.

Probes taken during inference teach the direct feedback connections.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from fdfa.engine.feedback import FeedbackOptimizer
from fdfa.engine.lessons import Lesson, correlations
from fdfa.engine.probes import Probe
from fdfa.engine.selection import TapSpec
from fdfa.engine.tapped import TappedEstimator
from fdfa.errors import ConfigError, unknown_name

__all__ = ["FDFA"]

_UPDATES = ("momentum", "innovation")


class FDFA(TappedEstimator):
    """Forward direct feedback alignment (Bacho & Chu, arXiv:2212.07282, eqs. 7-8).

    The credit of tap l is ``g_l = e B_l``. A probe adds a random perturbation p_l to the tangent at
    every tap during the forward pass; d (N, K) is the directional derivative of the output along
    all of them, and ``E[d^T p_l / N] = mean dy/dh_l``. With ``feedback_update``

    - ``"momentum"`` (the paper's): ``B_l <- (1 - a) B_l + (a / N) d^T p_l``;
    - ``"innovation"``: ``B_l <- B_l + (a / N) (d - sum_m p_m B_m^T)^T p_l``: the same mean, and a
      noise that vanishes as B approaches the Jacobian; stable for ``a < 2 N / (N + n + 1)``, n the
      number of all perturbed units;
    - a factory such as ``lambda maps: torch.optim.Adam(maps, lr=1e-4)`` (the authors' code): one
      optimiser a map, on the gradient ``B_l - d^T p_l / N``. ``SGD(lr=a)`` is ``"momentum"``.

    Maps start at zero: in the first step hidden blocks get no credit. The credit uses the map from
    before the step.

    Args:
        model: any module.
        taps: ``"auto"``, names of modules, a module type, or a predicate ``(name, module) ->
            bool``.
        depth: with ``"auto"``, blocks of this many weight layers, counted from the input.
        sample_dims: number of leading dimensions that count samples.
        output: which entry of the model's return value is the output (N, K, ...).
        feedback_rate: a in (0, 1]; 1 forgets everything but the last probe. Unused with an
            optimiser.
        feedback_update: how a probe teaches the maps.
        noise: ``"normal"`` (the paper's) or ``"rademacher"`` (a lower variance, cheaper to draw).
        probe: ``"forward-ad"`` or, for what has no forward derivative, ``"finite-difference"``.
        probe_every: probe one step in this many.
        difference_step: length of a finite difference; None takes 1e-3, or 1e-5 in float64.
        seed: of the probes; by default torch's seed.
        feedback_size_limit: bytes; a larger map is refused before it is allocated.

    Raises:
        ConfigError: if an option is unknown or out of range.

    Example:
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ... )
        >>> learner = FDFA(model, feedback_rate=1.0)
        >>> learner(torch.ones(3, 4)).sum().backward()
        >>> bool(learner.feedback["1"].weight.any())
        True
    """

    method = "fdfa"

    def __init__(
        self,
        model: nn.Module,
        *,
        taps: TapSpec = "auto",
        depth: int = 1,
        sample_dims: int = 1,
        output: str | int | None = None,
        feedback_rate: float = 0.01,
        feedback_update: Literal["momentum", "innovation"] | FeedbackOptimizer = "momentum",
        noise: Literal["normal", "rademacher"] = "normal",
        probe: Literal["forward-ad", "finite-difference"] = "forward-ad",
        probe_every: int = 1,
        difference_step: float | None = None,
        seed: int | None = None,
        feedback_size_limit: int = 4 * 2**30,
    ) -> None:
        if not isinstance(feedback_rate, (int, float)) or not 0 < feedback_rate <= 1:
            raise ConfigError(
                f"feedback_rate={feedback_rate!r}: the share of a map that one probe replaces lies"
                " in (0, 1]. Pass 0.01, say."
            )
        if feedback_update not in _UPDATES and not callable(feedback_update):
            raise ConfigError(unknown_name("feedback_update", str(feedback_update), _UPDATES))
        super().__init__(
            model,
            taps=taps,
            depth=depth,
            sample_dims=sample_dims,
            output=output,
            seed=seed,
            feedback_size_limit=feedback_size_limit,
            start="zero",
            probe=Probe(
                noise=noise, derivative=probe, every=probe_every, difference_step=difference_step
            ),
        )
        self.feedback_rate = feedback_rate
        self.feedback_update = feedback_update

    def teach(self, lesson: Lesson) -> None:
        """Update every map from one probe; see the class for the rules."""
        update, rate = self.feedback_update, self.feedback_rate
        for tap, correlation in correlations(
            lesson, self.feedback, innovation=update == "innovation"
        ):
            feedback = self.feedback[tap]
            if update == "momentum":
                feedback.weight.lerp_(correlation, rate)
            elif update == "innovation":
                feedback.weight.add_(correlation, alpha=rate)
            elif callable(update):
                feedback.step(torch.sub(feedback.weight, correlation), update)

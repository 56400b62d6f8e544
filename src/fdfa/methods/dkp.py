"""Direct Kolen-Pollack: direct feedback that takes the steps of a read-out."""

from __future__ import annotations

import functools
import math
from typing import Literal, cast

import torch
from torch import Tensor, nn

from fdfa.engine.distributed import sum_over_processes
from fdfa.engine.feedback import FeedbackOptimizer
from fdfa.engine.lessons import Lesson
from fdfa.engine.selection import TapSpec
from fdfa.engine.tapped import TappedEstimator
from fdfa.errors import ConfigError, unknown_name
from fdfa.methods.record import Method

__all__ = [
    "DKP",
    "RECORDS",
]

_STARTS = ("zero", "kaiming-uniform", "uniform")
_UPDATES = ("adam", "sgd")


class DKP(TappedEstimator):
    """Direct Kolen-Pollack learning (Webster, Choi & Ahn 2021, OpenReview zgGmAx9ZcY).

    The credit of tap l is ``g_l = e B_l``, and every map takes the step that a linear read-out of
    its tap would take: ``B_l <- B_l - a (e^T h_l + decay B_l)``. At the last tap before a linear
    read-out without bias, under the same SGD, ``B - W`` shrinks by ``1 - a decay`` a step (Kolen &
    Pollack); at lower taps the rule is a heuristic. No probe is needed.

    A loss that is scaled (``GradScaler``) scales what the maps learn; Adam evens that out.

    Args:
        model: any module.
        taps: ``"auto"``, names of modules, a module type, or a predicate ``(name, module) ->
            bool``.
        depth: with ``"auto"``, blocks of this many weight layers, counted from the input.
        sample_dims: number of leading dimensions that count samples.
        output: which entry of the model's return value is the output (N, K, ...).
        feedback_rate: a, positive. Unused with an optimiser of your own.
        decay: of the maps, from 0 up.
        feedback_update: ``"adam"`` (the reference's), ``"sgd"``, or a factory such as ``lambda
            maps: torch.optim.SGD(maps, lr=0.1, momentum=0.9)``: one optimiser a map, on the
            gradient ``e^T h_l + decay B_l``.
        start: ``"zero"``; ``"kaiming-uniform"``, U(+-sqrt(6 / |h|)); or ``"uniform"``,
            U(+-1 / sqrt(|h|)).
        rank: None; or r, the number of dimensions on which the output error is projected before the
            maps, with r rows each: ``e P^T`` in e's place, P (r, K) with random orthonormal rows.
        learn_p: whether P learns, by Oja's subspace rule on the output error.
        projection_rate: of Oja's rule, in (0, 1).
        seed: draws the feedback maps; by default torch's seed.
        feedback_size_limit: bytes; a larger map is refused before it is allocated.

    Raises:
        ConfigError: if an option is unknown or out of range.

    Example:
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ... )
        >>> learner = DKP(model)
        >>> learner(torch.ones(3, 4)).sum().backward()
        >>> bool(learner.feedback["1"].weight.any())
        True
    """

    method = "dkp"
    keeps_activations = True

    def __init__(
        self,
        model: nn.Module,
        *,
        taps: TapSpec = "auto",
        depth: int = 1,
        sample_dims: int = 1,
        output: str | int | None = None,
        feedback_rate: float = 1e-4,
        decay: float = 1e-6,
        feedback_update: Literal["adam", "sgd"] | FeedbackOptimizer = "adam",
        start: Literal["zero", "kaiming-uniform", "uniform"] = "zero",
        rank: int | None = None,
        learn_p: bool = False,
        projection_rate: float = 0.05,
        seed: int | None = None,
        feedback_size_limit: int = 4 * 2**30,
    ) -> None:
        if not isinstance(feedback_rate, (int, float)) or not 0 < feedback_rate < math.inf:
            raise ConfigError(
                f"feedback_rate={feedback_rate!r}: a map takes steps of positive length. Pass 1e-4,"
                " say."
            )
        if not isinstance(decay, (int, float)) or not 0 <= decay < math.inf:
            raise ConfigError(f"decay={decay!r}: maps shrink or stay. Pass a number from 0 up.")
        if feedback_update not in _UPDATES and not callable(feedback_update):
            raise ConfigError(unknown_name("feedback_update", str(feedback_update), _UPDATES))
        if start not in _STARTS:
            raise ConfigError(unknown_name("start", str(start), _STARTS))
        super().__init__(
            model,
            taps=taps,
            depth=depth,
            sample_dims=sample_dims,
            output=output,
            seed=seed,
            feedback_size_limit=feedback_size_limit,
            rank=rank,
            learn_p=learn_p,
            projection_rate=projection_rate,
            start=start,
        )
        self.feedback_rate = feedback_rate
        self.decay = decay
        self.feedback_update = feedback_update

    def teach(self, lesson: Lesson) -> None:
        """Give every map the step of a read-out; a pass that is not finite teaches nothing.

        Several processes take the mean of their steps, as those of the weights.
        """
        e = cast(Tensor, lesson.error)
        wide = self.feedback[lesson.taps[0]].weight.dtype
        e, activations = e.to(wide), [h.to(wide) for h in lesson.activations]
        finite = math.isfinite(e.sum().item() + sum(h.sum().item() for h in activations))
        if not finite:
            e, activations = torch.zeros_like(e), [torch.zeros_like(h) for h in activations]
        parts = [functools.partial(torch.mm, e.T, h) for h in activations]
        processes, sums = sum_over_processes(int(finite), parts, like=e)
        if not processes:
            return
        for tap, gradient in zip(lesson.taps, sums, strict=True):
            feedback = self.feedback[tap]
            step = gradient.div_(processes).add_(feedback.weight, alpha=self.decay)
            if self.feedback_update == "sgd":
                feedback.weight.sub_(step, alpha=self.feedback_rate)
            elif self.feedback_update == "adam":
                feedback.step(step, functools.partial(torch.optim.Adam, lr=self.feedback_rate))
            elif callable(self.feedback_update):
                feedback.step(step, self.feedback_update)


RECORDS = (
    Method(
        "dkp",
        DKP,
        "direct connections that take the steps of a read-out of their tap",
        "Webster, Choi & Ahn 2021, OpenReview zgGmAx9ZcY",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=False,
        extra_state="K n_l",
        products="2",
        aliases=("direct-kolen-pollack",),
    ),
    Method(
        "ldfa-direct",
        DKP,
        "few dimensions of the output error go straight to every block",
        "Hanut & Kadmon 2025, arXiv:2502.20580",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=False,
        extra_state="r (K + n_l)",
        products="2",
        aliases=("draf",),
        preset={
            "rank": 10,
            "learn_p": True,
            "feedback_update": "sgd",
            "feedback_rate": 0.05,
            "decay": 1e-3,
            "start": "uniform",
        },
    ),
)

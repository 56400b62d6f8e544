"""Low-dimensional feedback: between two layers the error travels through few dimensions."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from fdfa.engine.distributed import sum_over_processes
from fdfa.engine.feedback_weight_estimator import FeedbackWeightEstimator
from fdfa.engine.feedback_weights import WeightStart, check_start, draw_start
from fdfa.engine.layer_errors import Layer, LayerErrors, from_rows, layer_of, to_rows
from fdfa.engine.subspace import check_projection, correlate, oja_step, orthonormal_rows
from fdfa.engine.weight_uses import WeightUses
from fdfa.errors import ConfigError, UnsupportedModelError
from fdfa.methods.record import Method

__all__ = ["RECORDS", "LowDimensionalFeedback"]


class LowDimensionalFeedback(FeedbackWeightEstimator):
    """Low-dimensional error feedback, LDFA (Hanut & Kadmon 2025, arXiv:2502.20580).

    In the place of a weight's transpose the error meets a product of two narrow matrices, ``B = Q
    P``: the r numbers ``z = delta P^T`` travel from layer to layer, ``delta_l = (z Q^T) *
    f'(a_l)``.

    - P (r, n_(l+1)) starts with random orthonormal rows and learns by Oja's subspace rule, ``P <- P
      + rate (P C - P C P^T P)``, C the second moment of delta, of trace 1: its rows find the r
      directions in which most of the error lies.
    - Q (n_l, r) learns as the weight does, with z in the place of delta: ``W <- (1 - eta lam) W -
      eta delta^T h``, ``Q <- (1 - eta lam) Q - eta h^T z`` (Kolen-Pollack). So ``Q - W^T P^T``
      decays, and B goes to ``W^T P^T P``: backpropagation with the error projected on P's rows,
      exact where they span it. Errors of a softmax have rank K - 1.

    Kept for a weight are P and ``D = Q^T - P W``, (r, n_l); Q is formed when the error passes.
    After each learning step ``D <- (1 - decay) (D + (P_old - P_new) W)``, which is the rule above
    for any optimiser: Q gets what P, as the step leaves it, makes of the weight's own step. Under
    plain SGD with rate eta and ``weight_decay=lam``, the paper's is ``decay = eta * lam``. A
    learning step is a forward pass with its backward.

    Served are linear layers and convolutions. In a convolution P maps channels at each position,
    and Q is a transposed convolution from r channels; each of several groups has its own.

    Args:
        model: any module whose weights are those of linear layers and convolutions.
        output: which entry of the model's return value is the output (N, K, ...).
        rank: r; a layer with fewer outputs keeps them all.
        learn_q: whether Q learns; else it stays as drawn.
        learn_p: whether P learns; else it stays as drawn.
        decay: share of ``Q - W^T P^T`` that one learning step forgets, in [0, 1).
        projection_rate: of Oja's rule, in (0, 1).
        start: Q_0 is ``B_0^T P^T``, B_0 drawn as in feedback alignment.
        seed: of P and Q; by default torch's seed.

    Raises:
        ConfigError: if an option is unknown or out of range.

    Example:
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 5)
        ... )
        >>> learner = LowDimensionalFeedback(model, rank=2)
        >>> learner(torch.ones(3, 4)).sum().backward()
        >>> Q, P = learner.factors("2.weight")
        >>> Q.shape, P.shape
        (torch.Size([8, 2]), torch.Size([2, 5]))
    """

    method = "ldfa"

    def __init__(
        self,
        model: nn.Module,
        *,
        output: str | int | None = None,
        rank: int = 10,
        learn_q: bool = True,
        learn_p: bool = True,
        decay: float = 1e-3,
        projection_rate: float = 0.05,
        start: WeightStart = "uniform",
        seed: int | None = None,
    ) -> None:
        check_start(start)
        check_projection(rank, projection_rate)
        for option, value in (("learn_q", learn_q), ("learn_p", learn_p)):
            if not isinstance(value, bool):
                raise ConfigError(f"{option}={value!r}: pass True or False.")
        if isinstance(decay, bool) or not isinstance(decay, (int, float)) or not 0 <= decay < 1:
            raise ConfigError(
                f"decay={decay!r}: the share of Q - W^T P^T that one step forgets lies in [0, 1)."
                " Pass the learning rate times the weight decay, or 1e-3, say."
            )
        super().__init__(model, output=output, seed=seed)
        self.rank = rank
        self.learn_q = self.reads_weights = learn_q
        self.learn_p = learn_p
        self.teaches = learn_q or learn_p
        self.decay = decay
        self.projection_rate = projection_rate
        self.start_from = start

    def factors(self, name: str) -> tuple[Tensor, Tensor]:
        """Q and P of a weight, as they are now.

        Args:
            name: of the weight, dotted.

        Returns:
            Q (n_l, r) and P (r, n_(l+1)), with ``B^T = Q P``. In a convolution n_(l+1) counts
            channels, and a row of Q stands for a channel and place in the kernel; several groups
            are stacked in front.
        """
        layer = self._layer(name)
        P, rest = self._split(self.feedback[name], layer)
        Q = self._expansion(P, rest, layer.weight.detach(), layer).mT
        return (Q[0], P[0]) if len(P) == 1 else (Q, P)

    def check(self, uses: WeightUses) -> None:
        """Refuse weights of other layers."""
        problems = [
            f"weight '{name}' belongs to no linear layer or convolution: low-dimensional feedback"
            " is defined for those. Use another layer, or another method, such as kolen-pollack."
            for name in uses.products
            if layer_of(self.model, name) is None
        ]
        if problems:
            raise UnsupportedModelError(problems)

    def kept_shape(self, name: str, weight: Tensor) -> torch.Size:
        """(groups, r, n_(l+1) + n_l): P and beside it what makes Q."""
        layer = layer_of(self.model, name)
        if layer is None:
            return super().kept_shape(name, weight)
        groups, outputs, inputs = to_rows(weight, layer).shape
        return torch.Size((groups, min(self.rank, outputs), outputs + inputs))

    def start(self, name: str, weight: Tensor, generator: torch.Generator) -> Tensor:
        """P_0 with orthonormal rows; beside it ``P_0 B_0``, or ``P_0 (B_0 - W_0)`` if Q learns."""
        layer = self._layer(name)
        B = to_rows(draw_start(self.start_from, weight, generator), layer)
        shape = (B.shape[0], min(self.rank, B.shape[1]), B.shape[1])
        P = orthonormal_rows(shape, like=B, generator=generator)
        if self.learn_q:
            B = B - to_rows(weight, layer)
        return torch.cat([P, P @ B], -1)

    def feedback_for(self, name: str, weight: Tensor, kept: Tensor | None, step: int) -> Tensor:
        """``B = P^T Q^T``, in the weight's layout."""
        layer = self._layer(name)
        P, rest = self._split(cast(Tensor, kept), layer)
        return from_rows(P.mT @ self._expansion(P, rest, weight, layer), layer)

    @contextlib.contextmanager
    def listen(self, uses: WeightUses) -> Iterator[dict[str, Tensor]]:
        """Hear the error at every layer's output, where projections learn from it."""
        heard: dict[str, Tensor] = {}
        if not self.learn_p or self.alone:
            yield heard
            return
        projections = self._projections(uses)

        def tell(name: str, errors: Tensor) -> None:
            sums = correlate(projections[name], errors)
            heard[name] = heard[name] + sums if name in heard else sums

        with LayerErrors(self.model, uses.products, tell):
            yield heard

    def teach(self, uses: WeightUses, weights: Mapping[str, Tensor], step: int, heard: Any) -> None:
        """Oja's step for every P; every Q keeps its place, less what decays."""
        sums = self._all_heard(uses, heard) if self.learn_p else {}
        for name in uses.products:
            layer = self._layer(name)
            P, rest = self._split(self.feedback[name], layer)
            kept: Tensor | float = 1 - self.decay
            if self.learn_p:
                before, P = P, oja_step(P, sums[name], self.projection_rate)
                # a loss that is not finite teaches nothing
                kept = 1 - self.decay * (sums[name][..., -1:] > 0).to(P.dtype)
                if self.learn_q:
                    rest = rest + (before - P) @ to_rows(weights[name], layer).to(P.dtype)
            self.feedback[name] = torch.cat([P, rest * kept if self.learn_q else rest], -1)

    def _all_heard(self, uses: WeightUses, heard: dict[str, Tensor]) -> dict[str, Tensor]:
        """What was heard in all processes."""
        parts: list[Callable[[], Tensor]] = []
        for name, P in self._projections(uses).items():
            silent = torch.zeros(*P.shape[:-1], P.shape[-1] + 1, dtype=P.dtype, device=P.device)
            parts.append(functools.partial(heard.pop, name, silent))
        if not parts:
            return {}
        _, sums = sum_over_processes(1, parts, like=silent)
        return dict(zip(uses.products, sums, strict=True))

    def _projections(self, uses: WeightUses) -> dict[str, Tensor]:
        """Every P as it is now."""
        return {
            name: self._split(self.feedback[name], self._layer(name))[0] for name in uses.products
        }

    def _expansion(self, P: Tensor, rest: Tensor, weight: Tensor, layer: Layer) -> Tensor:
        """``Q^T`` (groups, r, n_l)."""
        return rest + P @ to_rows(weight, layer).to(P.dtype) if self.learn_q else rest

    def _layer(self, name: str) -> Layer:
        return cast(Layer, layer_of(self.model, name))

    def _split(self, kept: Tensor, layer: Layer) -> tuple[Tensor, Tensor]:
        outputs = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        outputs //= 1 if isinstance(layer, nn.Linear) else layer.groups
        return kept[..., :outputs], kept[..., outputs:]


RECORDS = (
    Method(
        "ldfa",
        LowDimensionalFeedback,
        "the error travels back through few dimensions, which learn to hold it",
        "Hanut & Kadmon 2025, arXiv:2502.20580",
        weight_transport_free=True,
        backward_pass_free=False,
        probes=False,
        extra_state="r (n_l + m_l)",
        products="3",
        aliases=(
            "raf",
            "low-dimensional-feedback-alignment",
        ),
    ),
)

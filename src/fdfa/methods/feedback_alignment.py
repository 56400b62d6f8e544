"""Feedback alignment: the error travels back through fixed random weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fdfa.engine.feedback_weight_estimator import FeedbackWeightEstimator
from fdfa.engine.feedback_weights import WeightStart, check_start, draw_start
from fdfa.methods.record import Method

__all__ = ["RECORDS", "FeedbackAlignment"]


class FeedbackAlignment(FeedbackWeightEstimator):
    """Feedback alignment (Lillicrap et al. 2016).

    ``delta_l = (delta_(l+1) B_(l+1)) * f'(a_l)``: backpropagation, with a random matrix B of W's
    shape in the place of each W^T. B is fixed; in the course of learning W turns towards it.

    Served is every layer with a weight of two or more dimensions that carries an error to its
    input: linear, convolutions, recurrent layers, attention. Normalisation, biases, embeddings and
    activations have their exact derivatives.

    Args:
        model: any module.
        output: which entry of the model's return value is the output (N, K, ...).
        start: B is drawn from ``"uniform"`` U(+-1/sqrt(fan_in)), as the layers' own weights are;
            ``"kaiming-uniform"`` U(+-sqrt(6/fan_in)); or ``"xavier-uniform"``
            U(+-sqrt(6/(fan_in + fan_out))).
        seed: of B; by default torch's seed.

    Raises:
        ConfigError: if the start is unknown.

    Example:
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ... )
        >>> learner = FeedbackAlignment(model)
        >>> learner(torch.ones(3, 4)).sum().backward()
        >>> learner.feedback.names(), learner.feedback["2.weight"].shape
        (['2.weight'], torch.Size([2, 8]))
    """

    method = "fa"

    def __init__(
        self,
        model: nn.Module,
        *,
        output: str | int | None = None,
        start: WeightStart = "uniform",
        seed: int | None = None,
    ) -> None:
        check_start(start)
        super().__init__(model, output=output, seed=seed)
        self.start_from = start

    def start(self, name: str, weight: Tensor, generator: torch.Generator) -> Tensor:
        """B, drawn once."""
        return draw_start(self.start_from, weight, generator)


RECORDS = (
    Method(
        "fa",
        FeedbackAlignment,
        "the error travels back through fixed random weights",
        "Lillicrap et al. 2016",
        weight_transport_free=True,
        backward_pass_free=False,
        probes=False,
        extra_state="n_l m_l",
        products="3",
        aliases=("feedback-alignment",),
    ),
)

"""Backpropagation behind the same contract: the baseline of every comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from fdfa.engine.estimator import Estimator
from fdfa.engine.outputs import output_tensor
from fdfa.methods.record import Method

__all__ = ["RECORDS", "Backpropagation"]


class Backpropagation(Estimator):
    """The exact gradient, by reverse-mode differentiation (Rumelhart, Hinton & Williams 1986).

    Nothing is cut and nothing added: gradients equal the plain model's bit for bit.

    Args:
        model: any module.
        output: which entry of the model's return value is the output (N, K, ...).
        seed: unused; there so that every method takes it.

    Example:
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ... )
        >>> learner = Backpropagation(model)
        >>> learner(torch.ones(3, 4)).sum().backward()
        >>> model[0].weight.grad.shape
        torch.Size([8, 4])
    """

    method = "backpropagation"

    def __init__(
        self, model: nn.Module, *, output: str | int | None = None, seed: int | None = None
    ) -> None:
        super().__init__(model, output=output, seed=seed)

    def learning_forward(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The model's own forward pass."""
        self.take_step()
        returned = self.model(*args, **kwargs)
        output_tensor(returned, name=self.output, sample_dims=1)
        return returned


RECORDS = (
    Method(
        "backpropagation",
        Backpropagation,
        "the exact gradient, by a backward pass through the whole network",
        "Rumelhart, Hinton & Williams 1986",
        weight_transport_free=False,
        backward_pass_free=False,
        probes=False,
        extra_state="none",
        products="3",
        aliases=(
            "bp",
            "backprop",
        ),
    ),
)

"""Augmented direct feedback alignment: any function in place of the activation's derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from fdfa.engine.activations import is_activation, with_backward_of
from fdfa.engine.intercept import Forward
from fdfa.engine.selection import TapSpec
from fdfa.engine.tapped import TappedEstimator
from fdfa.errors import ConfigError, unknown_name
from fdfa.methods.record import Method

__all__ = [
    "ADFA",
    "RECORDS",
]

_STARTS = ("kaiming-uniform", "uniform")


def _identity(a: Tensor) -> Tensor:
    return a


def _tanh_derivative(a: Tensor) -> Tensor:
    return 1 - a.tanh().square()


_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "cos": torch.cos,
    "sin": torch.sin,
    "one": torch.ones_like,
    "tanh-derivative": _tanh_derivative,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "identity": _identity,
}


class ADFA(TappedEstimator):
    """Augmented direct feedback alignment (Nakajima et al. 2022, arXiv:2204.13991).

    What a hidden weight layer learns from is ``(e B_l) * g(a_l)``: a_l is the pre-activation, B_l
    fixed, g any function in place of the derivative f' of the activation. The last block is exact.

    The credit ``e B_l`` stands at the tap, as with DFA; on its way back through the block each
    activation *module* multiplies by g(a) where it would by f'(a), and everything else (pooling,
    normalisation, dropout) is exact. So with g = f' it is DFA. An activation that a model calls as
    a function, ``torch.relu(x)``, keeps its own derivative: write it as a module.

    Args:
        model: any module.
        taps: ``"auto"``, names of modules, a module type, or a predicate ``(name, module) ->
            bool``.
        depth: with ``"auto"``, blocks of this many weight layers, counted from the input.
        sample_dims: number of leading dimensions that count samples.
        output: which entry of the model's return value is the output (N, K, ...).
        g: ``"cos"``, ``"sin"``, ``"one"``, ``"tanh-derivative"``, ``"sigmoid"``, ``"tanh"``,
            ``"identity"``, or a function of a tensor that returns one of its shape. It need not be
            differentiable.
        start: ``"kaiming-uniform"``, U(+-sqrt(6 / |h|)); or ``"uniform"``, U(+-1 / sqrt(|h|)).
        seed: draws the feedback maps; by default torch's seed.
        feedback_size_limit: bytes; a larger map is refused before it is allocated.

    Raises:
        ConfigError: if an option is out of range.

    Example:
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ... )
        >>> learner = ADFA(model, g=lambda a: torch.cos(2 * a))
        >>> learner(torch.ones(3, 4)).sum().backward()
        >>> model[0].weight.grad.shape
        torch.Size([8, 4])
    """

    method = "adfa"

    def __init__(
        self,
        model: nn.Module,
        *,
        taps: TapSpec = "auto",
        depth: int = 1,
        sample_dims: int = 1,
        output: str | int | None = None,
        g: Literal["cos", "sin", "one", "tanh-derivative", "sigmoid", "tanh", "identity"]
        | Callable[[Tensor], Tensor] = "cos",
        start: Literal["kaiming-uniform", "uniform"] = "kaiming-uniform",
        seed: int | None = None,
        feedback_size_limit: int = 4 * 2**30,
    ) -> None:
        if start not in _STARTS:
            raise ConfigError(unknown_name("start", str(start), _STARTS))
        if not callable(g) and g not in _FUNCTIONS:
            raise ConfigError(unknown_name("function", str(g), list(_FUNCTIONS)))
        function = g if callable(g) else _FUNCTIONS[g]
        tried = function(torch.linspace(-1, 1, 6).view(2, 3))
        if not isinstance(tried, Tensor) or tried.shape != (2, 3):
            seen = tuple(tried.shape) if isinstance(tried, Tensor) else type(tried).__name__
            raise ConfigError(
                f"g makes {seen} of a tensor of shape (2, 3): it stands in for a derivative, one"
                " number for each pre-activation. Return a tensor of the shape it is given."
            )
        super().__init__(
            model,
            taps=taps,
            depth=depth,
            sample_dims=sample_dims,
            output=output,
            seed=seed,
            feedback_size_limit=feedback_size_limit,
            start=start,
        )
        self.g = function

    def substitute(self, module: nn.Module) -> Forward | None:
        """Activations multiply by g(a) on the way back."""
        return with_backward_of(module, self.g) if is_activation(module) else None


RECORDS = (
    Method(
        "adfa",
        ADFA,
        "DFA with any function of the pre-activation in place of the activation's derivative",
        "Nakajima et al. 2022, arXiv:2204.13991",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=False,
        extra_state="K n_l",
        products="2",
        aliases=("augmented-direct-feedback-alignment",),
    ),
)

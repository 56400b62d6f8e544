"""Indirect feedback alignment: the error enters at the first hidden layer and travels forward."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from fdfa.engine.activations import is_activation
from fdfa.engine.credit import Payer
from fdfa.engine.lessons import Lesson
from fdfa.engine.relay import relay
from fdfa.engine.selection import TapSpec
from fdfa.engine.tapped import TappedEstimator
from fdfa.engine.taps import Tap, TapPlan
from fdfa.errors import ConfigError, unknown_name
from fdfa.methods.record import Method

__all__ = [
    "IFA",
    "RECORDS",
]

_STARTS = ("kaiming-uniform", "uniform")


class IFA(TappedEstimator):
    """Indirect feedback alignment (Nokland 2016, arXiv:1609.01596).

    Only the first hidden layer gets the error directly, ``delta_1 = (e B) * f'(a_1)``, B fixed.
    From there it travels forward, through the weights: ``delta_{l+1} = (delta_l W_{l+1}^T) *
    f'(a_{l+1})``. The last block gets its exact error.

    In terms of taps ``h_l = f_l(a_l)``, ``a_l = F_l(h_{l-1})``: ``g_1 = e B``, and g_{l+1} is the
    derivative of the pre-activation a_{l+1} along g_l at the pre-activation a_l: a chain of
    forward-mode derivatives, for any layers. It takes one more pass through the model in
    ``backward()``, with the modes, the buffers and the random numbers of the first; forward hooks
    of the user's run in it, too. Weights and inputs must not be changed between.

    f_l is the activation function of torch, module or function, whose result is tapped. A tap
    behind an activation and something else, pooling say, is refused in ``backward()``: the credit
    would meet f' twice. Where the tap is the result of none (the sum that ends a residual block),
    f_l is the identity and F_l the whole block, with any activation that lies inside. With
    ``taps="auto"`` taps lie at the outputs of activation *modules* where there are any.

    Args:
        model: any module.
        taps: ``"auto"``, names of modules, a module type, or a predicate ``(name, module) ->
            bool``; name activations. Each must lie behind the first.
        depth: with ``"auto"``, blocks of this many weight layers, counted from the input.
        sample_dims: number of leading dimensions that count samples.
        output: which entry of the model's return value is the output (N, K, ...).
        start: ``"kaiming-uniform"``, U(+-sqrt(6 / |h|)); or ``"uniform"``, U(+-1 / sqrt(|h|)), as
            in Nokland's code.
        seed: draws the feedback map; by default torch's seed.
        feedback_size_limit: bytes; a larger map is refused before it is allocated.

    Raises:
        ConfigError: if an option is out of range.

    Example:
        >>> model = torch.nn.Sequential(
        ...     *(torch.nn.Linear(4, 8), torch.nn.ReLU()),
        ...     *(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2)),
        ... )
        >>> learner = IFA(model)
        >>> learner(torch.ones(3, 4)).sum().backward()
        >>> learner.feedback.names()
        ['1']
    """

    method = "ifa"
    repeats = True

    def __init__(
        self,
        model: nn.Module,
        *,
        taps: TapSpec = "auto",
        depth: int = 1,
        sample_dims: int = 1,
        output: str | int | None = None,
        start: Literal["kaiming-uniform", "uniform"] = "kaiming-uniform",
        seed: int | None = None,
        feedback_size_limit: int = 4 * 2**30,
    ) -> None:
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
            start=start,
        )

    def prefers_tap(self, module: nn.Module) -> bool:
        """At activations."""
        return is_activation(module)

    def mapped_taps(self, plan: TapPlan) -> tuple[Tap, ...]:
        """The first alone."""
        return plan.taps[:1]

    def credits(self, e: Tensor, lesson: Lesson) -> Payer:
        """The first credit goes from tap to tap."""
        first = lesson.taps[0]
        g = self.feedback[first].forward(e).view(first.shape)
        if len(lesson.taps) == 1 or lesson.repetition is None:
            return lambda number: g
        return relay(lesson.repetition, lesson.plan, g).__getitem__


RECORDS = (
    Method(
        "ifa",
        IFA,
        "the error enters at the first hidden layer and travels forward through the weights",
        "Nokland 2016, arXiv:1609.01596",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=False,
        extra_state="K n_1",
        products="4",
        aliases=("indirect-feedback-alignment",),
    ),
)

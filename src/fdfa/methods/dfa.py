"""Direct feedback alignment: fixed random connections carry the output error to every block."""

from __future__ import annotations

from typing import Literal

from torch import nn

from fdfa.engine.selection import TapSpec
from fdfa.engine.tapped import TappedEstimator
from fdfa.errors import ConfigError, unknown_name
from fdfa.methods.record import Method

__all__ = [
    "DFA",
    "RECORDS",
]

_STARTS = ("kaiming-uniform", "uniform")


class DFA(TappedEstimator):
    """Direct feedback alignment (Nokland 2016, arXiv:1609.01596).

    The credit of tap l is ``g_l = e B_l``, B_l fixed.

    Two matrix products a layer where backpropagation takes three: no gradient with respect to a
    block's input is ever computed.

    Args:
        model: any module.
        taps: ``"auto"``, names of modules, a module type, or a predicate ``(name, module) ->
            bool``.
        depth: with ``"auto"``, blocks of this many weight layers, counted from the input.
        sample_dims: number of leading dimensions that count samples.
        output: which entry of the model's return value is the output (N, K, ...).
        start: ``"kaiming-uniform"``, U(+-sqrt(6 / |h|)), as in the FDFA authors' code; or
            ``"uniform"``, U(+-1 / sqrt(|h|)), as in Nokland's.
        rank: None; or r, the number of dimensions on which the output error is projected before the
            maps, with r rows each: ``e P^T`` in e's place, P (r, K) with random orthonormal rows.
        learn_p: whether P learns, by Oja's subspace rule on the output error.
        projection_rate: of Oja's rule, in (0, 1).
        seed: draws the feedback maps; by default torch's seed.
        feedback_size_limit: bytes; a larger map is refused before it is allocated.

    Raises:
        ConfigError: if an option is out of range.

    Example:
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ... )
        >>> learner = DFA(model)
        >>> learner(torch.ones(3, 4)).sum().backward()
        >>> learner.feedback["1"].weight.shape
        torch.Size([2, 8])
    """

    method = "dfa"

    def __init__(
        self,
        model: nn.Module,
        *,
        taps: TapSpec = "auto",
        depth: int = 1,
        sample_dims: int = 1,
        output: str | int | None = None,
        start: Literal["kaiming-uniform", "uniform"] = "kaiming-uniform",
        rank: int | None = None,
        learn_p: bool = False,
        projection_rate: float = 0.05,
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
            rank=rank,
            learn_p=learn_p,
            projection_rate=projection_rate,
            start=start,
        )


RECORDS = (
    Method(
        "dfa",
        DFA,
        "fixed random connections carry the output error to every block",
        "Nokland 2016, arXiv:1609.01596",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=False,
        extra_state="K n_l",
        products="2",
        aliases=("direct-feedback-alignment",),
    ),
)

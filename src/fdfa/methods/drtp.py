"""Direct random target projection: the targets, not the error, go to every hidden block."""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor, nn

from fdfa.engine.credit import Payer
from fdfa.engine.lessons import Lesson
from fdfa.engine.selection import TapSpec
from fdfa.engine.tapped import TappedEstimator
from fdfa.errors import ConfigError, unknown_name
from fdfa.methods.record import Method

__all__ = [
    "DRTP",
    "RECORDS",
]

_STARTS = ("kaiming-uniform", "uniform")


class DRTP(TappedEstimator):
    """Direct random target projection (Frenkel, Lefebvre & Bol 2021, arXiv:1909.01311).

    The credit of tap l is ``g_l = t B_l / N``, t the one-hot targets, B_l fixed. The last block
    gets its exact error. What a hidden block learns of a sample depends neither on the output nor
    on a later weight, so it could be updated as soon as its activation is there; here it waits for
    ``backward()``, as with every method. A sample whose output error is exactly zero rests.

    The loss must come from :meth:`criterion`, which tells the pass its targets. A loss that is one
    number is taken for the mean over the N samples. The credit stands where the gradient stands: an
    optimiser subtracts it, as in the authors' code. (B_l and -B_l have the same law, so the sign is
    a convention.)

    Args:
        model: any module.
        taps: ``"auto"``, names of modules, a module type, or a predicate ``(name, module) ->
            bool``.
        depth: with ``"auto"``, blocks of this many weight layers, counted from the input.
        sample_dims: number of leading dimensions that count samples.
        output: which entry of the model's return value is the output (N, K, ...).
        start: ``"kaiming-uniform"``, U(+-sqrt(6 / |h|)); or ``"uniform"``, U(+-1 / sqrt(|h|)).
        seed: draws the feedback maps; by default torch's seed.
        feedback_size_limit: bytes; a larger map is refused before it is allocated.

    Raises:
        ConfigError: if an option is out of range.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ... )
        >>> learner = DRTP(model)
        >>> criterion = learner.criterion(torch.nn.functional.cross_entropy)
        >>> criterion(learner(torch.ones(3, 4)), torch.tensor([0, 1, 1])).backward()
        >>> model[0].weight.grad.shape
        torch.Size([8, 4])
    """

    method = "drtp"
    needs_targets = True

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

    def credits(self, e: Tensor, lesson: Lesson) -> Payer:
        """The targets go in the error's place."""
        return super().credits(cast(Tensor, lesson.targets), lesson)


RECORDS = (
    Method(
        "drtp",
        DRTP,
        "fixed random connections carry the targets, not the error, to every hidden block",
        "Frenkel, Lefebvre & Bol 2021, arXiv:1909.01311",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=False,
        extra_state="K n_l",
        products="2",
        forward_unlocked=True,
        aliases=("direct-random-target-projection",),
    ),
)

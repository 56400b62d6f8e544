"""GrAPE: direct feedback turned towards the probes by a cosine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from fdfa.engine.lessons import Lesson, correlations
from fdfa.engine.outputs import output_tensor
from fdfa.engine.probes import Probe
from fdfa.engine.selection import TapSpec
from fdfa.engine.tapped import TappedEstimator
from fdfa.errors import ConfigError, unknown_name
from fdfa.methods.record import Method

__all__ = ["RECORDS", "GrAPE"]

_STARTS = ("kaiming-uniform", "uniform")


class GrAPE(TappedEstimator):
    """Gradient-aligned projected error (Caillon, Fagnou, Delattre & Allauzen, ICLR 2026).

    The credit of tap l is ``g_l = e B_l``. A probe as FDFA's gives ``Jhat_l = d^T p_l``, and the
    map takes one step down ``1 - cos(B_l, Jhat_l)``, the cosine of the two matrices as vectors:

        ``B_l <- B_l + (a / |B_l|) (Jhat_l / |Jhat_l| - cos B_l / |B_l|)``.

    Then the feedback of every output component, a row of B_l (a column where errors are columns),
    is brought to length 1. Maps start at random.

    Args:
        model: any module.
        taps: ``"auto"``, names of modules, a module type, or a predicate ``(name, module) ->
            bool``.
        depth: with ``"auto"``, blocks of this many weight layers, counted from the input.
        sample_dims: number of leading dimensions that count samples.
        output: which entry of the model's return value is the output (N, K, ...).
        feedback_rate: a, positive.
        exact_every: every so many steps one batch is backpropagated through the whole network, and
            teaches no map; None never does.
        start: ``"kaiming-uniform"``, U(+-sqrt(6 / |h|)), or ``"uniform"``, U(+-1 / sqrt(|h|)).
        noise: ``"normal"`` or ``"rademacher"`` (a lower variance, cheaper to draw).
        probe: ``"forward-ad"`` or, for what has no forward derivative, ``"finite-difference"``.
        probe_every: probe one step in this many.
        difference_step: length of a finite difference; None takes 1e-3, or 1e-5 in float64.
        rank: None; or r, the number of dimensions on which the output error is projected before the
            maps, with r rows each: ``e P^T`` in e's place, P (r, K) with random orthonormal rows.
        learn_p: whether P learns, by Oja's subspace rule on the output error.
        projection_rate: of Oja's rule, in (0, 1).
        seed: of the maps and the probes; by default torch's seed.
        feedback_size_limit: bytes; a larger map is refused before it is allocated.

    Raises:
        ConfigError: if an option is unknown or out of range.

    Example:
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ... )
        >>> learner = GrAPE(model)
        >>> learner(torch.ones(3, 4)).sum().backward()
        >>> learner.feedback["1"].weight.norm(dim=1)
        tensor([1.0000, 1.0000])
    """

    method = "grape"

    def __init__(
        self,
        model: nn.Module,
        *,
        taps: TapSpec = "auto",
        depth: int = 1,
        sample_dims: int = 1,
        output: str | int | None = None,
        feedback_rate: float = 0.1,
        exact_every: int | None = None,
        start: Literal["kaiming-uniform", "uniform"] = "kaiming-uniform",
        noise: Literal["normal", "rademacher"] = "normal",
        probe: Literal["forward-ad", "finite-difference"] = "forward-ad",
        probe_every: int = 1,
        difference_step: float | None = None,
        rank: int | None = None,
        learn_p: bool = False,
        projection_rate: float = 0.05,
        seed: int | None = None,
        feedback_size_limit: int = 4 * 2**30,
    ) -> None:
        if not isinstance(feedback_rate, (int, float)) or not 0 < feedback_rate < float("inf"):
            raise ConfigError(
                f"feedback_rate={feedback_rate!r}: a map takes steps of positive length. Pass 0.1,"
                " say."
            )
        whole = isinstance(exact_every, int) and not isinstance(exact_every, bool)
        if exact_every is not None and not (whole and exact_every >= 1):
            raise ConfigError(
                f"exact_every={exact_every!r}: one step in how many is exact? Pass a whole number"
                " from 1 up, or leave it out."
            )
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
            probe=Probe(
                noise=noise, derivative=probe, every=probe_every, difference_step=difference_step
            ),
        )
        self.feedback_rate = feedback_rate
        self.exact_every = exact_every

    def learning_forward(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """One forward pass, cut at the taps; uncut where an exact one is due."""
        if self.exact_every is None or (self.coming_step() + 1) % self.exact_every:
            return super().learning_forward(args, kwargs)
        self.take_step()
        returned = self.model(*args, **kwargs)
        output_tensor(returned, name=self.output, sample_dims=self.sample_dims)
        return returned

    def teach(self, lesson: Lesson) -> None:
        """Turn every map towards its probe; one that says nothing turns none."""
        for tap, correlation, *_ in correlations(lesson, self.feedback, innovation=False):
            _turn(self.feedback[tap].weight, correlation, self.feedback_rate)


def _turn(B: Tensor, Jhat: Tensor, rate: float) -> None:
    """One step of B down ``1 - cos(B, Jhat)``, in place, and its rows to length 1."""
    length, other = B.norm(), Jhat.norm()
    if not (length * other).item() > 0:
        return
    cosine = (B * Jhat).sum() / (length * other)
    B.mul_(1 - rate * cosine / length.square()).add_(Jhat * (rate / (length * other)))
    B.div_(B.norm(dim=1, keepdim=True).clamp_min(1e-30))


RECORDS = (
    Method(
        "grape",
        GrAPE,
        "direct connections that forward-mode probes turn by a cosine",
        "Caillon, Fagnou, Delattre & Allauzen 2026, OpenReview kasbbmwk3s",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=True,
        extra_state="K n_l",
        products="2 + s",
    ),
)

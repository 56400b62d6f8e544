"""Forward gradients in activity space: one directional derivative a sample, no feedback."""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor, nn

from fdfa.engine.credit import Payer
from fdfa.engine.lessons import Lesson
from fdfa.engine.probes import Probe
from fdfa.engine.selection import TapSpec
from fdfa.engine.tapped import TappedEstimator
from fdfa.methods.record import Method

__all__ = [
    "FGA",
    "RECORDS",
]


class FGA(TappedEstimator):
    """Activity-perturbed forward gradients (Ren, Kornblith, Liao & Hinton, arXiv:2210.03310).

    Every sample is perturbed at every tap by a p_l of its own; d (N, K) is the directional
    derivative of the output along all of them, and the credit of tap l is ``g_l = (e . d) p_l``,
    with a dot product for each sample. It is unbiased, ``E[g_l] = e J_l``, and its variance in
    component i is ``|q|^2 + (kap - 2) q_i^2``: q = e J the true credit of all taps together, kap
    the kurtosis of the noise (3 if normal, 1 if Rademacher).

    The perturbation sits at the taps, as FDFA's does: with ``taps="auto"`` behind the activation.
    The paper perturbs pre-activations and keeps the estimates of active units: behind a ReLU,
    ``mask_inactive=True`` is that. ``taps=torch.nn.Linear`` perturbs pre-activations unmasked.

    Args:
        model: any module.
        taps: ``"auto"``, names of modules, a module type, or a predicate ``(name, module) ->
            bool``.
        depth: with ``"auto"``, blocks of this many weight layers, counted from the input.
        sample_dims: number of leading dimensions that count samples.
        output: which entry of the model's return value is the output (N, K, ...).
        mask_inactive: perturb no unit that is exactly zero, and give it no credit. Right where zero
            means that a ReLU before the tap is closed: the mean stays, the variance falls.
        noise: ``"normal"`` (the paper's) or ``"rademacher"`` (a lower variance, cheaper to draw).
        probe: ``"forward-ad"`` or, for what has no forward derivative, ``"finite-difference"``.
        difference_step: length of a finite difference; None takes 1e-3, or 1e-5 in float64.
        seed: of the probes; by default torch's seed.

    Raises:
        ConfigError: if an option is unknown or out of range.

    Example:
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ... )
        >>> learner = FGA(model)
        >>> learner(torch.ones(3, 4)).sum().backward()
        >>> model[0].weight.grad.shape
        torch.Size([8, 4])
    """

    method = "fg-a"
    probed_credit = True

    def __init__(
        self,
        model: nn.Module,
        *,
        taps: TapSpec = "auto",
        depth: int = 1,
        sample_dims: int = 1,
        output: str | int | None = None,
        mask_inactive: bool = False,
        noise: Literal["normal", "rademacher"] = "normal",
        probe: Literal["forward-ad", "finite-difference"] = "forward-ad",
        difference_step: float | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            model,
            taps=taps,
            depth=depth,
            sample_dims=sample_dims,
            output=output,
            seed=seed,
            start=None,
            probe=Probe(
                noise=noise,
                derivative=probe,
                difference_step=difference_step,
                active_only=bool(mask_inactive),
            ),
        )

    def credits(self, e: Tensor, lesson: Lesson) -> Payer:
        """``(e . d) p_l``: the loss's derivative along the perturbation, times the perturbation."""
        d = cast(Tensor, lesson.derivative)  # every pass probes
        slope = (e.to(d.dtype) * d).sum(1, keepdim=True)  # (N, 1)
        return lambda number: slope * lesson.perturbations[number]


RECORDS = (
    Method(
        "fg-a",
        FGA,
        "forward gradients: a directional derivative for each sample, times its perturbation",
        "Ren, Kornblith, Liao & Hinton 2023, arXiv:2210.03310",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=True,
        extra_state="none",
        products="3",
        aliases=("activity-perturbed-forward-gradient", "activity-perturbation"),
    ),
)

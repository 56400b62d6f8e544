"""Local greedy forward gradients: in each block a derivative of the block's own loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn

from fdfa.engine.credit import Payer
from fdfa.engine.cut import CutPass
from fdfa.engine.forward_derivatives import forward_derivatives
from fdfa.engine.heads import HeadOfParts, check_head
from fdfa.engine.local import LocalEstimator, LocalPass
from fdfa.engine.probes import Probe
from fdfa.engine.selection import TapSpec
from fdfa.engine.taps import TapPlan
from fdfa.errors import ProbeError
from fdfa.methods.record import Method

__all__ = [
    "LGFGA",
    "RECORDS",
]

# from an output's error to what makes of a perturbation the credit of its tap
_Weigh = Callable[[Tensor], Callable[[Tensor], Tensor]]


class LGFGA(LocalEstimator):
    """Activity-perturbed forward gradients of local losses (Ren et al., arXiv:2210.03310).

    A head makes of the activation that ends block b an output y_b. In the block every sample is
    perturbed at every tap by a p_l of its own; d_b (N, K) is the derivative of y_b along the
    perturbations of this block alone, and the credit of its taps is ``g_l = (e_b . d_b) p_l``, e_b
    the gradient of L(y_b, t). The heads get their exact gradients, which goes no further than the
    activation. So the mean is the gradient of ``l-bp``, and the variance that of a block, not of
    the network.

    Where the result of a head is a mean over patches of sums over groups of channels, as in
    :func:`fdfa.models.local_mixer`, every patch and group has a derivative of its own, and a
    perturbation is multiplied by that of the parts that it reaches: the paper's patch and group
    losses. The mean is the same, and the variance falls.

    Wrap the model by :class:`fdfa.LocalHeads` first. The loss must come from :meth:`criterion`,
    which says it for every head.

    Args:
        model: with heads.
        taps: what is perturbed, beside the activations with heads: ``"auto"``, in a block of
            several weight layers the last activation before each; or names of modules, a module
            type, a predicate ``(name, module) -> bool``.
        mask_inactive: perturb no unit that is exactly zero, and give it no credit. Right where zero
            means that a ReLU before the tap is closed: the mean stays, the variance falls.
        noise: ``"normal"`` (the paper's) or ``"rademacher"`` (a lower variance, cheaper to draw).
        seed: of the perturbations; by default torch's seed.

    Raises:
        ConfigError: if an option is unknown or out of range.
        UnsupportedModelError: if the model has no heads.

    Example:
        >>> import fdfa, torch
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ... )
        >>> learner = LGFGA(fdfa.LocalHeads(model, torch.ones(3, 4)))
        >>> criterion = learner.criterion(torch.nn.functional.cross_entropy)
        >>> criterion(learner(torch.ones(3, 4)), torch.tensor([0, 1, 1])).backward()
        >>> model[0].weight.grad.shape
        torch.Size([8, 4])
    """

    method = "lg-fg-a"
    probed_credit = True

    def __init__(
        self,
        model: nn.Module,
        *,
        taps: TapSpec = "auto",
        mask_inactive: bool = False,
        noise: Literal["normal", "rademacher"] = "normal",
        seed: int | None = None,
    ) -> None:
        super().__init__(
            model,
            taps=taps,
            seed=seed,
            probe=Probe(noise=noise, active_only=bool(mask_inactive)),
        )

    def local_pass(self, plan: TapPlan, run: CutPass) -> LocalPass:
        """Heads beside their blocks: no gradient and no tangent passes from one to another."""
        outputs: list[Tensor] = []
        weigh: dict[str | None, _Weigh] = {}
        tangents = iter(run.tangents)
        for tap, h in zip(plan.taps, run.taps, strict=True):
            if tap.has_head:
                y, weigh[tap.name] = _beside(
                    self.head(tap), h.detach(), next(tangents), tap.name, self.sample_dims
                )
                outputs.append(check_head(y, plan.output_shape, tap.name))
        ends = list(weigh)
        if run.derivative is not None:
            weigh[None] = _along(run.derivative, self.sample_dims)
        noises = run.noises

        def credits(e: Tensor, errors: Sequence[Tensor]) -> Payer:
            of = dict(zip(ends, errors, strict=True)) | {None: e}
            credit = {end: make(of[end]) for end, make in weigh.items()}
            return lambda number: credit[plan.taps[number].end](noises[number])

        return LocalPass(outputs, run.taps, credits)


def _beside(
    head: nn.Module, h: Tensor, tangent: Tensor, name: str, sample_dims: int
) -> tuple[Tensor, _Weigh]:
    """What a head makes of an activation, and what the tangent there says of perturbations."""
    by_parts = head if isinstance(head, HeadOfParts) else None
    otherwise = "Make the head of others,"
    with forward_derivatives(head, attention=True, otherwise=otherwise), fwAD.dual_level():
        dual = fwAD.make_dual(h, tangent.to(h.dtype))  # type: ignore[no-untyped-call]
        result = head(dual) if by_parts is None else by_parts.parts(dual)
        y, d = fwAD.unpack_dual(result)  # type: ignore[no-untyped-call]
        if d is None:
            raise ProbeError(
                f"the head of tap '{name}' drops forward derivatives (a compiled module, detach(),"
                " .data, an operator on integers). Give heads that are plain modules."
            )
        d = d.detach()
    if by_parts is None:
        return y, _along(d, sample_dims)

    def weigh(e: Tensor) -> Callable[[Tensor], Tensor]:
        c = by_parts.slopes(d, e)
        return lambda p: by_parts.spread(c, p.dim()) * p

    return by_parts.combine(y), weigh


def _along(d: Tensor, sample_dims: int) -> _Weigh:
    """Perturbations times e . d, for each sample."""

    def weigh(e: Tensor) -> Callable[[Tensor], Tensor]:
        wide = d.to(torch.promote_types(d.dtype, torch.float32))
        c = (e.to(wide.dtype) * wide).flatten(sample_dims).sum(sample_dims)
        return lambda p: c.reshape(*c.shape, *(1,) * (p.dim() - c.dim())) * p

    return weigh


RECORDS = (
    Method(
        "lg-fg-a",
        LGFGA,
        "a loss at each block, and forward gradients inside the block",
        "Ren, Kornblith, Liao & Hinton 2023, arXiv:2210.03310",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=True,
        extra_state="K n_l",
        products="2 to 3",
        aliases=("local-greedy-forward-gradient",),
    ),
)

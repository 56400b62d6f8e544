"""Several forward gradients a sample in activity space, averaged or joined to a projection."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from fdfa.engine.credit import Payer
from fdfa.engine.cut import CutModels, CutPass
from fdfa.engine.differences import central_difference
from fdfa.engine.intercept import untouched_state
from fdfa.engine.lessons import Lesson, as_matrix
from fdfa.engine.probes import Probe
from fdfa.engine.selection import TapSpec
from fdfa.engine.tangent_sets import REDRAWS, TangentSet, independent
from fdfa.engine.tapped import TappedEstimator
from fdfa.engine.taps import TapPlan
from fdfa.methods.record import Method

__all__ = ["RECORDS", "MultiTangentA"]


class MultiTangentA(TappedEstimator):
    """Multi-tangent forward gradients in activity space (after Fluegel et al., arXiv:2410.17764).

    Every sample has k tangents V (k, n) of its own over all n units of all taps together; with q
    (n,) its true credit, ``c = V q`` by k directional derivatives. Its credit is, with ``combine``

    - ``"projection"``: ``V^T (V V^T)^{-1} c``, the orthogonal projection of q on their span: it
      never points uphill, is q itself for k = n, and on average k/n of it, which ``unbiased=True``
      divides out, and its mean length ``length_correction=True``;
    - ``"mean"``: ``V^T c / k``, unbiased; for k = 1 that is ``fg-a``;
    - ``"sum"``: ``V^T c``.

    One Gram matrix a sample, solved by Cholesky in float64. More tangents than units are no use: n
    are taken. Each tangent is a forward pass with derivatives; the last one is the one that learns.

    Args:
        model: any module.
        taps: ``"auto"``, names of modules, a module type, or a predicate ``(name, module) ->
            bool``.
        depth: with ``"auto"``, blocks of this many weight layers, counted from the input.
        sample_dims: number of leading dimensions that count samples.
        output: which entry of the model's return value is the output (N, K, ...).
        count: k, the tangents a step.
        combine: ``"projection"``, ``"mean"`` or ``"sum"``.
        unbiased: multiply the projection by n/k.
        tangents: ``"normal"``; ``"rademacher"``, dependent ones drawn again; ``"orthonormal"``, a
            uniform set at right angles, of length sqrt(n), so that the mean stays unbiased; or
            ``"angle"``: the first uniform, every other one at ``angle`` to it, of the same length.
        angle: degrees, in (0, 90].
        length_correction: divide the projection by its mean length, chi_k / chi_n of the credit's;
            not together with ``unbiased``.
        probe: ``"forward-ad"`` or, for what has no forward derivative, ``"finite-difference"``.
        difference_step: length of a finite difference; None takes 1e-3, or 1e-5 in float64.
        seed: of the tangents; by default torch's seed.

    Raises:
        ConfigError: if an option is unknown or out of range.

    Example:
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2)
        ... ).double()
        >>> learner = MultiTangentA(model, count=3)  # as many as there are units
        >>> x = torch.ones(5, 4).double()
        >>> ours = torch.autograd.grad(learner(x).sum(), model[0].weight)
        >>> exact = torch.autograd.grad(model(x).sum(), model[0].weight)
        >>> torch.testing.assert_close(ours, exact)
    """

    method = "multi-tangent-a"
    probed_credit = True

    def __init__(
        self,
        model: nn.Module,
        *,
        taps: TapSpec = "auto",
        depth: int = 1,
        sample_dims: int = 1,
        output: str | int | None = None,
        count: int = 4,
        combine: Literal["projection", "mean", "sum"] = "projection",
        unbiased: bool = False,
        tangents: Literal["normal", "rademacher", "orthonormal", "angle"] = "normal",
        angle: float = 90.0,
        length_correction: bool = False,
        probe: Literal["forward-ad", "finite-difference"] = "forward-ad",
        difference_step: float | None = None,
        seed: int | None = None,
    ) -> None:
        tangent_set = TangentSet(count, combine, unbiased, tangents, angle, length_correction)
        super().__init__(
            model,
            taps=taps,
            depth=depth,
            sample_dims=sample_dims,
            output=output,
            seed=seed,
            start=None,
            probe=Probe(noise=tangent_set.noise, derivative=probe, difference_step=difference_step),
        )
        self.set = tangent_set

    @property
    def further_passes(self) -> int:
        """Forward passes beside the one that learns: one a tangent more, two a difference."""
        differences = cast(Probe, self.probe).derivative == "finite-difference"
        return 2 * self.set.count if differences else self.set.count - 1

    @property
    def probes_at_once(self) -> int:
        """As many as there are tangents."""
        return self.set.count

    def probing_pass(
        self,
        probe: Probe,
        cut: CutModels,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        step: int,
    ) -> CutPass:
        """One pass a tangent; only the last one keeps a graph and steps the model's state."""
        tangents, worth = self._draw(probe, cut.plan, step)
        shapes = [tap.shape for tap in cut.plan.taps]
        sets = [
            [V[:, j].reshape(shape) for V, shape in zip(tangents, shapes, strict=True)]
            for j in range(tangents[0].shape[1])
        ]
        if probe.derivative == "forward-ad":
            model = cut.next(probing=True)
            found = []
            for noises in sets[:-1]:
                with torch.no_grad(), untouched_state(self.model):
                    found.append(cast(Tensor, model.run(args, kwargs, noises).derivative))
            run = model.run(args, kwargs, sets[-1])
            found.append(cast(Tensor, run.derivative))
        else:
            found = [
                central_difference(
                    self.model,
                    cut.plan,
                    args,
                    kwargs,
                    find_output=self._output_of,
                    noises=noises,
                    step=probe.difference_step,
                )
                for noises in sets
            ]
            run = cut.next(probing=False).run(args, kwargs)
        d = torch.stack([as_matrix(each, self.sample_dims) for each in found], 1)  # (N, k, K)
        samples = run.output.shape[: self.sample_dims]
        # a lesson holds a matrix each: the k tangents side by side
        side_by_side = [each.reshape(*samples, -1) for each in (d, *worth)]
        return dataclasses.replace(run, derivative=side_by_side[0], noises=side_by_side[1:])

    def credits(self, e: Tensor, lesson: Lesson) -> Payer:
        """What each tangent is worth, as often as the loss is steep along it."""
        N, K = e.shape
        d = cast(Tensor, lesson.derivative).view(N, -1, K)  # every pass probes
        slopes = (e.to(d.dtype)[:, None] * d).sum(2)[:, None]  # (N, 1, k)

        def pay(number: int) -> Tensor:
            worth = lesson.perturbations[number].view(N, slopes.shape[2], -1)
            return torch.bmm(slopes, worth)[:, 0]

        return pay

    def _draw(
        self, probe: Probe, plan: TapPlan, step: int
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """V, and what the derivative along each row is worth; (N, k, |h_l|), one a tap."""
        n = sum(math.prod(tap.shape[self.sample_dims :]) for tap in plan.taps)
        k = min(self.set.count, n)
        scale = self.set.scale(k, n)
        V = self._drawn(probe, plan, step, k, attempt=0)
        if self.set.needs_gram:
            factor, fine = independent(_gram(V))
            for attempt in range(1, REDRAWS if self.set.tangents == "rademacher" else 1):
                if fine.all():
                    break
                others = self._drawn(probe, plan, step, k, attempt=attempt)
                V = [
                    torch.where(fine.to(old.device)[:, None, None], old, new)
                    for old, new in zip(V, others, strict=True)
                ]
                factor, fine = independent(_gram(V))
            if not fine.all():
                raise self.set.dependent(k)
        if self.set.combine != "projection":
            return V, [each * scale for each in V]
        # (V V^T)^{-1} V: in their span, what meets each tangent alone
        worth = [torch.cholesky_solve(_wide(each), factor.to(each.device)) for each in V]
        return V, [(wide * scale).to(each) for wide, each in zip(worth, V, strict=True)]

    def _drawn(
        self, probe: Probe, plan: TapPlan, step: int, k: int, *, attempt: int
    ) -> list[Tensor]:
        # the first is fg-a's
        names = [(j, attempt) if j or attempt else () for j in range(k)]
        tangents = [self.perturbations(probe, plan, step, *name) for name in names]
        V = [
            torch.stack([as_matrix(p, self.sample_dims) for p in of_tap], 1)
            for of_tap in zip(*tangents, strict=True)
        ]
        if self.set.lies_as_drawn:
            return V
        joint = self.set.shaped(torch.cat([_wide(each).to(V[0].device) for each in V], 2))
        parts = torch.split(joint, [each.shape[2] for each in V], 2)
        return [part.to(each) for part, each in zip(parts, V, strict=True)]


def _wide(V: Tensor) -> Tensor:
    return V if V.device.type == "mps" else V.double()


def _gram(V: Sequence[Tensor]) -> Tensor:
    """``V V^T`` of every sample, over all taps, float64 where the device has it; (N, k, k)."""
    grams = [(wide := _wide(each)) @ wide.mT for each in V]
    return torch.stack([gram.to(grams[0].device) for gram in grams]).sum(0)


RECORDS = (
    Method(
        "multi-tangent-a",
        MultiTangentA,
        "k directional derivatives for each sample, averaged or projected on their span",
        "after Fluegel et al. 2024, arXiv:2410.17764",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=True,
        extra_state="none",
        products="1 + 2 k",
    ),
)

"""OPZO: direct feedback that learns from finite noise, without any derivative."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fdfa.engine.cut import CutModels, CutPass
from fdfa.engine.differences import moved_outputs
from fdfa.engine.lessons import Lesson, correlations
from fdfa.engine.probes import Probe
from fdfa.engine.selection import TapSpec
from fdfa.engine.tapped import TappedEstimator
from fdfa.errors import ConfigError, unknown_name
from fdfa.methods.record import Method

__all__ = [
    "OPZO",
    "RECORDS",
]

_FORMS = {"single-point": 0, "centred": 0, "two-point": 1, "antithetic": 2}  # passes more
_NOISES = ("normal", "rademacher", "sphere")


class OPZO(TappedEstimator):
    """Online pseudo-zeroth-order training (Xiao, Meng, Zhang, He & Lin 2024, arXiv:2407.12516).

    The credit of tap l is ``g_l = e B_l``. Noise z_l of zero mean and unit variance, s times as
    large, is added to every tap, and ``B_l <- (1 - a) B_l + a d^T z_l / N`` (the paper's M is B_l
    transposed, its lambda 1 - a). With y~ the output of the moved taps, y that of the others, d is
    by ``form``

    - ``"single-point"`` (the paper's): ``y~ / s``, from one forward pass: the one that learns. Its
      output, and so e, is the noisy one, as with dropout;
    - ``"centred"``: the same pass, ``(y~ - mean of the other samples' y~) / s``;
    - ``"two-point"``: ``(y~ - y) / s``, y~ from a pass more; the output is y;
    - ``"antithetic"``: ``(y~(+z) - y~(-z)) / 2 s``, from two passes more; the output is y.

    On a network that is linear behind the taps all have the mean Jacobian for their mean; else that
    of the network smoothed by the noise. Beside what every form has, the variance of an entry of
    ``d^T z`` holds |y_k|^2 / s^2 in the first form, in the second what y_k is away from the mean.

    ``fdfa`` with ``probe="finite-difference"`` is the antithetic form for a small s.

    Args:
        model: any module.
        taps: ``"auto"``, names of modules, a module type, or a predicate ``(name, module) ->
            bool``: the noise sits there. ``torch.nn.Linear`` moves pre-activations.
        depth: with ``"auto"``, blocks of this many weight layers, counted from the input.
        sample_dims: number of leading dimensions that count samples.
        output: which entry of the model's return value is the output (N, K, ...).
        form: how the output's answer to the noise is measured.
        feedback_rate: a in (0, 1].
        noise: ``"normal"``, ``"rademacher"`` (+-1), or ``"sphere"``: of each tap and sample uniform
            on a sphere, of length sqrt(|h_l|).
        noise_scale: s, positive.
        probe_every: move the taps one step in this many.
        rank: None; or r, the number of dimensions on which the output error is projected before the
            maps, with r rows each: ``e P^T`` in e's place, P (r, K) with random orthonormal rows.
        learn_p: whether P learns, by Oja's subspace rule on the output error.
        projection_rate: of Oja's rule, in (0, 1).
        seed: of the noise; by default torch's seed.
        feedback_size_limit: bytes; a larger map is refused before it is allocated.

    Raises:
        ConfigError: if an option is unknown or out of range.

    Example:
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ... )
        >>> learner = OPZO(model, form="two-point", noise="rademacher")
        >>> learner(torch.ones(3, 4)).sum().backward()
        >>> bool(learner.feedback["1"].weight.any())
        True
    """

    method = "opzo"

    def __init__(
        self,
        model: nn.Module,
        *,
        taps: TapSpec = "auto",
        depth: int = 1,
        sample_dims: int = 1,
        output: str | int | None = None,
        form: Literal["single-point", "centred", "two-point", "antithetic"] = "single-point",
        feedback_rate: float = 0.01,
        noise: Literal["normal", "rademacher", "sphere"] = "normal",
        noise_scale: float = 0.1,
        probe_every: int = 1,
        rank: int | None = None,
        learn_p: bool = False,
        projection_rate: float = 0.05,
        seed: int | None = None,
        feedback_size_limit: int = 4 * 2**30,
    ) -> None:
        if form not in _FORMS:
            raise ConfigError(unknown_name("form", str(form), list(_FORMS)))
        if not isinstance(feedback_rate, (int, float)) or not 0 < feedback_rate <= 1:
            raise ConfigError(
                f"feedback_rate={feedback_rate!r}: the share of a map that one step replaces lies"
                " in (0, 1]. Pass 0.01, say."
            )
        if noise not in _NOISES:
            raise ConfigError(unknown_name("noise", str(noise), _NOISES))
        if not isinstance(noise_scale, (int, float)) or not 0 < noise_scale < math.inf:
            raise ConfigError(
                f"noise_scale={noise_scale!r}: how far the taps are moved. Pass a positive number,"
                " such as 0.1."
            )
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
            start="zero",
            probe=Probe(
                noise="rademacher" if noise == "rademacher" else "normal",
                derivative="finite-difference",
                every=probe_every,
            ),
        )
        self.form = form
        self.moves_output = form in {"single-point", "centred"}
        self.feedback_rate = feedback_rate
        self.noise = noise
        self.noise_scale = noise_scale

    @property
    def further_passes(self) -> int:
        """Forward passes beside the one that learns, in a step that moves the taps."""
        return _FORMS[self.form]

    def probing_pass(
        self,
        probe: Probe,
        cut: CutModels,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        step: int,
    ) -> CutPass:
        """The pass that learns, moved itself or beside others that are; see the class."""
        z, s = self.perturbations(probe, cut.plan, step), self.noise_scale
        if self.noise == "sphere":
            z = [_on_sphere(noise, self.sample_dims) for noise in z]
        learning = functools.partial(cut.next(probing=False).run, args, kwargs)
        moved = functools.partial(
            moved_outputs,
            self.model,
            cut.plan,
            args,
            kwargs,
            find_output=self._output_of,
            noises=z,
        )
        if self.form == "antithetic":
            ahead, behind = moved(distances=(s, -s))
            run, answer = learning(), (ahead - behind) / 2
        elif self.form == "two-point":
            # the moved passes are not rounded by autocast; the pass that learns may be
            rounded = any(torch.is_autocast_enabled(tap.device.type) for tap in cut.plan.taps)
            ahead, *still = moved(distances=(s, 0.0) if rounded else (s,))
            run = learning()
            answer = ahead - (still[0] if rounded else run.output.detach())
        else:
            run = learning([noise * s for noise in z])
            answer = run.output.detach().to(z[0].dtype)
            if self.form == "centred":
                answer = _less_the_others(answer)
        return dataclasses.replace(run, derivative=answer / s, noises=z)

    def teach(self, lesson: Lesson) -> None:
        """Replace a share of every map."""
        for tap, correlation, *_ in correlations(lesson, self.feedback, innovation=False):
            self.feedback[tap].weight.lerp_(correlation, self.feedback_rate)


def _on_sphere(noise: Tensor, sample_dims: int) -> Tensor:
    """Every sample's noise brought to the length that normal noise has on average."""
    rows = noise.reshape(math.prod(noise.shape[:sample_dims]), -1)
    lengths = rows.norm(dim=1, keepdim=True)
    return rows.mul(math.sqrt(rows.shape[1])).div_(lengths).view_as(noise)


def _less_the_others(y: Tensor) -> Tensor:
    """From every sample's output the mean of the others'; a sample alone stays as it is."""
    # not the mean of all: that holds the sample's own noise, and would take a share of the Jacobian
    others = len(y) - 1
    return y - (y.sum(0) - y) / others if others else y


RECORDS = (
    Method(
        "opzo",
        OPZO,
        "direct connections that finite noise at the taps teaches, without derivatives",
        "Xiao, Meng, Zhang, He & Lin 2024, arXiv:2407.12516",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=True,
        extra_state="K n_l",
        products="2",
        aliases=("online-pseudo-zeroth-order",),
    ),
)

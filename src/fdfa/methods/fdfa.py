"""Forward direct feedback alignment.

Probes taken during inference teach the direct feedback connections.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

from torch import Tensor, nn

from fdfa.engine.coefficient import RunningCoefficient
from fdfa.engine.credit import Payer
from fdfa.engine.feedback import feedback_entries
from fdfa.engine.feedback_update import FeedbackRate, FeedbackUpdate, check_update, take_in
from fdfa.engine.lessons import Lesson, correlations
from fdfa.engine.probes import Probe
from fdfa.engine.selection import TapSpec
from fdfa.engine.shared_shifts import check_shift_grid
from fdfa.engine.tapped import TappedEstimator
from fdfa.engine.taps import Tap, TapPlan
from fdfa.errors import ConfigError, unknown_name
from fdfa.methods.record import Method

__all__ = [
    "FDFA",
    "RECORDS",
]

_CREDITS = ("plain", "unbiased")
_AVERAGES = ("all", "active")


class FDFA(TappedEstimator):
    """Forward direct feedback alignment (Bacho & Chu, arXiv:2212.07282, eqs. 7-8).

    The credit of tap l is ``g_l = e B_l``. A probe adds a random perturbation p_l to the tangent at
    every tap during the forward pass; d (N, K) is the directional derivative of the output along
    all of them, and ``E[d^T p_l / N] = mean dy/dh_l``. With ``feedback_update``

    - ``"momentum"`` (the paper's): ``B_l <- (1 - a) B_l + (a / N) d^T p_l``;
    - ``"innovation"``: ``B_l <- B_l + (a / N) (d - sum_m p_m B_m^T)^T p_l``: the same mean, and a
      noise that vanishes as B approaches the Jacobian; stable for ``a < 2 N / (N + n + 1)``, n the
      number of all perturbed units;
    - ``"adam"`` (the authors' code, with a = 1e-4): Adam(lr=a) on ``B_l - d^T p_l / N``;
    - a factory such as ``lambda maps: torch.optim.SGD(maps, lr=0.1, momentum=0.9)``: one optimiser
      a map, on that gradient. ``SGD(lr=a)`` is ``"momentum"``.

    Maps start at zero: in the first step hidden blocks get no credit. The credit uses the map from
    before the step.

    A unit that is zero behind a ReLU gets no credit there, whatever the map says. So with
    ``average_over="active"`` a map holds what counts, ``E[J_i | h_i not 0]`` in its column i: the
    best that one map can say of active units. Only these are perturbed, and column i is
    divided by the number of samples in which unit i was; one that was in none stays as it is.

    Maps are too small by ``1 - (1 - a)^t`` after t lessons. That hardly matters to Adam; for SGD
    on the weights ``bias_correction`` makes up for it.

    With ``credit="unbiased"`` the map is a control variate of the forward gradient: ``g_l = b e B_l
    + (e . d - b sum_m (e B_m) . p_m) p_l``, sample by sample. Its mean is the true credit whatever
    the maps and b are, its variance in component i ``|r|^2 + (kap - 2) r_i^2`` with
    ``r = e (J - b B)``: that of ``fg-a`` for b = 0, none for b = 1 and exact maps. Steps without a
    probe give the plain credit.

    Args:
        model: any module.
        taps: ``"auto"``, names of modules, a module type, or a predicate ``(name, module) ->
            bool``.
        depth: with ``"auto"``, blocks of this many weight layers, counted from the input.
        sample_dims: number of leading dimensions that count samples.
        output: which entry of the model's return value is the output (N, K, ...).
        feedback_rate: a in (0, 1]; 1 forgets everything but the last probe, except with
            ``"adam"``. Unused with an optimiser of your own. ``"adaptive"``: for each map that
            which its lessons show to be best, see :func:`fdfa.engine.adaptive_rate.adapted_rate`.
        feedback_update: how a probe teaches the maps.
        credit: ``"plain"`` (the paper's), or ``"unbiased"``.
        coefficient: b of the unbiased credit in [0, 1]; or ``"running"``, which estimates the b of
            least variance, so that it is never worse than ``fg-a``.
        noise: ``"normal"`` (the paper's) or ``"rademacher"`` (a lower variance, cheaper to draw).
        probe: ``"forward-ad"`` or, for what has no forward derivative, ``"finite-difference"``.
        probe_every: probe one step in this many.
        probe_first: probe each of the first so many steps, while the maps are far from the mark.
        difference_step: length of a finite difference; None takes 1e-3, or 1e-5 in float64.
        average_over: which samples a map is the mean over: ``"all"`` (the paper's); or, for every
            unit, those in which it is ``"active"`` (not zero). Others are not perturbed either.
        bias_correction: whether the credit is ``e B_l / (1 - (1 - a)^t)``, t the number of lessons:
            maps start at zero, and are too small by that factor.
        relay: r, from 0 (the paper's) up: ``e B`` enters r blocks behind the tap, and is pulled
            back through them exactly; the last blocks get the exact error. r more derivatives by
            the input of each block, and nothing for the first r maps.
        first_block_every: the block before the first tap learns in one pass of this many; in the
            others its parameters get no gradient (``None``, which optimisers pass over), nor does
            the input. Its credit is the least exact, and in a convolutional network the dearest.
            Where no other block learns, it always does.
        shift_grid: None; or g: the map of a picture (N, C, H, W) is shared by places that lie a
            multiple of the stride behind the tap apart, within each cell of a g x g grid, and they
            are perturbed alike, which makes that many times less noise. The map loses least where
            the last pictures are pooled, and far more where they are flattened into a linear layer,
            whose weights tell all places apart: there a larger g, or None. Any tap of four
            dimensions is taken for pictures.
        rank: None; or r, the number of dimensions on which the output error is projected before the
            maps, with r rows each: ``e P^T`` in e's place, P (r, K) with random orthonormal rows.
        learn_p: whether P learns, by Oja's subspace rule on the output error.
        projection_rate: of Oja's rule, in (0, 1).
        seed: of the probes; by default torch's seed.
        feedback_size_limit: bytes; a larger map is refused before it is allocated.

    Raises:
        ConfigError: if an option is unknown or out of range.

    Example:
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ... )
        >>> learner = FDFA(model, feedback_rate=1.0)
        >>> learner(torch.ones(3, 4)).sum().backward()
        >>> bool(learner.feedback["1"].weight.any())
        True
    """

    method = "fdfa"

    def __init__(
        self,
        model: nn.Module,
        *,
        taps: TapSpec = "auto",
        depth: int = 1,
        sample_dims: int = 1,
        output: str | int | None = None,
        feedback_rate: FeedbackRate = 0.01,
        feedback_update: FeedbackUpdate = "momentum",
        credit: Literal["plain", "unbiased"] = "plain",
        coefficient: float | Literal["running"] = 1.0,
        noise: Literal["normal", "rademacher"] = "normal",
        probe: Literal["forward-ad", "finite-difference"] = "forward-ad",
        probe_every: int = 1,
        probe_first: int = 0,
        difference_step: float | None = None,
        average_over: Literal["all", "active"] = "all",
        bias_correction: bool = False,
        relay: int = 0,
        first_block_every: int = 1,
        shift_grid: int | None = None,
        rank: int | None = None,
        learn_p: bool = False,
        projection_rate: float = 0.05,
        seed: int | None = None,
        feedback_size_limit: int = 4 * 2**30,
    ) -> None:
        check_update(feedback_update, feedback_rate, bias_correction=bias_correction)
        if bias_correction and credit == "unbiased":
            raise ConfigError(
                "bias_correction=True and credit='unbiased' do not go together: there coefficient="
                " says how far maps are trusted. Leave out one."
            )
        if credit not in _CREDITS:
            raise ConfigError(unknown_name("credit", str(credit), _CREDITS))
        if average_over not in _AVERAGES:
            raise ConfigError(unknown_name("average_over", str(average_over), _AVERAGES))
        running = coefficient == "running"
        if not running and not (isinstance(coefficient, (int, float)) and 0 <= coefficient <= 1):
            raise ConfigError(
                f"coefficient={coefficient!r}: how far the maps are trusted lies in [0, 1]. Pass"
                " 1.0, or 'running' to have it estimated."
            )
        if isinstance(relay, bool) or not isinstance(relay, int) or relay < 0:
            raise ConfigError(
                f"relay={relay!r}: through how many blocks is a credit pulled back? Pass a whole"
                " number from 0 up."
            )
        if isinstance(first_block_every, bool) or not (
            isinstance(first_block_every, int) and first_block_every >= 1
        ):
            raise ConfigError(
                f"first_block_every={first_block_every!r}: in one pass of how many does the first"
                " block learn? Pass a whole number from 1 up."
            )
        check_shift_grid(
            shift_grid, credit=credit, average_over=average_over, sample_dims=sample_dims
        )
        if relay and credit == "unbiased":
            raise ConfigError(
                f"relay={relay} and credit='unbiased' do not go together: what the probe adds to a"
                " credit is known at the tap itself. Pass relay=0, or credit='plain'."
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
                noise=noise,
                derivative=probe,
                every=probe_every,
                first=probe_first,
                difference_step=difference_step,
                active_only=average_over == "active",
            ),
        )
        self.relay = relay
        self.first_block_every = first_block_every
        self.shift_grid = shift_grid
        self.bias_correction = bias_correction
        self.feedback_rate = feedback_rate
        self.feedback_update = feedback_update
        self.probed_credit = credit == "unbiased"
        self.coefficient: float | RunningCoefficient
        if self.probed_credit and running:
            like = next(model.parameters())
            self.coefficient = RunningCoefficient(like.dtype, like.device)
        else:
            self.coefficient = 1.0 if running else float(coefficient)

    @property
    def direct_feedback(self) -> bool:
        """Whether the credit is ``e B_l`` alone: not where it is unbiased by the probe."""
        indirect = self.probed_credit or self.relay or self.bias_correction
        return not (indirect or self.shift_grid)

    def whole_map(self, plan: TapPlan, tap: Tap) -> Tensor:
        """With its start at zero made up for, where the credit makes up for it."""
        whole = super().whole_map(plan, tap)
        return self.feedback[tap].corrected(whole.clone()) if self.bias_correction else whole

    def credits(self, e: Tensor, lesson: Lesson) -> Payer:
        """``e B_l``, or with the probe the unbiased form; see the class."""
        direct = super().credits(e, lesson)
        if self.bias_correction:
            return lambda number: self.feedback[lesson.taps[number]].corrected(direct(number))
        if not self.probed_credit or lesson.derivative is None:
            return direct
        b = self.coefficient
        b = b.value() if isinstance(b, RunningCoefficient) else b
        rest = cast(Tensor, lesson.unforeseen(self.feedback, b))
        slope = (e.to(rest.dtype) * rest).sum(1, keepdim=True)  # (N, 1)
        if lesson.beyond is not None:
            slope += lesson.beyond

        def pay(number: int) -> Tensor:
            carried = direct(number)
            if b != 1:
                carried.mul_(b)
            return carried.addcmul_(slope, lesson.perturbations[number])

        return pay

    def teach(self, lesson: Lesson) -> None:
        """Update every map from one probe; see the class for the rules."""
        b, d, e = self.coefficient, lesson.derivative, lesson.error
        if isinstance(b, RunningCoefficient) and d is not None and e is not None:
            b.observe(e, d, cast(Tensor, lesson.unforeseen(self.feedback)), lesson.beyond)
        for each in correlations(
            lesson,
            self.feedback,
            innovation=self.feedback_update == "innovation",
            active_only=cast(Probe, self.probe).active_only,
            halves=self.feedback_rate == "adaptive",
        ):
            take_in(
                self.feedback[each.tap],
                each,
                update=self.feedback_update,
                rate=self.feedback_rate,
                bias_correction=self.bias_correction,
            )

    def state_conflicts(self, state: Mapping[str, Any]) -> list[str]:
        """Adds the running coefficient to what must fit."""
        problems = super().state_conflicts(state)
        key, running = "coefficient.moments", isinstance(self.coefficient, RunningCoefficient)
        if key in state and not running:
            problems.append(f"'{key}' is unknown here: pass coefficient='running'.")
        elif running and "_extra_state" in state and key not in state:
            problems.append(f"'{key}' is missing: it was saved without coefficient='running'.")
        elif running and key in state and state[key].shape != (2,):
            problems.append(f"'{key}' is {tuple(state[key].shape)} in the state and (2,) here.")
        entries = feedback_entries(state)
        counted = any(key.endswith(".learned") for key in entries)
        taught = any(key.endswith(".weight") and value.any() for key, value in entries.items())
        if counted and not self.bias_correction:
            problems.append("its maps count their lessons: pass bias_correction=True.")
        elif self.bias_correction and not counted and taught:
            problems.append("its maps do not count their lessons: leave out bias_correction.")
        return problems


RECORDS = (
    Method(
        "fdfa",
        FDFA,
        "direct connections that forward-mode probes teach the mean Jacobian",
        "Bacho & Chu 2024, arXiv:2212.07282",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=True,
        extra_state="K n_l",
        products="2 + s",
        aliases=("forward-direct-feedback-alignment",),
    ),
    Method(
        "fdfa-cv",
        FDFA,
        "forward gradients with FDFA's learned connections as a control variate: unbiased",
        "after Bacho & Chu 2024 and Arisaka & Li 2024, arXiv:2405.02952",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=True,
        extra_state="K n_l",
        products="3",
        aliases=("unbiased-fdfa",),
        preset={"credit": "unbiased", "coefficient": "running"},
    ),
)

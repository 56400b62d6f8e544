"""What a learning rule with taps may say: where to cut, how to probe, the credit, the lesson."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fdfa.engine.credit import Payer
from fdfa.engine.cut import CutModels, CutPass
from fdfa.engine.differences import central_difference
from fdfa.engine.estimator import Estimator
from fdfa.engine.feedback import FeedbackMaps
from fdfa.engine.intercept import Forward
from fdfa.engine.lessons import Lesson
from fdfa.engine.outputs import output_tensor
from fdfa.engine.probes import Probe
from fdfa.engine.relay_routes import relay_routes
from fdfa.engine.shared_shifts import SharedShifts, shared_shifts
from fdfa.engine.taps import Tap, TapPlan

__all__ = ["TapRule"]


class TapRule(Estimator):
    """The part of :class:`fdfa.engine.tapped.TappedEstimator` that a method changes.

    As it stands here the rule is direct feedback through one map a tap, which never learns.

    Attributes:
        feedback: the maps, made on the first forward pass.
        probe: how the rule probes; None if it never does.
        sample_dims: number of leading dimensions that count samples.
        needs_targets: whether :meth:`credits` needs ``lesson.targets``.
        probed_credit: whether :meth:`credits` needs the probe of its pass. Such a learner probes
            when it stands alone, too.
        moves_output: whether the output of a pass that probes is itself perturbed. Such a learner
            probes when it stands alone, too.
        on_credit: where set, called with each tap and the gradient that its block gets, when it
            gets it.
        repeats: whether :meth:`credits` runs the model again, by ``lesson.repetition``.
        keeps_activations: whether :meth:`teach` needs the tapped activations. Such a method learns
            at every step, with a probe or without.
        head_names: of the taps at which local losses hang.
        relay: r: what :meth:`credits` gives a tap is the credit of the one r blocks before, which
            gets it by the exact derivatives of the blocks between; or that of the output, where it
            is less than r blocks away.
        first_block_every: the first block gets its credit in one pass of so many; in the others its
            parameters get no gradient. Where no other block learns, it always does.
        shift_grid: where set, maps of pictures are shared by places a multiple of the stride apart,
            within each cell of a grid of so many by so many.
    """

    feedback: FeedbackMaps
    probe: Probe | None
    sample_dims: int
    probed_credit: bool = False
    moves_output: bool = False
    on_credit: Callable[[Tap, Tensor], None] | None = None
    repeats: ClassVar[bool] = False
    keeps_activations: ClassVar[bool] = False
    head_names: tuple[str, ...] = ()
    relay: int = 0
    first_block_every: int = 1
    shift_grid: int | None = None

    def credits(self, e: Tensor, lesson: Lesson) -> Payer:
        """How the taps of one pass get their credit, asked for once the output error is there.

        What all credits share is worked out here; each credit when it is called for, perhaps just
        before its block runs.

        Args:
            e: the output error (N, K).
            lesson: of the pass, with what the attributes of this class ask for.

        Returns:
            From a tap's number to g_l (N, |h_l|) or of the tap's shape. By default ``e B_l``.
        """
        feedback, taps = self.feedback, lesson.taps
        return lambda number: feedback[taps[number]].forward(e)

    def teach(self, lesson: Lesson) -> None:
        """Let the feedback maps learn from a pass, once, after it has given its credits.

        Called where the pass probed, or kept its activations.

        Args:
            lesson: what the pass left, and the output error.
        """

    def mapped_taps(self, plan: TapPlan) -> tuple[Tap, ...]:
        """The taps that have a feedback map; no others are perturbed.

        Args:
            plan: with all taps.

        Returns:
            All of them, or those from which a credit is relayed, until a method says otherwise.
        """
        if not self.relay:
            return plan.taps
        sources = relay_routes(plan, self.relay).sources
        return tuple(tap for number, tap in enumerate(plan.taps) if number in sources)

    def prefers_tap(self, module: nn.Module) -> bool:
        """Whether ``taps="auto"`` is to cut at this module's output, where it may choose.

        Args:
            module: any module of the model.

        Returns:
            True if so.
        """
        return False

    def substitute(self, module: nn.Module) -> Forward | None:
        """A forward with the same result and another derivative, for a module in a hidden block.

        Args:
            module: any module of the model.

        Returns:
            What stands in for its forward; None: it runs as it is.
        """
        return None

    @property
    def direct_feedback(self) -> bool:
        """Whether the credit of every tap is ``e B_l``, e the output error, and nothing else."""
        plain = type(self).credits is TapRule.credits and not self.needs_targets
        return plain and not self.relay

    @property
    def further_passes(self) -> int:
        """Forward passes that a step takes beside the one that learns, where it probes."""
        if self.probe is None or self.probe.derivative == "forward-ad":
            return 0
        return 2 + self.probe.active_only

    @property
    def probes_at_once(self) -> int:
        """Perturbations of every tap in a step that probes, each with a derivative of its own."""
        return 1

    def probing_pass(
        self,
        probe: Probe,
        cut: CutModels,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        step: int,
    ) -> CutPass:
        """The forward pass of a step that probes.

        Args:
            probe: how.
            cut: the model cut for inputs like these.
            args: positional arguments of the model.
            kwargs: keyword arguments of the model.
            step: its number.

        Returns:
            The pass, with the output's derivative and the perturbations.
        """
        noises = self.perturbations(probe, cut.plan, step)
        if probe.derivative == "forward-ad":
            return cut.next(probing=True).run(args, kwargs, noises, probe.active_only)
        derivative = central_difference(
            self.model,
            cut.plan,
            args,
            kwargs,
            find_output=self._output_of,
            noises=noises,
            perturbed=self.mapped_taps(cut.plan),
            step=probe.difference_step,
            active_only=probe.active_only,
        )
        run = cut.next(probing=False).run(args, kwargs)
        return dataclasses.replace(run, derivative=derivative, noises=noises)

    def perturbations(self, probe: Probe, plan: TapPlan, step: int, *more: int) -> list[Tensor]:
        """Those of one step, in this process.

        Args:
            probe: draws them.
            plan: with the taps.
            step: its number.
            *more: what tells several of one step apart.

        Returns:
            p_l, one each of :meth:`mapped_taps`, of its shape.
        """
        taps, sharing = self.mapped_taps(plan), self.sharing(plan)
        drawn = probe.draw(
            [
                (tap.shape[0], sharing[tap.name].units) if tap.name in sharing else tap.shape
                for tap in taps
            ],
            [self._wide(tap) for tap in taps],
            [tap.device for tap in taps],
            *self.noise_seeds(step),
            *more,
        )
        return [
            sharing[tap.name].spread(p).view(tap.shape) if tap.name in sharing else p
            for tap, p in zip(taps, drawn, strict=True)
        ]

    def sharing(self, plan: TapPlan) -> Mapping[str, SharedShifts]:
        """How places share the entries of maps.

        Args:
            plan: with all taps.

        Returns:
            By the name of the tap; none for a tap each of whose units has entries of its own.
        """
        return {} if self.shift_grid is None else shared_shifts(plan, self.shift_grid)

    def whole_map(self, plan: TapPlan, tap: Tap) -> Tensor:
        """A map with an entry for every unit: what carries the output error to the tap.

        Args:
            plan: with all taps.
            tap: that has a map.

        Returns:
            B_l (K, |h_l|).
        """
        weight, shared = self.feedback[tap].weight, self.sharing(plan).get(tap.name)
        return weight if shared is None else shared.spread(weight).div_(shared.sharing)

    def _wide(self, tap: Tap) -> torch.dtype:
        if tap in self.feedback:
            return self.feedback[tap].weight.dtype
        return torch.promote_types(next(self.model.parameters()).dtype, torch.float32)

    def _output_of(self, returned: Any) -> Tensor:
        return output_tensor(returned, name=self.output, sample_dims=self.sample_dims)

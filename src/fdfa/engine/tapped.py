"""Estimators that cut the graph at taps and hand every block its credit at once."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fdfa.engine.credit import Payer, join_credit, seal
from fdfa.engine.cut import CutModels, CutPass
from fdfa.engine.differences import central_difference
from fdfa.engine.distributed import agreed, process_rank
from fdfa.engine.estimator import Estimator
from fdfa.engine.feedback import FeedbackMaps, Start
from fdfa.engine.lessons import Lesson
from fdfa.engine.outputs import map_tensors, output_tensor
from fdfa.engine.probes import Probe, generator_for
from fdfa.engine.saved_tensors import checkpoint_region
from fdfa.engine.selection import TapSpec, wanted_modules
from fdfa.engine.structure import (
    check_cut,
    check_supported,
    fingerprint,
    refuse_compiled,
    signature,
)
from fdfa.engine.taps import Tap, TapPlan, plan_taps
from fdfa.errors import ConfigError

__all__ = ["TappedEstimator"]

_CUTS_KEPT = 256


class TappedEstimator(Estimator):
    """Cuts the forward pass at taps.

    The output error then reaches every block at once, by default through one feedback map a tap.

    A method says how its maps start, how it probes, in :meth:`credits` how a tap gets its credit,
    and in :meth:`teach` what a pass teaches the maps.

    Args:
        model: any module.
        taps: ``"auto"``, names of modules, a module type, or a predicate ``(name, module) ->
            bool``; ``[]`` cuts nowhere, which is backpropagation.
        depth: with ``"auto"``, blocks of this many weight layers, counted from the input.
        sample_dims: number of leading dimensions that count samples; 2 shares one map among the
            positions of (N, T, ...).
        output: which entry of the model's return value is the output.
        seed: of the method's own random numbers.
        feedback_size_limit: bytes; a larger map is refused before it is allocated.
        start: how feedback maps start; None for a method without any.
        probe: how the method probes; None if it never does.

    Attributes:
        feedback: the maps, one a tap, made on the first forward pass.
        probed_credit: whether :meth:`credits` needs the probe of its pass. Such a learner probes
            when it stands alone, too.
        keeps_activations: whether :meth:`teach` needs the tapped activations. Such a method learns
            at every step, with a probe or without.

    Raises:
        ConfigError: if an option is out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        taps: TapSpec,
        depth: int,
        sample_dims: int,
        output: str | int | None,
        seed: int | None,
        feedback_size_limit: int = 4 * 2**30,
        start: Start | None,
        probe: Probe | None = None,
    ) -> None:
        super().__init__(model, output=output, seed=seed)
        if isinstance(sample_dims, bool) or not isinstance(sample_dims, int) or sample_dims < 1:
            raise ConfigError(
                f"sample_dims={sample_dims!r}: at least one dimension counts samples. Pass 1 for"
                " (N, ...)."
            )
        if not isinstance(feedback_size_limit, int) or feedback_size_limit < 1:
            raise ConfigError(
                f"feedback_size_limit={feedback_size_limit!r} is no number of bytes. Pass 4 * 2**30"
                " for 4 GiB, say."
            )
        wanted_modules(model, taps, depth)  # a wrong name is said now, not at the first pass
        refuse_compiled(model)
        self.taps = taps
        self.depth = depth
        self.sample_dims = sample_dims
        self.probe = probe
        self.feedback = FeedbackMaps(start=start or "zero", size_limit=feedback_size_limit)
        self._mapped = start is not None
        self._cuts: dict[Any, CutModels] = {}
        self._seed_agreed = False
        self._compile_options: dict[str, Any] | None = None

    probed_credit = False
    keeps_activations = False

    def credits(self, e: Tensor, lesson: Lesson) -> Payer:
        """How the taps of one pass get their credit, asked for once the output error is there.

        What all credits share is worked out here; each credit when it is called for, perhaps just
        before its block runs.

        Args:
            e: the output error (N, K).
            lesson: of the pass; with its probe where ``probed_credit`` is set and the pass probed.

        Returns:
            From a tap's number to g_l (N, |h_l|). By default ``e B_l``.
        """
        feedback, taps = self.feedback, lesson.taps
        return lambda number: feedback[taps[number]].forward(e)

    def teach(self, lesson: Lesson) -> None:
        """Let the feedback maps learn from a pass, once, after it has given its credits.

        Called where the pass probed, or kept its activations.

        Args:
            lesson: what the pass left, and the output error.
        """

    def plan(self, *args: Any, **kwargs: Any) -> TapPlan:
        """Where this learner cuts for inputs like these.

        Found on the first of their kind, with the feedback maps made.

        Args:
            *args: positional arguments of the model.
            **kwargs: keyword arguments of the model.

        Returns:
            The taps and blocks.

        Raises:
            UnsupportedModelError: if the model cannot be cut as asked.
        """
        return self._cut(args, kwargs).plan

    def compile(self, **options: Any) -> None:
        """Compile the cut forward pass with ``torch.compile``; probes are still drawn outside it.

        Args:
            **options: of ``torch.compile``.
        """
        self._compile_options = options
        self._cuts.clear()

    def learning_forward(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """One forward pass, cut at the taps; probes where one is due.

        Args:
            args: positional arguments of the model.
            kwargs: keyword arguments of the model.

        Returns:
            What the model returns, its output joined to the taps.
        """
        cut, step = self._cut(args, kwargs), self.take_step()
        plan, probe = cut.plan, self.probe
        due = probe is not None and probe.due(step) and bool(plan.taps)
        due = due and (self.probed_credit or not self.alone)
        # what a checkpoint runs again must save what this pass saves: tangents in both, or in none
        saves = probe is not None and probe.derivative == "forward-ad"
        if probe is not None and plan.taps and (due or (saves and checkpoint_region() is not None)):
            run = self.probing_pass(probe, cut, args, kwargs, step)
        else:
            run = cut.next(probing=False).run(args, kwargs)
        if not plan.taps:
            return run.returned
        if cut.to_be_checked(run):
            check_cut(self.model, plan, run.output, run.taps)
        lesson = Lesson(plan.taps)
        if due and run.derivative is not None:
            d, *p = (_matrix(tensor, self.sample_dims) for tensor in (run.derivative, *run.noises))
            lesson.derivative, lesson.perturbations = d.to(p[0].dtype), p
        if self.keeps_activations and not self.alone:
            lesson.activations = [_matrix(h.detach(), self.sample_dims) for h in run.taps]
        y = self._join(plan, run, lesson)
        found, gradients = self._output_of(run.returned), iter(plan.other_gradients)

        def joined_or_sealed(tensor: Tensor) -> Tensor:
            if tensor is found:
                return y
            return seal(tensor, y) if next(gradients, True) else tensor

        return map_tensors(run.returned, joined_or_sealed)

    @property
    def further_passes(self) -> int:
        """Forward passes that a step takes beside the one that learns, where it probes."""
        if self.probe is None or self.probe.derivative == "forward-ad":
            return 0
        return 2 + self.probe.active_only

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
            step=probe.difference_step,
            active_only=probe.active_only,
        )
        run = cut.next(probing=False).run(args, kwargs)
        return dataclasses.replace(run, derivative=derivative, noises=noises)

    def _join(self, plan: TapPlan, run: CutPass, lesson: Lesson) -> Tensor:
        dtypes = [tap.dtype for tap in run.taps]
        # a plain credit must not hold the perturbations as long as the user holds the graph
        probed = self.probed_credit and lesson.derivative is not None
        own = lesson if probed else Lesson(plan.taps)

        def credits(e: Tensor) -> Payer:
            with _without_autocast(e):
                paid = self.credits(_matrix(e, self.sample_dims), own)

            def pay(number: int) -> Tensor:
                with _without_autocast(e):
                    return paid(number).view(plan.taps[number].shape).to(dtypes[number])

            return pay

        def learn(lesson: Lesson, e: Tensor) -> None:
            lesson.error = _matrix(e, self.sample_dims)
            with _without_autocast(e):
                self.teach(lesson)

        taught = self._mapped and not self.alone
        taught = taught and (lesson.derivative is not None or bool(lesson.activations))
        return join_credit(
            run.output,
            run.taps,
            credits=credits,
            learn=functools.partial(learn, lesson) if taught else None,
            once=probed,
        )

    def _cut(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> CutModels:
        """The model cut for inputs like these, from memory where they were met before."""
        key = (signature(args), signature(kwargs), fingerprint(self.model))
        if key not in self._cuts:
            if len(self._cuts) >= _CUTS_KEPT:
                self._cuts.clear()
            self._cuts[key] = self._make_cut(args, kwargs)
        return self._cuts[key]

    def _make_cut(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> CutModels:
        refuse_compiled(self.model)
        plan = plan_taps(
            self.model,
            args,
            kwargs,
            taps=self.taps,
            depth=self.depth,
            sample_dims=self.sample_dims,
            output=self.output,
        )
        by_forward_ad = self.probe is not None and self.probe.derivative == "forward-ad"
        check_supported(self.model, plan, by_forward_ad=by_forward_ad)
        self._make_maps(plan)
        return CutModels(self.model, plan, self._output_of, self._compile_options)

    def perturbations(self, probe: Probe, plan: TapPlan, step: int) -> list[Tensor]:
        """Those of one step, in this process.

        Args:
            probe: draws them.
            plan: with the taps.
            step: its number.

        Returns:
            p_l, one a tap, of its shape.
        """
        return probe.draw(
            [tap.shape for tap in plan.taps],
            [self._wide(tap) for tap in plan.taps],
            [tap.device for tap in plan.taps],
            self.seed,
            step,
            process_rank(),
        )

    def _wide(self, tap: Tap) -> torch.dtype:
        if tap in self.feedback:
            return self.feedback[tap].weight.dtype
        return torch.promote_types(next(self.model.parameters()).dtype, torch.float32)

    def _output_of(self, returned: Any) -> Tensor:
        return output_tensor(returned, name=self.output, sample_dims=self.sample_dims)

    def _make_maps(self, plan: TapPlan) -> None:
        outputs = math.prod(plan.output_shape[self.sample_dims :])
        like = next(self.model.parameters())
        # once: a later structure may be met by one process alone
        if not self._seed_agreed and not self.alone:
            self.seed, self._seed_agreed = agreed(self.seed, like.device), True
        for tap in plan.taps if self._mapped else ():
            self.feedback.ensure(
                tap,
                outputs=outputs,
                units=math.prod(tap.shape[self.sample_dims :]),
                like=torch.empty(0, dtype=like.dtype, device=tap.device),
                generator=generator_for(tap.device, self.seed, zlib.crc32(tap.name.encode())),
            )

    def state_conflicts(self, state: Mapping[str, Any]) -> list[str]:
        """Adds the feedback maps to what must fit."""
        return super().state_conflicts(state) + self.feedback.conflicts(_feedback_entries(state))

    def prepare_to_load(self, state: Mapping[str, Any]) -> None:
        """Make exactly the maps that the state brings.

        A state from before the first forward pass brings none.
        """
        self.feedback.adopt(_feedback_entries(state), next(self.model.parameters()))
        self._cuts.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cuts": {}}


def _without_autocast(e: Tensor) -> contextlib.AbstractContextManager[object]:
    if torch.is_autocast_enabled(e.device.type):
        return torch.autocast(e.device.type, enabled=False)
    return contextlib.nullcontext()


def _matrix(tensor: Tensor, sample_dims: int) -> Tensor:
    """Samples by components."""
    if tensor.dim() == 2 and sample_dims == 1:
        return tensor
    return tensor.reshape(math.prod(tensor.shape[:sample_dims]), -1)


def _feedback_entries(state: Mapping[str, Any]) -> dict[str, Tensor]:
    prefix = "feedback."
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}

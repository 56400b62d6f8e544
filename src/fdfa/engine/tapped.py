"""Estimators that cut the graph at taps and hand every block its credit at once."""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fdfa.engine.credit import join_credit, seal
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
from fdfa.engine.taps import TapPlan, plan_taps
from fdfa.errors import ConfigError

__all__ = ["TappedEstimator"]

_CUTS_KEPT = 256


class TappedEstimator(Estimator):
    """Cuts the forward pass at taps.

    The output error then reaches every block through one feedback map a tap.

    A method says how its maps start, how it probes, and in :meth:`teach` what a probe teaches them.

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
        start: how feedback maps start.
        probe: how the method probes; None if it never does.

    Attributes:
        feedback: the maps, one a tap, made on the first forward pass.

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
        feedback_size_limit: int,
        start: Start,
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
        self.feedback = FeedbackMaps(start=start, size_limit=feedback_size_limit)
        self._cuts: dict[Any, CutModels] = {}
        self._seed_agreed = False
        self._compile_options: dict[str, Any] | None = None

    def teach(self, lesson: Lesson) -> None:
        """Let the feedback maps learn from a probe, once, after its pass has given its credits.

        Args:
            lesson: what the probe measured.
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
        due = probe is not None and probe.due(step) and bool(plan.taps) and not self.alone
        noises, derivative = None, None
        if probe is not None and plan.taps and (due or checkpoint_region() is not None):
            # what a checkpoint runs again must save what this pass saves: probe in both, or neither
            noises = self._perturbations(probe, plan, step)
        if noises is not None and probe is not None and probe.derivative == "finite-difference":
            derivative = central_difference(
                self.model,
                plan,
                args,
                kwargs,
                find_output=self._output_of,
                noises=noises,
                step=probe.difference_step,
            )
            run = cut.next(probing=False).run(args, kwargs)
        else:
            run = cut.next(probing=noises is not None).run(args, kwargs, noises or ())
            derivative = run.derivative
        if not plan.taps:
            return run.returned
        if cut.to_be_checked(run):
            check_cut(self.model, plan, run.output, run.taps)
        lesson = None
        if due and noises is not None and derivative is not None:
            d, *p = (_matrix(tensor, self.sample_dims) for tensor in (derivative, *noises))
            lesson = Lesson(plan.taps, d.to(p[0].dtype), p)
        y = self._join(plan, run, lesson)
        found, gradients = self._output_of(run.returned), iter(plan.other_gradients)

        def joined_or_sealed(tensor: Tensor) -> Tensor:
            if tensor is found:
                return y
            return seal(tensor, y) if next(gradients, True) else tensor

        return map_tensors(run.returned, joined_or_sealed)

    def _join(self, plan: TapPlan, run: CutPass, lesson: Lesson | None) -> Tensor:
        dtypes = [tap.dtype for tap in run.taps]

        def credit(number: int, e: Tensor) -> Tensor:
            if torch.is_autocast_enabled(e.device.type):
                with torch.autocast(e.device.type, enabled=False):
                    return credit(number, e)
            tap = plan.taps[number]
            g = self.feedback[tap].forward(_matrix(e, self.sample_dims))  # (N, |h|)
            return g.view(tap.shape).to(dtypes[number])

        def learn(lesson: Lesson) -> None:
            with torch.autocast(lesson.derivative.device.type, enabled=False):
                self.teach(lesson)

        once = None if lesson is None else functools.partial(learn, lesson)
        return join_credit(run.output, run.taps, credit=credit, learn=once)

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

    def _perturbations(self, probe: Probe, plan: TapPlan, step: int) -> list[Tensor]:
        return probe.draw(
            [tap.shape for tap in plan.taps],
            [self.feedback[tap].weight.dtype for tap in plan.taps],
            [tap.device for tap in plan.taps],
            self.seed,
            step,
            process_rank(),
        )

    def _output_of(self, returned: Any) -> Tensor:
        return output_tensor(returned, name=self.output, sample_dims=self.sample_dims)

    def _make_maps(self, plan: TapPlan) -> None:
        outputs = math.prod(plan.output_shape[self.sample_dims :])
        like = next(self.model.parameters())
        # once: a later structure may be met by one process alone
        if not self._seed_agreed and not self.alone:
            self.seed, self._seed_agreed = agreed(self.seed, like.device), True
        for tap in plan.taps:
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


def _matrix(tensor: Tensor, sample_dims: int) -> Tensor:
    """Samples by components."""
    if tensor.dim() == 2 and sample_dims == 1:
        return tensor
    return tensor.reshape(math.prod(tensor.shape[:sample_dims]), -1)


def _feedback_entries(state: Mapping[str, Any]) -> dict[str, Tensor]:
    prefix = "feedback."
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}

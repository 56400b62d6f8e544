"""Estimators that cut the graph at taps and hand every block its credit at once."""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fdfa.engine.autocast import without_autocast
from fdfa.engine.credit import Payer, join_credit, seal
from fdfa.engine.cut import CutModels, CutPass
from fdfa.engine.distributed import agreed
from fdfa.engine.feedback import FeedbackMaps, Start, feedback_entries
from fdfa.engine.lessons import Lesson, as_matrix
from fdfa.engine.notes import Note
from fdfa.engine.outputs import map_tensors
from fdfa.engine.probes import Probe, generator_for
from fdfa.engine.projection import make_projection, projection_conflicts
from fdfa.engine.relay_routes import relay_routes
from fdfa.engine.relayed_credit import check_apart, join_relayed
from fdfa.engine.repetition import Repetition
from fdfa.engine.saved_tensors import checkpoint_region
from fdfa.engine.selection import TapSpec, wanted_modules
from fdfa.engine.structure import (
    check_cut,
    check_supported,
    fingerprint,
    refuse_compiled,
    signature,
)
from fdfa.engine.tap_rule import TapRule
from fdfa.engine.taps import TapPlan, plan_taps
from fdfa.engine.targets import targets_of
from fdfa.errors import ConfigError

__all__ = ["TappedEstimator"]

_CUTS_KEPT = 256


class TappedEstimator(TapRule):
    """Cuts the forward pass at taps.

    The output error then reaches every block at once, by default through one feedback map a tap.

    A method says how its maps start and how it probes, and what
    :class:`fdfa.engine.tap_rule.TapRule` asks it.

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
        rank: the output error is projected on this many dimensions before the maps; None for all.
        learn_p: whether the projection learns, by Oja's rule on the output error.
        projection_rate: of that rule.

    Attributes:
        feedback: the maps, one a tap, made on the first forward pass.
        projection: of the output error, shared by all maps; None without a rank.

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
        rank: int | None = None,
        learn_p: bool = False,
        projection_rate: float = 0.05,
    ) -> None:
        super().__init__(model, output=output, seed=seed)
        if isinstance(sample_dims, bool) or not isinstance(sample_dims, int) or sample_dims < 1:
            raise ConfigError(
                f"sample_dims={sample_dims!r}: at least one dimension counts samples. Pass 1 for"
                " (N, ...)."
            )
        wanted_modules(model, taps, depth)  # a wrong name is said now, not at the first pass
        refuse_compiled(model)
        self.taps = taps
        self.depth = depth
        self.sample_dims = sample_dims
        self.probe = probe
        self.feedback = FeedbackMaps(start=start or "zero", size_limit=feedback_size_limit)
        self.projection = make_projection(rank, learns=learn_p, rate=projection_rate)
        self._mapped = start is not None
        self._cuts: dict[Any, CutModels] = {}
        self._seed_agreed = False
        self._compile_options: dict[str, Any] | None = None

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

    def known_plan(self, *args: Any, **kwargs: Any) -> TapPlan | None:
        """The plan for inputs like these, if it is known already; nothing is run or made.

        Args:
            *args: positional arguments of the model.
            **kwargs: keyword arguments of the model.

        Returns:
            What :meth:`plan` would; None where it would have to look.
        """
        cut = self._cuts.get(self._structure(args, kwargs))
        return None if cut is None else cut.plan

    def compile(self, **options: Any) -> None:
        """Compile the cut forward pass with ``torch.compile``; probes are still drawn outside it.

        Args:
            **options: of ``torch.compile``.

        Raises:
            ConfigError: with a relay, or a first block that rests in some passes.
        """
        given = (("relay", self.relay, 0), ("first_block_every", self.first_block_every, 1))
        for name, value, plain in given:
            if value != plain:
                raise ConfigError(
                    f"{name}={value} and compile() do not go together: a compiled pass has one"
                    " derivative for all blocks, and here that of some is asked for without that"
                    f" of others. Pass {name}={plain}, or do not compile."
                )
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
        perturbed = self.mapped_taps(plan) if probe is not None else ()
        wanted = bool(perturbed) and (self.probed_credit or self.moves_output or not self.alone)
        due = probe is not None and probe.due(step) and wanted
        repetition = Repetition(self.model, args, kwargs) if self.repeats else None
        # what a checkpoint runs again must save what this pass saves: tangents in both, or in none
        saves = probe is not None and probe.derivative == "forward-ad"
        if probe is not None and perturbed and (due or (saves and checkpoint_region() is not None)):
            run = self.probing_pass(probe, cut, args, kwargs, step)
        else:
            run = cut.next(probing=False).run(args, kwargs)
        if not plan.taps:
            return run.returned
        if cut.to_be_checked(run):
            check_cut(self.model, plan, run.output, run.taps)
            if self.relay:
                check_apart(self.model, plan, relay_routes(plan, self.relay), run)
        rests = step % self.first_block_every and any(plan.blocks[1:])
        if rests and not self.alone:
            run.taps[0] = run.taps[0].detach()
        lesson = Lesson(plan, repetition=repetition)
        if due and run.derivative is not None:
            lesson.perturbed = perturbed
            measured = (run.derivative, *run.noises)
            d, *p = (as_matrix(tensor, self.sample_dims) for tensor in measured)
            d = d.to(p[0].dtype)
            if sharing := self.sharing(plan):
                named = zip(perturbed, p, strict=True)
                p = [sharing[tap.name].gather(q) if tap.name in sharing else q for tap, q in named]
            lesson.derivative, lesson.perturbations = self._projected(d), p
            if self.projection is not None and self.probed_credit:
                lesson.whole = d
        if self.keeps_activations and not self.alone:
            lesson.activations = [as_matrix(h.detach(), self.sample_dims) for h in run.taps]
        y = self._join(plan, run, lesson)
        if self.on_credit is not None and not self.relay:
            for tap, h in zip(plan.taps, run.taps, strict=True):
                if h.requires_grad:  # after the hook that puts the credit there
                    h.register_hook(functools.partial(self.on_credit, tap))  # type: ignore[no-untyped-call]
        found, gradients = self._output_of(run.returned), iter(plan.other_gradients)

        def joined_or_sealed(tensor: Tensor) -> Tensor:
            if tensor is found:
                return y
            return seal(tensor, y) if next(gradients, True) else tensor

        return map_tensors(run.returned, joined_or_sealed)

    def _join(self, plan: TapPlan, run: CutPass, lesson: Lesson) -> Tensor:
        sharing = self.sharing(plan)
        dtypes = [tap.dtype for tap in run.taps]
        # a plain credit must not hold the perturbations as long as the user holds the graph
        probed = self.probed_credit and lesson.derivative is not None
        own = lesson if probed else Lesson(plan, repetition=lesson.repetition)

        def credits(e: Tensor, notes: Sequence[Note]) -> Payer:
            if self.needs_targets:
                t = targets_of(e, notes, sample_dims=self.sample_dims, method=self.method)
                own.targets = as_matrix(t, self.sample_dims)
            with without_autocast([e.device]):
                whole = as_matrix(e, self.sample_dims)
                z = self._projected(whole)
                own.note_beyond(whole, z)
                paid = self.credits(z, own)

            def pay(number: int) -> Tensor:
                tap = plan.taps[number]
                with without_autocast([e.device]):
                    credit = paid(number)
                    if (shared := sharing.get(tap.name)) is not None:
                        credit = shared.spread(credit).div_(shared.sharing)
                    return credit.view(tap.shape).to(dtypes[number])

            return pay

        def learn(e: Tensor) -> None:
            whole = as_matrix(e, self.sample_dims)
            lesson.error = self._projected(whole)
            with without_autocast([e.device]):
                self.teach(lesson)
                if self.projection is not None:
                    self.projection.learn(whole)

        told = lesson.derivative is not None or bool(lesson.activations)
        told = told or (self.projection is not None and self.projection.learns)
        taught = told and self._mapped and not self.alone
        if self.relay:
            return join_relayed(
                self.model,
                plan,
                relay_routes(plan, self.relay),
                run,
                credits=credits,
                learn=learn if taught else None,
                on_credit=self.on_credit,
            )
        return join_credit(
            run.output,
            run.taps,
            credits=credits,
            learn=learn if taught else None,
            once=probed,
        )

    def _projected(self, matrix: Tensor) -> Tensor:
        """Output errors, or derivatives of the output, as the maps see them."""
        return matrix if self.projection is None else self.projection(matrix)

    def _cut(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> CutModels:
        """The model cut for inputs like these, from memory where they were met before."""
        key = self._structure(args, kwargs)
        if key not in self._cuts:
            if len(self._cuts) >= _CUTS_KEPT:
                self._cuts.clear()
            self._cuts[key] = self._make_cut(args, kwargs)
        return self._cuts[key]

    def _structure(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """All that a plan depends on."""
        return signature(args), signature(kwargs), fingerprint(self.model)

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
            prefer=self.prefers_tap,
            heads=self.head_names,
        )
        by_forward_ad = self.probe is not None and self.probe.derivative == "forward-ad"
        check_supported(self.model, plan, by_forward_ad=by_forward_ad)
        self._make_maps(plan)
        return CutModels(
            self.model,
            plan,
            self._output_of,
            self._compile_options,
            self.substitute,
            perturbed=self.mapped_taps(plan),
            entries=relay_routes(plan, self.relay).entries if self.relay else (),
        )

    def _make_maps(self, plan: TapPlan) -> None:
        outputs = math.prod(plan.output_shape[self.sample_dims :])
        like = next(self.model.parameters())
        # once: a later structure may be met by one process alone
        if not self._seed_agreed and not self.alone:
            self.seed, self._seed_agreed = agreed(self.seed, like.device), True
        if self.projection is not None:
            outputs = self.projection.ensure(
                outputs,
                like=torch.empty(0, dtype=like.dtype, device=like.device),
                generator=generator_for(like.device, self.seed, zlib.crc32(b"projection.weight")),
                size_limit=self.feedback.size_limit,
            )
        sharing = self.sharing(plan)
        for tap in self.mapped_taps(plan) if self._mapped else ():
            shared = sharing.get(tap.name)
            self.feedback.ensure(
                tap,
                outputs=outputs,
                units=math.prod(tap.shape[self.sample_dims :]) if shared is None else shared.units,
                like=torch.empty(0, dtype=like.dtype, device=tap.device),
                generator=generator_for(tap.device, self.seed, zlib.crc32(tap.name.encode())),
            )

    def state_conflicts(self, state: Mapping[str, Any]) -> list[str]:
        """Adds the feedback maps to what must fit."""
        return [
            *super().state_conflicts(state),
            *self.feedback.conflicts(feedback_entries(state)),
            *projection_conflicts(self.projection, state),
        ]

    def prepare_to_load(self, state: Mapping[str, Any]) -> None:
        """Make exactly the maps that the state brings.

        A state from before the first forward pass brings none.
        """
        like = next(self.model.parameters())
        self.feedback.adopt(feedback_entries(state), like)
        if self.projection is not None:
            self.projection.adopt(state, like)
        self._cuts.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cuts": {}}

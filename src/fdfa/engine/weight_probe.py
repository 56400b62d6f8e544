"""Rules without taps: the weights are perturbed, and one number a direction carries the error.

The output's derivative d along directions in the space of all weights is taken during the forward
pass, without a graph; when the output error e arrives, ``c = e . d`` says how steep each is.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.parametrizations import _WeightNorm

from fdfa.engine.credit import seal
from fdfa.engine.cut import MISSING_DERIVATIVE, innermost_module
from fdfa.engine.distributed import agreed, process_rank
from fdfa.engine.estimator import Estimator
from fdfa.engine.intercept import Forward, Interception, untouched_state
from fdfa.engine.outputs import map_tensors, output_tensor
from fdfa.engine.probes import Probe, draw_noise, generator_for
from fdfa.engine.structure import refuse_compiled
from fdfa.errors import ProbeError

__all__ = ["Direction", "Directions", "DrawnDirection", "KeptDirection", "WeightProbeEstimator"]


class Direction(abc.ABC):
    """A direction in the space of all leaves, taken leaf by leaf."""

    @abc.abstractmethod
    def leaf(self, number: int) -> Tensor:
        """Its part for one leaf.

        Args:
            number: of the leaf.

        Returns:
            A tensor of the leaf's shape and dtype, to be read only.
        """


class KeptDirection(Direction):
    """A direction that is kept until the backward pass.

    Args:
        parts: one tensor a leaf.
    """

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self._parts = parts

    def leaf(self, number: int) -> Tensor:
        """Its part for one leaf."""
        return self._parts[number]


class DrawnDirection(Direction):
    """A direction of independent numbers, drawn anew whenever it is asked for.

    Args:
        noise: ``"normal"`` or ``"rademacher"``.
        leaves: of which it has the shapes, dtypes and devices; not kept.
        seeds: which it is a function of.

    Attributes:
        scale: a factor on all of it.
    """

    def __init__(self, noise: str, leaves: Sequence[Tensor], seeds: Sequence[int]) -> None:
        self.scale = 1.0
        self._noise, self._seeds = noise, seeds
        self._like = [(leaf.shape, leaf.dtype, leaf.device) for leaf in leaves]

    def leaf(self, number: int) -> Tensor:
        """Its part for one leaf."""
        shape, dtype, device = self._like[number]
        wide = torch.promote_types(dtype, torch.float32)
        generator = generator_for(device, *self._seeds, number)
        drawn = draw_noise(self._noise, shape, wide, generator)
        return (drawn if self.scale == 1.0 else drawn.mul_(self.scale)).to(dtype)

    def kept(self) -> KeptDirection:
        """The same direction, drawn once and kept."""
        return KeptDirection([self.leaf(number) for number in range(len(self._like))])


@dataclasses.dataclass(frozen=True)
class Directions:
    """What one forward pass perturbs, and what its derivatives are worth.

    Attributes:
        each: the directions.
        weigh: from ``c`` (k,), the loss's derivatives along them, float64, to the factors (k,) that
            the directions get in the gradient.
    """

    each: Sequence[Direction]
    weigh: Callable[[Tensor], Tensor]


class WeightProbeEstimator(Estimator):
    """Measures the output's derivative along directions in weight space; the gradient is their sum.

    A method says in :meth:`directions` along which, and what the derivatives are worth. Inputs that
    require a gradient get the forward gradient of a pass of their own, along a direction in input
    space, so that weights learn the same with and without it.

    Args:
        model: any module.
        output: which entry of the model's return value is the output (N, K, ...).
        derivative: ``"forward-ad"``, exact; or ``"finite-difference"``, two more forward passes a
            direction.
        difference_step: length of a finite difference; None takes 1e-3, or 1e-5 in float64.
        seed: of the method's own random numbers; by default torch's seed.

    Raises:
        ConfigError: if an option is unknown or out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        output: str | int | None,
        derivative: Literal["forward-ad", "finite-difference"],
        difference_step: float | None,
        seed: int | None,
    ) -> None:
        super().__init__(model, output=output, seed=seed)
        Probe(derivative=derivative, difference_step=difference_step)  # checks both
        self.probe = derivative
        self.difference_step = difference_step
        self._seed_agreed = False
        self._accepted = False
        self._refuse_unfit()

    @abc.abstractmethod
    def directions(self, parameters: Mapping[str, Tensor], seeds: Sequence[int]) -> Directions:
        """The directions of one forward pass.

        Args:
            parameters: those that learn, by name, detached.
            seeds: seed, step and process, for :func:`fdfa.engine.probes.generator_for`.

        Returns:
            Directions over the parameters in their order.
        """

    def learning_forward(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The forward passes of one step, none of which keeps a graph.

        Args:
            args: positional arguments of the model.
            kwargs: keyword arguments of the model.

        Returns:
            What the model returns, its output joined to the weights.
        """
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        inputs = _that_need_gradients((args, kwargs))
        with self._undone_where_refused():
            step = self.take_step()
            if not named and not inputs:
                return self.model(*args, **kwargs)
            with torch.no_grad(), _without_cached_casts(), _in_our_words(self):
                run = _Passes(self, args, kwargs, list(named.values()), inputs)
                lesson = run.measure(named, (self.seed, step, process_rank()))
        leaves = [*named.values(), *inputs]
        y: Tensor = _Scalars.apply(lesson, run.output, *leaves)  # type: ignore[no-untyped-call]

        def joined_or_sealed(tensor: Tensor) -> Tensor:
            if tensor is run.output:
                return y
            return seal(tensor, y) if tensor.is_floating_point() else tensor

        return map_tensors(run.returned, joined_or_sealed)

    @contextlib.contextmanager
    def _undone_where_refused(self) -> Iterator[None]:
        """The first pass finds out whether the model can be trained; if not, it never was."""
        if self._accepted:
            yield
            return
        self._refuse_unfit()
        if not self._seed_agreed and not self.alone:
            like = next(self.model.parameters())
            self.seed, self._seed_agreed = agreed(self.seed, like.device), True
        steps = self.steps
        before = [
            (module, name, buffer, buffer.detach().clone())
            for module in self.model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        try:
            yield
        except BaseException:
            self.steps = steps
            for module, name, buffer, held in before:
                with torch.no_grad():
                    buffer.copy_(held)
                module._buffers[name] = buffer
            raise
        self._accepted = True

    def _refuse_unfit(self) -> None:
        if self.probe == "forward-ad":
            refuse_compiled(self.model)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_accepted": False}


@dataclasses.dataclass(frozen=True)
class _Lesson:
    """What the passes of one step measured.

    Attributes:
        directions: over the parameters.
        derivatives: of the output along each, of its shape.
        parameters: how many leaves are parameters; the others are inputs.
        of_inputs: a direction over the inputs and the derivative along it.
    """

    directions: Directions
    derivatives: Sequence[Tensor]
    parameters: int
    of_inputs: tuple[Direction, Tensor] | None

    def gradients(self, e: Tensor, needed: Sequence[bool]) -> Iterator[Tensor | None]:
        """One a leaf, None where it is not needed."""
        factors = None
        for number, wanted in enumerate(needed):
            if not wanted:
                yield None
            elif number < self.parameters:
                if factors is None:
                    slopes = torch.stack([_slope(e, d) for d in self.derivatives])
                    factors = self.directions.weigh(slopes)
                total: Tensor | None = None
                for factor, direction in zip(factors, self.directions.each, strict=True):
                    v = direction.leaf(number)
                    part = v * factor.to(v.device)
                    total = part if total is None else total.add_(part)
                yield total
            elif self.of_inputs is not None:
                direction, derivative = self.of_inputs
                yield direction.leaf(number - self.parameters) * _slope(e, derivative)


class _Passes:
    """The forward passes of one step."""

    def __init__(
        self,
        learner: WeightProbeEstimator,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        parameters: Sequence[Tensor],
        inputs: Sequence[Tensor],
    ) -> None:
        self.returned: Any = None
        self.output: Tensor = torch.empty(0)
        self._learner = learner
        self._with_rules = Interception(
            {m: _weight_norm(m) for m in learner.model.modules() if type(m) is _WeightNorm}
        )
        self._arguments = (args, kwargs)
        self._parameters = [parameter.detach() for parameter in parameters]
        self._inputs = [tensor.detach() for tensor in inputs]
        self._stand_ins = [*map(id, parameters), *map(id, inputs)]

    def measure(self, named: Mapping[str, Tensor], seeds: tuple[int, ...]) -> _Lesson:
        """All passes; the last one is the one that steps the model's state."""
        directions = Directions([], lambda slopes: slopes)
        if named:
            detached = dict(zip(named, self._parameters, strict=True))
            directions = self._learner.directions(detached, seeds)
        of_inputs = None
        if self._inputs:
            along = DrawnDirection("normal", self._inputs, (*seeds, -1))
            of_inputs = (along, self._derivative(along, over_inputs=True, counts=not named))
        last = len(directions.each) - 1
        derivatives = [
            self._derivative(direction, over_inputs=False, counts=number == last)
            for number, direction in enumerate(directions.each)
        ]
        return _Lesson(directions, derivatives, len(self._parameters), of_inputs)

    def _derivative(self, direction: Direction, *, over_inputs: bool, counts: bool) -> Tensor:
        """Of the output along a direction; the pass that counts leaves its traces."""
        if self._learner.probe == "finite-difference":
            d = self._difference(direction, over_inputs=over_inputs)
            if counts:
                self.returned = self._run([*self._parameters, *self._inputs])
                self.output = self._found(self.returned)
            return d
        guard = contextlib.nullcontext() if counts else untouched_state(self._learner.model)
        # of the kernels of attention only MATH has a forward derivative
        with guard, sdpa_kernel(SDPBackend.MATH), self._with_rules, fwAD.dual_level():
            moved = self._inputs if over_inputs else self._parameters
            duals = [
                fwAD.make_dual(x, direction.leaf(i))  # type: ignore[no-untyped-call]
                for i, x in enumerate(moved)
            ]
            rest = self._parameters if over_inputs else self._inputs
            returned = self._run([*rest, *duals] if over_inputs else [*duals, *rest])
            dual = self._found(returned)
            tangent = fwAD.unpack_dual(dual).tangent  # type: ignore[no-untyped-call]
            if tangent is None:
                raise ProbeError(
                    "the output has no tangent: something before it drops forward derivatives (a"
                    " compiled module, detach(), .data, an operator on integers). Pass the plain"
                    " module, or pass probe='finite-difference'."
                )
            if counts:
                self.returned = map_tensors(returned, self._plain(dual))
            along: Tensor = tangent.detach()
            return along.clone() if tangent._is_view() else along

    def _plain(self, output: Tensor) -> Callable[[Tensor], Tensor]:
        """Takes the tangent off a returned tensor."""

        def plain(tensor: Tensor) -> Tensor:
            primal, tangent = fwAD.unpack_dual(tensor)  # type: ignore[no-untyped-call]
            found: Tensor = tensor if tangent is None else primal.detach()
            if tensor is output:
                self.output = found
            return found

        return plain

    def _difference(self, direction: Direction, *, over_inputs: bool) -> Tensor:
        """``(y(w + s v) - y(w - s v)) / 2 s`` in full precision; w itself is never written to."""
        moved = self._inputs if over_inputs else self._parameters
        if any(x.dtype.itemsize < 4 for x in moved):
            raise ProbeError(
                "finite differences need float32 or wider, and the model is narrower: they would be"
                " differences of rounding errors. Keep the model in float32 under autocast, or take"
                " the method 'fg-w', which differentiates."
            )
        step = self._learner.difference_step
        if step is None:
            step = 1e-5 if any(x.dtype == torch.float64 for x in moved) else 1e-3
        there = [x.add(direction.leaf(i), alpha=step) for i, x in enumerate(moved)]
        ahead = self._output_at(there, over_inputs=over_inputs)
        for x, place in zip(moved, there, strict=True):
            place.neg_().add_(x, alpha=2)  # w - s v, from w + s v: no second draw, no more memory
        return (ahead - self._output_at(there, over_inputs=over_inputs)) / (2 * step)

    def _output_at(self, moved: list[Tensor], *, over_inputs: bool) -> Tensor:
        with untouched_state(self._learner.model), contextlib.ExitStack() as stack:
            for device_type in {"cpu", *(x.device.type for x in moved)}:
                stack.enter_context(torch.autocast(device_type, enabled=False))
            rest = self._parameters if over_inputs else self._inputs
            return self._found(self._run([*rest, *moved] if over_inputs else [*moved, *rest]))

    def _run(self, tensors: Sequence[Tensor]) -> Any:
        """The model with these in the places of its parameters and inputs."""
        places = dict(zip(self._stand_ins, tensors, strict=True))
        args, kwargs = map_tensors(self._arguments, lambda x: places.get(id(x), x))
        with _standing_in(self._learner.model, places):
            return self._learner.model(*args, **kwargs)

    def _found(self, returned: Any) -> Tensor:
        return output_tensor(returned, name=self._learner.output, sample_dims=1)


class _Scalars(torch.autograd.Function):
    """The one node between the loss and the leaves."""

    @staticmethod
    def forward(ctx: Any, lesson: _Lesson, y: Tensor, *leaves: Tensor) -> Tensor:
        ctx.lesson = lesson
        ctx.set_materialize_grads(False)
        return y.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, e: Tensor | None) -> Any:
        needed = ctx.needs_input_grad[2:]
        if e is None:
            return None, None, *(None for _ in needed)
        return None, None, *ctx.lesson.gradients(e, needed)


def _slope(e: Tensor, d: Tensor) -> Tensor:
    """``e . d`` over samples and components, in float64 where the device has it."""
    wide = torch.float32 if e.device.type == "mps" else torch.float64
    return (e.to(wide) * d.to(wide)).sum()


def _that_need_gradients(arguments: Any) -> list[Tensor]:
    found: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.requires_grad:
            found[id(tensor)] = tensor
        return tensor

    map_tensors(arguments, note)
    return list(found.values())


def _weight_norm(module: _WeightNorm) -> Forward:
    """The module's own output; its tangent from operators that have one."""
    # the fused kernel of weight norm has no forward derivative (torch 2.13)
    forward: Forward = module.forward

    def with_tangent(magnitude: Tensor, direction: Tensor) -> Tensor:
        norm = torch.norm_except_dim(direction, 2, module.dim)
        scaled = direction * (magnitude / norm)
        tangent = fwAD.unpack_dual(scaled).tangent  # type: ignore[no-untyped-call]
        primals = [
            fwAD.unpack_dual(x).primal  # type: ignore[no-untyped-call]
            for x in (magnitude, direction)
        ]
        y: Tensor = forward(*primals)
        if tangent is not None:
            y = fwAD.make_dual(y, tangent)  # type: ignore[no-untyped-call]
        return y

    return with_tangent


@contextlib.contextmanager
def _standing_in(model: nn.Module, places: Mapping[int, Tensor]) -> Iterator[None]:
    """Other tensors in the places of parameters, wherever the modules hold them.

    A recurrent layer holds its weights a second time, in a list.
    """
    parameters, lists = [], []
    for module in model.modules():
        own = module._parameters
        parameters += [(own, name, p) for name, p in own.items() if p is not None]
        if isinstance(module, nn.RNNBase):
            lists.append((module, module._flat_weights))
    try:
        for own, name, parameter in parameters:
            own[name] = places.get(id(parameter), parameter)  # type: ignore[assignment]
        for module, weights in lists:
            stand_ins = [None if w is None else places.get(id(w), w) for w in weights]
            module.__dict__["_flat_weights"] = stand_ins
        yield
    finally:
        for own, name, parameter in parameters:
            own[name] = parameter
        for module, weights in lists:
            module.__dict__["_flat_weights"] = weights


@contextlib.contextmanager
def _without_cached_casts() -> Iterator[None]:
    """Autocast must not remember a cast made without a graph, for passes of the user's own."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


@contextlib.contextmanager
def _in_our_words(learner: WeightProbeEstimator) -> Iterator[None]:
    """Say where a forward derivative is missing, and what to do."""
    try:
        yield
    except ProbeError:
        raise
    except (NotImplementedError, RuntimeError) as error:
        text = str(error)
        said = text.partition("\n")[0].strip().rstrip(".")
        if learner.probe != "forward-ad" or not MISSING_DERIVATIVE.search(text):
            raise
        raise ProbeError(
            f"{innermost_module(learner.model, error)} has no forward derivative"
            f" ({said}). Pass probe='finite-difference'."
        ) from error


def norm_of(parts: Sequence[Tensor]) -> float:
    """The length of a direction over all leaves."""
    return math.sqrt(sum(part.double().square().sum().item() for part in parts))

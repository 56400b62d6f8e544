"""Rules without taps: the weights are perturbed, and one number a direction carries the error.

The output's derivative d along directions in the space of all weights is taken during the forward
pass, without a graph; when the output error e arrives, ``c = e . d`` says how steep each is.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fdfa.engine.credit import seal
from fdfa.engine.directions import Direction, Directions, DrawnDirection
from fdfa.engine.distributed import agreed
from fdfa.engine.estimator import Estimator
from fdfa.engine.forward_derivatives import MISSING_DERIVATIVE, innermost_module
from fdfa.engine.intercept import uncached_autocast
from fdfa.engine.leaves import Leaf, leaves_of
from fdfa.engine.outputs import map_tensors, output_tensor
from fdfa.engine.probes import Probe
from fdfa.engine.structure import refuse_compiled
from fdfa.engine.weight_passes import WeightPasses
from fdfa.errors import ProbeError, briefly

__all__ = ["WeightProbeEstimator"]


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

    Attributes:
        one_sided: whether finite differences start from the output itself: one more pass, not two.

    Raises:
        ConfigError: if an option is unknown or out of range.
    """

    one_sided = False

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
    def directions(self, leaves: Sequence[Leaf], seeds: Sequence[int]) -> Directions:
        """The directions of one forward pass.

        Args:
            leaves: the parameters that learn.
            seeds: seed, step, process and perhaps more, for
                :func:`fdfa.engine.probes.generator_for`.

        Returns:
            Directions over the leaves in their order.
        """

    def teach(self, derivatives: Sequence[Tensor], leaves: Sequence[Leaf], step: int) -> None:
        """What the method learns from a pass, once, when its first error has arrived.

        Args:
            derivatives: of the output along the directions, of its shape.
            leaves: which the directions were over.
            step: the pass's number.
        """

    def learning_forward(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The forward passes of one step, none of which keeps a graph.

        Args:
            args: positional arguments of the model.
            kwargs: keyword arguments of the model.

        Returns:
            What the model returns, its output joined to the weights.
        """
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        inputs = _that_need_gradients((args, kwargs))
        with self._undone_where_refused():
            step = self.take_step()
            if not parameters and not inputs:
                return self.model(*args, **kwargs)
            passes = WeightPasses(
                self.model,
                args,
                kwargs,
                parameters=parameters,
                inputs=inputs,
                find_output=lambda returned: output_tensor(
                    returned, name=self.output, sample_dims=1
                ),
                probe=Probe(derivative=self.probe, difference_step=self.difference_step),
                one_sided=self.one_sided,
            )
            with torch.no_grad(), uncached_autocast(), _in_our_words(self):
                lesson = self._measure(passes, inputs, self.noise_seeds(step))
        y: Tensor = _Scalars.apply(  # type: ignore[no-untyped-call]
            lesson, passes.output, *parameters, *inputs
        )

        def joined_or_sealed(tensor: Tensor) -> Tensor:
            if tensor is passes.output:
                return y
            return seal(tensor, y) if tensor.is_floating_point() else tensor

        return map_tensors(passes.returned, joined_or_sealed)

    def _measure(
        self,
        passes: WeightPasses,
        inputs: Sequence[Tensor],
        seeds: tuple[int, ...],
    ) -> _Lesson:
        """All passes; the last one is the one that counts."""
        directions, leaves = Directions([], lambda slopes: slopes), leaves_of(self.model)
        if leaves:
            directions = self.directions(leaves, seeds)
        of_inputs = None
        if inputs:
            like = [Leaf.like(x, name="", number=number) for number, x in enumerate(inputs)]
            along = DrawnDirection("normal", like, (*seeds, -1))
            of_inputs = (along, passes.derivative(along, over_inputs=True, counts=not leaves))
        derivatives = passes.derivatives(directions)
        shape = passes.output.flatten(1).shape
        recalled = [
            dataclasses.replace(one, derivative=one.derivative.view_as(passes.output))
            for one in directions.recalled
            if one.derivative.shape == shape
        ]
        learn = functools.partial(self.teach, derivatives, leaves, seeds[1])
        return _Lesson(
            dataclasses.replace(directions, recalled=recalled),
            derivatives,
            len(leaves),
            of_inputs,
            learn if leaves and not self.alone else None,
        )

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


@dataclasses.dataclass
class _Lesson:
    """What the passes of one step measured.

    Attributes:
        directions: over the parameters.
        derivatives: of the output along each, of its shape.
        parameters: how many leaves are parameters; the others are inputs.
        of_inputs: a direction over the inputs and the derivative along it.
        learn: what the method does when the first error has arrived; None afterwards.
    """

    directions: Directions
    derivatives: Sequence[Tensor]
    parameters: int
    of_inputs: tuple[Direction, Tensor] | None
    learn: Callable[[], None] | None

    def gradients(self, e: Tensor, needed: Sequence[bool]) -> Iterator[Tensor | None]:
        """One a leaf, None where it is not needed."""
        factors = None
        for number, wanted in enumerate(needed):
            if not wanted:
                yield None
            elif number < self.parameters:
                factors = factors or self._factors(e)
                yield self._gradient(number, *factors)
            elif self.of_inputs is not None:
                direction, derivative = self.of_inputs
                yield direction.scaled(number - self.parameters, _slope(e, derivative))

    def _factors(self, e: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What each direction gets in the gradient, and each that is recalled."""
        slopes = torch.stack([_slope(e, d) for d in self.derivatives])
        recalled = [_slope(e, one.derivative) * one.weight for one in self.directions.recalled]
        return self.directions.weigh(slopes), recalled

    def _gradient(self, number: int, measured: Tensor, recalled: Sequence[Tensor]) -> Tensor:
        total = self.directions.weighted(number, measured)
        for factor, one in zip(recalled, self.directions.recalled, strict=True):
            total += one.direction.scaled(number, factor)
        return total


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
        gradients = list(ctx.lesson.gradients(e, needed))
        learn, ctx.lesson.learn = ctx.lesson.learn, None
        if learn is not None:
            learn()
        return None, None, *gradients


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


@contextlib.contextmanager
def _in_our_words(learner: WeightProbeEstimator) -> Iterator[None]:
    """Say where a forward derivative is missing, and what to do."""
    try:
        yield
    except ProbeError:
        raise
    except (NotImplementedError, RuntimeError) as error:
        if learner.probe != "forward-ad" or not MISSING_DERIVATIVE.search(str(error)):
            raise
        raise ProbeError(
            f"{innermost_module(learner.model, error)} has no forward derivative"
            f" ({briefly(error)}). Pass probe='finite-difference'."
        ) from error

"""Estimators whose error travels backwards layer by layer, through other weights than the forward.

Autograd's own backward pass runs, with a feedback weight B in the place of each layer's own.
"""

from __future__ import annotations

import abc
import contextlib
import zlib
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from fdfa.engine.credit import Payer, join_credit
from fdfa.engine.distributed import agreed
from fdfa.engine.estimator import Estimator
from fdfa.engine.feedback_weights import FeedbackWeights
from fdfa.engine.model_weights import has_weight, weight_value
from fdfa.engine.outputs import map_tensors, output_tensor
from fdfa.engine.probes import generator_for
from fdfa.engine.structure import fingerprint, refuse_compiled, signature
from fdfa.engine.weight_exchange import WeightExchange
from fdfa.engine.weight_uses import WeightUses, find_weight_uses

__all__ = ["FeedbackWeightEstimator"]

_KINDS_KEPT = 256


class FeedbackWeightEstimator(Estimator):
    """Runs autograd's backward pass with other weights in the place of each layer's own.

    The forward pass is the plain model's, bit for bit, and so is the gradient of whatever lies
    behind the last weight. A method says what it keeps for a weight (:meth:`start`), what it makes
    of it (:meth:`feedback_for`), and what a step teaches it (:meth:`teach`).

    On the first pass of each kind, one more forward pass is traced: it finds the weights, and
    refuses a model in which some transpose would go on carrying the error.

    Args:
        model: any module.
        output: which entry of the model's return value is the output.
        seed: of the method's own random numbers.

    Attributes:
        feedback: what is kept, one buffer a weight, made on the first forward pass.
    """

    teaches = False
    """Whether a step changes what is kept."""

    reads_weights = False
    """Whether B is a function of the weight of its own step."""

    def __init__(
        self, model: nn.Module, *, output: str | int | None = None, seed: int | None = None
    ) -> None:
        super().__init__(model, output=output, seed=seed)
        refuse_compiled(model)
        self.feedback = FeedbackWeights()
        self._uses: dict[Any, WeightUses] = {}
        self._seed_agreed = False

    @abc.abstractmethod
    def start(self, name: str, weight: Tensor, generator: torch.Generator) -> Tensor | None:
        """What is kept for a weight, as it starts.

        Args:
            name: of the weight.
            weight: its value now, detached.
            generator: a function of the seed and the name.

        Returns:
            The buffer, of :meth:`kept_shape`; None if nothing is kept.
        """

    def kept_shape(self, name: str, weight: Tensor) -> torch.Size:
        """Shape of a weight's buffer.

        Args:
            name: of the weight.
            weight: its value.

        Returns:
            The weight's own, unless a method keeps something else.
        """
        return weight.shape

    def feedback_for(self, name: str, weight: Tensor, kept: Tensor | None, step: int) -> Tensor:
        """B for one weight in one pass.

        Args:
            name: of the weight.
            weight: its value in this pass, detached.
            kept: its buffer, as it was at the forward pass.
            step: number of the pass.

        Returns:
            B, of the weight's shape.
        """
        return cast(Tensor, kept)

    def check(self, uses: WeightUses) -> None:
        """Refuse weights for which the rule is not defined.

        Args:
            uses: the weights of a pass.
        """

    def listen(self, uses: WeightUses) -> contextlib.AbstractContextManager[Any]:
        """A context for the model's forward pass, in which a method may hook on to what it needs.

        Args:
            uses: the weights of the pass.

        Returns:
            The context; what it gives is handed to :meth:`teach`.
        """
        return contextlib.nullcontext()

    def teach(self, uses: WeightUses, weights: Mapping[str, Tensor], step: int, heard: Any) -> None:
        """Let what is kept learn, once, after the backward pass has used it.

        Buffers are replaced, never written to: a pass that still waits for its backward keeps its
        own.

        Args:
            uses: the weights of the pass.
            weights: their values in the pass, detached.
            step: number of the pass.
            heard: what :meth:`listen` gave for the pass.
        """

    def learning_forward(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The model's own forward pass, with the saved weights marked.

        Args:
            args: positional arguments of the model.
            kwargs: keyword arguments of the model.

        Returns:
            What the model returns.
        """
        uses = self._uses_of(args, kwargs)
        step = self.take_step()
        kept = {name: self.feedback[name] for name in uses.products if name in self.feedback}

        def feedback(name: str, weight: Tensor) -> Tensor:
            return self.feedback_for(name, weight, kept.get(name), step)

        reader = type(self).__name__ if self.reads_weights else None
        exchange = WeightExchange(self.model, uses, feedback, reader=reader)
        with exchange.running(), self.listen(uses) as heard:
            returned = self.model(*args, **kwargs)
        y = output_tensor(returned, name=self.output, sample_dims=1)
        if not self.teaches or self.alone:
            return returned
        weights = exchange.values

        def learn(_error: Tensor) -> None:
            with torch.autocast(y_device, enabled=False):
                self.teach(uses, weights, step, heard)

        y_device = y.device.type
        joined = join_credit(y, (), credits=_no_credits, learn=learn)
        return map_tensors(returned, lambda tensor: joined if tensor is y else tensor)

    def _uses_of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> WeightUses:
        """The weights for inputs like these, from memory where they were met before."""
        key = (signature(args), signature(kwargs), fingerprint(self.model), _autocast())
        if key not in self._uses:
            if len(self._uses) >= _KINDS_KEPT:
                self._uses.clear()
            refuse_compiled(self.model)
            uses = find_weight_uses(self.model, args, kwargs, output=self.output)
            self.check(uses)
            self._make_feedback(uses)
            self._uses[key] = uses
        return self._uses[key]

    def _make_feedback(self, uses: WeightUses) -> None:
        device = next(self.model.parameters()).device
        # once: a later structure may be met by one process alone
        if not self._seed_agreed and not self.alone:
            self.seed, self._seed_agreed = agreed(self.seed, device), True
        for name in uses.products:
            if name not in self.feedback:
                weight = weight_value(self.model, name)
                draws = generator_for(weight.device, self.seed, zlib.crc32(name.encode()))
                kept = self.start(name, weight, draws)
                if kept is not None:
                    self.feedback[name] = kept

    def state_conflicts(self, state: Mapping[str, Any]) -> list[str]:
        """Adds what is kept for the weights to what must fit."""
        entries = _feedback_entries(state)
        shapes = {
            name: self.kept_shape(name, weight_value(self.model, name))
            for name in (key.replace("/", ".") for key in entries)
            if has_weight(self.model, name)
        }
        return super().state_conflicts(state) + self.feedback.conflicts(entries, shapes)

    def prepare_to_load(self, state: Mapping[str, Any]) -> None:
        """Make room for exactly what the state brings.

        A state from before the first forward pass brings nothing.
        """
        self.feedback.adopt(_feedback_entries(state), next(self.model.parameters()))
        self._uses.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_uses": {}}


def _no_credits(*_: object) -> Payer:
    return _no_credit


def _no_credit(number: int) -> Tensor:
    raise RuntimeError("there is no tap; this is a fault of fdfa, please report it")


def _autocast() -> tuple[Any, ...]:
    return tuple(
        (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
        for device in ("cpu", "cuda")
    )


def _feedback_entries(state: Mapping[str, Any]) -> dict[str, Tensor]:
    prefix = "feedback."
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}

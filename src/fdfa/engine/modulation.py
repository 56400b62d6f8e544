"""The second pass of a rule that moves the input by the error, and the node that starts it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fdfa.engine.layer_calls import Layers
from fdfa.engine.layer_passes import KeepingPass, LearningPass
from fdfa.engine.notes import Note, notes_around
from fdfa.engine.outputs import map_tensors
from fdfa.engine.repetition import Repetition
from fdfa.engine.targets import check_nothing_beside, shares_of, weighed
from fdfa.errors import FDFAError

__all__ = ["FirstPass", "Modulated"]


@dataclasses.dataclass
class FirstPass:
    """What the first pass leaves for the second, and the second.

    Attributes:
        model: the user's model.
        method: for errors.
        find_output: picks the output out of what the model returns.
        project: from errors (N, K) to what moves the input, (N, m).
        layers: of the model, for such inputs.
        repetition: runs the model again.
        source: the input that is moved, among the arguments of ``repetition``.
        kept: activations of the first pass; None where they were rounded, and have to be computed
            again: a difference of rounded ones would be noise.
        leaves: names of the tensors that get a gradient, the input's ``""``.
    """

    model: nn.Module
    method: str
    find_output: Callable[[Any], Tensor]
    project: Callable[[Tensor], Tensor]
    layers: Layers
    repetition: Repetition
    source: Tensor
    kept: dict[int, Tensor] | None
    leaves: tuple[str, ...]

    def gradients(
        self, e: Tensor, notes: Sequence[Note], needed: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Make the second pass.

        Args:
            e: the output error.
            notes: what the first pass was told.
            needed: leaves, by name.

        Returns:
            Gradients by name, as far as the second pass reaches the leaf.
        """
        check_nothing_beside(e, notes, method=self.method)
        told = [
            (_known(note.loss_of), weight) for note, weight in weighed(notes, method=self.method)
        ]
        x = self.source
        shares = shares_of([weight for _, weight in told], len(x))
        share = shares.unsqueeze(-1) if shares.dim() else shares
        errors = torch.where(share == 0, 0, e.reshape(len(x), -1) / share)
        kept = self.kept if self.kept is not None else self._kept_unrounded()
        moved = self.project(errors).view(x.shape).to(x.dtype)
        moved = (x + moved).requires_grad_("" in needed)
        learning = LearningPass(
            self.model,
            self.layers,
            kept=kept,
            shares=shares,
            samples=len(x),
            wanted={name: leaf for name, leaf in needed.items() if name},
            source=moved if "" in needed else None,
        )
        repetition = self.repetition
        args, kwargs = map_tensors(
            (repetition.args, repetition.kwargs), lambda tensor: moved if tensor is x else tensor
        )
        with torch.enable_grad(), repetition.again():
            with learning:
                returned = self.model(*args, **kwargs)
            y = self.find_output(returned)
            again = [(loss_of(y), weight) for loss_of, weight in told]
            ends = [(loss, weight.to(loss.dtype)) for loss, weight in again if loss.requires_grad]
            if ends:
                losses, weights = zip(*ends, strict=True)
                learning.learn(losses, weights, self.layers.last_parameters)
        return learning.gradients

    def _kept_unrounded(self) -> dict[int, Tensor]:
        repetition = self.repetition
        keeping = KeepingPass(self.model, self.layers)
        with torch.enable_grad(), repetition.again(), keeping:
            self.model(*repetition.args, **repetition.kwargs)
        return keeping.kept


class Modulated(torch.autograd.Function):
    """The one node between the loss and the weights."""

    @staticmethod
    def forward(ctx: Any, first: FirstPass, y: Tensor, *leaves: Tensor) -> Tensor:
        """The output, joined to the leaves."""
        ctx.first, ctx.leaves = first, leaves
        ctx.fdfa_notes = notes_around()
        ctx.set_materialize_grads(False)
        return y.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, e: Tensor | None) -> Any:
        """What the second pass gives the leaves."""
        first: FirstPass = ctx.first
        if e is None:
            return None, None, *(None for _ in first.leaves)
        wanted = zip(first.leaves, ctx.leaves, ctx.needs_input_grad[2:], strict=True)
        needed = {name: leaf for name, leaf, wanted in wanted if wanted}
        found = first.gradients(e, ctx.fdfa_notes, needed)
        return None, None, *(found.get(name) for name in first.leaves)


def _known(loss_of: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor]:
    """The loss of another output: nothing may lie between output and loss function."""
    if loss_of is None:
        raise FDFAError(
            "the loss function got something else than the learner's own output, and it has to"
            " be called again with the output of a second pass. Put what lies between into it:"
            " criterion = learner.criterion(lambda y, t: loss_function(f(y), t))."
        )
    return loss_of

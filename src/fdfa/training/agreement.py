"""Whether a checkpoint is of a training like this one; what does not agree is named."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from fdfa.errors import CheckpointError
from fdfa.training.callbacks import Callback
from fdfa.training.trainer import Trainer

__all__ = ["Entries", "check_kind", "check_shapes", "matched_callbacks", "shapes"]


class Entries(dict[str, Any]):
    """Entries of a checkpoint; one that is missing is named."""

    def take(self, name: str) -> Any:
        """One entry.

        Args:
            name: of it.

        Returns:
            Its value.

        Raises:
            CheckpointError: if it is missing.
        """
        self.require(name)
        return self[name]

    def require(self, name: str) -> None:
        """Refuse to go on without an entry.

        Args:
            name: of it.

        Raises:
            CheckpointError: if it is missing.
        """
        if name not in self:
            raise CheckpointError(
                f"the checkpoint lacks '{name}': it cannot be resumed exactly. Its weights can "
                "still be used (model.safetensors in its folder); start a new training from them."
            )

    def below(self, prefix: str) -> Entries:
        """The entries whose names begin with a prefix and a dot.

        Args:
            prefix: taken off their names.

        Returns:
            These entries.
        """
        start = f"{prefix}."
        return Entries({k[len(start) :]: v for k, v in self.items() if k.startswith(start)})


def shapes(optimizer: torch.optim.Optimizer) -> list[list[int]]:
    """Shapes of the parameters that an optimiser steps.

    Args:
        optimizer: any.

    Returns:
        One for each parameter, in the optimiser's order.
    """
    return [list(p.shape) for group in optimizer.param_groups for p in group["params"]]


def matched_callbacks(
    trainer: Trainer, saved: list[dict[str, Any]]
) -> list[tuple[Callback, dict[str, Any]]]:
    """Each saved state beside the callback of its kind, in order.

    Args:
        trainer: whose callbacks are here.
        saved: kind and state of each callback that was there.

    Returns:
        The callbacks that have a state to go on with, and the state.

    Raises:
        CheckpointError: if a callback or its state is on one side only.
    """
    waiting = [Entries(entry) for entry in saved]
    for entry in waiting:
        entry.require("kind")
        entry.require("state")
    matched = []
    for callback in trainer.callbacks:
        kind = type(callback).__name__
        found = next((entry for entry in waiting if entry["kind"] == kind), None)
        if found is not None:
            waiting.remove(found)
            if found["state"]:
                matched.append((callback, found["state"]))
        elif callback.state():
            raise CheckpointError(
                f"the checkpoint lacks the state of callback {kind}. Resume with the callbacks "
                "that the training was started with."
            )
    if lost := [entry["kind"] for entry in waiting if entry["state"]]:
        raise CheckpointError(
            "the checkpoint holds the state of callbacks that are not there: "
            f"{', '.join(lost)}. Resume with the callbacks that the training was started with."
        )
    return matched


def check_shapes(saved: list[list[int]], optimizer: torch.optim.Optimizer) -> None:
    """Refuse a checkpoint whose optimiser stepped other parameters.

    Args:
        saved: what :func:`shapes` found when it was written.
        optimizer: that is to go on.

    Raises:
        CheckpointError: naming the first that differs.
    """
    here = shapes(optimizer)
    if saved != here:
        pairs = enumerate(itertools.zip_longest(saved, here), 1)
        number, (theirs, ours) = next((n, pair) for n, pair in pairs if pair[0] != pair[1])
        raise CheckpointError(
            f"the checkpoint's optimiser steps {len(saved)} parameter(s), this one {len(here)}: "
            f"number {number} is {_shape(theirs)} in the checkpoint and {_shape(ours)} here. "
            "Resume with the same parameters in the same order."
        )


def _shape(sizes: list[int] | None) -> str:
    return "missing" if sizes is None else f"of shape {tuple(sizes)}"


def check_kind(what: str, saved: Any, here: Any) -> None:
    """Refuse a checkpoint of a training that was set up differently.

    Args:
        what: is compared, in words.
        saved: when it was written.
        here: in this training.

    Raises:
        CheckpointError: if the two differ.
    """
    if saved != here:
        raise CheckpointError(
            f"the checkpoint is of {f'no {what}' if saved is None else f'{what} {saved!r}'} and "
            f"this training of {'none' if here is None else repr(here)}. Resume it with the {what} "
            "that it was started with."
        )

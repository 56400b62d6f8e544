"""Notes that a loss function leaves for the passes whose outputs it gets.

A note lies with the pass's own autograd node, and nowhere else: it goes when the graph goes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointFunction

__all__ = ["Note", "is_output", "notes_around", "notes_behind"]


@dataclasses.dataclass
class Note:
    """What a loss function told a pass.

    Attributes:
        targets: as the loss function got them.
        weight: the gradient that arrived at the loss, of its shape; None until one has.
        loss_of: the same loss of another output, by the same arguments otherwise; None where the
            loss function got something else than the output itself.
        sent: the gradient that this loss sent to the output, once one has arrived there.
    """

    targets: Tensor
    weight: Tensor | None = None
    loss_of: Callable[[Tensor], Tensor] | None = None
    sent: list[Tensor] = dataclasses.field(default_factory=list)


def notes_around() -> list[Note]:
    """The notes that a pass which begins now is to read, and others to add to.

    Returns:
        A new list; but where a reentrant checkpoint makes its pass within ``backward()``, what was
        noted with the checkpoint before.
    """
    around: Any = torch._C._current_autograd_node()
    return _notes_of(around) if _is_checkpoint(around) else []


def notes_behind(tensors: Iterable[Tensor]) -> list[list[Note]]:
    """Where to note something for the passes that these tensors come from.

    Args:
        tensors: computed from outputs of learners, by any operations.

    Returns:
        One list a node with an attribute ``fdfa_notes``, behind which nobody looks further (none
        where it is None: the tensor concerns no pass); and one for each reentrant checkpoint, which
        makes its pass later.
    """
    waiting: list[Any] = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen, found = set(waiting), []
    for node in waiting:  # grows while it is read
        if hasattr(node, "fdfa_notes"):
            if node.fdfa_notes is not None:
                found.append(node.fdfa_notes)
            continue
        if _is_checkpoint(node):
            found.append(_notes_of(node))
        for source, _ in node.next_functions:
            if source is not None and source not in seen:
                seen.add(source)
                waiting.append(source)
    return found


def is_output(tensor: Tensor) -> bool:
    """Whether a tensor is a pass's output itself: a copy at most, in another type or shape.

    Args:
        tensor: any.

    Returns:
        True if so.
    """
    node: Any = tensor.grad_fn
    while node is not None and type(node).__name__ in _COPIES:
        node = node.next_functions[0][0]
    return getattr(node, "fdfa_notes", None) is not None or _is_checkpoint(node)


# nodes through which every component goes as it is, in its order
_COPIES = frozenset(
    {
        *("CloneBackward0", "ToCopyBackward0", "AliasBackward0", "_DDPSinkBackward"),
        "BackwardHookFunctionBackward",
        *("ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0"),
        *("SqueezeBackward0", "SqueezeBackward1", "UnsqueezeBackward0"),
    }
)


def _is_checkpoint(node: Any) -> bool:
    return getattr(node, "_forward_cls", None) is CheckpointFunction


def _notes_of(node: Any) -> list[Note]:
    if not hasattr(node, "fdfa_noted"):
        node.fdfa_noted = []
    notes: list[Note] = node.fdfa_noted
    return notes

"""Who keeps the tensors that autograd saves for backward, as far as we must know."""

from __future__ import annotations

import torch

__all__ = ["checkpoint_region", "saved_tensors_readable"]


def checkpoint_region() -> int | None:
    """The ``torch.utils.checkpoint`` call that swallows saved tensors now.

    Returns:
        A number for it; None outside of one.
    """
    # no public name (torch 2.13); drop when checkpoint offers one
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)
    if hooks is None or hooks[0].__module__ != "torch.utils.checkpoint":
        return None
    return id(hooks[0])


def saved_tensors_readable() -> bool:
    """Whether tensors saved by autograd can be read.

    Not while a compiler traces, nor where reading would call the hooks of a checkpoint.

    Returns:
        True if they can.
    """
    return (
        not torch.compiler.is_compiling()
        and torch._C._autograd._top_saved_tensors_default_hooks(False) is None
    )

"""Kernels with a forward derivative, and where in a model one is missing."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fdfa.errors import ProbeError, briefly

__all__ = ["MISSING_DERIVATIVE", "forward_derivatives", "innermost_module"]

# how torch 2.13 says that an operator or a custom function has no forward derivative
MISSING_DERIVATIVE = re.compile(r"forward(-mode)? (AD|automatic diff|derivative)|\bjvp\b", re.I)


@contextlib.contextmanager
def forward_derivatives(
    model: nn.Module,
    *,
    attention: bool,
    otherwise: str = "Pass probe='finite-difference', or choose taps behind it",
) -> Iterator[None]:
    """Choose kernels with a forward derivative, and say in our words where one is missing.

    Args:
        model: that runs within.
        attention: whether it may hold scaled dot product attention.
        otherwise: what to do where a derivative is missing.

    Raises:
        ProbeError: if an operator has no forward derivative.
        RuntimeError: whatever else the model raises.
    """
    try:
        # of the kernels of attention only this one has a forward derivative
        with sdpa_kernel(SDPBackend.MATH) if attention else contextlib.nullcontext():
            yield
    except ProbeError:
        raise
    except (NotImplementedError, RuntimeError) as error:
        text = str(error)
        if not MISSING_DERIVATIVE.search(text):
            raise
        name = innermost_module(model, error)
        raise ProbeError(
            f"{name} has no forward derivative ({briefly(error)}). {otherwise} so"
            " that no tangent passes through it."
        ) from error


def innermost_module(model: nn.Module, error: BaseException) -> str:
    """The module of this model in which an error arose, in words.

    Args:
        model: the user's model.
        error: raised within its forward pass.

    Returns:
        Its dotted name and type.
    """
    names = {id(module): name for name, module in model.named_modules()}
    found, trace = "the model", error.__traceback__
    while trace is not None:
        for local in ("module", "self"):
            module = trace.tb_frame.f_locals.get(local)
            if isinstance(module, nn.Module) and names.get(id(module)):
                found = f"module '{names[id(module)]}' ({type(module).__name__})"
        trace = trace.tb_next
    return found

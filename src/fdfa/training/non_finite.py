"""Where a loss that is not finite began."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fdfa.engine.estimator import Estimator
from fdfa.engine.intercept import untouched_state
from fdfa.engine.outputs import map_tensors

__all__ = ["not_finite", "unset_buffers", "where_it_began"]


def where_it_began(model: nn.Module, inputs: Tensor, outputs: Tensor) -> str | None:
    """Look for the first thing on the way to the loss that is not finite.

    Args:
        model: as it was when the loss came out; it is not changed.
        inputs: of the batch.
        outputs: that the model gave.

    Returns:
        A sentence that names the inputs, a parameter or a layer; None if all are finite.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
        >>> _ = torch.nn.init.constant_(model[0].bias, float("inf"))
        >>> where_it_began(model, torch.zeros(1, 2), model(torch.zeros(1, 2)))
        "It began in parameter '0.bias', which an earlier step has made inf."
    """
    if not _finite(inputs):
        example = int(torch.nonzero(~inputs.reshape(len(inputs), -1).isfinite().all(dim=1))[0])
        return f"It began in the inputs: example {example} of the batch is not finite."
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            value = parameter.detach()[~parameter.detach().isfinite()][0].item()
            return f"It began in parameter '{name}', which an earlier step has made {value}."
    if (layer := _first_layer(model, inputs)) is not None:
        return f"It began in {layer}, the first whose output is not finite."
    if _finite(outputs):
        return None
    return "It began in a layer that other dropout masks, drawn to look for it, have spared."


def unset_buffers(learner: nn.Module) -> frozenset[str]:
    """Names of the buffers that are not a number on purpose, before any training.

    Args:
        learner: an estimator of any method, or a plain module.

    Returns:
        The names.
    """
    return frozenset(
        name for name, b in learner.named_buffers() if b.is_floating_point() and b.isnan().any()
    )


def not_finite(
    learner: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    unset: frozenset[str] = frozenset(),
) -> str | None:
    """The first thing in a learner's state that no training can go on from.

    Args:
        learner: an estimator of any method, or a plain module.
        optimizer: of it.
        unset: names of buffers that were no numbers before the training.

    Returns:
        Its name; None if all is well. A buffer may hold infinities, as masks do.

    Example:
        >>> layer = torch.nn.Linear(1, 1)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
        >>> not_finite(layer, optimizer) is None
        True
    """
    inside = "model." if isinstance(learner, Estimator) else ""  # the user's own names
    for name, parameter in learner.named_parameters():
        if not _finite(parameter):
            return f"parameter '{name.removeprefix(inside)}'"
    for name, buffer in learner.named_buffers():
        if name not in unset and buffer.is_floating_point() and buffer.isnan().any():
            return f"buffer '{name.removeprefix(inside)}'"
    for state in optimizer.state.values():
        for name, value in state.items():
            if isinstance(value, Tensor) and not _finite(value):
                return f"the optimiser's '{name}'"
    return None


def _first_layer(model: nn.Module, inputs: Tensor) -> str | None:
    """Name and class of the first innermost module whose output is not finite."""
    found: list[str] = []

    def watched(name: str, module: nn.Module) -> RemovableHandle:
        def look(_module: nn.Module, _args: object, returned: object) -> None:
            def note(tensor: Tensor) -> Tensor:
                if not found and not _finite(tensor):
                    kind = type(module).__name__
                    found.append(f"layer '{name}' ({kind})" if name else f"the model ({kind})")
                return tensor

            map_tensors(returned, note)

        return module.register_forward_hook(look)

    handles = [watched(name, module) for name, module in model.named_modules()]
    try:
        # Other dropout masks than in the pass that failed; the generators stay where they are.
        with torch.no_grad(), untouched_state(model):
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.detach().isfinite().all())

"""The state of a ``torch.optim`` optimiser as tensors and JSON values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fdfa.errors import CheckpointError

__all__ = ["capture_optimizer", "check_optimizer", "restore_optimizer"]


def capture_optimizer(
    optimizer: torch.optim.Optimizer,
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """What an optimiser remembers.

    Args:
        optimizer: whose state is tensors: all of ``torch.optim`` but LBFGS, with numbers as
            learning rates.

    Returns:
        The options of its parameter groups, and its tensors as ``"NUMBER.NAME"``.

    Raises:
        CheckpointError: if it keeps anything else.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = torch.optim.SGD([weight], lr=0.5, momentum=0.9)
        >>> weight.grad = torch.ones(2)
        >>> optimizer.step()
        >>> groups, tensors = capture_optimizer(optimizer)
        >>> groups[0]["momentum"], tensors
        (0.9, {'0.momentum_buffer': tensor([1., 1.])})
    """
    content = optimizer.state_dict()
    tensors = {}
    for number, entries in content["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{number}.{name}"] = value
            elif value is not None:
                _refuse(optimizer, name, value)
    groups = []
    for group in content["param_groups"]:
        for name, value in group.items():
            if isinstance(value, Tensor):
                _refuse(optimizer, name, value)
        groups.append({name: value for name, value in group.items() if name != "params"})
    return json.loads(json.dumps(groups)), tensors


def restore_optimizer(
    optimizer: torch.optim.Optimizer, groups: Any, tensors: Mapping[str, Tensor]
) -> None:
    """Give an optimiser its memory back.

    Args:
        optimizer: made with the same options over the same parameters.
        groups: from :func:`capture_optimizer`.
        tensors: from :func:`capture_optimizer`.

    Raises:
        CheckpointError: if they are of other options or parameters.
    """
    check_optimizer(optimizer, groups)
    here = optimizer.state_dict()["param_groups"]
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        place, _, name = key.partition(".")
        state.setdefault(int(place), {})[name] = value.clone()  # it will be trained on
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    rates = [{**group, "lr": saved["lr"]} for group, saved in zip(here, groups, strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": rates})
    for number, entries in state.items():
        held = optimizer.state[parameters[number]]
        for name, value in entries.items():
            # torch gives everything the parameter's type, and NAdam's running product its own.
            if held[name].dtype != value.dtype:
                held[name] = value.to(held[name].device)


def check_optimizer(optimizer: torch.optim.Optimizer, saved: Any) -> None:
    """Options must be equal but for the learning rate, which a schedule moves.

    Args:
        optimizer: as it was made.
        saved: the groups from :func:`capture_optimizer`.

    Raises:
        CheckpointError: naming the first that differs.
    """
    here = json.loads(json.dumps(optimizer.state_dict()["param_groups"]))
    if not isinstance(saved, list) or len(saved) != len(here):
        raise CheckpointError(
            f"the checkpoint's optimiser has {len(saved) if isinstance(saved, list) else 'no'} "
            f"parameter group(s) and this one {len(here)}. "
            "Resume with the optimiser that the training was started with."
        )
    for mine, theirs in zip(here, saved, strict=True):
        for name in sorted(mine.keys() | theirs.keys() - {"params"}):
            if name in ("lr", "params"):
                continue
            if name not in theirs:
                raise CheckpointError(
                    f"the checkpoint lacks the optimiser's {name!r}: it cannot be resumed exactly. "
                    "Start a new training from its weights."
                )
            if mine.get(name) != theirs[name]:
                raise CheckpointError(
                    f"the checkpoint's optimiser has {name}={theirs.get(name)!r} and this one "
                    f"{name}={mine.get(name)!r}. Resume with the options that the training was "
                    "started with."
                )
        if "lr" not in theirs:
            raise CheckpointError(
                "the checkpoint lacks the optimiser's learning rate 'lr': it cannot be resumed "
                "exactly. Start a new training from its weights."
            )


def _refuse(optimizer: torch.optim.Optimizer, name: str, value: Any) -> None:
    raise CheckpointError(
        f"{type(optimizer).__name__} keeps {name!r} as {type(value).__name__}, which a checkpoint "
        "cannot hold: only tensors as state and numbers as options. Use another optimiser (Adam, "
        "AdamW, SGD, RMSprop, Adagrad, NAdam, RAdam, ...) with a number as learning rate."
    )

"""One structure: a model, an input, and the taps that the rule gives, found by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["TapCase", "frozen", "noise"]


@dataclasses.dataclass(frozen=True)
class TapCase:
    """A model with the taps expected of it, by default of ``taps="auto"``.

    The rule. Valid cut: a tensor that all paths from what lies behind it to the output pass
    through. Candidates: outputs of modules (of the module that made the tensor), and inputs of
    modules with weights, if all that consumes the tensor runs inside that call. For each run of
    weight layers: the last valid candidate before the next weight layer.
    """

    name: str
    build: Callable[[], nn.Module]
    args: Callable[[], Sequence[Any]]
    taps: Sequence[str]
    kwargs: Callable[[], dict[str, Any]] = dict
    chain: bool = True
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def model(self) -> nn.Module:
        """A fresh model in double precision; equal on every call, weights and all."""
        torch.default_generator.manual_seed(7)
        return self.build().double().train()

    def with_options(self, expected: Sequence[str], **options: Any) -> TapCase:
        """The same model cut by other options, with the taps expected then."""
        return dataclasses.replace(self, taps=expected, options={**self.options, **options})

    def inputs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Fresh positional and keyword arguments, equal on every call."""
        torch.default_generator.manual_seed(11)
        return tuple(self.args()), self.kwargs()


def noise(*shape: int) -> Tensor:
    """Standard normal numbers in double precision."""
    return torch.randn(*shape, dtype=torch.float64)


def frozen(module: nn.Module) -> nn.Module:
    """The module itself, its parameters without gradients."""
    return module.requires_grad_(False)

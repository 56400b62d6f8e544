"""Models in which a layer's own transpose would go on carrying the error are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdfa.errors import UnsupportedModelError
from tests.oracles.exchanged import (
    each_rule,
    network,
    wrap,
)


def _masked(x: Tensor, layer: nn.Linear) -> Tensor:
    return F.linear(x, layer.weight * layer.weight.new_ones(layer.weight.shape).tril())


def _penalised(x: Tensor, layer: nn.Linear) -> Tensor:
    return layer(x) + layer.weight.square().sum()


def _joined(x: Tensor, layer: nn.Linear) -> Tensor:
    return F.linear(x, torch.cat([layer.weight, layer.weight]))


def _checkpointed(x: Tensor, layer: nn.Linear) -> Tensor:
    y: Tensor = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
    return y


def _reentrant(x: Tensor, layer: nn.Linear) -> Tensor:
    y: Tensor = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=True)
    return y


class _Hidden(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor) -> Tensor:
        ctx.x, ctx.W = x.detach(), W.detach()
        return x @ W.T

    @staticmethod
    def backward(ctx: Any, e: Tensor) -> Any:
        return e @ ctx.W, e.T @ ctx.x


def _unsaved(x: Tensor, layer: nn.Linear) -> Tensor:
    y: Tensor = _Hidden.apply(x, layer.weight)
    return y


class _Using(nn.Module):
    def __init__(self, use: Callable[[Tensor, nn.Linear], Tensor]) -> None:
        super().__init__()
        self.first, self.layer, self.use = nn.Linear(4, 5), nn.Linear(5, 5), use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(torch.tanh(self.first(x)), self.layer)


@each_rule
@pytest.mark.parametrize(
    ("use", "text"),
    [
        (_masked, r"'layer\.weight' reaches aten::\w+ changed"),
        (_joined, r"'layer\.weight' reaches aten::\w+ changed"),
        (_penalised, r"'layer\.weight' is used by aten::pow"),
        (_checkpointed, "'layer' runs inside torch.utils.checkpoint"),
        (_reentrant, r"inside torch\.utils\.checkpoint"),
        (_unsaved, r"'layer\.weight' goes into _HiddenBackward"),
    ],
)
def test_a_transpose_that_would_go_on_is_refused(
    rule: str, use: Callable[[Tensor, nn.Linear], Tensor], text: str
) -> None:
    """Never silently backpropagation."""
    with pytest.raises(UnsupportedModelError, match=text):
        wrap(rule, _Using(use))(torch.randn(3, 4))


def test_a_weight_changed_before_backward_is_noticed() -> None:
    model = network()
    loss = wrap("usf", model)(torch.randn(3, 4).double()).sum()
    with torch.no_grad():
        model[4].weight.mul_(2)
    with pytest.raises(RuntimeError, match=r"weight '4\.weight' was changed in place"):
        loss.backward()


def test_an_activation_changed_in_place_is_noticed() -> None:
    class Careless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.exp(self.first(x))
            y: Tensor = self.last(h)
            h.mul_(2)
            return y

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        wrap("fa", Careless())(torch.randn(3, 4)).sum().backward()

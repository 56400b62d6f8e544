"""Models, or ways to cut them, that must be refused: each has one fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = [
    "Checkpointed",
    "Detached",
    "NoForwardDerivative",
    "Remembered",
    "Returning",
    "Sidetracked",
    "Skipping",
    "Switched",
    "TimeFirst",
    "Wide",
    "mlp",
]


def mlp() -> nn.Sequential:
    """Two hidden layers, nothing wrong with it."""
    return nn.Sequential(
        nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3)
    ).double()


class Layers(nn.Module):
    """Three layers with activations; subclasses say how they are put together."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.act1, self.act2 = nn.Tanh(), nn.Tanh()
        self.double()

    def forward(self, x: Tensor) -> Any:
        return self.head(self.act2(self.second(self.act1(self.first(x)))))


class Skipping(Layers):
    """A skip goes around the second layer."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.act1(self.first(x))
        return self.head(self.act2(self.second(h)) + h)


class Detached(Layers):
    """The path is broken in the middle, by detach(), .data or no_grad()."""

    def __init__(self, cut: Callable[[Tensor], Tensor] = torch.detach) -> None:
        super().__init__()
        self.cut = cut

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act2(self.second(self.cut(self.act1(self.first(x))))))


class Checkpointed(Layers):
    """Layers behind the first run inside torch.utils.checkpoint, one region each."""

    def __init__(self, *, reentrant: bool = False) -> None:
        super().__init__()
        self.middle = nn.Sequential(nn.Linear(5, 5), nn.Tanh()).double()
        self.last = nn.Sequential(nn.Linear(5, 5), nn.Tanh()).double()
        self.reentrant = reentrant
        del self.second

    def forward(self, x: Tensor) -> Tensor:
        h = self.act1(self.first(x))
        for segment in (self.middle, self.last):
            h = checkpoint(segment, h, use_reentrant=self.reentrant)
        return self.head(h)


class Sidetracked(Layers):
    """One module is never called, one leads nowhere, one returns a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.idle, self.gauge = nn.Tanh(), nn.Sigmoid()
        self.lstm = nn.LSTM(5, 5).double()

    def forward(self, x: Tensor) -> Tensor:
        h = self.act1(self.first(x))
        self.gauge(h)
        h, _ = self.lstm(h)
        return self.head(h)


class TimeFirst(Layers):
    """(N, T, 4) in, but time comes first inside."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.act1(self.first(x.transpose(0, 1)))
        return self.head(self.act2(self.second(h.sum(0))))


class Returning(Layers):
    """Whatever ``pack`` makes of the output and a hidden tensor."""

    def __init__(self, pack: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.pack = pack

    def forward(self, x: Tensor) -> Any:
        h = self.act1(self.first(x))
        return self.pack(self.head(self.act2(self.second(h))), h)


class Wide(nn.Module):
    """A million units and outputs, hardly a parameter: no computer holds the map between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.widen = nn.Linear(1, 1), nn.Upsample(scale_factor=1_000_000)
        self.head = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.widen(self.first(x)[:, None])[:, 0]
        return self.widen(self.head(h.mean(1, keepdim=True))[:, None])[:, 0]


class Switched(Layers):
    """What it does depends on the numbers in its input, or on a switch: not on shapes."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.on = way, False

    def forward(self, x: Tensor) -> Tensor:
        h = self.act1(self.first(x))
        unusual = self.on or bool(x.sum() < 0)
        if unusual and self.way == "skipped layer":
            return self.head(h)
        if unusual and self.way == "cropped":
            h = self.act2(self.second(h[:-1]))
            return self.head(torch.cat([h, h[-1:]]))
        if unusual and self.way == "detached":
            h = h.detach()
        if unusual and self.way == "data":
            h = h.data
        if unusual and self.way == "around":  # through Python numbers and back
            h = torch.tensor(h.tolist(), dtype=h.dtype)
        h = self.act2(self.second(h))
        if unusual and self.way == "detached output":
            h = h.detach()
        return self.head(h)


class _Quirk(torch.autograd.Function):
    """h^3, with a backward and no forward derivative."""

    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        ctx.save_for_backward(h)
        return h**3

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (h,) = ctx.saved_tensors
        return 3 * gradient * h**2


class Quirk(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        return _Quirk.apply(h)


class NoForwardDerivative(nn.Module):
    """A module ``body.quirk`` without a forward derivative lies behind the first tap."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head, self.act = nn.Linear(4, 5), nn.Linear(5, 3), nn.Tanh()
        self.body = nn.Module()
        self.body.fc, self.body.quirk = nn.Linear(5, 5), Quirk()
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body.quirk(self.body.fc(self.act(self.first(x)))))


class Keeping(nn.Module):
    """Keeps what it returned."""

    def forward(self, h: Tensor) -> Tensor:
        self.kept = torch.tanh(h)
        return self.kept


class Remembered(Layers):
    """A later layer reads what an earlier module kept, behind the back of the cut."""

    def __init__(self) -> None:
        super().__init__()
        self.act1 = Keeping()

    def forward(self, x: Tensor) -> Tensor:
        h = self.act1(self.first(x))
        return self.head(torch.tanh(self.second(h)) + self.act1.kept)

"""Structures with branches and joins, with the taps that the rule gives, found by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tests.engine.tap_case import TapCase, noise

__all__ = ["BRANCHING"]


class Towers(nn.Module):
    """Two inputs, a tower each, joined before the head: ``b_first`` against the order of calls."""

    def __init__(self, *, layers: int = 2, b_first: bool = False, added: bool = False) -> None:
        super().__init__()
        self.a = nn.Sequential(*(m for _ in range(layers) for m in (nn.Linear(4, 4), nn.Tanh())))
        self.b = nn.Sequential(*(m for _ in range(layers) for m in (nn.Linear(4, 4), nn.Tanh())))
        self.head = nn.Linear(4 if added else 8, 3)
        self.b_first, self.added = b_first, added

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        a, b = self.a(left), self.b(right)
        first, second = (b, a) if self.b_first else (a, b)
        return self.head(first + second if self.added else torch.cat([first, second], 1))


class Interleaved(Towers):
    """Layer by layer in turn: the order of the forward pass is neither tower after tower."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        for one, other in zip(self.b, self.a, strict=True):
            right, left = one(right), other(left)
        return self.head(torch.cat([left, right], 1))


class ResidualMLP(nn.Module):
    """A residual branch beside a shortcut module that passes its input through."""

    def __init__(self, shortcut: nn.Module, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.fc, self.head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.shortcut, self.act = shortcut, act

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.stem(x))
        return self.head(torch.tanh(self.fc(h) + self.shortcut(h)))


class Rows(nn.Module):
    """A matrix that is added, not multiplied: of its input it reads the length alone."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(9, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.rows[: x.shape[1]]


class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.rows = Rows()

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.stem(x))
        h = h + self.rows(h)
        h = h + torch.tanh(self.fc(h))
        return self.head(h.mean(1))


class Monitored(nn.Module):
    """A module looks at the activation; what it returns is thrown away."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc, self.head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.monitor = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.stem(x))
        self.monitor(h)
        return self.head(torch.tanh(self.fc(h)))


class DenseLayer(nn.Module):
    """Concatenates its input and what it makes of it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, 3)

    def forward(self, h: Tensor) -> Tensor:
        return torch.cat([h, torch.tanh(self.fc(h))], 1)


class DenseList(nn.Module):
    """As in torchvision: every layer concatenates all features anew."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(4, 5), nn.Tanh())
        self.layers = nn.ModuleList([nn.Linear(5, 3), nn.Linear(8, 3)])
        self.head = nn.Linear(11, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(torch.tanh(layer(torch.cat(features, 1))))
        return self.head(torch.cat(features, 1))


class InputInjection(nn.Module):
    """Every layer is given the raw input again: without a gradient, it goes around nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.head = nn.Linear(4, 5), nn.Linear(9, 5), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.fc1(x))
        h = torch.tanh(self.fc2(torch.cat([h, x], 1)))
        return self.head(torch.cat([h, x], 1))


class Gated(nn.Module):
    """Both halves of a chunk meet again at once."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.head = nn.Linear(4, 10), nn.Linear(5, 10), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.fc1, self.fc2):
            value, gate = layer(x).chunk(2, 1)
            x = value * gate.sigmoid()
        return self.head(x)


class Halves(nn.Module):
    """The halves of a split go to two layers: neither half is a cut, the whole before it is."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.left, self.right = nn.Linear(4, 10), nn.Linear(5, 5), nn.Linear(5, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.fc1(x).split(5, 1)
        return self.head(torch.tanh(self.left(left)) + torch.tanh(self.right(right)))


@dataclasses.dataclass
class Returned:
    logits: Tensor
    hidden: Tensor


class Pair(NamedTuple):
    logits: Tensor
    hidden: Tensor


class Structured(nn.Module):
    """Keyword arguments only; the return value holds a hidden tensor beside the output."""

    def __init__(self, pack: Callable[..., Any]) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh())
        self.head, self.pack = nn.Linear(5, 3), pack

    def forward(self, *, features: Tensor, scale: float = 1.0) -> Any:
        hidden = self.body(features * scale)
        return self.pack(logits=self.head(hidden), hidden=hidden)


def _pair() -> tuple[Tensor, Tensor]:
    return noise(7, 4), noise(7, 4)


def _x() -> tuple[Tensor]:
    return (noise(7, 4),)


def _towers(name: str, taps: list[str], build: Callable[[], nn.Module], **options: Any) -> TapCase:
    return TapCase(name, build, _pair, taps, chain=len(taps) == 1, **options)


BRANCHING = [
    # The joined tensor is the last valid cut before the head; each tower is cut between its layers.
    _towers("two towers", ["a.1", "b.1", "head:input"], Towers),
    _towers(
        "two towers joined against their order",
        ["a.1", "b.1", "head:input"],
        lambda: Towers(b_first=True),
    ),
    _towers("interleaved towers", ["b.1", "a.1", "head:input"], Interleaved),
    _towers("towers of one layer", ["head:input"], lambda: Towers(layers=1, added=True)),
    # The stem's activation is used by a layer and by a skip, and no module made it: no candidate.
    TapCase(
        "identity shortcut, functional stem",
        lambda: ResidualMLP(nn.Identity(), torch.tanh),
        _x,
        ["stem", "head:input"],
    ),
    TapCase(
        "empty shortcut, functional stem",
        lambda: ResidualMLP(nn.Sequential(), torch.tanh),
        _x,
        ["stem", "head:input"],
    ),
    TapCase(
        "dropout(0) as shortcut, functional stem",
        lambda: ResidualMLP(nn.Dropout(0.0), torch.tanh),
        _x,
        ["stem", "head:input"],
    ),
    TapCase(
        "identity shortcut, stem of modules",
        lambda: ResidualMLP(nn.Identity(), nn.Tanh()),
        _x,
        ["act", "head:input"],
    ),
    TapCase(
        "a matrix that reads a length", Positions, lambda: (noise(7, 5, 4),), ["stem", "head:input"]
    ),
    TapCase("a module that only looks", Monitored, _x, ["fc:input", "head:input"]),
    TapCase(
        # Each concatenation is the output of the module that made it.
        "dense connections of modules",
        lambda: nn.Sequential(
            nn.Linear(4, 5), nn.Tanh(), DenseLayer(5), DenseLayer(8), nn.Linear(11, 3)
        ),
        _x,
        ["1", "2", "3"],
    ),
    # The first features reach every later concatenation: only they and the last one are cuts.
    TapCase("dense connections by a list", DenseList, _x, ["stem.1", "head:input"]),
    TapCase("input injection", InputInjection, _x, ["fc2:input", "head:input"]),
    TapCase("chunk that meets again", Gated, _x, ["fc2:input", "head:input"]),
    TapCase("split to two layers", Halves, _x, ["fc1", "head:input"]),
    *(
        TapCase(
            f"keyword arguments, {name} as output",
            lambda pack=pack: Structured(pack),
            tuple,
            ["body.1", "body.3"],
            kwargs=lambda: {"features": noise(7, 4), "scale": 0.5},
            options={"output": output},
        )
        for name, pack, output in (
            ("dict", dict, "logits"),
            ("dataclass", Returned, "logits"),
            ("named tuple", Pair, "logits"),
            ("tuple", lambda logits, hidden: (hidden, logits), 1),
        )
    ),
]

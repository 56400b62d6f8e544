"""Sequence structures, with the taps that the rule gives, found by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.engine.tap_case import TapCase, noise

__all__ = ["SEQUENCES", "EncoderClassifier"]


class EncoderClassifier(nn.Module):
    """A TransformerEncoder between embedding and head, pooled over time or not."""

    def __init__(self, *, norm_first: bool, pooled: bool = True) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=norm_first)
        self.embed, self.head, self.pooled = nn.Linear(4, 8), nn.Linear(8, 3), pooled
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.encoder(self.embed(x))
        return self.head(h.mean(1) if self.pooled else h)


class GRUClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 5), nn.Linear(6, 3)
        self.gru = nn.GRU(5, 6, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        sequence, _ = self.gru(self.embed(tokens))
        return self.head(sequence[:, -1])


class LastState(GRUClassifier):
    """The same from the second thing that the GRU returns."""

    def forward(self, tokens: Tensor) -> Tensor:
        _, state = self.gru(self.embed(tokens))
        return self.head(state[-1])


class StackedGRUs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lower, self.upper = nn.GRU(4, 5, batch_first=True), nn.GRU(5, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        sequence, _ = self.lower(x)
        sequence, _ = self.upper(sequence)
        return self.head(sequence[:, -1])


class Unrolled(nn.Module):
    """A cell called once a time step: every state is a cut."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 5)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
        return self.head(h)


def _tokens() -> tuple[Tensor]:
    return (torch.randint(9, (7, 4)),)


def _sequence() -> tuple[Tensor]:
    return (noise(7, 4, 4),)


# Each sublayer is a residual block. Norm last: a module makes the sum's norm, which is a cut.
_NORM_LAST = ["embed", "encoder.layers.0.norm1", "encoder.layers.0.norm2", "encoder.layers.1.norm1"]
# Norm first: within a layer no module makes the sum, after it the layer itself does.
_NORM_FIRST = ["embed", "encoder.layers.0"]

SEQUENCES = [
    TapCase(
        "transformer encoder, norm last",
        lambda: EncoderClassifier(norm_first=False),
        _sequence,
        [*_NORM_LAST, "head:input"],
    ),
    TapCase(
        "transformer encoder, norm first",
        lambda: EncoderClassifier(norm_first=True),
        _sequence,
        [*_NORM_FIRST, "head:input"],
    ),
    TapCase(
        "one output a position, norm last",
        lambda: EncoderClassifier(norm_first=False, pooled=False),
        _sequence,
        [*_NORM_LAST, "encoder.layers.1.norm2"],
        options={"sample_dims": 2},
    ),
    TapCase(
        "one output a position, norm first",
        lambda: EncoderClassifier(norm_first=True, pooled=False),
        _sequence,
        [*_NORM_FIRST, "encoder.layers.1"],
        options={"sample_dims": 2},
    ),
    TapCase("gru", GRUClassifier, _tokens, ["embed", "head:input"]),
    TapCase("gru, last state", LastState, _tokens, ["embed", "head:input"]),
    TapCase("stacked grus", StackedGRUs, _sequence, ["upper:input", "head:input"]),
    TapCase("unrolled cell", Unrolled, _sequence, ["cell", "cell#2", "cell#3", "cell#4"]),
]

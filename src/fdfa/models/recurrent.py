"""Recurrent classifiers that read an image row by row.

The layers write the equations out. Torch's own run them in one fused operator, and on CUDA both,
on the CPU that of the LSTM, have no forward derivative, so that no probe would pass through.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fdfa.models.sizes import check_at_least, check_image

__all__ = ["GRULayer", "LSTMLayer", "RowReader", "gru", "lstm"]


class GRULayer(nn.GRU):
    """One layer of ``torch.nn.GRU``, with its parameters and start, that returns all states.

    Args:
        inputs: numbers in one step of the sequence.
        width: numbers in the state.

    Example:
        >>> GRULayer(4, 5)(torch.zeros(2, 3, 4)).shape
        torch.Size([2, 3, 5])
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__(inputs, width, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Reads a batch of sequences, from a state of zeros.

        Args:
            x: (N, T, inputs).

        Returns:
            The states, (N, T, width).

        Example:
            >>> GRULayer(1, 2)(torch.ones(4, 3, 1)).shape
            torch.Size([4, 3, 2])
        """
        W, U, b_x, b_h = self.all_weights[0]
        h = x.new_zeros(len(x), self.hidden_size)
        states = []
        for given in F.linear(x, W, b_x).unbind(1):  # (N, 3 width)
            reset, update, new = given.chunk(3, dim=1)
            reset_by_h, update_by_h, new_by_h = F.linear(h, U, b_h).chunk(3, dim=1)
            n = torch.tanh(new + torch.sigmoid(reset + reset_by_h) * new_by_h)
            z = torch.sigmoid(update + update_by_h)
            h = (1 - z) * n + z * h
            states.append(h)
        return torch.stack(states, dim=1)


class LSTMLayer(nn.LSTM):
    """One layer of ``torch.nn.LSTM``, with its parameters and start, that returns all states.

    Args:
        inputs: numbers in one step of the sequence.
        width: numbers in the state.

    Example:
        >>> LSTMLayer(4, 5)(torch.zeros(2, 3, 4)).shape
        torch.Size([2, 3, 5])
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__(inputs, width, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Reads a batch of sequences, from a state and a cell of zeros.

        Args:
            x: (N, T, inputs).

        Returns:
            The states, (N, T, width).

        Example:
            >>> LSTMLayer(1, 2)(torch.ones(4, 3, 1)).shape
            torch.Size([4, 3, 2])
        """
        W, U, b_x, b_h = self.all_weights[0]
        h = c = x.new_zeros(len(x), self.hidden_size)
        states = []
        for given in F.linear(x, W, b_x).unbind(1):  # (N, 4 width)
            gates = given + F.linear(h, U, b_h)
            enter, forget, new, leave = gates.chunk(4, dim=1)
            c = torch.sigmoid(forget) * c + torch.sigmoid(enter) * torch.tanh(new)
            h = torch.sigmoid(leave) * torch.tanh(c)
            states.append(h)
        return torch.stack(states, dim=1)


class RowReader(nn.Module):
    """Reads an image as a sequence of rows and classifies by the last state.

    Args:
        layers: recurrent layers, each from (N, T, ...) to (N, T, width).
        width: numbers in the last one's state.
        classes: number of outputs, K.

    Example:
        >>> network = RowReader(GRULayer(3 * 32, 16), width=16, classes=10)
        >>> network(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, *layers: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.output = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classifies a batch of images.

        Args:
            x: (N, C, H, W), read as H steps of C W numbers.

        Returns:
            (N, K).

        Example:
            >>> gru(image=(1, 8, 8), classes=4)(torch.zeros(2, 1, 8, 8)).shape
            torch.Size([2, 4])
        """
        rows = x.transpose(1, 2).flatten(2)  # (N, H, C W)
        logits: Tensor = self.output(self.layers(rows)[:, -1])
        return logits


def gru(
    *,
    image: tuple[int, int, int] = (1, 28, 28),
    classes: int = 10,
    width: int = 128,
    depth: int = 2,
) -> RowReader:
    """Builds gated recurrent units that read an image row by row, and a linear layer.

    Cho et al., arXiv:1406.1078, in the form of ``torch.nn.GRU``, whose ``state_dict`` a layer
    takes. By itself ``taps="auto"`` finds one tap a layer: all states of it, or the last state of
    the last one.

    Args:
        image: (channels, height, width) of one input.
        classes: number of outputs, K.
        width: numbers in the state of each layer.
        depth: layers.

    Returns:
        A network from (N, C, H, W) to (N, K), with layers named ``layers.0``, ``layers.1``, ...

    Raises:
        ConfigError: if a size is not positive.

    Example:
        >>> sum(p.numel() for p in gru(depth=1).parameters())
        61962
    """
    return _row_reader("gru", GRULayer, image, classes=classes, width=width, depth=depth)


def lstm(
    *,
    image: tuple[int, int, int] = (1, 28, 28),
    classes: int = 10,
    width: int = 128,
    depth: int = 2,
) -> RowReader:
    """Builds long short-term memory that reads an image row by row, and a linear layer.

    Hochreiter & Schmidhuber, Neural Computation 9, 1997, with forget gates, in the form of
    ``torch.nn.LSTM``, whose ``state_dict`` a layer takes. By itself ``taps="auto"`` finds one tap a
    layer: all states of it, or the last state of the last one.

    Args:
        image: (channels, height, width) of one input.
        classes: number of outputs, K.
        width: numbers in the state of each layer.
        depth: layers.

    Returns:
        A network from (N, C, H, W) to (N, K), with layers named ``layers.0``, ``layers.1``, ...

    Raises:
        ConfigError: if a size is not positive.

    Example:
        >>> sum(p.numel() for p in lstm(depth=1).parameters())
        82186
    """
    return _row_reader("lstm", LSTMLayer, image, classes=classes, width=width, depth=depth)


def _row_reader(
    name: str,
    layer: type[GRULayer | LSTMLayer],
    image: tuple[int, int, int],
    *,
    classes: int,
    width: int,
    depth: int,
) -> RowReader:
    """As many layers of one kind as asked for, and what goes around them."""
    check_image(image, network=name, smallest=1)
    check_at_least(1, classes=classes, width=width, depth=depth)
    inputs = [image[0] * image[2], *[width] * (depth - 1)]
    return RowReader(*(layer(units, width) for units in inputs), width=width, classes=classes)

"""Products that a layer's call costs, against counts made by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fdfa.studies.products import LayerCall, recorded_calls

N = 16


def calls_of(module: nn.Module, *inputs: Tensor) -> list[LayerCall]:
    with recorded_calls(module) as calls:
        module(*inputs)
    return calls


def test_a_layer_without_a_tensor_to_multiply() -> None:
    class Prompt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.ones(4, 5))

        def forward(self) -> Tensor:
            return self.table

    (call,) = calls_of(Prompt())
    assert (call.forward, call.input_gradient) == (0, 0)


def test_convolutions() -> None:
    (plain,) = calls_of(nn.Conv2d(4, 6, 3, stride=2, groups=2), torch.zeros(N, 4, 9, 11))
    assert plain.forward == N * 6 * (4 * 5) * (2 * 9)
    (transposed,) = calls_of(nn.ConvTranspose2d(4, 6, 3), torch.zeros(N, 4, 5, 5))
    assert transposed.forward == N * 4 * 25 * (6 * 9)


def test_a_recurrent_layer_passes_gradients_within_itself() -> None:
    (call,) = calls_of(nn.GRU(3, 4, num_layers=2, batch_first=True), torch.zeros(N, 9, 3))
    first, rest = 3 * 4 * 3, 3 * 4 * (4 + 4 + 4)
    assert call.forward == N * 9 * (first + rest)
    assert call.input_gradient == N * 9 * rest
    assert call.weight_gradient == call.forward


def test_attention_counts_its_output_projection_once() -> None:
    x = torch.zeros(N, 9, 4)
    (call,) = calls_of(nn.MultiheadAttention(4, 2, batch_first=True), x, x, x)
    assert call.forward == N * 9 * (3 * 16 + 16)
    assert call.inner == N * 9 * 16


def test_parametrised_and_repeated_layers() -> None:
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(5, 5))
    calls = calls_of(nn.Sequential(layer, layer), torch.zeros(N, 5))
    assert [(call.name, call.forward) for call in calls] == [("0", N * 25)] * 2


def test_a_table_is_looked_up_not_multiplied() -> None:
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 2))
    assert [call.name for call in calls_of(model, torch.zeros(N, 3, dtype=torch.long))] == ["2"]

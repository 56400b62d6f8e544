"""Networks that read a sequence, against torch's own layers and formulas with the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fdfa import models
from fdfa.models.tokens import TokenBlock

F64 = torch.float64


@pytest.mark.parametrize(
    ("factory", "kind"), [(models.gru, nn.GRU), (models.lstm, nn.LSTM)], ids=["gru", "lstm"]
)
def test_recurrent_layers_are_those_of_torch_on_the_rows(factory, kind: type[nn.RNNBase]) -> None:
    model = factory(image=(2, 5, 3), classes=4, width=6, depth=2).double()
    x = torch.randn(7, 2, 5, 3, dtype=F64)
    h = torch.stack([torch.cat([x[:, 0, row], x[:, 1, row]], 1) for row in range(5)], 1)
    for layer in model.layers:
        own = kind(layer.input_size, 6, batch_first=True).double()
        own.load_state_dict(layer.state_dict())
        h, _ = own(h)
    torch.testing.assert_close(model(x), model.output(h[:, -1]), rtol=1e-12, atol=1e-12)


def test_a_transformer_block_is_that_of_torch() -> None:
    block: TokenBlock = models.vit(image=(1, 8, 8), dim=8, heads=2, depth=1).double().blocks[0]
    own = nn.TransformerEncoderLayer(
        *(8, 2, 32, 0.0, "gelu"), batch_first=True, norm_first=True, dtype=F64
    )
    names = {"self_attn.in_proj_": "mix_tokens.ask.", "self_attn.out_proj.": "mix_tokens.merge."}
    names |= {"norm1.": "norm1.", "norm2.": "norm2."}
    names |= {f"linear{n}.": f"mix_channels.linear{n}." for n in (1, 2)}
    state = block.state_dict()
    own.load_state_dict(
        {theirs + kind: state[ours + kind] for theirs, ours in names.items() for kind in BOTH}
    )
    x = torch.randn(3, 5, 8, dtype=F64)
    torch.testing.assert_close(block(x), own(x), rtol=1e-12, atol=1e-12)


BOTH = ("weight", "bias")


def test_a_mixer_block_is_the_formula_of_the_paper() -> None:
    model = models.mlp_mixer(image=(1, 8, 8), dim=5, depth=1, token_width=3, channel_width=7)
    block = model.double().blocks[0]
    x = torch.randn(2, 4, 5, dtype=F64)  # N, patches, D

    def two_layers(network: nn.Sequential, across: str, v: Tensor) -> Tensor:
        first, _, second = network
        hidden = torch.einsum(across, v, first.weight)
        position = across.split("->")[1].index("o")
        shape = [-1 if i == position else 1 for i in range(3)]
        hidden = hidden + first.bias.view(shape)
        hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
        return torch.einsum(across, hidden, second.weight) + second.bias.view(shape)

    def normed(v: Tensor) -> Tensor:
        deviation = (v.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return (v - v.mean(-1, keepdim=True)) / deviation

    u = x + two_layers(block.mix_tokens.mlp, "nid,oi->nod", normed(x))
    expected = u + two_layers(block.mix_channels, "nti,oi->nto", normed(u))
    torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["vit", "mlp-mixer"])
def test_a_token_is_one_patch_of_the_image(name: str) -> None:
    model = models.build(name, image=(2, 4, 6), classes=3, patch=2, dim=8, depth=1).double()
    embedding, x = model.embedding, torch.randn(3, 2, 4, 6, dtype=F64)
    assert embedding.tokens == 6
    tokens = embedding(x)
    places = [(top, left) for top in (0, 2) for left in (0, 2, 4)]
    for token, (top, left) in enumerate(places):
        patch = x[:, :, top : top + 2, left : left + 2].flatten(1)
        expected = patch @ embedding.conv.weight.flatten(1).T + embedding.conv.bias
        if name == "vit":
            expected = expected + embedding.positions[token]
        torch.testing.assert_close(tokens[:, token], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["vit", "mlp-mixer"])
def test_the_output_reads_the_mean_over_the_normed_tokens(name: str) -> None:
    model = models.build(name, image=(1, 4, 4), classes=3, patch=2, dim=8, depth=2).double()
    x = torch.randn(3, 1, 4, 4, dtype=F64)
    h = model.embedding(x)
    for block in model.blocks:
        h = block(h)
    expected = model.output(sum(model.norm(h).unbind(1)) / 4)
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)

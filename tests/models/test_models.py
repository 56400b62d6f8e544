"""The reference networks against sizes worked out by hand and the figures of the paper's code."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from fdfa import models
from tests.models.counting import build, convolution, dense, order, outputs_of, parameters


class TestFullyConnected:
    def test_parameters_of_the_paper_network(self) -> None:
        expected = dense(784, 800) + 2 * 800 + dense(800, 800) + 2 * 800 + dense(800, 10)
        assert parameters(models.fully_connected(784)) == expected == 1_280_010

    def test_without_batch_norm(self) -> None:
        model = models.fully_connected(6, classes=3, width=5, depth=3, batch_norm=False)
        assert parameters(model) == dense(6, 5) + 2 * dense(5, 5) + dense(5, 3)
        kinds = [type(layer) for layer in model]
        assert kinds == [nn.Flatten, *([nn.Linear, nn.ReLU] * 3), nn.Linear]

    def test_order_of_the_layers(self) -> None:
        kinds = [type(layer) for layer in models.fully_connected(6, depth=2)]
        assert kinds == [nn.Flatten, *([nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2), nn.Linear]

    def test_depth_zero_is_a_linear_classifier(self) -> None:
        assert parameters(models.fully_connected(6, classes=3, depth=0)) == dense(6, 3)


class TestMLP:
    def test_parameters_of_the_papers_networks(self) -> None:
        nokland = build("mlp", inputs=784, activation="tanh", start="zero")
        assert parameters(nokland) == dense(784, 800) + dense(800, 800) + dense(800, 10)
        akrout = build("mlp", inputs=784, width=500, depth=1, activation="sigmoid")
        assert parameters(akrout) == dense(784, 500) + dense(500, 10) == 397_510

    @pytest.mark.parametrize(
        ("activation", "kind"), [("relu", nn.ReLU), ("tanh", nn.Tanh), ("sigmoid", nn.Sigmoid)]
    )
    def test_order_of_the_layers(self, activation: Any, kind: type[nn.Module]) -> None:
        model = models.mlp(6, width=5, activation=activation)
        assert [type(layer) for layer in model] == [nn.Flatten, *[nn.Linear, kind] * 2, nn.Linear]

    def test_dropout_stands_behind_the_inputs_and_behind_each_activation(self) -> None:
        model = models.mlp(6, width=5, dropout=0.5, input_dropout=0.1)
        hidden = [nn.Linear, nn.ReLU, nn.Dropout] * 2
        assert [type(layer) for layer in model] == [nn.Flatten, nn.Dropout, *hidden, nn.Linear]
        shares = [layer.p for layer in model if isinstance(layer, nn.Dropout)]
        assert shares == [0.1, 0.5, 0.5]

    def test_a_normal_start_has_the_deviation_of_both_fans_for_weights_and_biases(self) -> None:
        model = models.mlp(3_000, classes=1_000, width=1_000, depth=1, start="normal")
        for layer, fans in ((model.linear1, 4_000), (model.output, 2_000)):
            for parameter in (layer.weight, layer.bias):
                # (standard error of the ratio: 1 / sqrt(2 n), mean 0 within 1 / sqrt(n))
                n, z = parameter.numel(), parameter.detach() * fans**0.5
                assert abs(z.std().item() - 1) < 4 / (2 * n) ** 0.5
                assert abs(z.mean().item()) < 4 / n**0.5
                assert z.abs().max() > 3  # no uniform distribution of that deviation

    def test_a_start_at_zero_leaves_nothing(self) -> None:
        model = models.mlp(6, width=5, activation="sigmoid", start="zero")
        assert not any(parameter.any() for parameter in model.parameters())

    def test_a_uniform_start_is_torchs_own(self) -> None:
        torch.manual_seed(3)
        model = models.mlp(6, width=5, depth=1)
        torch.manual_seed(3)
        own = nn.Linear(6, 5), nn.Linear(5, 10)
        assert torch.equal(model.linear1.weight, own[0].weight)
        assert torch.equal(model.output.bias, own[1].bias)


class TestConvolutional:
    @pytest.mark.parametrize(
        ("image", "flat", "units"),
        [((1, 28, 28), 4_000, 24_768), ((3, 32, 32), 5_760, 34_928)],
        ids=["mnist", "cifar10"],
    )
    def test_sizes_of_the_authors_code(
        self, image: tuple[int, int, int], flat: int, units: int
    ) -> None:
        shapes = outputs_of(models.convolutional(image=image), image)
        assert shapes["flatten"].numel() == flat
        assert sum(shapes[f"relu{number}"].numel() for number in (1, 2, 3)) == units

    @pytest.mark.parametrize(
        ("form", "layers"), [("code", "cnr cnrp f lnr l"), ("announced", "cnrp cnrp f lnr l")]
    )
    def test_order_of_the_layers(self, form: str, layers: str) -> None:
        assert order(build("convolutional", form=form)) == layers.replace(" ", "")

    @pytest.mark.parametrize(
        ("form", "channels", "side", "flat"),
        [
            ("code", 1, 28, 4_000),
            ("code", 3, 32, 5_760),
            ("announced", 1, 28, 40 * 4 * 4),  # 28, 24, 12, 8, 4
            ("announced", 3, 32, 40 * 5 * 5),  # 32, 28, 14, 10, 5
        ],
    )
    def test_parameters(self, form: str, channels: int, side: int, flat: int) -> None:
        model = build("convolutional", image=(channels, side, side), form=form)
        expected = convolution(channels, 15, 5) + convolution(15, 40, 5)
        expected += dense(flat, 128) + 2 * 128 + dense(128, 10)
        assert parameters(model) == expected

    def test_the_names_count_the_layers(self) -> None:
        names = [name for name, _ in build("convolutional", form="announced").named_children()]
        first = ["conv1", "norm1", "relu1", "pool1", "conv2", "norm2", "relu2", "pool2", "flatten"]
        assert names == [*first, "linear1", "norm3", "relu3", "output"]


class TestAlexNet:
    def test_units_of_the_authors_taps(self) -> None:
        # At 224 x 224, as on CIFAR-100; a tap lies behind pooling where there is any.
        image = (3, 224, 224)
        shapes = outputs_of(build("alexnet", image=image, classes=100), image)
        taps = ["pool1", "pool2", "relu3", "relu4", "flatten", "relu6", "relu7"]
        units = [shapes[tap].numel() for tap in taps]
        assert units == [46_656, 32_448, 64_896, 43_264, 9_216, 4_096, 4_096]
        assert sum(units) == 204_672

    def test_resized_pictures_give_the_units_of_large_ones(self) -> None:
        resized = outputs_of(
            build("alexnet", image=(3, 32, 32), classes=100, resize=224), (3, 32, 32)
        )
        large = outputs_of(build("alexnet", image=(3, 224, 224), classes=100), (3, 224, 224))
        assert resized.pop("resize") == (3, 224, 224)
        assert resized == large

    def test_resizing_is_bilinear_between_centres_of_pixels(self) -> None:
        # From 2 pixels to 64: 16 on either side see the first or last alone, 32 go from one to the
        # other, each 1/32 on, beginning half a step in.
        model = models.alexnet(image=(1, 2, 2), classes=2, resize=64)
        row = model.resize(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]))[0, 0, 5]
        between = [(2 * step + 1) / 64 for step in range(32)]
        assert row.tolist() == pytest.approx([0.0] * 16 + between + [1.0] * 16)

    def test_order_of_the_layers(self) -> None:
        expected = "cnrp cnrp cnr cnr cnrp af lnr lnr l"
        assert order(build("alexnet")) == expected.replace(" ", "")

    def test_windows_of_the_layers(self) -> None:
        model = build("alexnet")
        windows = [
            (layer.kernel_size[0], layer.stride[0], layer.padding[0])
            for layer in model
            if isinstance(layer, nn.Conv2d)
        ]
        assert windows == [(11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)]
        pools = [layer for layer in model if isinstance(layer, nn.MaxPool2d)]
        assert {(pool.kernel_size, pool.stride) for pool in pools} == {(3, 2)}

    def test_parameters(self) -> None:
        expected = convolution(3, 64, 11) + convolution(64, 192, 5) + convolution(192, 384, 3)
        expected += convolution(384, 256, 3) + convolution(256, 256, 3)
        expected += dense(9_216, 4_096) + dense(4_096, 4_096) + 4 * 4_096 + dense(4_096, 200)
        assert parameters(build("alexnet")) == expected


class TestLeNet:
    def test_parameters(self) -> None:
        # The classical count: 156 + 2,416 + 48,120 + 10,164 + 850.
        assert parameters(models.lenet()) == 61_706

    def test_order_of_the_layers(self) -> None:
        kinds = [type(layer) for layer in models.lenet()]
        convolutions = [nn.Conv2d, nn.ReLU, nn.MaxPool2d] * 2
        assert kinds == [*convolutions, nn.Flatten, *([nn.Linear, nn.ReLU] * 2), nn.Linear]


class TestVGG:
    @pytest.mark.parametrize(
        ("depth", "layers", "count"),
        [
            # With batch norm and one linear layer on CIFAR-10, as usually quoted.
            (11, "cp cp ccp ccp ccp", 9_231_114),
            (13, "ccp ccp ccp ccp ccp", 9_416_010),
            (16, "ccp ccp cccp cccp cccp", 14_728_266),
        ],
    )
    def test_layers_and_parameters(self, depth: int, layers: str, count: int) -> None:
        model = build("vgg", depth=depth)
        assert order(model) == layers.replace("c", "cnr").replace(" ", "") + "afl"
        assert layers.count("c") + 3 == depth  # the authors have three linear layers
        stages = zip(layers.split(), [64, 128, 256, 512, 512], strict=True)
        channels = [3, *(width for stage, width in stages for _ in stage[:-1])]
        expected = sum(convolution(*pair, 3) for pair in itertools.pairwise(channels))
        assert parameters(model) == expected + dense(512, 10) == count

    def test_pooling_rounds_up_and_bears_its_convolutions_number(self) -> None:
        shapes = outputs_of(build("vgg", width=2), (3, 28, 20))
        pools = {name: tuple(shape) for name, shape in shapes.items() if "pool" in name}
        assert pools == {
            **{"pool1": (2, 14, 10), "pool2": (4, 7, 5), "pool4": (8, 4, 3)},
            **{"pool6": (16, 2, 2), "pool8": (16, 1, 1)},
        }


class TestTokens:
    @pytest.mark.parametrize(
        ("options", "count"),
        [
            # ViT-Ti/16: 5,717,416, less the class token and its position.
            ({"patch": 16, "dim": 192, "depth": 12, "heads": 3}, 5_717_416 - 2 * 192),
            # ViT-S/16: 22,050,664, likewise.
            ({"patch": 16, "dim": 384, "depth": 12, "heads": 6}, 22_050_664 - 2 * 384),
        ],
        ids=["tiny", "small"],
    )
    def test_parameters_of_vit(self, options: dict[str, int], count: int) -> None:
        model = build("vit", image=(3, 224, 224), classes=1000, **options)
        dim, depth = options["dim"], options["depth"]
        block = 2 * 2 * dim + dense(dim, 3 * dim) + dense(dim, dim)
        block += dense(dim, 4 * dim) + dense(4 * dim, dim)
        expected = dense(3 * 16 * 16, dim) + 14 * 14 * dim + depth * block
        assert parameters(model) == expected + 2 * dim + dense(dim, 1000) == count

    def test_parameters_of_mlp_mixer(self) -> None:
        # Mixer-S/16, table 1 of the paper: 18.5 million with 1000 classes.
        sizes = {"dim": 512, "depth": 8, "token_width": 256, "channel_width": 2048}
        model = build("mlp_mixer", image=(3, 224, 224), classes=1000, patch=16, **sizes)
        block = 2 * 2 * 512 + dense(196, 256) + dense(256, 196)
        block += dense(512, 2048) + dense(2048, 512)
        expected = dense(3 * 16 * 16, 512) + 8 * block + 2 * 512 + dense(512, 1000)
        assert parameters(model) == expected == 18_528_264


class TestRecurrent:
    @pytest.mark.parametrize(("name", "gates"), [("gru", 3), ("lstm", 4)])
    def test_parameters(self, name: str, gates: int) -> None:
        def layer(inputs: int, width: int) -> int:
            return gates * (dense(inputs, width) + dense(width, width))

        expected = layer(3 * 32, 16) + 2 * layer(16, 16) + dense(16, 10)
        assert parameters(build(name, image=(3, 5, 32), width=16, depth=3)) == expected

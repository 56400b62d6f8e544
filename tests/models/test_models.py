"""The reference networks against sizes worked out by hand and the figures of the paper's code."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fdfa import models
from fdfa.errors import ConfigError


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def convolution(inputs: int, outputs: int, side: int) -> int:
    """Parameters of a convolution with a bias, batch norm included."""
    return (inputs * side * side + 1) * outputs + 2 * outputs


def dense(inputs: int, outputs: int) -> int:
    """Parameters of a linear layer with a bias."""
    return (inputs + 1) * outputs


def outputs_of(model: nn.Sequential, image: tuple[int, int, int]) -> dict[str, torch.Size]:
    """The shape of every layer's output for one example."""
    shapes, x = {}, torch.randn(1, *image)
    with torch.no_grad():
        for name, layer in model.eval().named_children():
            x = layer(x)
            shapes[name] = x.shape[1:]
    return shapes


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("fully-connected", (1, 8, 8)),
        ("fully-connected", (3, 5, 7)),
        ("convolutional", (3, 32, 32)),
        ("convolutional", (1, 10, 13)),
        ("lenet", (1, 28, 28)),
        ("lenet", (3, 12, 17)),
        ("resnet20", (3, 32, 32)),
        ("resnet20", (1, 5, 8)),
        ("alexnet", (3, 63, 70)),
    ],
)
def test_build_gives_one_number_a_class(
    name: str, image: tuple[int, int, int], classes: int
) -> None:
    model = models.build(name, image=image, classes=classes)
    assert model.training
    y = model(torch.randn(2, *image))
    assert y.shape == (2, classes)
    assert y.isfinite().all()
    y.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_names_are_the_networks_that_can_be_built() -> None:
    assert models.names() == ("fully-connected", "convolutional", "alexnet", "lenet", "resnet20")


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

    def test_order_of_the_layers(self) -> None:
        kinds = [type(layer) for layer in models.convolutional()]
        convolutions = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 2
        hidden = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
        assert kinds == [*convolutions, nn.MaxPool2d, nn.Flatten, *hidden, nn.Linear]

    def test_parameters(self) -> None:
        expected = convolution(3, 15, 5) + convolution(15, 40, 5)
        expected += dense(5_760, 128) + 2 * 128 + dense(128, 10)
        assert parameters(models.convolutional()) == expected


class TestAlexNet:
    def test_units_of_the_authors_taps(self) -> None:
        # At 224 x 224, as on CIFAR-100; a tap lies behind pooling where there is any.
        image = (3, 224, 224)
        shapes = outputs_of(models.alexnet(image=image, classes=100), image)
        taps = ["pool1", "pool2", "relu3", "relu4", "flatten", "relu6", "relu7"]
        units = [shapes[tap].numel() for tap in taps]
        assert units == [46_656, 32_448, 64_896, 43_264, 9_216, 4_096, 4_096]
        assert sum(units) == 204_672

    def test_order_of_the_layers(self) -> None:
        letters = {nn.Conv2d: "c", nn.BatchNorm2d: "n", nn.BatchNorm1d: "n", nn.ReLU: "r"}
        letters |= {nn.MaxPool2d: "p", nn.AdaptiveAvgPool2d: "a", nn.Flatten: "f", nn.Linear: "l"}
        order = "".join(letters[type(layer)] for layer in models.alexnet())
        assert order == "cnrp cnrp cnr cnr cnrp af lnr lnr l".replace(" ", "")

    def test_windows_of_the_layers(self) -> None:
        model = models.alexnet()
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
        assert parameters(models.alexnet()) == expected


class TestLeNet:
    def test_parameters(self) -> None:
        # The classical count: 156 + 2,416 + 48,120 + 10,164 + 850.
        assert parameters(models.lenet()) == 61_706

    def test_order_of_the_layers(self) -> None:
        kinds = [type(layer) for layer in models.lenet()]
        convolutions = [nn.Conv2d, nn.ReLU, nn.MaxPool2d] * 2
        assert kinds == [*convolutions, nn.Flatten, *([nn.Linear, nn.ReLU] * 2), nn.Linear]


class TestResNet20:
    def test_parameters(self) -> None:
        # Convolutions have no bias; each has a batch norm. The shortcuts have nothing.
        def pair(inputs: int, outputs: int) -> int:
            return 9 * inputs * outputs + 9 * outputs * outputs + 4 * outputs

        expected = 9 * 3 * 16 + 2 * 16 + 3 * pair(16, 16) + pair(16, 32) + 2 * pair(32, 32)
        expected += pair(32, 64) + 2 * pair(64, 64) + dense(64, 10)
        assert parameters(models.resnet20()) == expected == 269_722

    def test_twenty_weight_layers(self) -> None:
        layers = [m for m in models.resnet20().modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert len(layers) == 20

    def test_the_shortcut_passes_every_second_pixel_among_zeros(self) -> None:
        model = models.resnet20(image=(3, 8, 8)).eval()
        block = model.stage2[0]
        nn.init.zeros_(block.norm2.weight)  # silences the convolutions: only the shortcut is left
        x = torch.rand(1, 16, 8, 8)
        y = block(x)
        assert y.shape == (1, 32, 4, 4)
        assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
        assert not y[:, :8].any()
        assert not y[:, 24:].any()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: models.build("lenett", image=(1, 28, 28), classes=10),
            r"unknown model 'lenett'. Did you mean 'lenet'\? Valid models: fully-connected, ",
        ),
        (
            lambda: models.build("fully-connected", image=(1, 8, 8), classes=10, widht=3),
            r"model 'fully-connected': unknown option 'widht'. Did you mean 'width'\? "
            "Valid options: width, depth, batch_norm",
        ),
        (
            lambda: models.build("lenet", image=(1, 28, 28), classes=10, width=3),
            "model 'lenet': unknown option 'width'. There are no options to choose from",
        ),
        (
            lambda: models.build("fully-connected", image=(1, 8, 8), classes=10, inputs=3),
            "unknown option 'inputs'",
        ),
        (
            lambda: models.build("fully-connected", image=(8, 8), classes=10),
            r"image=\(8, 8\) is not an image shape",
        ),
        (lambda: models.fully_connected(0), "inputs=0 is not a possible size"),
        (lambda: models.fully_connected(4, width=0), "width=0 .* at least 1"),
        (lambda: models.fully_connected(4, depth=-1), "depth=-1 .* at least 0"),
        (lambda: models.fully_connected(4, depth=True), "depth=True"),
        (lambda: models.fully_connected(4, width="800"), "width='800'"),
        (lambda: models.fully_connected(4, classes=0), "classes=0"),
        (lambda: models.convolutional(classes=0), "classes=0"),
        (lambda: models.lenet(classes=0), "classes=0"),
        (lambda: models.alexnet(classes=0), "classes=0"),
        (lambda: models.resnet20(classes=0), "classes=0"),
        (lambda: models.convolutional(image=(0, 28, 28)), "channels=0"),
        (lambda: models.convolutional(image=(1, 28, 9)), "'convolutional'.* at least 10 x 10"),
        (lambda: models.lenet(image=(1, 11, 28)), "'lenet'.* at least 12 x 12"),
        (lambda: models.alexnet(image=(3, 62, 64)), "'alexnet'.* at least 63 x 63"),
        (lambda: models.resnet20(image=(3, 3, 4)), "'resnet20'.* at least 4 x 4"),
    ],
)
def test_what_cannot_be_built(call, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        call()


@pytest.mark.parametrize(
    ("factory", "image"),
    [
        (models.convolutional, (1, 10, 10)),
        (models.lenet, (1, 12, 12)),
        (models.alexnet, (3, 63, 63)),
        (models.resnet20, (3, 4, 4)),
    ],
    ids=["convolutional", "lenet", "alexnet", "resnet20"],
)
def test_the_smallest_image_works(factory, image: tuple[int, int, int]) -> None:
    assert factory(image=image)(torch.randn(2, *image)).isfinite().all()

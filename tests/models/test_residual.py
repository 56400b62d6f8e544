"""Residual networks against published numbers of parameters, and shortcuts by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fdfa import models
from fdfa.models.residual import ResidualBlock
from tests.models.counting import build, dense, outputs_of, parameters


def plain_block(inputs: int, outputs: int) -> int:
    """Parameters of a residual block: convolutions have no bias, each has a batch norm."""
    return 9 * inputs * outputs + 9 * outputs * outputs + 4 * outputs


class TestResNetForSmallImages:
    @pytest.mark.parametrize(
        ("name", "blocks", "count"), [("resnet20", 3, 269_722), ("resnet56", 9, 853_018)]
    )
    def test_layers_and_parameters(self, name: str, blocks: int, count: int) -> None:
        model = build(name)
        layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert f"resnet{len(layers)}" == name
        expected = 9 * 3 * 16 + 2 * 16 + blocks * plain_block(16, 16)
        expected += plain_block(16, 32) + (blocks - 1) * plain_block(32, 32)
        expected += plain_block(32, 64) + (blocks - 1) * plain_block(64, 64) + dense(64, 10)
        assert parameters(model) == expected == count

    def test_the_shortcut_passes_every_second_pixel_among_zeros(self) -> None:
        block = silenced(models.resnet20(image=(3, 8, 8)).stage2[0])
        x = torch.rand(1, 16, 8, 8)
        y = block(x)
        assert y.shape == (1, 32, 4, 4)
        assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
        assert not y[:, :8].any()
        assert not y[:, 24:].any()

    def test_within_a_stage_the_shortcut_is_the_input(self) -> None:
        block = silenced(models.resnet20(image=(3, 8, 8)).stage2[1])
        x = torch.rand(1, 32, 4, 4)
        assert torch.equal(block(x), x)


def silenced(block: ResidualBlock) -> ResidualBlock:
    """The block in eval mode with convolutions that find nothing: only the shortcut is left."""
    nn.init.zeros_(block.norm2.weight)
    return block.eval()


class TestResNet18:
    @pytest.mark.parametrize(
        ("image", "classes", "stem", "count"),
        [((3, 224, 224), 1000, 7, 11_689_512), ((3, 32, 32), 10, 3, 11_173_962)],
        ids=["imagenet", "cifar10"],
    )
    def test_layers_and_parameters(
        self, image: tuple[int, int, int], classes: int, stem: int, count: int
    ) -> None:
        model = build("resnet18", image=image, classes=classes)
        layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert len([m for m in layers if getattr(m, "kernel_size", 0) != (1, 1)]) == 18
        expected = stem * stem * 3 * 64 + 2 * 64 + 2 * plain_block(64, 64)
        for inputs, outputs in ((64, 128), (128, 256), (256, 512)):
            projection = inputs * outputs + 2 * outputs
            expected += plain_block(inputs, outputs) + projection + plain_block(outputs, outputs)
        assert parameters(model) == expected + dense(512, classes) == count

    @pytest.mark.parametrize(
        ("image", "stem", "size", "first"),
        [
            ((3, 64, 64), "auto", 7, 16),
            ((3, 63, 200), "auto", 3, 63),
            ((3, 64, 64), "3x3", 3, 64),
            ((3, 32, 32), "7x7", 7, 8),
        ],
    )
    def test_the_stem(self, image: tuple[int, int, int], stem: str, size: int, first: int) -> None:
        model = build("resnet18", image=image, stem=stem, width=2)
        shapes = outputs_of(model, image)
        heights = [shapes[f"stage{number}"][1] for number in (1, 2, 3, 4)]
        assert model.conv.kernel_size == (size, size)
        assert ("pool" in shapes) == (size == 7)
        assert heights == [first, -(-first // 2), -(-first // 4), -(-first // 8)]

    def test_the_shortcut_projects_every_second_pixel(self) -> None:
        block = silenced(models.resnet18(image=(3, 8, 8), width=4).stage2[0])
        x = torch.randn(1, 4, 8, 8)
        weight = block.shortcut.conv.weight[:, :, 0, 0]
        seen = torch.einsum("oi,nihw->nohw", weight, x[:, :, ::2, ::2]) / (1 + 1e-5) ** 0.5
        torch.testing.assert_close(block(x), seen.relu())

"""Residual networks as their authors built them for CIFAR and for ImageNet.

All are plain sequences of blocks: between two blocks there is one tensor, and no way round it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from fdfa.models.sizes import check_at_least, check_choice, check_image

__all__ = ["PaddedShortcut", "ResidualBlock", "resnet18", "resnet20", "resnet56"]


class PaddedShortcut(nn.Module):
    """A shortcut without parameters: every second pixel, and zeros in the new channels.

    Option A of He et al., arXiv:1512.03385, section 4.2.

    Args:
        added_channels: how many there are more than come in; half of them go before those.
        stride: 1, or 2 to halve the image.

    Example:
        >>> import torch
        >>> PaddedShortcut(added_channels=2, stride=1)(torch.ones(1, 1, 1, 1)).flatten()
        tensor([0., 1., 0.])
    """

    def __init__(self, *, added_channels: int, stride: int) -> None:
        super().__init__()
        self.before = added_channels // 2
        self.after = added_channels - self.before
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Shrinks and pads.

        Args:
            x: (N, C, H, W).

        Returns:
            (N, C + added_channels, H / stride, W / stride), rounded up.

        Example:
            >>> import torch
            >>> PaddedShortcut(added_channels=16, stride=2)(torch.zeros(1, 16, 8, 8)).shape
            torch.Size([1, 32, 4, 4])
        """
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm, beside a shortcut.

    Where the block changes neither image nor channels, the shortcut is the input itself.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        stride: 1, or 2 to halve the image.
        projection: whether the shortcut of a block that does change them is a 1 x 1 convolution
            with batch norm (option B of He et al., arXiv:1512.03385), or a :class:`PaddedShortcut`
            (option A).

    Example:
        >>> import torch
        >>> ResidualBlock(inputs=16, outputs=32, stride=2)(torch.zeros(1, 16, 8, 8)).shape
        torch.Size([1, 32, 4, 4])
    """

    def __init__(self, *, inputs: int, outputs: int, stride: int, projection: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride == 1 and inputs == outputs:
            return
        if projection:
            convolution = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(
                OrderedDict(conv=convolution, norm=nn.BatchNorm2d(outputs))
            )
        else:
            self.shortcut = PaddedShortcut(added_channels=outputs - inputs, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Adds what the convolutions find to what came in.

        Args:
            x: (N, inputs, H, W).

        Returns:
            (N, outputs, H / stride, W / stride), rounded up.

        Example:
            >>> import torch
            >>> ResidualBlock(inputs=16, outputs=16, stride=1)(torch.zeros(2, 16, 8, 8)).shape
            torch.Size([2, 16, 8, 8])
        """
        found = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(found + self.shortcut(x))


def resnet20(*, image: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> nn.Sequential:
    """Builds ResNet-20 for small images: three stages of three blocks, 16, 32, 64 channels.

    He et al., arXiv:1512.03385, section 4.2, shortcuts without parameters; 0.27 million parameters
    on CIFAR-10.

    Args:
        image: (channels, height, width) of one input; at least 4 x 4 pixels.
        classes: number of outputs, K.

    Returns:
        A network from (N, C, H, W) to (N, K), with blocks named ``stage1.0``, ``stage1.1``, ...

    Raises:
        ConfigError: if the image is too small or a size is not positive.

    Example:
        >>> sum(p.numel() for p in resnet20().parameters())
        269722
    """
    return _for_small_images("resnet20", image, classes, blocks=3)


def resnet56(*, image: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> nn.Sequential:
    """Builds ResNet-56 for small images: three stages of nine blocks, 16, 32, 64 channels.

    He et al., arXiv:1512.03385, section 4.2, shortcuts without parameters; 0.85 million parameters
    on CIFAR-10.

    Args:
        image: (channels, height, width) of one input; at least 4 x 4 pixels.
        classes: number of outputs, K.

    Returns:
        A network from (N, C, H, W) to (N, K), with blocks named ``stage1.0``, ``stage1.1``, ...

    Raises:
        ConfigError: if the image is too small or a size is not positive.

    Example:
        >>> sum(p.numel() for p in resnet56().parameters())
        853018
    """
    return _for_small_images("resnet56", image, classes, blocks=9)


def resnet18(
    *,
    image: tuple[int, int, int] = (3, 224, 224),
    classes: int = 1000,
    stem: Literal["auto", "3x3", "7x7"] = "auto",
    width: int = 64,
) -> nn.Sequential:
    """Builds ResNet-18: four stages of two blocks, projecting shortcuts.

    He et al., arXiv:1512.03385, table 1, option B; 11,689,512 parameters on ImageNet. Before the
    stages their 7 x 7 convolution with stride 2 and max pooling shrink height and width to a
    quarter. That leaves little of a small image, for which it is usual to begin with a plain 3 x 3
    convolution (11,173,962 parameters on CIFAR-10).

    Args:
        image: (channels, height, width) of one input; at least 8 x 8 pixels, 32 x 32 with
            ``stem="7x7"``.
        classes: number of outputs, K.
        stem: what comes before the stages; ``"auto"`` takes ``"7x7"`` for images of at least 64 x
            64 pixels.
        width: channels in the first stage; each next one has twice as many.

    Returns:
        A network from (N, C, H, W) to (N, K), with blocks named ``stage1.0``, ``stage1.1``, ...

    Raises:
        ConfigError: if the image is too small, a size is not positive, or there is no such stem.

    Example:
        >>> resnet18(image=(1, 28, 28), classes=10, width=4).conv
        Conv2d(1, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)
        >>> resnet18(width=4).conv
        Conv2d(3, 4, kernel_size=(7, 7), stride=(2, 2), padding=(3, 3), bias=False)
    """
    check_choice(("auto", "3x3", "7x7"), stem=stem)
    check_image(image, network="resnet18", smallest=32 if stem == "7x7" else 8)
    check_at_least(1, classes=classes, width=width)
    large = stem == "7x7" or (stem == "auto" and min(image[1:]) >= 64)
    widths = [width * factor for factor in (1, 2, 4, 8)]
    size, stride, padding = (7, 2, 3) if large else (3, 1, 1)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(image[0], width, size, stride=stride, padding=padding, bias=False),
        norm=nn.BatchNorm2d(width),
        relu=nn.ReLU(),
    )
    if large:
        layers["pool"] = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    return _with_stages(layers, widths=widths, blocks=2, projection=True, classes=classes)


def _for_small_images(
    name: str, image: tuple[int, int, int], classes: int, *, blocks: int
) -> nn.Sequential:
    """The CIFAR form with this many blocks in each of its three stages."""
    check_image(image, network=name, smallest=4)
    check_at_least(1, classes=classes)
    stem: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(image[0], 16, 3, padding=1, bias=False),
        norm=nn.BatchNorm2d(16),
        relu=nn.ReLU(),
    )
    return _with_stages(stem, widths=(16, 32, 64), blocks=blocks, projection=False, classes=classes)


def _with_stages(
    stem: OrderedDict[str, nn.Module],
    *,
    widths: Sequence[int],
    blocks: int,
    projection: bool,
    classes: int,
) -> nn.Sequential:
    """Stem, one stage a width of which all but the first halve the image, average, output."""
    layers = OrderedDict(stem)
    inputs = widths[0]
    for number, width in enumerate(widths, 1):
        stage = []
        for position in range(blocks):
            stride = 2 if number > 1 and position == 0 else 1
            stage.append(
                ResidualBlock(inputs=inputs, outputs=width, stride=stride, projection=projection)
            )
            inputs = width
        layers[f"stage{number}"] = nn.Sequential(*stage)
    layers.update(average=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
    layers["output"] = nn.Linear(inputs, classes)
    return nn.Sequential(layers)

"""ResNet-20 as its authors built it for CIFAR."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fdfa.models.sizes import check_at_least, check_image

__all__ = ["ResidualBlock", "ResidualNetwork", "resnet20"]


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm, beside a shortcut without parameters.

    Where the block halves the image, the shortcut takes every second pixel and fills the new
    channels with zeros (option A of He et al., arXiv:1512.03385, section 4.2).

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        stride: 1, or 2 to halve the image.

    Example:
        >>> import torch
        >>> ResidualBlock(inputs=16, outputs=32, stride=2)(torch.zeros(1, 16, 8, 8)).shape
        torch.Size([1, 32, 4, 4])
    """

    def __init__(self, *, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.added_channels = outputs - inputs

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
        return F.relu(found + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        """The input itself, or every second pixel of it among zero channels."""
        if self.stride == 1 and self.added_channels == 0:
            return x
        before = self.added_channels // 2
        after = self.added_channels - before
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, after))


class ResidualNetwork(nn.Module):
    """A first convolution, three stages of residual blocks, global average pooling, linear.

    Args:
        image: (channels, height, width) of one input.
        classes: number of outputs, K.
        blocks: residual blocks in each stage.

    Example:
        >>> import torch
        >>> network = ResidualNetwork(image=(3, 32, 32), classes=10, blocks=1)
        >>> network(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, *, image: tuple[int, int, int], classes: int, blocks: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(image[0], 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.stage1 = self._stage(inputs=16, outputs=16, stride=1, blocks=blocks)
        self.stage2 = self._stage(inputs=16, outputs=32, stride=2, blocks=blocks)
        self.stage3 = self._stage(inputs=32, outputs=64, stride=2, blocks=blocks)
        self.output = nn.Linear(64, classes)

    @staticmethod
    def _stage(*, inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
        """Blocks of one image size; the first one changes size and channels."""
        first = ResidualBlock(inputs=inputs, outputs=outputs, stride=stride)
        rest = (ResidualBlock(inputs=outputs, outputs=outputs, stride=1) for _ in range(blocks - 1))
        return nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Classifies a batch of images.

        Args:
            x: (N, C, H, W).

        Returns:
            (N, K).

        Example:
            >>> import torch
            >>> resnet20(image=(1, 8, 8), classes=4)(torch.zeros(2, 1, 8, 8)).shape
            torch.Size([2, 4])
        """
        x = F.relu(self.norm(self.conv(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        logits: Tensor = self.output(x.mean(dim=(2, 3)))
        return logits


def resnet20(*, image: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> ResidualNetwork:
    """Builds ResNet-20 for small images: three stages of three blocks, 16, 32, 64 channels.

    He et al., arXiv:1512.03385, section 4.2; 0.27 million parameters on CIFAR-10.

    Args:
        image: (channels, height, width) of one input; at least 4 x 4 pixels.
        classes: number of outputs, K.

    Returns:
        A network from (N, C, H, W) to (N, K).

    Raises:
        ConfigError: if the image is too small or a size is not positive.

    Example:
        >>> sum(p.numel() for p in resnet20().parameters())
        269722
    """
    check_image(image, network="resnet20", smallest=4)
    check_at_least(1, classes=classes)
    return ResidualNetwork(image=image, classes=classes, blocks=3)

"""Pictures of trained networks side by side: first-layer kernels and hidden representations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fdfa.diagnostics import principal_components
from fdfa.studies.diagnosed import Likeness
from fdfa.studies.diagnosis_pictures import new_figure
from fdfa.studies.plots import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["first_kernels", "kernel_picture", "representation_picture"]

_KERNELS, _COLUMNS = 32, 8
_POINTS = 400
_MOST_CLASSES = 10
# A class is its number; the colours help the eye and say nothing more.
_CLASS_COLOURS = (*COLOURS, "#7F7F7F", "#8B4513", "#6A3D9A")


def first_kernels(model: nn.Module, shape: Sequence[int]) -> Tensor | None:
    """What the units of the first layer look for, as small pictures.

    Args:
        model: any.
        shape: of an input.

    Returns:
        (units, channels, height, width): kernels of a convolution, or the rows of a matrix that
        reads whole pictures (C, H, W); None where the first weight is neither.

    Example:
        >>> first_kernels(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), (3, 2, 2)).shape
        torch.Size([5, 3, 2, 2])
    """
    weights = (  # and no table of positions, which reads nothing
        p.detach()
        for name, p in model.named_parameters()
        if p.dim() > 1 and name.rpartition(".")[2].startswith("weight")
    )
    first = next(weights, None)
    if first is None or len(shape) != 3:
        return None
    if first.dim() == 4:
        return first
    if first.dim() == 2 and first.shape[1] == math.prod(shape):
        return first.view(len(first), *shape)
    return None


def kernel_picture(kernels: Mapping[str, Tensor], *, subject: str) -> Figure:
    """The first kernels of each rule's first layer: dark is negative, bright positive.

    Args:
        kernels: (units, channels, height, width) by rule.
        subject: what was learned, for the title.

    Returns:
        A figure that no window shows. Each rule has a scale of its own, with the same sign
        everywhere; of three channels each kernel is a colour picture about middle grey.
    """
    figure = new_figure(0.4 + 4.4 * len(kernels), 2.9)
    figure.set_layout_engine("constrained", w_pad=0.12, wspace=0.04)
    panels = figure.subplots(1, len(kernels), squeeze=False)[0]
    for axes, (rule, kernel) in zip(panels, kernels.items(), strict=True):
        shown = kernel[:_KERNELS].double().cpu()
        largest = shown.abs().max().item() or 1.0
        axes.imshow(_mosaic(shown, largest), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        some = f"first {len(shown)} of" if len(shown) < len(kernel) else "all"
        axes.set_title(f"{rule}: {some} {len(kernel)} units", fontsize="small")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(axes.images[0], ax=axes, shrink=0.75, ticks=[-1, 0, 1])
        bar.ax.set_yticklabels([f"{-largest:.2g}", "0", f"{largest:.2g}"])
        channels = kernel.shape[1]
        means = f" (mean of {channels} channels)" if channels not in (1, 3) else ""
        bar.set_label(f"weight{' of each colour' if channels == 3 else means}")
    figure.suptitle(f"{subject}: first-layer kernels", fontsize="medium")
    return figure


def representation_picture(
    activations: Mapping[str, Tensor],
    labels: Tensor,
    *,
    tap: str,
    likeness: Mapping[str, Likeness],
    subject: str,
) -> Figure:
    """The same examples in each rule's hidden layer, along its two principal components.

    Args:
        activations: (N, units) by rule.
        labels: (N,).
        tap: where they were taken.
        likeness: of each rule but the first, to the first.
        subject: what was learned, for the title.

    Returns:
        A figure that no window shows. Each mark is the number of the example's class.
    """
    first = next(iter(activations))
    figure = new_figure(max(0.6 + 4.0 * len(activations), 5.4), 4.3)
    panels = figure.subplots(1, len(activations), squeeze=False)[0]
    reference: Tensor | None = None
    for axes, (rule, hidden) in zip(panels, activations.items(), strict=True):
        points, shares = principal_components(hidden[:_POINTS].cpu())
        reference = points if reference is None else reference
        # A component may point either way: that of the first rule's which it is nearer to.
        points = points * torch.where((points * reference).sum(0) < 0, -1.0, 1.0)
        for number in range(_MOST_CLASSES):
            mine = points[labels[:_POINTS].cpu() == number]
            if len(mine):
                axes.scatter(
                    *mine.T.tolist(),
                    marker=f"${number}$",
                    color=_CLASS_COLOURS[number],
                    s=28,
                    linewidths=0.2,
                    label=str(number),
                )
        axes.set_xlabel(f"1st principal component ({100 * shares[0]:.0f} % of the variance)")
        axes.set_ylabel(f"2nd ({100 * shares[1]:.0f} %)")
        alike = f": linear CKA with {first} {likeness[rule].words()}" if rule in likeness else ""
        axes.set_title(f"{rule}{alike}", fontsize="small")
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    classes = f" of classes 0 to {_MOST_CLASSES - 1}" if labels.max() >= _MOST_CLASSES else ""
    figure.suptitle(
        f"{subject}: {min(len(labels), _POINTS)} examples{classes} at {tap}; a mark is its class",
        fontsize="medium",
    )
    return figure


def _mosaic(kernels: Tensor, largest: float) -> Any:
    """Kernels in rows with a line of nothing between them: (H, W), or (H, W, 3) for colours."""
    count, channels, height, width = kernels.shape
    rows = math.ceil(count / _COLUMNS)
    scaled = kernels / largest
    scaled = scaled if channels in (1, 3) else scaled.mean(1, keepdim=True)
    empty = 1.0  # white
    size = (scaled.shape[1], rows * (height + 1) - 1, _COLUMNS * (width + 1) - 1)
    mosaic = scaled.new_full(size, empty)
    for number, kernel in enumerate(scaled):
        top, left = number // _COLUMNS * (height + 1), number % _COLUMNS * (width + 1)
        mosaic[:, top : top + height, left : left + width] = kernel
    if channels == 3:
        return ((mosaic + 1) / 2).permute(1, 2, 0).tolist()
    return mosaic[0].tolist()

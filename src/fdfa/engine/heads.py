"""Local losses as a change of the model: a head at each tap, which says what the output might be.

A head is a small module of its own parameters. The model's result does not depend on any.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fdfa.engine.intercept import untouched_state
from fdfa.engine.selection import TapSpec
from fdfa.engine.taps import plan_taps
from fdfa.errors import ConfigError, UnsupportedModelError

__all__ = ["HeadOfParts", "LinearHead", "LocalHeads", "check_head"]

Sizes = tuple[int, ...]
HeadFactory = Callable[[Sizes, Sizes], nn.Module]


@runtime_checkable
class HeadOfParts(Protocol):
    """A head whose result sums parts, each with a derivative and a share of a perturbation.

    A module with these four methods is one, whatever it derives from; with fewer it is a head like
    any other. ``forward(h)`` is ``combine(parts(h))``. :func:`fdfa.models.local_mixer` has such
    heads.

    Example:
        >>> isinstance(LinearHead((4,), (3,)), HeadOfParts)
        False
    """

    def parts(self, h: Tensor) -> Tensor:
        """What the result is made of.

        Args:
            h: the activation.

        Returns:
            The parts, of any shape (N, ...).
        """

    def combine(self, parts: Tensor) -> Tensor:
        """The result of all parts.

        Args:
            parts: of :meth:`parts`.

        Returns:
            What the output might be.
        """

    def slopes(self, tangent: Tensor, e: Tensor) -> Tensor:
        """The loss's derivative along a tangent of the parts, one a part.

        Args:
            tangent: of the shape of the parts.
            e: gradient of the loss with respect to the result.

        Returns:
            One number a part and sample.
        """

    def spread(self, slopes: Tensor, dims: int) -> Tensor:
        """For each unit of an activation in the block, the sum of the slopes that it has a part in.

        Args:
            slopes: of :meth:`slopes`.
            dims: number of dimensions of the activation.

        Returns:
            What a perturbation of the activation is multiplied by.
        """


class LinearHead(nn.Module):
    """A linear map from all units of an activation to the components of the output.

    It starts at zero, as in Ren et al. 2023: until it has learned, its block gets no credit.

    Args:
        shape: of the activation, without the samples.
        outputs: shape of the output, without the samples.

    Example:
        >>> LinearHead((4, 5, 5), (10,))(torch.ones(2, 4, 5, 5)).shape
        torch.Size([2, 10])
    """

    def __init__(self, shape: Sizes, outputs: Sizes) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.outputs = tuple(outputs)
        units, components = math.prod(shape), math.prod(outputs)
        # without the random weights, which would move the generator
        self.linear: nn.Linear = nn.utils.skip_init(  # type: ignore[no-untyped-call]
            nn.Linear, units, components
        )
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, h: Tensor) -> Tensor:
        """What the output might be.

        Args:
            h: the activation, ``(N, *shape)``; any number of dimensions may count samples.

        Returns:
            ``(N, *outputs)``.

        Raises:
            UnsupportedModelError: if the activation has another shape than the head was made for.

        Example:
            >>> LinearHead((3,), (2, 2))(torch.ones(5, 7, 3)).shape
            torch.Size([5, 7, 2, 2])
        """
        samples = h.shape[: h.dim() - len(self.shape)]
        if (seen := h.shape[len(samples) :]) != self.shape:
            raise UnsupportedModelError(
                f"a linear head for activations {self.shape} met {tuple(seen)}: inputs of other"
                " sizes need heads of their own. Make the heads with an example of the inputs, or"
                " pass head= for heads that take any size, by a mean over positions, say."
            )
        y: Tensor = self.linear(h.reshape(*samples, -1)).view(*samples, *self.outputs)
        return y


class LocalHeads(nn.Module):
    """A model with a head at each tap, for rules with local losses: ``l-bp``, ``lg-fg-a``.

    It returns what the model returns. The heads are parameters like all others, in place before
    the first step, so that an optimiser made from ``parameters()`` holds them. The model itself
    is not changed: ``heads.model``.

    Args:
        model: any module.
        example: an input, or a tuple of positional arguments, of the shapes to come, whatever the
            number of samples. One forward pass is made that leaves no trace in the model.
        taps: where heads hang: ``"auto"``, names of modules, a module type, or a predicate
            ``(name, module) -> bool``.
        depth: with ``"auto"``, blocks of this many weight layers, counted from the input.
        sample_dims: number of leading dimensions that count samples.
        output: which entry of the model's return value is the output (N, K, ...).
        head: makes a head from the activation's and the output's shape, both without samples. By
            default :class:`LinearHead`; where the model has a method ``local_heads()``, what
            that says: a dict from names of modules to heads.

    Attributes:
        model: as it was given.
        heads: one a tap.
        names: of the taps, in the same order.

    Raises:
        TypeError: if ``head`` makes no module.
        ConfigError: if ``model.local_heads()`` says where heads hang, and ``taps`` or ``depth``
            say so too.
        UnsupportedModelError: if the model cannot be cut there, or a head's result is not of the
            output's shape.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> heads = LocalHeads(model, torch.ones(2, 4))
        >>> heads.names, heads.heads[0].linear
        (('1',), Linear(in_features=8, out_features=3, bias=True))
    """

    def __init__(
        self,
        model: nn.Module,
        example: Any,
        *,
        taps: TapSpec = "auto",
        depth: int = 1,
        sample_dims: int = 1,
        output: str | int | None = None,
        head: HeadFactory | None = None,
    ) -> None:
        super().__init__()
        offered: Any = getattr(model, "local_heads", None)
        own: dict[str, nn.Module] | None = offered() if head is None and callable(offered) else None
        if own is not None:
            if taps != "auto" or depth != 1:
                raise ConfigError(
                    f"{type(model).__name__} says itself where its heads hang. Leave taps and depth"
                    " out, or pass head= to make others."
                )
            taps = list(own)
        args = example if isinstance(example, tuple) else (example,)
        plan = plan_taps(
            model, args, {}, taps=taps, depth=depth, sample_dims=sample_dims, output=output
        )
        self.model = model
        self.sample_dims = sample_dims
        self.output = output
        self.names = tuple(tap.name for tap in plan.taps)
        outputs = plan.output_shape[sample_dims:]
        like = next(model.parameters())
        made = head or LinearHead
        self.heads = nn.ModuleList()
        for tap in plan.taps:
            module = own[tap.name] if own else made(tap.shape[sample_dims:], outputs)
            if not isinstance(module, nn.Module):
                raise TypeError(
                    f"head made an object of type {type(module).__name__} for tap '{tap.name}'."
                    " Return a torch.nn.Module."
                )
            self.heads.append(module.to(device=tap.device, dtype=like.dtype))
            h = torch.zeros(tap.shape, dtype=like.dtype, device=tap.device)
            with torch.no_grad(), untouched_state(module):
                check_head(module(h), plan.output_shape, tap.name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model returns.

        Args:
            *args: positional arguments of the model.
            **kwargs: keyword arguments of the model.

        Returns:
            The same.
        """
        return self.model(*args, **kwargs)


def check_head(y: Any, shape: Sizes, name: str) -> Tensor:
    """Refuse what a head returned, unless it is like the output.

    Args:
        y: what it returned.
        shape: of the output.
        name: of the head's tap.

    Returns:
        The same.

    Raises:
        UnsupportedModelError: if it is no tensor of that shape.
    """
    seen = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
    if seen != tuple(shape):
        raise UnsupportedModelError(
            f"the head of tap '{name}' returned {seen} where the output has shape {tuple(shape)}:"
            " the same loss is to hold for both. Make heads whose results are like the output."
        )
    tensor: Tensor = y
    return tensor

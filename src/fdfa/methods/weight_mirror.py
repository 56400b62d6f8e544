"""Weight mirrors: noise sent through each layer teaches its feedback the layer's own weight."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from fdfa.engine.distributed import process_count, process_rank, sum_over_processes
from fdfa.engine.feedback_weight_estimator import FeedbackWeightEstimator
from fdfa.engine.feedback_weights import WeightStart, check_start, draw_start
from fdfa.engine.probes import Probe
from fdfa.engine.weight_trace import Place, Product
from fdfa.engine.weight_uses import WeightUses
from fdfa.errors import ConfigError, UnsupportedModelError
from fdfa.methods.record import Method

__all__ = ["RECORDS", "WeightMirror"]

_MATRIX_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::mv")
_CONVOLUTIONS = ("aten::convolution", "aten::convolution_overrideable")


class WeightMirror(FeedbackWeightEstimator):
    """Weight mirrors (Akrout et al. 2019, arXiv:1904.05391).

    After a learning step each layer is sent one batch of noise xi (independent, mean 0, variance 1)
    by itself, without bias or activation: ``y = xi W^T``. What its two ends then know correlates to
    the weight: ``E[y^T xi] = N W``. The mirror turns B that way,

        ``B <- c (B + rate * y^T xi / N)``

    and growth control, c, holds the Frobenius norm of B at that of its start: so B goes to W's
    direction, at a length of its own. (In the authors' code the growth control assigns to a local
    name and does nothing; here it works.) For a convolution, N counts positions too; ``y^T xi`` is
    the layer's own weight gradient with y as the error, whatever the layer.

    Args:
        model: any module.
        output: which entry of the model's return value is the output (N, K, ...).
        mirror_rate: above 0; with growth control, how far one mirror batch turns B.
        mirror_every: mirror after one step in this many.
        growth_control: hold the norm of B; without it B grows without bound.
        noise: ``"normal"`` or ``"rademacher"`` (+-1, cheaper to draw).
        start: B is drawn as in feedback alignment.
        seed: of B and the noise; by default torch's seed.

    Raises:
        ConfigError: if an option is unknown or out of range.

    Example:
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ... )
        >>> learner = WeightMirror(model, mirror_rate=0.5)
        >>> for _ in range(100):
        ...     learner(torch.ones(50, 4)).sum().backward()
        >>> B, W = learner.feedback["2.weight"], model[2].weight
        >>> bool(torch.nn.functional.cosine_similarity(B.flatten(), W.flatten(), dim=0) > 0.9)
        True
    """

    method = "weight-mirror"
    teaches = True

    def __init__(
        self,
        model: nn.Module,
        *,
        output: str | int | None = None,
        mirror_rate: float = 0.1,
        mirror_every: int = 1,
        growth_control: bool = True,
        noise: Literal["normal", "rademacher"] = "normal",
        start: WeightStart = "uniform",
        seed: int | None = None,
    ) -> None:
        check_start(start)
        if (
            isinstance(mirror_rate, bool)
            or not isinstance(mirror_rate, (int, float))
            or not 0 < mirror_rate < math.inf
        ):
            raise ConfigError(f"mirror_rate={mirror_rate!r}: pass a positive number, such as 0.1.")
        if isinstance(mirror_every, bool) or not isinstance(mirror_every, int) or mirror_every < 1:
            raise ConfigError(
                f"mirror_every={mirror_every!r}: one step in how many mirrors? Pass a whole number"
                " from 1 up."
            )
        if not isinstance(growth_control, bool):
            raise ConfigError(f"growth_control={growth_control!r}: pass True or False.")
        self._draw = Probe(noise=noise).draw
        super().__init__(model, output=output, seed=seed)
        self.mirror_rate = mirror_rate
        self.mirror_every = mirror_every
        self.growth_control = growth_control
        self.start_from = start

    def start(self, name: str, weight: Tensor, generator: torch.Generator) -> Tensor:
        """B, drawn at random; from then on its norm stays."""
        return draw_start(self.start_from, weight, generator)

    def check(self, uses: WeightUses) -> None:
        """Refuse weights that no noise can be sent through alone."""
        problems = [
            f"weight '{name}' is multiplied inside {product.operator}, which a mirror cannot send"
            " noise through by itself: the mirror is defined for layers that are linear. Use"
            " another method, or another layer."
            for name, product in uses.products.items()
            if _operator(product) not in _MATRIX_PRODUCTS + _CONVOLUTIONS
        ]
        if problems:
            raise UnsupportedModelError(problems)

    def teach(self, uses: WeightUses, weights: Mapping[str, Tensor], step: int, heard: Any) -> None:
        """Turn every B by one mirror batch."""
        if step % self.mirror_every or not uses.products:
            return  # a single layer, say: it carries no error to its input, and has no mirror
        names = list(uses.products)

        def part(name: str) -> Callable[[], Tensor]:
            return lambda: self._mirrored(name, uses.products[name], weights[name], step)

        kept = self.feedback
        count, estimates = sum_over_processes(
            1, [part(name) for name in names], like=kept[names[0]]
        )
        for name, estimate in zip(names, estimates, strict=True):
            B = kept[name]
            estimate = estimate.to(B.dtype)
            # what this process alone has made is of no more use: its memory becomes the new B's
            spent = process_count() == 1 and estimate.stride() == B.stride()
            place = estimate if spent else None
            turned = torch.add(B, estimate, alpha=self.mirror_rate / count, out=place)
            if self.growth_control:
                turned *= B.norm() / turned.norm()
            kept[name] = turned

    def _mirrored(self, name: str, product: Product, weight: Tensor, step: int) -> Tensor:
        """``y^T xi / N``: an unbiased estimate of W from what the layer's two ends see."""
        dtype = torch.promote_types(weight.dtype, torch.float32)
        W = weight.to(dtype).detach().requires_grad_()
        signal = next(leaf for leaf in _places(product) if leaf.kind == "signal")
        (xi,) = self._draw(
            [signal.shape],
            [dtype],
            [W.device],
            *(self.seed, step, process_rank(), zlib.crc32(name.encode())),
        )

        def fill(value: Any) -> Any:
            if not isinstance(value, Place):
                return value
            if value.kind == "weight":
                return _as_met(value, W)
            return xi if value is signal else xi.new_zeros(value.shape)

        with torch.enable_grad():
            y = product.operator(*tree_map(fill, product.args), **tree_map(fill, product.kwargs))
            uses = _uses_of_each_entry(product, xi, y)
            (estimate,) = torch.autograd.grad(y, W, y.detach() / uses)
        return estimate


def _as_met(place: Place, W: Tensor) -> Tensor:
    """The weight as the operator met it."""
    if place.offset == 0:
        # before as_strided, whose derivative costs more than the product does
        for view in (W, W.mT):
            if (place.shape, place.stride) == (tuple(view.shape), view.stride()):
                return view
    return W.as_strided(place.shape, place.stride, W.storage_offset() + place.offset)


def _uses_of_each_entry(product: Product, xi: Tensor, y: Tensor) -> int:
    """N: how often an entry of the weight meets a number of xi (at the rims of a kernel, less)."""
    if _operator(product) in _CONVOLUTIONS:
        transposed = bool(product.args[6])
        return xi.numel() // xi.shape[1] if transposed else y.numel() // y.shape[1]
    operands = [leaf for leaf in _places(product) if len(leaf.shape) >= 2][-2:]
    first = operands[0].kind == "signal"
    return int(xi.shape[-2] if first else xi.shape[-1])


def _places(product: Product) -> list[Place]:
    leaves = tree_leaves((product.args, product.kwargs))
    return [leaf for leaf in leaves if isinstance(leaf, Place)]


def _operator(product: Product) -> str:
    return "" if product.operator is None else product.operator.name().split(".")[0]


RECORDS = (
    Method(
        "weight-mirror",
        WeightMirror,
        "feedback weights that noise through each layer teaches the layer's weights",
        "Akrout et al. 2019, arXiv:1904.05391",
        weight_transport_free=True,
        backward_pass_free=False,
        probes=False,
        extra_state="n_l m_l",
        products="3 + 2 s",
        aliases=("wm",),
    ),
)

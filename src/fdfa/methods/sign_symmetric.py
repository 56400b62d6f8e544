"""Sign-symmetric feedback: the error travels back through weights with the signs of the forward."""

from __future__ import annotations

import math
import zlib
from typing import cast

import torch
from torch import Tensor, nn

from fdfa.engine.feedback_weight_estimator import FeedbackWeightEstimator
from fdfa.engine.feedback_weights import draw_start, fans
from fdfa.engine.probes import generator_for
from fdfa.errors import ConfigError
from fdfa.methods.record import Method

__all__ = [
    "RECORDS",
    "BatchwiseRandomSignSymmetric",
    "FixedRandomSignSymmetric",
    "UniformSignSymmetric",
]

_IN_CACHE = 2**16


class UniformSignSymmetric(FeedbackWeightEstimator):
    """Uniform sign-symmetric feedback, uSF (Liao et al. 2016; Moskovitz et al. 2018).

    ``B = s sign(W)`` at every step, ``s = sqrt(2 / (fan_in + fan_out))``: without s gradients
    explode in deep networks. Only the signs of the forward weights travel.

    Args:
        model: any module.
        output: which entry of the model's return value is the output (N, K, ...).
        seed: unused; there so that every method takes it.

    Example:
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ... )
        >>> learner = UniformSignSymmetric(model)
        >>> learner(torch.ones(3, 4)).sum().backward()
        >>> model[0].weight.grad.shape
        torch.Size([8, 4])
    """

    method = "usf"
    reads_weights = True

    def __init__(
        self, model: nn.Module, *, output: str | int | None = None, seed: int | None = None
    ) -> None:
        super().__init__(model, output=output, seed=seed)

    def start(self, name: str, weight: Tensor, generator: torch.Generator) -> None:
        """Nothing is kept."""

    def feedback_for(self, name: str, weight: Tensor, kept: Tensor | None, step: int) -> Tensor:
        """``s sign(W)``."""
        return weight.sign().mul_(math.sqrt(2 / sum(fans(weight))))


class BatchwiseRandomSignSymmetric(UniformSignSymmetric):
    """Batch-wise random sign-symmetric feedback, brSF (Liao et al. 2016; Moskovitz et al. 2018).

    ``B = |M| sign(W)``, M ~ U(+-sqrt(6 / (fan_in + fan_out))) drawn anew in every step: a function
    of seed, step and the weight's name alone.

    Args:
        model: any module.
        output: which entry of the model's return value is the output (N, K, ...).
        redraw_every: draw M anew after this many steps.
        seed: of M; by default torch's seed.

    Raises:
        ConfigError: if ``redraw_every`` is no whole number from 1 up.

    Example:
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ... )
        >>> learner = BatchwiseRandomSignSymmetric(model)
        >>> learner(torch.ones(3, 4)).sum().backward()
        >>> model[0].weight.grad.shape
        torch.Size([8, 4])
    """

    method = "brsf"

    def __init__(
        self,
        model: nn.Module,
        *,
        output: str | int | None = None,
        redraw_every: int = 1,
        seed: int | None = None,
    ) -> None:
        if isinstance(redraw_every, bool) or not isinstance(redraw_every, int) or redraw_every < 1:
            raise ConfigError(
                f"redraw_every={redraw_every!r}: one step in how many draws? Pass a whole number"
                " from 1 up."
            )
        super().__init__(model, output=output, seed=seed)
        self.redraw_every = redraw_every

    def feedback_for(self, name: str, weight: Tensor, kept: Tensor | None, step: int) -> Tensor:
        """``|M| sign(W)`` with the step's own M."""
        draws = generator_for(
            weight.device,
            self.seed,
            zlib.crc32(name.encode()),
            step // self.redraw_every,
            *((self.redraw,) if self.redraw else ()),
        )
        return _with_magnitudes(weight, draws)


class FixedRandomSignSymmetric(UniformSignSymmetric):
    """Fixed random sign-symmetric feedback, frSF (Liao et al. 2016; Moskovitz et al. 2018).

    ``B = |M| sign(W)`` at every step, M ~ U(+-sqrt(6 / (fan_in + fan_out))) drawn once.

    Args:
        model: any module.
        output: which entry of the model's return value is the output (N, K, ...).
        seed: of M; by default torch's seed.

    Example:
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ... )
        >>> learner = FixedRandomSignSymmetric(model)
        >>> learner(torch.ones(3, 4)).sum().backward()
        >>> learner.feedback.names()
        ['2.weight']
    """

    method = "frsf"

    def start(  # type: ignore[override]
        self, name: str, weight: Tensor, generator: torch.Generator
    ) -> Tensor:
        """``|M|``."""
        return draw_start("xavier-uniform", weight, generator).abs_()

    def feedback_for(self, name: str, weight: Tensor, kept: Tensor | None, step: int) -> Tensor:
        """``|M| sign(W)``."""
        return cast(Tensor, kept) * weight.sign()


def _with_magnitudes(weight: Tensor, generator: torch.Generator) -> Tensor:
    """``|M| sign(W)``, |M| one of 2^14 steps: four numbers a random word, where torch draws one."""
    count = weight.numel()
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=weight.device)
    words.random_(-(2**63), None, generator=generator)
    # 1, 3, ..., 2^15 - 1 in every sixteen bits: the steps' middles, none of them zero
    words.bitwise_and_(0x7FFF7FFF7FFF7FFF).bitwise_or_(0x0001000100010001)
    dtype = torch.promote_types(weight.dtype, torch.float32)
    B = torch.empty(count, dtype=dtype, device=weight.device)
    step = math.sqrt(6 / sum(fans(weight))) / 2**15
    whole = (B, words.view(torch.int16)[:count], weight.to(dtype).flatten())
    # on a CPU in pieces that stay in its cache
    size = _IN_CACHE if weight.device.type == "cpu" else count
    for part, bits, w in zip(*(torch.split(x, size) for x in whole), strict=True):
        part.copy_(bits).mul_(w.sign().mul_(step))
    return B.view(weight.shape)


RECORDS = (
    Method(
        "usf",
        UniformSignSymmetric,
        "the error travels back through the signs of the weights",
        "Liao et al. 2016; Moskovitz et al. 2018",
        weight_transport_free=False,
        backward_pass_free=False,
        probes=False,
        extra_state="none",
        products="3",
        aliases=("uniform-sign-symmetric", "sign-symmetry"),
    ),
    Method(
        "brsf",
        BatchwiseRandomSignSymmetric,
        "the weights' signs, with magnitudes drawn anew in every step",
        "Liao et al. 2016; Moskovitz et al. 2018",
        weight_transport_free=False,
        backward_pass_free=False,
        probes=False,
        extra_state="none",
        products="3",
        aliases=("batchwise-random-sign-symmetric",),
    ),
    Method(
        "frsf",
        FixedRandomSignSymmetric,
        "the weights' signs, with fixed random magnitudes",
        "Liao et al. 2016; Moskovitz et al. 2018",
        weight_transport_free=False,
        backward_pass_free=False,
        probes=False,
        extra_state="n_l m_l",
        products="3",
        aliases=("fixed-random-sign-symmetric",),
    ),
)

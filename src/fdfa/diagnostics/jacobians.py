"""Exact derivatives of each sample's output by its activation at every tap."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fdfa.diagnostics.learner_copy import copy_alone, refuse_other
from fdfa.engine.estimator import Estimator
from fdfa.engine.feedback import in_bytes
from fdfa.engine.intercept import untouched_state
from fdfa.engine.lessons import as_matrix
from fdfa.engine.open_taps import OpenPass, open_pass
from fdfa.engine.tapped import TappedEstimator
from fdfa.engine.taps import TapPlan
from fdfa.errors import ConfigError

__all__ = ["OpenTaps", "OpenedLearner", "OwnBlocks", "jacobians", "open_learner"]

_AT_ONCE = 2**29  # bytes of derivatives that are held at a time
_RESULT_LIMIT = 4 * 2**30


def jacobians(
    learner: Estimator, inputs: Tensor | tuple[Any, ...], *, samples: int | None = None
) -> dict[str, Tensor]:
    """The Jacobians ``J_n = dy_n / dh_n`` of single samples, at every tap.

    Exact, by K backward passes through the whole network: what feedback maps are to learn on
    average. Where samples meet each other on their way (batch norm in training mode, attention
    between the positions of ``sample_dims=2``) it is the block of a sample's own output and own
    activation, the mean of a probe's ``d_n^T p_n``; K backward passes for every sample, the
    whole batch in each. The learner is left bit for bit as it was.

    Args:
        learner: an estimator with taps, in either mode.
        inputs: the batch; a tuple for a model with several arguments.
        samples: how many of the batch's samples, evenly spread; None for all.

    Returns:
        Name of each tap to its Jacobians (samples, K, |h_l|).

    Raises:
        ConfigError: if the learner has no taps, or the result would be too large.

    Example:
        >>> import fdfa
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        ... )
        >>> found = jacobians(fdfa.FDFA(model), torch.rand(5, 4))
        >>> found["1"].shape, bool((found["1"] == model[2].weight).all())
        (torch.Size([5, 3, 8]), True)
    """
    with open_learner(learner, inputs) as opened:
        if not opened.run.offsets:
            return {}
        measured = OpenTaps(opened.run, opened.sample_dims, samples)
        rows, K = len(measured.chosen), measured.y.shape[1]
        size = rows * K * sum(measured.units) * measured.y.element_size()
        if size > _RESULT_LIMIT:
            raise ConfigError(
                f"the Jacobians of {rows} samples would hold {in_bytes(size)}, over the limit of"
                f" {in_bytes(_RESULT_LIMIT)}. Pass a smaller samples=, or let credit_errors() work"
                " out what it needs of them piece by piece."
            )
        names = [tap.name for tap in opened.plan.taps]
        found = {
            name: measured.y.new_empty(rows, K, units)
            for name, units in zip(names, measured.units, strict=True)
        }
        for block in measured.own_blocks():
            found[names[block.tap]][block.rows] = block.own.movedim(0, 1)
    return found


@dataclasses.dataclass(frozen=True)
class OpenedLearner:
    """A copy of a learner, and a pass of its model that can be differentiated by its taps."""

    twin: TappedEstimator
    plan: TapPlan
    run: OpenPass

    @property
    def sample_dims(self) -> int:
        """Number of leading dimensions that count samples."""
        return self.twin.sample_dims


@contextlib.contextmanager
def open_learner(learner: Estimator, inputs: Tensor | tuple[Any, ...]) -> Iterator[OpenedLearner]:
    """One pass of a copy, in the modes and with the dropout masks that stand now.

    Args:
        learner: an estimator with taps.
        inputs: the batch; a tuple for a model with several arguments.

    Yields:
        The copy and its pass.

    Raises:
        ConfigError: if the learner has no taps.
    """
    refuse_other(learner)
    if not isinstance(learner, TappedEstimator):
        raise ConfigError(
            f"method '{learner.method}' cuts nowhere, and the Jacobians asked for are those at the"
            " taps. Wrap the model by a method with taps, such as fdfa.FDFA or fdfa.DFA."
        )
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    twin = copy_alone(learner)  # other processes are not making this pass
    with torch.enable_grad(), untouched_state(twin):
        plan = learner.known_plan(*args) or twin.plan(*args)
        run = open_pass(
            twin.model, plan, args, {}, output=twin.output, sample_dims=twin.sample_dims
        )
        yield OpenedLearner(twin, plan, run)


@dataclasses.dataclass(frozen=True)
class OwnBlocks:
    """The Jacobians of some samples at one tap.

    Attributes:
        tap: its number.
        rows: which of the chosen samples.
        own: (K, rows, |h|), the derivative of a sample's output by its own activation.
        reach: (K, K), summed over the rows: products of all that moves a sample's output at this
            tap, other samples' activations included.
    """

    tap: int
    rows: slice
    own: Tensor
    reach: Tensor


class OpenTaps:
    """Backward passes through one open pass, and what they say of single samples.

    Args:
        run: the pass.
        sample_dims: number of leading dimensions that count samples.
        samples: how many samples are looked at, evenly spread over the batch; None for all.
        at_once: bytes of derivatives to hold at a time; at least one sample's at one tap.

    Attributes:
        y: the outputs (N, K).
        units: |h_l| of each tap.
        chosen: indices of the samples looked at.
        coupled: whether a sample's output depends on other samples' activations.
    """

    def __init__(
        self, run: OpenPass, sample_dims: int, samples: int | None, at_once: int = _AT_ONCE
    ) -> None:
        self.y = as_matrix(run.output, sample_dims)
        self._offsets = run.offsets
        rows, self.outputs = self.y.shape
        self.units = [offset.numel() // rows for offset in run.offsets]
        count = rows if samples is None else min(samples, rows)
        self.chosen = (torch.arange(count) * rows // count).to(self.y.device)
        self._at_once = max(1, at_once // self.y.element_size())
        self._batched = True
        self.coupled = self._samples_meet()

    def credits(self, e: Tensor) -> list[Tensor]:
        """The exact credits of all samples, (N, |h_l|), by one backward pass.

        Args:
            e: the output error (N, K).

        Returns:
            One matrix a tap.
        """
        return [credit[0] for credit in self._products(e[None], self._offsets)]

    def own_blocks(self) -> Iterator[OwnBlocks]:
        """The exact own blocks of the chosen samples, in pieces that fit into memory."""
        if not self.coupled:
            yield from self._apart()
            return
        for taps in self._tap_groups(len(self.y)):
            for place, row in enumerate(self.chosen.tolist()):
                found = self._derivatives(taps, self.chosen[place : place + 1])
                for tap, whole in zip(taps, found, strict=True):
                    rows = slice(place, place + 1)
                    yield OwnBlocks(tap, rows, whole[:, row : row + 1], _products_of(whole))

    def drawn_blocks(self, generator: torch.Generator) -> Iterator[OwnBlocks]:
        """Random ones whose mean the own blocks are: each output counts with a random sign.

        K backward passes for all samples together, where :meth:`own_blocks` takes K for each.

        Args:
            generator: draws the signs, on a CPU.

        Yields:
            All chosen samples at a tap.
        """
        signs = torch.randint(2, (len(self.chosen),), generator=generator) * 2 - 1
        signs = signs.to(self.y)
        for taps in self._tap_groups(len(self.y)):
            found = self._derivatives(taps, self.chosen, signs)
            for tap, whole in zip(taps, found, strict=True):
                reach = _products_of(whole)
                own = whole if len(self.chosen) == len(self.y) else whole[:, self.chosen]
                rows = slice(0, len(self.chosen))
                yield OwnBlocks(tap, rows, own * signs[:, None], reach)

    def _apart(self) -> Iterator[OwnBlocks]:
        """Own blocks where samples do not meet: all rows come out of the same backward passes."""
        for taps in self._tap_groups(len(self.chosen)):
            size = self.outputs * sum(self.units[tap] for tap in taps)
            step = max(1, min(len(self.chosen), self._at_once // size))
            for start in range(0, len(self.chosen), step):
                rows = slice(start, min(start + step, len(self.chosen)))
                group = self.chosen[rows]
                kept = None if len(group) == len(self.y) else group
                found = self._derivatives(taps, group, kept=kept)
                for tap, own in zip(taps, found, strict=True):
                    yield OwnBlocks(tap, rows, own, _products_of(own))

    def _derivatives(
        self,
        taps: Sequence[int],
        group: Tensor,
        signs: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> list[Tensor]:
        """For each tap the derivatives (K, kept, |h|) of the sum of the group's outputs."""
        K, N = self.outputs, len(self.y)
        offsets = [self._offsets[tap] for tap in taps]
        step = max(1, min(K, self._at_once // (N * sum(self.units))))
        parts = []
        for start in range(0, K, step):
            ks = torch.arange(start, min(start + step, K), device=self.y.device)
            weights = self.y.new_zeros(len(ks), N, K)
            places = (ks - start)[:, None], group[None], ks[:, None]
            weights[places] = self.y.new_ones(len(group)) if signs is None else signs
            part = self._products(weights, offsets)
            parts.append(part if kept is None else [whole[:, kept] for whole in part])
        return (
            parts[0] if len(parts) == 1 else [torch.cat(each) for each in zip(*parts, strict=True)]
        )

    def _products(self, weights: Tensor, offsets: Sequence[Tensor]) -> list[Tensor]:
        """Derivatives of weighted sums of outputs: (c, N, K) gives (c, N, |h|) a tap."""
        c, N, _ = weights.shape
        if self._batched and c > 1:
            try:
                with (
                    warnings.catch_warnings()
                ):  # an operator without a batching rule is looped over
                    warnings.filterwarnings("ignore", "There is a performance drop")
                    found = torch.autograd.grad(
                        self.y, offsets, weights, retain_graph=True, is_grads_batched=True
                    )
                return [part.reshape(c, N, -1) for part in found]
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # an autograd function of the user's that vmap cannot enter
                self._batched = False
        each = [torch.autograd.grad(self.y, offsets, one, retain_graph=True) for one in weights]
        return [torch.stack(parts).reshape(c, N, -1) for parts in zip(*each, strict=True)]

    def _tap_groups(self, rows: int) -> Iterator[list[int]]:
        """Taps in order, as many together as so many rows of each fit into memory."""
        group: list[int] = []
        held = 0
        for tap, units in enumerate(self.units):
            size = self.outputs * rows * units
            if group and held + size > self._at_once:
                yield group
                group, held = [], 0
            group.append(tap)
            held += size
        yield group

    def _samples_meet(self) -> bool:
        """Whether samples meet: then flipped signs do more than flip the derivatives' signs."""
        generator = torch.Generator().manual_seed(0)
        N, K = self.y.shape
        # alike at all samples, so that what the others add does not cancel before the flip
        weights = torch.randn(1, K, generator=generator, dtype=torch.float64)
        weights = weights * (1 + torch.rand(N, 1, generator=generator, dtype=torch.float64))
        weights = weights.to(self.y)
        # half of each sign, in random places
        signs = (torch.randperm(N, generator=generator) % 2 * 2 - 1).to(self.y)[:, None]
        plain = self._products(weights[None], self._offsets)
        flipped = self._products((signs * weights)[None], self._offsets)
        return any(
            bool((signs * b[0] - a[0]).abs().max() > _rounding(self.y, a) * a.abs().max())
            for a, b in zip(plain, flipped, strict=True)
        )


def _rounding(*tensors: Tensor) -> float:
    """What rounding may come to between two passes, in shares of the largest number."""
    eps = max(torch.finfo(tensor.dtype).eps for tensor in tensors)
    return (100 if eps < 1e-4 else 8) * eps  # half precision has no room for a hundred


def _products_of(derivatives: Tensor) -> Tensor:
    """(K, K): every two output components' derivatives (K, ...), multiplied and summed."""
    flat = derivatives.flatten(1)
    return flat @ flat.T

"""Bias, variance and direction of a rule's gradients and credits, on a user's own model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from fdfa.diagnostics.gradient_moments import GradientMoments
from fdfa.diagnostics.learner_copy import refuse_other
from fdfa.diagnostics.quality import GradientQuality, QualityRecord
from fdfa.diagnostics.twins import Tensors, Twins
from fdfa.engine.estimator import Estimator
from fdfa.engine.lessons import as_matrix
from fdfa.engine.random_state import remember_random_state

__all__ = ["Diagnosis", "diagnose"]

Batch = tuple[Any, Any]


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """How near a rule's gradients come to the exact ones.

    Attributes:
        parameters: of each trainable parameter, by the model's own name.
        taps: of the credit at each tap, all samples as one vector, against the exact dL/dh. Empty
            for a method without taps; a tap whose block learns nothing gets no credit and is left
            out.
        whole: of all parameters as one vector.
        batches: that the figures are the mean of.
        left_out: batches that are not among them: their exact gradient, or every draw, held a NaN
            or an infinity.
        non_finite: draws that held one, and were left out.
        confidence: of all intervals.
    """

    parameters: Mapping[str, GradientQuality]
    taps: Mapping[str, GradientQuality]
    whole: GradientQuality | None
    batches: int
    left_out: int
    non_finite: int
    confidence: float


def diagnose(
    learner: Estimator,
    loss_function: Callable[[Any, Any], Tensor],
    batches: Iterable[Batch],
    *,
    draws: int = 32,
    confidence: float = 0.95,
    components: bool = False,
) -> Diagnosis:
    """Statistics of the gradients that a rule gives, against autograd's exact ones.

    What is diagnosed is the coming step of the learner as it stands: the same weights, feedback and
    step number, the modes in which its modules are, and one set of dropout masks a batch. Each draw
    is that step with other noise of the rule's own, at every batch anew, so spread and bias are the
    rule's, and not the data's. In layers that couple samples, as batch norm does in training, the
    exact gradient holds the terms across samples; a rule whose credits are sample by sample leaves
    them out, which shows as bias.

    The learner is left bit for bit as it was (weights, buffers, feedback, ``.grad``, random number
    generators): everything runs on copies. One process of several may call it alone. Cost: a copy
    of learner and model; for every batch one pass of backpropagation and ``draws`` steps of the
    rule, and for every draw some ten products of vectors as long as the parameters. Beside the
    exact gradient three such vectors are kept, whatever the number of draws, and four more with
    ``components``.

    Args:
        learner: an estimator of any method, in training mode.
        loss_function: (what the learner returns, targets) to a scalar.
        batches: pairs (inputs, targets); inputs a tensor, or a tuple for a model with several
            arguments.
        draws: of the rule's noise at every batch. From some thirty on the intervals hold what they
            say; one gives no spread, and needs no more for a rule that draws nothing.
        confidence: the share of the intervals that hold the true value.
        components: also bias and variance of every single component of every parameter.

    Returns:
        Figures for each parameter and tap, and for all parameters as one vector.

    Raises:
        ValueError: if the learner is in eval mode, where it is the plain model; if an option is out
            of range; if there is no batch.
        TypeError: if a batch is no pair, or the learner no estimator.

    Example:
        >>> import fdfa
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        ... )
        >>> batch = torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1])
        >>> learner = fdfa.ForwardGradient(model, seed=0)
        >>> found = diagnose(learner, torch.nn.functional.cross_entropy, [batch], draws=100)
        >>> probes = found.whole.effective_probes  # one, by its definition
        >>> found.whole.bias.low, probes.low < 1 < probes.high
        (0.0, True)
        >>> found = diagnose(fdfa.DFA(model), torch.nn.functional.cross_entropy, [batch])
        >>> (
        ...     found.whole.deterministic,
        ...     list(found.taps),
        ...     round(found.parameters["2.bias"].angle.value),
        ... )
        (True, ['1'], 0)
    """
    _check(learner, draws, confidence)
    back = remember_random_state()  # a data loader draws its order from them
    try:
        with torch.enable_grad():
            return _diagnosis(learner, loss_function, batches, draws, confidence, components)
    finally:
        back()


def _diagnosis(
    learner: Estimator,
    loss_function: Callable[[Any, Any], Tensor],
    batches: Iterable[Batch],
    draws: int,
    confidence: float,
    components: bool,
) -> Diagnosis:
    twins = Twins(learner, loss_function)
    of_parameters, of_taps = _Records(confidence), _Records(confidence)
    whole, left_out, non_finite, used = QualityRecord(confidence), 0, 0, 0
    for place, batch in enumerate(batches):
        args, targets = _arguments(place, batch)
        plan = twins.plan(args)
        exact, exact_credits = twins.exact(plan, args, targets)
        if not all(bool(torch.isfinite(g).all()) for g in exact.values()):
            left_out += 1
            continue
        gradients = GradientMoments(exact, components=components)
        credits: GradientMoments | None = None
        first = place * draws  # the same noise at two batches would err at both alike
        for number in range(first, first + draws):
            drawn, drawn_credits = twins.draw(number, args, targets)
            if credits is None:
                credits = GradientMoments({tap: exact_credits[tap] for tap in drawn_credits})
            if gradients.add(drawn):
                credits.add(drawn_credits)
        non_finite += gradients.non_finite
        if credits is None or not gradients.draws:
            left_out += 1
            continue
        used += 1
        square = sum(_square(g) for g in exact.values())
        size = sum(g.numel() for g in exact.values())
        whole.add(gradients.whole(), draws=gradients.draws, one_probe=(size + 1) * square)
        of_parameters.add(
            gradients,
            {name: g.numel() * square + _square(g) for name, g in exact.items()},
            components,
        )
        of_taps.add(credits, _of_one_probe(exact_credits, twins.sample_dims))
    if not used + left_out:
        raise ValueError(
            "batches= gave no batch: there is nothing to measure the gradients on. Pass a list of"
            " pairs (inputs, targets), and not an iterator that is used up."
        )
    return Diagnosis(
        parameters=of_parameters.qualities(),
        taps=of_taps.qualities(),
        whole=whole.quality() if used else None,
        batches=used,
        left_out=left_out,
        non_finite=non_finite,
        confidence=confidence,
    )


class _Records:
    """What is known of several tensors, by name."""

    def __init__(self, confidence: float) -> None:
        self._confidence = confidence
        self._records: dict[str, QualityRecord] = {}

    def add(
        self, moments: GradientMoments, one_probe: Mapping[str, float], components: bool = False
    ) -> None:
        for name in moments.names:
            record = self._records.setdefault(name, QualityRecord(self._confidence))
            record.add(
                moments.of(name),
                draws=moments.draws,
                one_probe=one_probe[name],
                components=moments.component_moments(name) if components else None,
            )

    def qualities(self) -> dict[str, GradientQuality]:
        return {name: record.quality() for name, record in self._records.items()}


def _of_one_probe(exact: Tensors, sample_dims: int) -> dict[str, float]:
    """For every tap the error of one activity-perturbed forward gradient: its variance."""
    # a sample's own |q|^2 over all taps; summed over samples, that over everything
    whole = sum(_square(q) for q in exact.values())
    return {
        tap: as_matrix(q, sample_dims).shape[1] * whole + _square(q) for tap, q in exact.items()
    }


def _square(g: Tensor) -> float:
    return g.double().square().sum().item()


def _arguments(number: int, batch: Any) -> tuple[tuple[Any, ...], Any]:
    pair = isinstance(batch, (tuple, list))
    if not pair or len(batch) != 2:
        seen = type(batch).__name__ + (f" of {len(batch)}" if pair else "")
        raise TypeError(
            f"batch {number} is a {seen}, not a pair (inputs, targets). Pass a list of such pairs;"
            " inputs that are several arguments of the model go in as one tuple."
        )
    inputs, targets = batch
    return (inputs if isinstance(inputs, tuple) else (inputs,)), targets


def _check(learner: Estimator, draws: int, confidence: float) -> None:
    refuse_other(learner)
    if not learner.training:
        raise ValueError(
            f"the learner of method '{learner.method}' is in eval mode, where it is the plain model"
            " and every gradient would be exact. Call learner.train() first."
        )
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise ValueError(f"draws={draws!r}: how often is the noise drawn? Pass a number from 1 up.")
    if not isinstance(confidence, float) or not 0 < confidence < 1:
        raise ValueError(
            f"confidence={confidence!r}: the share of intervals that hold the true value lies"
            " between 0 and 1. Pass 0.95, say."
        )

"""PseuZO: simultaneous perturbation whose answers of earlier steps meet the error of this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from fdfa.engine.answers import Answers
from fdfa.engine.directions import Directions, DrawnDirection, Recalled
from fdfa.engine.leaves import Leaf, origin
from fdfa.engine.weight_probe import WeightProbeEstimator
from fdfa.errors import ConfigError, unknown_name
from fdfa.methods.record import Method

__all__ = ["RECORDS", "PseudoZerothOrder"]

_NOISES = ("normal", "rademacher")


class PseudoZerothOrder(WeightProbeEstimator):
    """Pseudo-zeroth-order optimisation (Yue, Yang, Xiao & Lin 2025, OpenReview tM4cHBD7kD).

    Step t moves the weights by ``s z_t`` and keeps the output's answer
    ``d_t = (y_t(w + s z_t) - y_t(w)) / s``, (N, K): with z_t, which is drawn again from its number,
    a running estimate of the Jacobian that never takes its room. The gradient is

        ``sum over the last `window` steps j of  decay^(t - j) (e_t . d_j) z_j``,

    e_t the output error of this step. The sum is not normalised. Answers of earlier batches meet
    the error by position, component by component of the output; a batch of another shape leaves
    them out, and so does a step with other parameters that learn.

    With ``window=1`` this is one-sided simultaneous perturbation.

    Args:
        model: any module.
        output: which entry of the model's return value is the output (N, K, ...).
        window: how many steps count, this one among them, from 1 up.
        decay: in [0, 1]; or a function from the step's number to it.
        noise: ``"normal"`` or ``"rademacher"`` (a lower variance, cheaper to draw).
        difference_step: s; None takes 1e-3, or 1e-5 in float64.
        seed: of the perturbations; by default torch's seed.

    Raises:
        ConfigError: if an option is unknown or out of range.

    Example:
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ... )
        >>> learner = PseudoZerothOrder(model, window=3, decay=0.5)
        >>> for _ in range(5):
        ...     learner(torch.ones(6, 4)).sum().backward()
        >>> learner.answers.steps
        tensor([3, 4])
    """

    method = "pseudo-zeroth-order"
    one_sided = True

    def __init__(
        self,
        model: nn.Module,
        *,
        output: str | int | None = None,
        window: int = 14,
        decay: float | Callable[[int], float] = 0.5,
        noise: Literal["normal", "rademacher"] = "normal",
        difference_step: float | None = None,
        seed: int | None = None,
    ) -> None:
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise ConfigError(
                f"window={window!r}: how many steps count? Pass a whole number from 1 up."
            )
        if not callable(decay):
            _check(decay, "decay")
        if noise not in _NOISES:
            raise ConfigError(unknown_name("noise", str(noise), _NOISES))
        super().__init__(
            model,
            output=output,
            derivative="finite-difference",
            difference_step=difference_step,
            seed=seed,
        )
        self.window = window
        self.decay = decay
        self.noise = noise
        like = next(model.parameters())
        self.answers = Answers(most=window - 1, dtype=like.dtype, device=like.device)

    def directions(self, leaves: Sequence[Leaf], seeds: Sequence[int]) -> Directions:
        """One to be measured, and those of the window, all drawn again whenever asked for."""
        seed, step, process, *_ = seeds
        decay = self.decay
        if callable(decay):
            decay = _check(decay(step), f"decay({step})")
        recalled = []
        for earlier, derivative in self.answers.of_process(process, origin(leaves)):
            age = step - earlier
            weight = decay**age if 0 < age < self.window else 0.0
            if weight:
                drawn = DrawnDirection(self.noise, leaves, (seed, earlier, process))
                recalled.append(Recalled(drawn, derivative, weight))
        drawn = DrawnDirection(self.noise, leaves, seeds)
        return Directions([drawn], lambda slopes: slopes, recalled)

    def teach(self, derivatives: Sequence[Tensor], leaves: Sequence[Leaf], step: int) -> None:
        """Keep the answer of this step in the place of the oldest."""
        self.answers.keep(step, derivatives[0].flatten(1), origin(leaves))

    def state_conflicts(self, state: Mapping[str, Any]) -> list[str]:
        """Adds the answers to what must fit."""
        return super().state_conflicts(state) + self.answers.conflicts(_entries(state))

    def prepare_to_load(self, state: Mapping[str, Any]) -> None:
        """Make room for the answers that the state brings."""
        self.answers.adopt(_entries(state))


def _check(decay: Any, name: str) -> float:
    if not isinstance(decay, (int, float)) or not 0 <= decay <= 1:
        raise ConfigError(
            f"{name} is {decay!r}: what is left of an answer a step later lies in [0, 1]. Pass 0.5,"
            " say, or a function from the step's number to such a value."
        )
    return float(decay)


def _entries(state: Mapping[str, Any]) -> dict[str, Tensor]:
    prefix = "answers."
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


RECORDS = (
    Method(
        "pseudo-zeroth-order",
        PseudoZerothOrder,
        "one-sided differences whose answers of earlier steps meet the error of this one",
        "Yue, Yang, Xiao & Lin 2025, OpenReview tM4cHBD7kD",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=True,
        extra_state="window N K",
        products="2",
        aliases=("pseuzo",),
    ),
)

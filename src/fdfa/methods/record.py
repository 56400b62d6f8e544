"""What the registry knows of a method."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from fdfa.engine.estimator import Estimator

__all__ = ["Method"]


@dataclasses.dataclass(frozen=True)
class Method:
    """What there is to know of a method before using it.

    Attributes:
        name: for :func:`wrap` and the command line.
        estimator: the class.
        summary: one line.
        source: the paper.
        weight_transport_free: no feedback path reads a forward weight's transpose.
        backward_pass_free: no error travels backwards through the network.
        probes: it perturbs the forward pass.
        extra_state: numbers kept beside the weights, for each tap or layer l; K outputs, n_l units,
            m_l inputs, N samples.
        products: matrix products a layer and step, a forward pass counting one; s is the share of
            steps that probe, k the number of tangents.
        aliases: other names, as papers have them; they find the method too.
        forward_unlocked: a layer can learn before the forward pass has reached the output; here it
            learns with all others, when the loss has been computed.
        preset: options of the class that this name stands for, where they are not its defaults.
        rate_share: learning rate that suits it, as a share of backpropagation's.
    """

    name: str
    estimator: type[Estimator]
    summary: str
    source: str
    weight_transport_free: bool
    backward_pass_free: bool
    probes: bool
    extra_state: str
    products: str
    aliases: tuple[str, ...] = ()
    forward_unlocked: bool = False
    preset: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rate_share: float = 1.0

    def options(self) -> dict[str, Any]:
        """The keyword options of the estimator with their defaults."""
        parameters = inspect.signature(self.estimator).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        return {**defaults, **self.preset}

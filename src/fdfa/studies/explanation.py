"""The records of which an explanation of a learner consists."""

from __future__ import annotations

import dataclasses
from typing import Any

from fdfa.studies.json_values import plain
from fdfa.studies.products import Products

__all__ = ["BlockFacts", "Explanation", "Memory", "TapFacts"]


@dataclasses.dataclass(frozen=True)
class TapFacts:
    """One tap and its feedback map.

    Attributes:
        name: of the tap.
        module_type: class of the module at whose output or input it lies.
        shape: of the tapped tensor, samples included.
        units: components for one sample.
        feedback_shape: (outputs, units), where places share a map (outputs, entries); no outputs
            where the method has no map.
        feedback_bytes: size of the map.
    """

    name: str
    module_type: str
    shape: tuple[int, ...]
    units: int
    feedback_shape: tuple[int, int]
    feedback_bytes: int


@dataclasses.dataclass(frozen=True)
class BlockFacts:
    """What lies between two taps: autograd is exact within it.

    Attributes:
        ends_at: name of the tap behind it, or ``"output"``.
        weight_layers: names of its weight layers.
        parameters: how many numbers it learns.
    """

    ends_at: str
    weight_layers: tuple[str, ...]
    parameters: int


@dataclasses.dataclass(frozen=True)
class Memory:
    """Estimated bytes in training, without the optimiser's own state.

    Attributes:
        parameters: weights and buffers of the network.
        gradients: of the trainable parameters.
        activations: what autograd keeps for the backward pass, measured on the example.
        feedback: all maps.
        probe: perturbations, and the tangents in flight, on a step that probes.
    """

    parameters: int
    gradients: int
    activations: int
    feedback: int
    probe: int

    @property
    def total(self) -> int:
        """All of them together."""
        return self.parameters + self.gradients + self.activations + self.feedback + self.probe


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What a method makes of a network for inputs like the example.

    Attributes:
        method: its name.
        samples: in the example.
        output_shape: of the network's output.
        taps: in the order of the forward pass.
        blocks: one more than taps.
        products: multiply-adds of one step.
        memory: in training.
        probe_every: one step in this many probes; None if none does.
        obstacles: why a probe fails; empty if it goes through.
        counted: whether ``products`` and ``memory`` are the method's own. Those of a rule without
            taps are backpropagation's.
    """

    method: str
    samples: int
    output_shape: tuple[int, ...]
    taps: tuple[TapFacts, ...]
    blocks: tuple[BlockFacts, ...]
    products: Products
    memory: Memory
    probe_every: int | None
    obstacles: tuple[str, ...]
    counted: bool = True

    def report(self) -> dict[str, Any]:
        """Everything, with the sums, for JSON.

        Returns:
            Plain values that JSON can hold.
        """
        content: dict[str, Any] = plain(self)
        content["products"] |= {"step": self.products.step, "ratio": self.products.ratio}
        content["memory"]["total"] = self.memory.total
        return content

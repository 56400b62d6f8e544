"""PEPITA: a second forward pass, on an input that the error has moved."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fdfa.engine.credit import seal
from fdfa.engine.distributed import agreed
from fdfa.engine.estimator import Estimator
from fdfa.engine.feedback import FeedbackMaps, feedback_entries
from fdfa.engine.layer_calls import Layers
from fdfa.engine.layer_passes import KeepingPass
from fdfa.engine.layer_search import find_layers
from fdfa.engine.modulation import FirstPass, Modulated
from fdfa.engine.outputs import map_tensors, output_tensor
from fdfa.engine.probes import generator_for
from fdfa.engine.repetition import Repetition
from fdfa.engine.structure import fingerprint, refuse_compiled, signature
from fdfa.errors import ConfigError, ProbeError, UnsupportedModelError
from fdfa.methods.record import Method

__all__ = [
    "PEPITA",
    "RECORDS",
]

_KINDS_KEPT = 256


class PEPITA(Estimator):
    """Learning by a second pass on a modulated input (Dellaferrera & Kreiman 2022).

    "Error-driven input modulation", ICML 2022. The first pass gives activations h_l and the output
    error e of each sample's own loss. The second runs on ``x' = x + e F^T``, F (m, K) fixed, with
    the same dropout masks, and gives h'_l. A hidden layer's weight gets ``(h_l - h'_l)^T h'_{l-1} /
    N``, where h'_0 is x'; the last layer ``(de/dy at y')^T h'_{L-1} / N``: its exact gradient in
    the second pass. No error travels backwards.

    A layer is any call of a product with a parameter (linear, convolution, ``x @ W``), of a
    normalisation, or what else scales or shifts units, wherever the model writes it. It learns by
    its own derivative, with ``h_l - h'_l`` on its output: biases and scales too, and a mean over
    positions (of a convolution, of a sequence) in place of a sum. h_l is the first activation
    behind the layer, as long as the shape stays; a layer without one takes its own output. Layers
    from which the output is reached through no other product are last.

    The loss must come from :meth:`criterion`, computed from the learner's own output: it is called
    again with the second pass's. A loss that is one number is taken for the mean over the N
    samples.

    Args:
        model: any module with one floating-point input (N, ...).
        output: which entry of the model's return value is the output (N, K, ...).
        projection_scale: F is drawn from U(+-s sqrt(6 / m)); this is s.
        seed: draws F; by default torch's seed.

    Attributes:
        feedback: F^T (K, m), made on the first forward pass, as a map named ``"input"``.

    Raises:
        ConfigError: if an option is out of range.

    Example:
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ... )
        >>> learner = PEPITA(model)
        >>> criterion = learner.criterion(torch.nn.functional.cross_entropy)
        >>> criterion(learner(torch.ones(3, 4)), torch.tensor([0, 1, 1])).backward()
        >>> model[0].weight.grad.shape
        torch.Size([8, 4])
    """

    method = "pepita"
    needs_targets = True

    def __init__(
        self,
        model: nn.Module,
        *,
        output: str | int | None = None,
        projection_scale: float = 0.05,
        seed: int | None = None,
    ) -> None:
        super().__init__(model, output=output, seed=seed)
        if not (isinstance(projection_scale, (int, float)) and 0 <= projection_scale < math.inf):
            raise ConfigError(
                f"projection_scale={projection_scale!r}: the error's projection has a finite size."
                " Pass 0.05, say."
            )
        refuse_compiled(model)
        self.projection_scale = projection_scale
        self.feedback = FeedbackMaps(start="kaiming-uniform", size_limit=2**62)
        self._kinds: dict[Any, Layers] = {}
        self._seed_agreed = False

    def learning_forward(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The first pass; it keeps the layers' activations, and no graph.

        Args:
            args: positional arguments of the model.
            kwargs: keyword arguments of the model.

        Returns:
            What the model returns, its output joined to the weights.
        """
        x = _input(args, kwargs)
        layers = self._layers(args, kwargs, x)
        self.take_step()
        leaves: dict[str, Tensor] = {
            name: p for name, p in self.model.named_parameters() if name in layers.learning
        }
        if x.requires_grad:
            leaves[""] = x
        if not leaves:
            return self.model(*args, **kwargs)
        args, kwargs = map_tensors((args, dict(kwargs)), Tensor.detach)
        source, repetition = _input(args, kwargs), Repetition(self.model, args, kwargs)
        with KeepingPass(self.model, layers) as keeping:
            returned = self.model(*args, **kwargs)
        found = self._output_of(returned)
        first = FirstPass(
            model=self.model,
            method=self.method,
            find_output=self._output_of,
            project=self.feedback["input"].forward,
            layers=layers,
            repetition=repetition,
            source=source,
            kept=None if torch.is_autocast_enabled(x.device.type) else keeping.kept,
            leaves=tuple(leaves),
        )
        y: Tensor = Modulated.apply(first, found, *leaves.values())  # type: ignore[no-untyped-call]

        def joined_or_sealed(tensor: Tensor) -> Tensor:
            if tensor is found:
                return y
            return seal(tensor, y) if tensor.is_floating_point() else tensor

        return map_tensors(returned, joined_or_sealed)

    def _layers(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], x: Tensor) -> Layers:
        """The layers for inputs like these, from memory where they were met before."""
        key = (signature(args), signature(kwargs), fingerprint(self.model))
        if key not in self._kinds:
            refuse_compiled(self.model)
            if any(p.is_floating_point() and p.dtype.itemsize < 4 for p in self.model.parameters()):
                raise ProbeError(
                    "pepita needs float32 or wider, and the model is narrower: it would learn from"
                    " differences of rounding errors. Keep the model in float32 under autocast."
                )
            if len(self._kinds) >= _KINDS_KEPT:
                self._kinds.clear()
            layers = find_layers(self.model, args, kwargs, output=self.output)
            self._make_map(math.prod(layers.output_shape[1:]), math.prod(x.shape[1:]), x)
            self._kinds[key] = layers
        return self._kinds[key]

    def _output_of(self, returned: Any) -> Tensor:
        return output_tensor(returned, name=self.output, sample_dims=1)

    def _make_map(self, outputs: int, units: int, x: Tensor) -> None:
        # once: a later structure may be met by one process alone
        if not self._seed_agreed and not self.alone:
            self.seed, self._seed_agreed = agreed(self.seed, x.device), True
        if "input" in self.feedback:
            known = tuple(self.feedback["input"].weight.shape)
            if known != (outputs, units):
                raise UnsupportedModelError(
                    f"an input has {units} components and the output {outputs}, but the input's"
                    f" feedback map was made for {known[1]} and {known[0]}: it is tied to one size."
                    " Bring all inputs to one shape."
                )
            return
        like = torch.empty(0, dtype=next(self.model.parameters()).dtype, device=x.device)
        generator = generator_for(x.device, self.seed, zlib.crc32(b"input"))
        self.feedback.ensure("input", outputs=outputs, units=units, like=like, generator=generator)
        self.feedback["input"].weight.mul_(self.projection_scale)

    def state_conflicts(self, state: Mapping[str, Any]) -> list[str]:
        """Adds the projection to what must fit."""
        return super().state_conflicts(state) + self.feedback.conflicts(feedback_entries(state))

    def prepare_to_load(self, state: Mapping[str, Any]) -> None:
        """Make room for the projection, if the state brings one."""
        self.feedback.adopt(feedback_entries(state), next(self.model.parameters()))
        self._kinds.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kinds": {}}


def _input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The one tensor that the error may move."""
    found: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point() and tensor.dim():
            found[id(tensor)] = tensor
        return tensor

    map_tensors((args, dict(kwargs)), note)
    if len(found) != 1:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in found.values()) or "none"
        raise UnsupportedModelError(
            "pepita moves the model's input by the error, so the model takes one floating-point"
            f" tensor (N, ...); here it got {shapes}. Wrap the part behind an embedding, or let a"
            " module hold the other tensors."
        )
    return next(iter(found.values()))


RECORDS = (
    Method(
        "pepita",
        PEPITA,
        "a second forward pass, on an input that the error has moved, in place of a backward pass",
        "Dellaferrera & Kreiman 2022",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=False,
        extra_state="K m_1 once",
        products="3",
        aliases=("error-driven-input-modulation",),
    ),
)

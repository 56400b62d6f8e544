"""How well a network does on some examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdfa.engine.outputs import output_tensor
from fdfa.training.modes import eval_mode

__all__ = ["ExampleSource", "LossFunction", "Score", "device_of", "evaluate", "output_of"]

LossFunction = Callable[[Any, Tensor], Tensor]


class ExampleSource(Protocol):
    """Anything that gives batches by index, such as ``fdfa.data.Examples``."""

    def __len__(self) -> int:
        """How many examples there are."""

    def batches(
        self, indices: Sequence[Tensor], *, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batch after batch.

        Args:
            indices: of the examples in each batch, int64 on the CPU.
            generator: the only source of random changes to the inputs.

        Returns:
            Inputs (n, ...) and labels (n,) of each.
        """


@dataclasses.dataclass(frozen=True)
class Score:
    """How well a network does on some examples.

    Attributes:
        accuracy: share of examples whose largest output is the label's, 0 to 1.
        loss: mean over the examples.
    """

    accuracy: float
    loss: float


def evaluate(
    model: nn.Module,
    examples: ExampleSource,
    *,
    batch_size: int = 1024,
    loss_function: LossFunction = F.cross_entropy,
) -> Score:
    """Measure accuracy and mean loss in eval mode; every module's mode is as before afterwards.

    Args:
        model: a learner or a plain module.
        examples: to measure on.
        batch_size: examples in one forward pass; without influence on the result but for rounding.
            A training takes four times its own: without gradients no activations are kept.
        loss_function: (what the model returns, labels) to the mean loss of a batch.

    Returns:
        The score.

    Raises:
        ValueError: if there are no examples.

    Example:
        >>> from fdfa.data import Examples
        >>> examples = Examples(torch.eye(2), torch.tensor([0, 0]))
        >>> evaluate(torch.nn.Identity(), examples).accuracy
        0.5
    """
    if not len(examples):
        raise ValueError("there are no examples to evaluate on: give at least one.")
    device = device_of(model)
    order = torch.split(torch.arange(len(examples)), batch_size)
    loss, correct = 0.0, 0
    with torch.no_grad(), eval_mode(model):
        for inputs, labels in examples.batches(order):
            targets = labels.to(device)
            returned = model(inputs.to(device))
            loss += loss_function(returned, targets).item() * len(labels)
            correct += int((output_of(model, returned).argmax(dim=1) == targets).sum())
    return Score(accuracy=correct / len(examples), loss=loss / len(examples))


def output_of(model: nn.Module, returned: Any) -> Tensor:
    """The outputs (N, K) within what a model returned: the entry that its learner names.

    Args:
        model: a learner or a plain module.
        returned: by it.

    Returns:
        The outputs.

    Example:
        >>> output_of(torch.nn.Identity(), torch.zeros(2, 3)).shape
        torch.Size([2, 3])
    """
    if isinstance(returned, Tensor):
        return returned
    return output_tensor(returned, name=getattr(model, "output", None), sample_dims=1)


def device_of(model: nn.Module) -> torch.device:
    """Where a model computes: where its first parameter lies, or on the CPU if it has none.

    Args:
        model: a learner or a plain module.

    Returns:
        The device.

    Example:
        >>> device_of(torch.nn.Identity())
        device(type='cpu')
    """
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device

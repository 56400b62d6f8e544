"""A step without an optimiser; and one of a copy, in which whatever cannot be trained fails."""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn import functional as F

from fdfa.data.dataset import Dataset
from fdfa.diagnostics import Watch
from fdfa.engine.estimator import Estimator
from fdfa.engine.random_state import random_state_of
from fdfa.errors import ConfigError, FDFAError, briefly
from fdfa.studies.setup import TrainConfig
from fdfa.training import LossFunction, Processes, start_training
from fdfa.training.batching import check_batch_size, check_examples

__all__ = ["gradient_step", "rehearse"]


def gradient_step(
    learner: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    loss_function: LossFunction = F.cross_entropy,
) -> None:
    """Forward and backward pass of one batch, as a training makes them.

    Args:
        learner: in training mode, or a plain module; its gradients become those of the batch.
        inputs: of the batch.
        labels: of the batch.
        loss_function: (outputs, labels) to the mean loss of a batch.
    """
    criterion = loss_function
    if isinstance(learner, Estimator):
        criterion = learner.criterion(criterion)
    for parameter in learner.parameters():
        parameter.grad = None
    criterion(learner(inputs), labels).backward()  # type: ignore[no-untyped-call]


def rehearse(config: TrainConfig, learner: Estimator, data: Dataset) -> None:
    """One step of a copy: what cannot be trained as asked fails here, before anything is written.

    Args:
        config: of the run.
        learner: stays as it is.
        data: what is to be learned.

    Raises:
        ConfigError: if a step cannot be made.
        FDFAError: whatever else stands in the way.
    """
    settings, processes = config.training, Processes.present()
    check_batch_size(settings, processes)
    check_examples(settings, processes, data.train, data.validation)
    # Batch norm refuses a part of one example.
    part = min(2, settings.batch_size // (settings.accumulate * processes.count), len(data.train))
    with random_state_of(0):
        try:
            twin = copy.deepcopy(learner)
            twin.alone = processes.count > 1  # the others have rehearsals of their own
            start_training(twin)
            device = next(learner.parameters()).device
            inputs, labels = (tensor.to(device) for tensor in data.train.first(part))
            gradient_step(twin, inputs, labels, settings.loss_function)
            if config.records.diagnose is not None:
                Watch(twin, settings.loss_function, inputs, labels).observe()
        except FDFAError:
            raise
        except Exception as error:
            few = " Give each part at least 2 examples (batch_size, accumulate)." * (part == 1)
            raise ConfigError(
                f"model {config.task.model!r} cannot make a step of method {config.method!r} on "
                f"{part} example{'' if part == 1 else 's'} of data set {config.task.data!r} "
                f"({briefly(error, named=True)}).{few} Call the model on such a batch in training "
                "mode to see where (--debug shows the traceback)."
            ) from error

"""One step of a copy: what cannot be trained as asked fails before anything is written."""

from __future__ import annotations

import copy

from torch.nn import functional as F

from fdfa.data.dataset import Dataset
from fdfa.engine.estimator import Estimator
from fdfa.engine.random_state import random_state_of
from fdfa.errors import ConfigError, FDFAError, briefly
from fdfa.studies.setup import TrainConfig
from fdfa.training import Processes, start_training
from fdfa.training.batching import check_batch_size, check_examples

__all__ = ["rehearse"]


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
            twin.alone = True  # other processes have rehearsals of their own
            start_training(twin)
            device = next(learner.parameters()).device
            inputs, labels = (tensor.to(device) for tensor in data.train.first(part))
            twin.criterion(F.cross_entropy)(twin(inputs), labels).backward()  # type: ignore[no-untyped-call]
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

"""What is found of the methods of a comparison before its first run: who serves, at what cost."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping

from torch import nn

from fdfa.data.dataset import Dataset
from fdfa.engine.estimator import Estimator
from fdfa.engine.random_state import random_state_of
from fdfa.errors import FDFAError
from fdfa.methods import wrap
from fdfa.studies.learners import make_learner
from fdfa.studies.memory import StepMemory, step_memory
from fdfa.studies.options import seeded
from fdfa.studies.preparation import Prepared
from fdfa.studies.setup import CompareConfig, TrainConfig
from fdfa.studies.speed import StepTime, step_times
from fdfa.studies.trial_step import rehearse

__all__ = ["Costs", "fresh_learner", "measured_costs", "serving"]

_REFERENCE = "backpropagation"


@dataclasses.dataclass(frozen=True)
class Costs:
    """What was found before the first run; ``costs.json`` holds it.

    Attributes:
        times: of a step, by method.
        memory: of a step, by method; None on a device that does not count.
        left_out: methods that are not defined for the network, and why.
    """

    times: Mapping[str, StepTime]
    memory: Mapping[str, StepMemory | None]
    left_out: Mapping[str, str]


def fresh_learner(config: TrainConfig, network: nn.Module, data: Dataset) -> Estimator:
    """A method around a copy of a network.

    Args:
        config: of a run.
        network: stays as it is.
        data: what is to be learned.

    Returns:
        The learner, with the run's seed.
    """
    options = seeded(config.options, config.seed)
    return make_learner(config.method, copy.deepcopy(network), data, options)


def serving(
    config: CompareConfig, network: nn.Module, data: Dataset
) -> tuple[CompareConfig, dict[str, str]]:
    """Let every method take a step on a copy of the network.

    Args:
        config: of the comparison.
        network: with the weights of the first seed.
        data: what is to be learned.

    Returns:
        The comparison of those methods that can, by name; and why the others cannot, which only
        ``methods=("all",)`` leaves out.

    Raises:
        FDFAError: why a method that was asked for by name cannot, or backpropagation.
    """
    left_out: dict[str, str] = {}
    for method in config.candidates:
        single = config.run_of(method, config.first_seed)
        try:
            rehearse(single, fresh_learner(single, network, data), data)
        except FDFAError as error:
            # What stops backpropagation is not the method's fault.
            if method == _REFERENCE or not config.asks_for_all:
                raise
            left_out[method] = str(error)
    remaining = tuple(method for method in config.candidates if method not in left_out)
    return config.among(remaining), left_out


def measured_costs(config: CompareConfig, start: Prepared, left_out: Mapping[str, str]) -> Costs:
    """Time and memory of a step of each method, beside backpropagation's.

    Args:
        config: of the comparison.
        start: data, network and machine.
        left_out: methods that take no part, and why.

    Returns:
        All that is to be known before the first run.
    """
    batch = start.data.train.first(config.training.batch_size)
    inputs, labels = (tensor.to(start.device) for tensor in batch)
    contestants = {_REFERENCE: wrap(_REFERENCE, copy.deepcopy(start.network))}
    for method in config.methods:
        single = config.run_of(method, config.first_seed)
        contestants[method] = fresh_learner(single, start.network, start.data)
    with random_state_of(config.first_seed):
        memory = step_memory(contestants, inputs, labels, reference=_REFERENCE)
        times = step_times(
            contestants, inputs, labels, reference=_REFERENCE, rounds=config.timing_rounds
        )
    return Costs(times, memory, left_out)

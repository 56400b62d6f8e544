"""What a step of each rule costs, and how far an error travels backwards in it."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor

from fdfa.engine.estimator import Estimator
from fdfa.engine.random_state import random_state_of
from fdfa.engine.relay_routes import BackwardPath, longest_backward_path
from fdfa.engine.tapped import TappedEstimator
from fdfa.engine.taps import plan_taps
from fdfa.methods import described, wrap
from fdfa.studies.costs import fresh_learner
from fdfa.studies.json_values import plain
from fdfa.studies.preparation import Prepared
from fdfa.studies.records import value_from_json
from fdfa.studies.reproduce.declaration import TrainingTable
from fdfa.studies.reproduce.findings import Grid
from fdfa.studies.reproduce.planned_runs import PlannedRun
from fdfa.studies.reproduce.starts import starts_by_column
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.speed import step_times
from fdfa.studies.tables import duration

__all__ = [
    "Costs",
    "StepCosts",
    "backward_path",
    "costs_grids",
    "kept_step_costs",
    "measured_step_costs",
]

_REFERENCE = "backpropagation"
_UNCUT = 10**6  # blocks that are joined into one: all of them


@dataclasses.dataclass(frozen=True)
class StepCosts:
    """Of a rule on a task.

    Attributes:
        seconds: of a forward and backward pass, median over the rounds.
        ratio: to backpropagation's in the same round, median.
        rounds: how many there were.
        weight_layers: on the longest way that an error travels backwards.
        blocks: that these lie in.
        setup: checksum of method, options, task, batch size and loss that were measured.
    """

    seconds: float
    ratio: float
    rounds: int
    weight_layers: int
    blocks: int
    setup: str = ""


# by task and rule
Costs = Mapping[str, Mapping[str, StepCosts]]


def backward_path(learner: Estimator, inputs: Tensor) -> BackwardPath:
    """The longest way that an error travels backwards in a learner.

    Args:
        learner: of any method.
        inputs: of a batch.

    Returns:
        Weight layers and blocks; none where no error travels, as in forward gradients of weights.

    Example:
        >>> layers = [torch.nn.Linear(3, 3), torch.nn.ReLU()] * 3
        >>> for method in ("backpropagation", "fdfa", "fg-w"):
        ...     learner = fdfa.wrap(method, torch.nn.Sequential(*layers))
        ...     backward_path(learner, torch.ones(2, 3)).weight_layers
        3
        1
        0
    """
    if isinstance(learner, TappedEstimator):
        return longest_backward_path(learner.plan(inputs), relay=getattr(learner, "relay", 0))
    if described(learner.method).backward_pass_free:
        return BackwardPath(0, 0)
    whole = plan_taps(learner.model, (inputs,), {}, depth=_UNCUT, output=learner.output)
    return longest_backward_path(whole)


def measured_step_costs(
    runs: Sequence[tuple[PlannedRun, Prepared]], *, rounds: int
) -> dict[str, StepCosts]:
    """All rules of a task, turn by turn in this process, on the same batch.

    Args:
        runs: one of each rule, with its data and network.
        rounds: at least so many.

    Returns:
        Costs by the rule's name; of backpropagation, too, where it takes no part.
    """
    first, start = runs[0]
    examples = start.data.train.first(first.config.training.batch_size)
    inputs, labels = (tensor.to(start.device) for tensor in examples)
    learners = {run.row.name: fresh_learner(run.config, own.network, own.data) for run, own in runs}
    named = [run.row.name for run, _ in runs if run.config.method == _REFERENCE]
    reference = named[0] if named else _REFERENCE
    if not named:
        learners[reference] = wrap(_REFERENCE, copy.deepcopy(start.network))
    with random_state_of(first.config.seed):
        times = step_times(learners, inputs, labels, reference=reference, rounds=rounds)
        paths = {name: backward_path(learner, inputs) for name, learner in learners.items()}
    setups = {run.row.name: _setup(run) for run, _ in runs}
    return {
        name: StepCosts(time.seconds, time.ratio, time.rounds, *paths[name], setups.get(name, ""))
        for name, time in times.items()
    }


def _setup(run: PlannedRun) -> str:
    """Two runs with the same have steps that cost the same."""
    config = run.config
    task = dataclasses.replace(config.task, data_dir=None)
    parts = [config.method, config.options, task, config.training.batch_size, config.training.loss]
    return hashlib.sha256(json.dumps(plain(parts), sort_keys=True).encode()).hexdigest()[:12]


def kept_step_costs(
    table: TrainingTable, runs: Sequence[PlannedRun], folder: RunFolder, told: Callable[[str], None]
) -> Costs:
    """Costs of every planned rule on its tasks: measured once, read by who goes on.

    What was measured of a rule that has changed since then is measured again.

    Args:
        table: says whether they are asked for.
        runs: that are planned.
        folder: keeps them in ``units.json``.
        told: is called with a line about each task that is measured.

    Returns:
        By task and rule; none if they are not asked for.
    """
    if table.costs is None:
        return {}
    costs: dict[str, dict[str, StepCosts]] = value_from_json(
        dict[str, dict[str, StepCosts]],
        folder.read_json("units.json") or {},
        where=str(folder.path / "units.json"),
    )
    cells = {(run.column.name, run.row.name): run for run in runs}

    def known(task: str) -> dict[str, StepCosts]:
        kept = costs.get(task, {})
        mine = {rule: run for (column, rule), run in cells.items() if column == task}
        return {
            rule: kept[rule]
            for rule, run in mine.items()
            if rule in kept and kept[rule].setup == _setup(run)
        }

    missing = {task for task, rule in cells if rule not in known(task)}
    todo = [run for (task, _), run in cells.items() if task in missing]
    for column in starts_by_column(todo):
        told(f"{column[0][0].column.label}: measuring the time of a step")
        found = measured_step_costs(column, rounds=table.costs.rounds)
        costs[column[0][0].column.name] = found
        folder.write_json("units.json", costs)
    return {task: known(task) for task in dict.fromkeys(task for task, _ in cells)}


def costs_grids(table: TrainingTable, costs: Costs) -> Iterator[Grid]:
    """What a step of each rule costs.

    Args:
        table: as declared.
        costs: by task and rule.

    Yields:
        A table for each task, with a row a rule.
    """
    heads = ("", "step", "x backpropagation", "layers of the longest backward path")
    for column in table.task:
        mine = costs.get(column.name, {})
        rows = [
            (row.label, duration(cost.seconds), f"{cost.ratio:.2f}", str(cost.weight_layers))
            for row in table.rule
            if (cost := mine.get(row.name)) is not None
        ]
        if rows:
            yield Grid(f"{column.label}: a forward and backward pass", heads, rows)

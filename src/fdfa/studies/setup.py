"""What all runs of a study have in common: the task, the training, the machine, the records."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from fdfa.errors import ConfigError, unknown_name
from fdfa.methods import canonical, methods
from fdfa.studies.options import assignments, by_first_name
from fdfa.studies.task import Task
from fdfa.studies.typed_options import typed_options
from fdfa.studies.whole_numbers import MOST_SEED, check_whole
from fdfa.training import TrainingSettings

__all__ = [
    "Diagnose",
    "Machine",
    "Records",
    "Setup",
    "TrainConfig",
]

_MOST_THREADS = 1024  # far more than that, and OpenMP ends the process
_ALL = "all"
_SINKS = ("tensorboard", "wandb")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """What a study computes on.

    Attributes:
        threads: CPU threads; default: 1 for a network of under a million parameters, where more
            would only wait for each other, else torch's own choice.
        device: cpu, cuda, cuda:1, mps, or auto for the best that is there.

    Raises:
        ConfigError: if the number of threads is out of range.

    Example:
        >>> Machine(threads=2).device
        'auto'
    """

    threads: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        """Check the number of threads; the device is looked for when it is needed."""
        check_whole("threads", self.threads, least=1, most=_MOST_THREADS, optional=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnose:
    """How often a run is diagnosed while it trains, and on how much.

    Attributes:
        every: optimiser steps from one diagnosis to the next.
        examples: in the batch, which stays the same: of the validation examples, or of the training
            examples where there are none; all of them where there are not so many.
        taps_every: one diagnosis of so many, the first among them, also measures the feedback maps
            and what the error of the credit at each tap is made of.

    Raises:
        ConfigError: if a value is out of range.

    Example:
        >>> Diagnose(every=50)
        Diagnose(every=50, examples=64, taps_every=8)
    """

    every: int = 100
    examples: int = 64
    taps_every: int = 8

    def __post_init__(self) -> None:
        """Check them; batch norm refuses a batch of one."""
        check_whole("diagnose: every", self.every, least=1)
        check_whole("diagnose: taps_every", self.taps_every, least=1)
        check_whole("diagnose: examples", self.examples, least=2)

    @classmethod
    def from_words(cls, words: Sequence[str]) -> Self | None:
        """What was typed behind ``--diagnose``.

        Args:
            words: NAME=VALUE each; none at all for the defaults.

        Returns:
            The settings; None for the one word none.

        Raises:
            ConfigError: if a word is not of that form, or a value out of range.

        Example:
            >>> Diagnose.from_words(["every=50"])
            Diagnose(every=50, examples=64, taps_every=8)
        """
        if list(words) == ["none"]:
            return None
        valid = [field.name for field in dataclasses.fields(cls)]
        return cls(**typed_options(assignments(words), cls, valid=valid, owner="diagnose"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records:
    """What is written down while a run goes on, in a study with a folder.

    Attributes:
        checkpoint_seconds: time between checkpoints; one is also written at the end and at Ctrl-C.
        checkpoint_steps: also write one after every so many steps.
        log: also send the numbers to tensorboard or wandb.
        log_steps: a line of steps.jsonl (and a number for each of these) after so many steps.
        diagnose: write lines of diagnosis.jsonl: angles to the true gradient and errors of the
            feedback, as in every=100 examples=64 taps_every=8 (steps between two diagnoses,
            examples in each, diagnoses between two that also measure the feedback).

    Raises:
        ConfigError: if a value is out of range.

    Example:
        >>> Records(log=("tensorboard",)).checkpoint_seconds
        60.0
    """

    checkpoint_seconds: float = 60.0
    checkpoint_steps: int | None = None
    log: tuple[Literal["tensorboard", "wandb"], ...] = ()
    log_steps: int | None = None
    diagnose: Diagnose | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        for name in ("log_steps", "checkpoint_steps"):
            check_whole(name, getattr(self, name), least=1, optional=True)
        if not 0 < self.checkpoint_seconds < math.inf:
            raise ConfigError(
                f"checkpoint_seconds={self.checkpoint_seconds!r} is not possible. Give a positive "
                "number."
            )
        for sink in self.log:
            if sink not in _SINKS:
                raise ConfigError(unknown_name("log", str(sink), _SINKS))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """What all runs of a study have in common.

    Attributes:
        task: what is learned, and by which network.
        training: how it is trained.
        records: what is written down meanwhile.
        machine: what it is computed on.

    Example:
        >>> Setup().task.data
        'digits'
    """

    task: Task = dataclasses.field(default_factory=Task)
    training: TrainingSettings = dataclasses.field(default_factory=TrainingSettings)
    records: Records = dataclasses.field(default_factory=Records)
    machine: Machine = dataclasses.field(default_factory=Machine)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(Setup):
    """What is trained, and how.

    Attributes:
        method: name of the method, as `fdfa methods` lists it.
        options: of the method, as in feedback_rate=0.05 probe_every=4.
        seed: of the weights, the order of the examples and the method's own random numbers.

    Raises:
        ConfigError: if a value is out of range.

    Example:
        >>> TrainConfig(method="fdfa", options={"feedback_rate": 0.05}).seed
        0
    """

    method: str = "fdfa"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every value; a method goes by its first name."""
        object.__setattr__(self, "method", canonical(self.method))
        check_whole("seed", self.seed, least=0, most=MOST_SEED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareConfig(Setup):
    """Which methods are compared, and on what.

    Attributes:
        methods: names of the methods, as `fdfa methods` lists them; or all: every one that is
            defined for the network.
        options: of the methods, as in fdfa.feedback_rate=0.05 fdfa.probe_every=4.
        rate_shares: learning rates of methods as shares of --learning-rate, as in spsa=0.1;
            default: as `fdfa methods --json` says, 1 for most.
        seeds: runs of each method; run s starts every method from the same weights.
        first_seed: seed of the first run.
        timing_rounds: rounds, at least, in which the time of a step is measured; 10 or more.

    Raises:
        ConfigError: if a value is out of range, or a method is named twice.

    Example:
        >>> CompareConfig(methods=("backpropagation", "fdfa"), seeds=1).task.data
        'digits'
    """

    methods: tuple[str, ...] = ("backpropagation", "dfa", "fdfa")
    options: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    rate_shares: Mapping[str, float] = dataclasses.field(default_factory=dict)
    seeds: int = 3
    first_seed: int = 0
    timing_rounds: int = 20

    def __post_init__(self) -> None:
        """Check every value; methods go by their first names."""
        object.__setattr__(self, "methods", tuple(canonical(name) for name in self.methods))
        for what in ("options", "rate_shares"):
            object.__setattr__(self, what, by_first_name(what, getattr(self, what)))
        if not self.methods:
            raise ConfigError("methods: there is nothing to compare. Name at least one method.")
        for name in self.methods:
            if self.methods.count(name) > 1:
                raise ConfigError(f"methods: {name!r} is named twice. Name each method once.")
        if _ALL in self.methods and not self.asks_for_all:
            raise ConfigError("methods: 'all' stands for every method. Name it alone.")
        check_whole("seeds", self.seeds, least=1, most=10_000)
        check_whole("first_seed", self.first_seed, least=0, most=MOST_SEED - 10_000)
        check_whole("timing_rounds", self.timing_rounds, least=10)

    @property
    def asks_for_all(self) -> bool:
        """Whether every method is tried, and what cannot serve is left out."""
        return self.methods == (_ALL,)

    @property
    def candidates(self) -> tuple[str, ...]:
        """The methods by name."""
        return tuple(methods()) if self.asks_for_all else self.methods

    def among(self, chosen: tuple[str, ...]) -> CompareConfig:
        """The same comparison with some of its methods.

        Args:
            chosen: that remain.

        Returns:
            Without the options and shares of the others.

        Example:
            >>> CompareConfig(methods=("all",), rate_shares={"spsa": 0.1}).among(("dfa",))
            CompareConfig(... methods=('dfa',), options={}, rate_shares={}, ...)
        """
        return dataclasses.replace(
            self,
            methods=chosen,
            options={name: given for name, given in self.options.items() if name in chosen},
            rate_shares={name: given for name, given in self.rate_shares.items() if name in chosen},
        )

    def run_of(self, method: str, seed: int) -> TrainConfig:
        """The configuration of one of its runs.

        Args:
            method: that takes part.
            seed: of the run.

        Returns:
            What `fdfa train` would be told.

        Example:
            >>> CompareConfig().run_of("dfa", 2).seed
            2
        """
        common = {f.name: getattr(self, f.name) for f in dataclasses.fields(Setup)}
        options = self.options.get(method, {})
        rate = self.training.learning_rate * self.rate_shares.get(method, 1.0)
        common["training"] = dataclasses.replace(self.training, learning_rate=rate)
        return TrainConfig(method=method, options=options, seed=seed, **common)

"""What cannot stand in the file of a study, or be asked of one."""

from __future__ import annotations

from pathlib import Path

from fdfa.cli.reproducing import REPRODUCED
from fdfa.errors import ConfigError, DataError, FDFAError
from fdfa.studies.reproduce import declared_in, reproduce
from fdfa.studies.reproduce.declaration import TrainingTable
from fdfa.studies.reproduce.multi_tangent import MultiTangentSettings
from fdfa.studies.reproduce.planned_runs import TableSettings, planned_runs
from fdfa.studies.reproduce.workers import make_runs
from fdfa.studies.runs import StudyObserver
from fdfa.studies.setup import TrainConfig
from tests.errors.provoke import Case, Here
from tests.studies.tables import SMALL, written

__all__ = ["REPRODUCE_CASES"]

_PUBLISHED = """
[[published]]
rule = "dfa"
task = "narrow"
value = 98.0
source = "nobody"
tag = "paper"
"""
_ONE_SEED = """
[[rule]]
name = "single"
label = ""
method = "dfa"
seeds = 1
"""
_TARGET = """
[[target]]
rule = "dfa"
against = "bp"
task = "narrow"
within = 0.5
"""


def _file(name: str, old: str = "", new: str = "", *, more: str = "") -> Case:
    """A file in which something else stands."""

    def run(here: Here) -> None:
        assert old in SMALL + more
        declared_in(written(here.folder, (SMALL + more).replace(old, new, 1) if old else more))

    return Case(f"study: {name}", ConfigError, run)


def _measurement(here: Here, module: str) -> Path:
    """A file that names a module of ours."""
    text = f'summary = ""\nsource = ""\nmeasured_by = "fdfa.studies.reproduce.{module}"\n'
    return written(here.folder, text)


def _planned(name: str, old: str, new: str, settings: TableSettings | None = None) -> Case:
    """A file that can be read, and runs that cannot be."""

    def run(here: Here) -> None:
        assert old in SMALL
        declaration = declared_in(written(here.folder, SMALL.replace(old, new, 1))).declaration
        assert isinstance(declaration, TrainingTable)
        planned_runs(declaration, settings or TableSettings(), seeds=1)

    return Case(f"study: {name}", ConfigError, run)


def _worker(name: str, error: type[Exception], answer: str) -> Case:
    """A process in place of ours, which gives this answer to the first job and ends."""

    def run(here: Here) -> None:
        program = here.folder / "program"
        program.write_text(f"#!/bin/sh\nread job\n{answer}\nexit 3\n", encoding="utf-8")
        program.chmod(0o700)
        here.patch.setattr("sys.executable", str(program))
        jobs = {here.folder / "runs" / "dfa-seed-0": TrainConfig(method="dfa")}
        make_runs(jobs, workers=2, observer=StudyObserver(), finished=lambda path: None)

    return Case(f"study: {name}", error, run)


REPRODUCE_CASES = [
    _worker("a process that dies", ChildProcessError, ""),
    _worker(
        "a run that cannot begin",
        DataError,
        """echo '{"error": "DataError", "text": "'"'a/b' is not there. Bring it back."'"}'""",
    ),
    _worker(
        "a full disk", FDFAError, """echo '{"error": "OSError", "text": "No space left on disk"}'"""
    ),
    Case("study: no file", ConfigError, lambda here: declared_in(here.folder / "none.toml")),
    _file("no TOML", more="seeds = = 2"),
    _file("nothing in it", more="# nothing"),
    _file("an unknown key", "seeds = 2", "seeds = 2\nsedes = 3"),
    _file("a value of another type", "seeds = 2", 'seeds = "two"'),
    _file("a date", "seeds = 2", "seeds = 2020-01-01"),
    _file("a name that is none", 'name = "wide"', 'name = "wide/st"'),
    _file("a task twice", 'name = "wide"', 'name = "narrow"'),
    _file("no rule", more='summary = ""\nsource = ""\nseeds = 1\nrule = []\ntask = []'),
    _file("an unknown task of a rule", '["narrow"]', '["narow"]'),
    _file("an unknown rule of a number", '"dfa"\ntask', '"fdfa"\ntask', more=_PUBLISHED),
    _file("a number from memory", 'tag = "paper"', 'tag = "recall"', more=_PUBLISHED),
    _file("two numbers of a cell", "nothing", "", more=_PUBLISHED + "# nothing" + _PUBLISHED),
    _file("an unknown rule of a target", 'against = "bp"', 'against = "bq"', more=_TARGET),
    _file("a target of negative points", "within = 0.5", "within = -1", more=_TARGET),
    _file(
        "a target of costs that nobody measures",
        "within = 0.5",
        "within = 0.5\nlayers = 2",
        more=_TARGET,
    ),
    _file("a number of a cell that is not there", '"narrow"\nv', '"wide"\nv', more=_PUBLISHED),
    _file("a target in such a cell", '"narrow"\nwithin', '"wide"\nwithin', more=_TARGET),
    _file("more seeds than the study", 'method = "dfa"', 'method = "dfa"\nseeds = 3'),
    _file(
        "the spread of one seed",
        '"dfa"\nagainst = "bp"\ntask = "narrow"\nwithin = 0.5',
        '"single"\nagainst = "bp"\ntask = "narrow"\nwithin = "spread"',
        more=_ONE_SEED + _TARGET,
    ),
    Case(
        "study: a measurement by no module",
        ConfigError,
        lambda here: declared_in(_measurement(here, "nothing")).settings,
    ),
    Case(
        "study: a measurement on the command line",
        ConfigError,
        lambda here: REPRODUCED["study"](file=_measurement(here, "multi_tangent_findings")).study(),
    ),
    _file("too few rounds", "[[task]]", "[costs]\nrounds = 1\n[[task]]"),
    _file(
        "two runs of one name",
        "tasks = [",
        'tasks = ["narrow"]\n[[task]]\nname = "narrow-dfa"\nlabel = ""\n'
        '[[rule]]\nname = "dfa-bp"\nlabel = ""\nmethod = "dfa"\ntasks = [',
    ),
    _planned("an unknown method", 'method = "dfa"', 'method = "dfx"'),
    _planned("an unknown setting", "epochs = 2", "epoch = 2"),
    _planned("an option of another type", "width = 8", 'width = "eight"'),
    _planned("no such column", "seeds", "seeds", TableSettings(tasks=("narow",))),
    _planned("no cell left", "seeds", "seeds", TableSettings(tasks=("wide",), rules=("dfa",))),
    Case(
        "study: no budget",
        ConfigError,
        lambda here: reproduce("multi-tangent", MultiTangentSettings(), minutes=0),
    ),
]

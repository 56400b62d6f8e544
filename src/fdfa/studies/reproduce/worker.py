"""A process of its own that makes runs: jobs come as lines of JSON, answers go as such.

When the lines end, because the study was interrupted or its process is no more, the run that is on
writes a checkpoint after its step and stops: a killed study leaves nothing running.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
from typing import Any

from fdfa.errors import briefly
from fdfa.studies.kept_runs import kept_run
from fdfa.studies.records import from_json
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.runs import StudyObserver
from fdfa.studies.saved_options import with_typed_options
from fdfa.studies.setup import TrainConfig
from fdfa.training import StepResult, Trainer

__all__ = ["main"]


class _Obedient(StudyObserver):
    """Stops the training when it is told to."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        if self.stop.is_set():
            trainer.stop_requested = True


def main() -> None:
    """Make one run after the other, until no more are asked for."""
    # Ctrl-C reaches every process of a terminal: what it means, the study says (where it could not
    # block the signal from the start on).
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whatever a network of the user's own prints is no answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    jobs: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    stop = threading.Event()
    threading.Thread(target=_listen, args=(jobs, stop), daemon=True).start()
    with contextlib.suppress(BrokenPipeError):
        while (job := jobs.get()) is not None:
            print(json.dumps(_answer(json.loads(job), stop)), file=answers, flush=True)


def _listen(jobs: queue.SimpleQueue[str | None], stop: threading.Event) -> None:
    for line in sys.stdin:
        jobs.put(line)
    stop.set()
    jobs.put(None)


def _answer(job: dict[str, Any], stop: threading.Event) -> dict[str, str]:
    """Nothing but good news is an empty answer; the run itself lies in its folder."""
    where = f"job: {job['folder']}"
    try:
        config = with_typed_options(from_json(TrainConfig, job["config"], where=where), where=where)
        kept_run(RunFolder(job["folder"]), config, observer=_Obedient(stop))
    except KeyboardInterrupt:
        return {"interrupted": "yes"}
    except Exception as error:
        return {"error": type(error).__name__, "text": str(error) or briefly(error)}
    return {}


if __name__ == "__main__":
    main()

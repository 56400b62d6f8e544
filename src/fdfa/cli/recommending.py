"""``fdfa recommend``: options for FDFA from a short measurement."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from rich.console import Console
from rich.progress import Progress

from fdfa.cli.command import Shown, print_json
from fdfa.cli.training import settings, typed_task
from fdfa.studies.json_values import plain
from fdfa.studies.recommend import RecommendConfig, recommend
from fdfa.studies.recommendation_report import recommendation_report

__all__ = ["Recommend"]


@dataclasses.dataclass(frozen=True)
class Recommend(Shown, RecommendConfig):
    """Measure a network, and say which options of fdfa suit it.

    Attributes:
        quiet: show no progress.
    """

    EXAMPLE: ClassVar = "fdfa recommend --data digits --model fully-connected"

    quiet: bool = False

    def run(self, out: Console, err: Console) -> int:
        """Measure, and show what follows."""
        config = settings(self, RecommendConfig)
        config = dataclasses.replace(config, task=typed_task(config.task))
        silent = self.quiet or not err.is_terminal
        with Progress(console=err, transient=True, disable=silent) as shown:
            bar = shown.add_task("measuring", total=config.steps)
            found = recommend(config, told=lambda step: shown.update(bar, completed=step))
        if self.json:
            print_json({**plain(found), "options": found.options, "call": found.call})
        else:
            out.print(recommendation_report(found, config))
        return 0

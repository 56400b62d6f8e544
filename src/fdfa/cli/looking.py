"""``fdfa methods``, ``models`` and ``explain``: what there is, and what it would do."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from rich.console import Console

from fdfa.cli.command import Shown, print_json
from fdfa.cli.training import settings, typed_task
from fdfa.methods import methods
from fdfa.models import networks
from fdfa.studies.explanation_report import explanation_report
from fdfa.studies.json_values import plain
from fdfa.studies.listings import methods_report, models_report
from fdfa.studies.options import method_options
from fdfa.studies.preview import PreviewConfig, preview
from fdfa.studies.task import resolved

__all__ = ["Explain", "Methods", "Models"]


@dataclasses.dataclass(frozen=True)
class Methods(Shown):
    """List the methods: what they need, what they cost."""

    EXAMPLE: ClassVar = "fdfa methods"

    def run(self, out: Console, err: Console) -> int:
        """Show the table."""
        if self.json:
            print_json(
                [{**plain(method), "options": method.options()} for method in methods().values()]
            )
        else:
            out.print(methods_report())
        return 0


@dataclasses.dataclass(frozen=True)
class Models(Shown):
    """List the networks and their options."""

    EXAMPLE: ClassVar = "fdfa models"

    def run(self, out: Console, err: Console) -> int:
        """Show the table."""
        if self.json:
            print_json(
                [
                    {
                        "name": network.name,
                        "summary": network.summary,
                        "source": network.source,
                        "smallest": network.smallest,
                        "options": network.options(),
                    }
                    for network in networks().values()
                ]
            )
        else:
            out.print(models_report())
        return 0


@dataclasses.dataclass(frozen=True)
class Explain(Shown, PreviewConfig):
    """Show what a method would do to a network, before any training."""

    EXAMPLE: ClassVar = "fdfa explain --data digits --model resnet20 --method fdfa"

    def run(self, out: Console, err: Console) -> int:
        """Show taps, blocks, costs and obstacles."""
        config = settings(self, PreviewConfig)
        config = dataclasses.replace(
            config,
            options=method_options(config.method, config.options),
            task=typed_task(config.task),
        )
        found = preview(config)
        if self.json:
            print_json(found.report())
        else:
            task = resolved(config.task)
            out.print(explanation_report(found, subject=f"{task.data}, {task.model}"))
        return 0

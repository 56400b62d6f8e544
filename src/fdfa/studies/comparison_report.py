"""The one table of a comparison, as wide as the terminal: more of it shows more layers."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fdfa.studies.report import left_out_text
from fdfa.studies.results import Comparison, MethodSummary, Spread
from fdfa.studies.setup import CompareConfig
from fdfa.studies.tables import duration, plain_table, plural_s, size

__all__ = ["ComparisonReport"]

_WITH_LOSS = 100  # columns of a terminal that has room for it
_COSINE = 5  # characters, as of -0.12
_BETWEEN = 2  # spaces between two columns


@dataclasses.dataclass(frozen=True)
class ComparisonReport:
    """The one table of a comparison, and how to read it; a rich console can print it.

    Attributes:
        config: what was asked for.
        comparison: what was found.
    """

    config: CompareConfig
    comparison: Comparison

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """The parts, for a terminal of this width."""
        found = self.comparison
        groups = _grouped(found.layers, self._cosines_in(options.max_width))
        yield Text(self._title(), style="bold")
        yield self._table(groups, with_loss=options.max_width >= _WITH_LOSS)
        yield Text(self._legend(groups), style="dim")
        for summary in found.summaries:
            if summary.failed and summary.finished:
                runs = summary.failed + summary.finished
                yield Text(
                    f"{summary.failed} of {runs} runs of {summary.method} failed: its numbers are "
                    "of the others."
                )
        if found.left_out:
            yield Panel(
                left_out_text(found.left_out),
                title="not defined for this network",
                title_align="left",
            )
        yield from (Text(note) for note in found.notes)

    def _title(self) -> str:
        config, seeds, epochs = self.config, self.config.seeds, self.config.training.epochs
        return (
            f"{config.task.data}, {config.task.model}, {self.comparison.parameters:,} parameters: "
            f"{epochs} epoch{plural_s(epochs)}, {seeds} seed{plural_s(seeds)}"
        )

    def _cosines_in(self, width: int) -> int:
        """Columns for cosines that a terminal of this width has room for."""
        rows = [_costs_and_scores(summary) for summary in self.comparison.summaries]
        used = [len(head) for head in ("method", "accuracy", "time", "memory")]
        for row in rows:
            used = [max(most, len(text)) for most, text in zip(used, row, strict=True)]
        used += [6] if width >= _WITH_LOSS else []
        edges = 2
        free = width - edges - sum(used) - _BETWEEN * (len(used) - 1)
        return max(1, free // (_COSINE + _BETWEEN))

    def _table(self, groups: Sequence[range], *, with_loss: bool) -> Table:
        heads = ["method", "test\naccuracy", "step\ntime", "peak\nmemory"]
        table = plain_table(*heads, *(["test\nloss"] if with_loss else []), *_heads(groups))
        table.padding = (0, 1, 0, 0)  # beside the space that parts any two columns
        for summary in self.comparison.summaries:
            loss = [_with_spread(summary.test_loss, 4, spread=False)] if with_loss else []
            layers = [self.comparison.layers[group.start : group.stop] for group in groups]
            cosines = [_mean_cosine(summary, names) for names in layers]
            table.add_row(*_costs_and_scores(summary), *loss, *cosines)
        return table

    def _legend(self, groups: Sequence[range]) -> str:
        summary = next(iter(self.comparison.summaries))
        time = f"{duration(summary.step_time.seconds / summary.step_time.ratio)}"
        legend = (
            "Step time: forward and backward pass, relative to backpropagation "
            f"({time}; median of {summary.step_time.rounds} interleaved rounds). "
        )
        if summary.step_memory is not None:
            one = size(summary.step_memory.peak / summary.step_memory.ratio)
            legend += (
                "Peak memory: weights, what the method keeps, and the most that lives in a step, "
                f"relative to backpropagation ({one}). "
            )
        if groups:
            legend += (
                "cos: cosine with the true gradient, on validation examples after the training, of "
                f"the weights of {_named(self.comparison.layers, groups)}. "
            )
        rates = {s.method: s.learning_rate for s in self.comparison.summaries}
        usual = self.config.training.learning_rate
        others = [f"{method} {rate:g}" for method, rate in rates.items() if rate != usual]
        if others:
            legend += f"Learning rate: {usual:g}; {', '.join(others)}. "
        if self.config.seeds > 1:
            legend += "±: standard deviation over the seeds."
        return legend.rstrip()


def _grouped(layers: Sequence[str], most: int) -> list[range]:
    """Layers in groups of neighbours, as even as can be; one a group where there is room."""
    count = min(most, len(layers))
    ends = [round(len(layers) * place / count) for place in range(count + 1)] if count else []
    return [range(start, end) for start, end in itertools.pairwise(ends)]


def _heads(groups: Sequence[range]) -> list[str]:
    return [f"cos\n{_numbers(group)}" for group in groups]


def _numbers(group: range) -> str:
    return f"{group.start + 1}" if len(group) == 1 else f"{group.start + 1}-{group.stop}"


def _named(layers: Sequence[str], groups: Sequence[range]) -> str:
    """The layers behind the numbers."""
    names = [name.removesuffix(".weight") for name in layers]
    texts = []
    for group in groups:
        what = names[group.start]
        if len(group) > 1:
            what += f" to {names[group.stop - 1]}"
        texts.append(f"{_numbers(group)} {what}")
    return ", ".join(texts)


def _costs_and_scores(summary: MethodSummary) -> tuple[str, str, str, str]:
    """Method, accuracy, time and memory in words."""
    accuracy = _with_spread(summary.test_accuracy, 2, scale=100, unit=" %")
    if summary.failed and not summary.finished:
        accuracy = "failed"
    memory = "-" if summary.step_memory is None else f"{summary.step_memory.ratio:.2f} x"
    return summary.method, accuracy, f"{summary.step_time.ratio:.2f} x", memory


def _mean_cosine(summary: MethodSummary, names: Sequence[str]) -> str:
    """Mean over layers and runs; a layer without a gradient has none."""
    means = [summary.cosines[name].mean for name in names if name in summary.cosines]
    known = [mean for mean in means if not math.isnan(mean)]
    return f"{statistics.fmean(known):.2f}" if known else "-"


def _with_spread(
    value: Spread | None, digits: int, *, scale: float = 1.0, unit: str = "", spread: bool = True
) -> str:
    if value is None:
        return "-"
    text = f"{scale * value.mean:.{digits}f}"
    if spread and value.deviation is not None:
        text += f" ± {scale * value.deviation:.{digits}f}"
    return text + unit

"""What the command line shows of results: tables that fit into 80 columns, and what they mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fdfa.methods import methods
from fdfa.studies.compare import CompareConfig
from fdfa.studies.explanation import Explanation
from fdfa.studies.results import Comparison, MethodSummary, Spread
from fdfa.studies.runs import Run
from fdfa.studies.train import TrainReport

__all__ = [
    "comparison_report",
    "error_panel",
    "explanation_report",
    "failures_panel",
    "files_line",
    "methods_report",
    "training_report",
]


def comparison_report(config: CompareConfig, comparison: Comparison) -> RenderableType:
    """The one table of a comparison, and how to read it.

    Args:
        config: what was asked for.
        comparison: what was found.

    Returns:
        For a rich console.
    """
    table = _table("method", "test accuracy", "test loss", "step time", "cosine")
    for summary in comparison.summaries:
        table.add_row(*_comparison_row(summary))
    seeds, epochs = config.seeds, config.training.epochs
    title = (
        f"{config.task.data}, {config.task.model}, {comparison.parameters:,} parameters: "
        f"{epochs} epoch{_s(epochs)}, {seeds} seed{_s(seeds)}"
    )
    reference = next(iter(comparison.summaries)).step_time
    legend = (
        f"Step time: forward and backward pass, relative to backpropagation "
        f"({_duration(reference.seconds / reference.ratio)}; median of {reference.rounds} "
        "interleaved rounds). Cosine: with the true gradient, mean over the weight matrices, on "
        "validation examples after the training."
    )
    if seeds > 1:
        legend = "±: standard deviation over the seeds. " + legend
    parts: list[RenderableType] = [Text(title, style="bold"), table, Text(legend, style="dim")]
    return Group(*parts, *(Text(note) for note in comparison.notes))


def _comparison_row(summary: MethodSummary) -> tuple[str, ...]:
    name = summary.method
    if summary.failed:
        name += f" ({summary.failed} of {summary.failed + summary.finished} failed)"
    return (
        name,
        _with_spread(summary.test_accuracy, 2, scale=100, unit=" %"),
        _with_spread(summary.test_loss, 4),
        f"{summary.step_time.ratio:.2f} x",
        "-" if summary.cosine is None else _cosine(summary.cosine.mean),
    )


def training_report(report: TrainReport) -> RenderableType:
    """The end of a training, in two lines.

    Args:
        report: of a run that did not fail.

    Returns:
        For a rich console.
    """
    score = report.run.test
    if score is None:
        return Text(f"{report.run.method}: failed")
    text = (
        f"{report.run.method}: test accuracy {100 * score.accuracy:.2f} %, test loss "
        f"{score.loss:.4f}; cosine with the true gradient {_cosine(report.run.cosine)} "
        "(mean over the weight matrices)"
    )
    return Group(Text(text), *(Text(note) for note in report.notes))


def methods_report() -> RenderableType:
    """Every method, what it needs and what it costs.

    Returns:
        For a rich console.
    """
    table = _table("method", "backward pass", "weight transport", "probes", "extra state", "cost")
    for column in table.columns[1:4]:
        column.justify = "center"
    sentences = Table.grid(padding=(0, 2))
    sentences.add_column(no_wrap=True)
    sentences.add_column()
    for method in methods().values():
        table.add_row(
            method.name,
            _yes(not method.backward_pass_free),
            _yes(not method.weight_transport_free),
            _yes(method.probes),
            method.extra_state,
            method.products,
        )
        sentences.add_row(method.name, f"{method.summary} ({method.source})")
    legend = (
        "Extra state: numbers kept beside the weights, for K outputs and n_l units of tap l. Cost: "
        "matrix products a layer and step, the forward pass counting one; s is the share of steps "
        "that probe. Options: fdfa methods --json."
    )
    return Group(table, sentences, Text(""), Text(legend, style="dim"))


def explanation_report(found: Explanation, *, subject: str) -> RenderableType:
    """Taps, blocks, costs and obstacles of a learner.

    Args:
        found: by ``explain``.
        subject: data set and network, for the title.

    Returns:
        For a rich console.
    """
    title = f"{found.method} on {subject}: batches of {found.samples}, output {found.output_shape}"
    parts: list[RenderableType] = [Text(title, style="bold"), Text("")]
    if found.taps:
        taps = _table("tap", "module", "shape", "units", "feedback map", "size", left=3)
        for tap in found.taps:
            outputs, units = tap.feedback_shape
            taps.add_row(
                tap.name,
                tap.module_type,
                "x".join(map(str, tap.shape)),
                f"{tap.units:,}",
                f"{outputs}x{units}",
                _size(tap.feedback_bytes),
            )
        parts += [Text("Taps: the graph is cut here"), taps]
    else:
        parts += [Text("No taps: nothing is cut"), Text("")]
    blocks = _table("block", "parameters", "weight layers", "ends at", left=0)
    blocks.columns[2].justify = blocks.columns[3].justify = "left"
    for number, block in enumerate(found.blocks, 1):
        blocks.add_row(
            str(number), f"{block.parameters:,}", ", ".join(block.weight_layers), block.ends_at
        )
    parts += [Text("Blocks: gradients are exact inside"), blocks]
    parts += [Text("Multiply-adds of a step, in millions"), _products_table(found)]
    parts.append(Text(_cost(found)))
    memory = found.memory
    parts.append(
        Text(
            f"Memory, about {_size(memory.total)} without the optimiser's: parameters "
            f"{_size(memory.parameters)}, gradients {_size(memory.gradients)}, activations "
            f"{_size(memory.activations)}, feedback {_size(memory.feedback)}, probe "
            f"{_size(memory.probe)}."
        )
    )
    if found.obstacles:
        parts += [Text("Cannot be probed: " + problem, style="red") for problem in found.obstacles]
    elif found.probe_every is not None:
        parts.append(Text("A probe passes through the whole network."))
    return Group(*parts)


def _products_table(found: Explanation) -> Table:
    products = found.products
    table = _table("layer", "forward", "weight grad.", "input grad.", "tangent")
    for layer in products.layers:
        table.add_row(
            layer.name,
            *(
                _millions(count)
                for count in (
                    layer.forward,
                    layer.weight_gradient,
                    layer.input_gradient,
                    layer.tangent,
                )
            ),
        )
    if found.taps:
        table.add_row("feedback: e B", "", "", _millions(products.credit), "")
    if products.teaching:
        table.add_row("feedback: d'p", "", "", "", _millions(products.teaching))
    return table


def _cost(found: Explanation) -> str:
    every = found.probe_every
    share = f" when one step in {every} probes" if every is not None and every > 1 else ""
    step, ratio = found.products.step, found.products.ratio
    return f"Cost: {step / 1e6:,.2f} million a step{share}, {ratio:.2f} times backpropagation's."


def error_panel(text: str, *, title: str = "error") -> Panel:
    """One complaint in a frame.

    Args:
        text: shown as it is.
        title: of the frame.

    Returns:
        For a rich console.
    """
    return Panel(Text(text), title=title, title_align="left", border_style="red")


def failures_panel(runs: Sequence[Run]) -> Panel | None:
    """Says which runs failed, and why.

    Args:
        runs: any.

    Returns:
        For a rich console; None if none failed.
    """
    failed = [run for run in runs if run.failure is not None]
    text = "\n".join(f"{run.method}, seed {run.seed}: {run.failure}" for run in failed)
    return error_panel(text, title="failed") if failed else None


def files_line(files: Sequence[Path]) -> str:
    """Says what was written where.

    Args:
        files: of one folder.

    Returns:
        One line, or nothing to say.

    Example:
        >>> files_line([Path("runs/a/config.json"), Path("runs/a/results.json")])
        'Written to runs/a: config.json, results.json'
    """
    if not files:
        return ""
    return f"Written to {files[0].parent}: {', '.join(file.name for file in files)}"


def _table(*columns: str, left: int = 1) -> Table:
    """A plain table whose first columns are texts and the others numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=True)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", overflow="fold")
    return table


def _with_spread(spread: Spread | None, digits: int, *, scale: float = 1.0, unit: str = "") -> str:
    if spread is None:
        return "-"
    text = f"{scale * spread.mean:.{digits}f}"
    if spread.deviation is not None:
        text += f" ± {scale * spread.deviation:.{digits}f}"
    return text + unit


def _cosine(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f}" if count else "-"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError  # for the type checker: the loop always returns


def _duration(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _s(count: int) -> str:
    return "" if count == 1 else "s"

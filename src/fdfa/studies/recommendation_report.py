"""What the command line shows of a recommendation."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from fdfa.studies.recommend import Recommendation, RecommendConfig
from fdfa.studies.tables import plain_table

__all__ = ["recommendation_report"]


def recommendation_report(found: Recommendation, config: RecommendConfig) -> RenderableType:
    """The call that suits a network, and the numbers behind it.

    Args:
        found: by ``recommend``.
        config: of the probe.

    Returns:
        For a rich console.
    """
    task = config.task
    title = f"FDFA for {task.model} on {task.data}, after {found.steps} steps of backpropagation"
    taps = plain_table("tap", "units", "spread", "ceiling", "probe noise", "drift", "best rate")
    for tap in found.taps:
        taps.add_row(
            tap.name,
            f"{tap.units:,}",
            f"{tap.spread:.2f}",
            f"{tap.ceiling:.2f}",
            f"{tap.noise(found.taps):.3g}",
            f"{100 * tap.drift**0.5:.2f} %",
            f"{tap.best_rate(found.taps):.4f}",
        )
    depths = plain_table("depth", "taps", "cosine", "at worst", "feedback_rate")
    for outlook in found.depths:
        depths.add_row(
            _marked(outlook.depth, found.depth),
            str(len(outlook.taps)),
            f"{outlook.cosine:.2f}",
            f"{min(outlook.cosines):.2f}",
            f"{outlook.feedback_rate:.4f}",
        )
    intervals = plain_table("probe_every", "cosine", "feedback_rate", "products")
    for interval in found.intervals:
        intervals.add_row(
            _marked(interval.probe_every, found.probe_every),
            f"{interval.cosine:.2f}",
            f"{interval.feedback_rate:.4f}",
            f"{interval.products:.2f}",
        )
    return Group(
        Text(title, style="bold"),
        Text(""),
        Text(found.call),
        Text("--options " + " ".join(f"{name}={value}" for name, value in found.options.items())),
        Text(""),
        *(Text(line) for line in _why(found, config)),
        Text(""),
        Text("Taps (depth 1), in shares of the credit's energy"),
        taps,
        Text("Depth: predicted cosine of the credits with the true ones, probing every step"),
        depths,
        Text(f"Probe interval at depth {found.depth}; backpropagation takes 3 products"),
        intervals,
    )


def _why(found: Recommendation, config: RecommendConfig) -> list[str]:
    """In words."""
    aim = f"{config.cosine:g}"
    if found.reached:
        depth = f"depth={found.depth} is the smallest with a mean cosine of {aim} or more,"
        interval = f"probe_every={found.probe_every} the rarest probing that keeps it."
    else:
        depth = f"No depth reaches a mean cosine of {aim}; depth={found.depth} comes nearest,"
        interval = f"and probe_every={found.probe_every} loses at most 0.01 of it."
    lines = [
        f"{depth} {interval}",
        f"feedback_rate={found.feedback_rate} is best for both; predicted cosine"
        f" {found.cosine:.2f}.",
    ]
    if found.hopeless:
        lines.append(
            "Single samples differ too much for any fixed map at "
            + ", ".join(found.hopeless)
            + ": put no tap there (taps=), or train these blocks by a local loss."
        )
    return lines


def _marked(value: int, chosen: int) -> str:
    return f"{value} *" if value == chosen else str(value)

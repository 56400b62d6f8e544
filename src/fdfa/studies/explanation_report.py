"""What the command line shows of an explanation."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fdfa.methods import described
from fdfa.studies.explanation import Explanation
from fdfa.studies.tables import plain_table, size

__all__ = ["explanation_report"]


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
        taps = plain_table("tap", "module", "shape", "units", "feedback map", "size", left=3)
        for tap in found.taps:
            outputs, units = tap.feedback_shape
            taps.add_row(
                tap.name,
                tap.module_type,
                "x".join(map(str, tap.shape)),
                f"{tap.units:,}",
                f"{outputs}x{units}" if outputs else "none",
                size(tap.feedback_bytes),
            )
        parts += [Text("Taps: the graph is cut here"), taps]
    else:
        parts += [Text("No taps: nothing is cut"), Text("")]
    blocks = plain_table("block", "parameters", "weight layers", "ends at", left=0)
    blocks.columns[2].justify = blocks.columns[3].justify = "left"
    for number, block in enumerate(found.blocks, 1):
        blocks.add_row(
            str(number), f"{block.parameters:,}", ", ".join(block.weight_layers), block.ends_at
        )
    exact = ": gradients are exact inside" if found.counted else ""
    parts += [Text(f"Blocks{exact}"), blocks]
    parts += [Text("Multiply-adds of a step, in millions"), _products_table(found)]
    parts.append(Text(_cost(found)))
    memory = found.memory
    parts.append(
        Text(
            f"Memory, about {size(memory.total)} without the optimiser's: parameters "
            f"{size(memory.parameters)}, gradients {size(memory.gradients)}, activations "
            f"{size(memory.activations)}, feedback {size(memory.feedback)}, probe "
            f"{size(memory.probe)}."
        )
    )
    if not found.counted:
        method = described(found.method)
        parts.append(
            Text(
                f"These counts are backpropagation's. {method.name} takes {method.products} matrix "
                "products a layer and step, where backpropagation takes 3; numbers that it keeps "
                f"beside the weights: {method.extra_state}."
            )
        )
    if found.obstacles:
        parts += [Text("Cannot be probed: " + problem, style="red") for problem in found.obstacles]
    elif found.probe_every is not None:
        parts.append(Text("A probe passes through the whole network."))
    return Group(*parts)


def _products_table(found: Explanation) -> Table:
    products = found.products
    table = plain_table("layer", "forward", "weight grad.", "input grad.", "tangent")
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
    if not found.counted:
        return f"Cost of backpropagation: {found.products.step / 1e6:,.2f} million a step."
    every = found.probe_every
    share = f" when one step in {every} probes" if every is not None and every > 1 else ""
    step, ratio = found.products.step, found.products.ratio
    return f"Cost: {step / 1e6:,.2f} million a step{share}, {ratio:.2f} times backpropagation's."


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f}" if count else "-"

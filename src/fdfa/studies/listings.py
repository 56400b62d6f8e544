"""What the command line shows of what there is: methods, networks, data sets."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fdfa.methods import methods
from fdfa.models import networks
from fdfa.studies.data_sets import Listed, Verified
from fdfa.studies.tables import plain_table, size, yes

__all__ = ["data_sets_report", "methods_report", "models_report", "verification_report"]


def methods_report() -> RenderableType:
    """Every method, what it needs and what it costs.

    Returns:
        For a rich console.
    """
    table = plain_table(
        "method",
        "back-\nward",
        "trans-\nport",
        "un-\nlocked",
        "probes",
        "extra state",
        "cost",
    )
    table.columns[0].no_wrap = True
    for column in table.columns[1:5]:
        column.justify = "center"
    sentences = Table.grid(padding=(0, 2))
    sentences.add_column(no_wrap=True)
    sentences.add_column()
    for method in methods().values():
        table.add_row(
            method.name,
            yes(not method.backward_pass_free),
            yes(not method.weight_transport_free),
            yes(method.forward_unlocked),
            yes(method.probes),
            method.extra_state,
            method.products,
        )
        others = f"; also {', '.join(method.aliases)}" if method.aliases else ""
        sentences.add_row(method.name, f"{method.summary} ({method.source}{others})")
    legend = (
        "Backward: an error travels backwards through the network. Transport: a feedback path "
        "reads a weight of the forward pass. Unlocked: a layer could learn before the forward "
        "pass has reached the output. Extra state: numbers kept beside the weights for each tap or "
        "layer l of n_l units and m_l inputs, and K outputs. Cost: "
        "matrix products a layer and step, the forward pass counting one; s is the share of steps "
        "that probe. Options: fdfa methods --json."
    )
    return Group(table, sentences, Text(""), Text(legend, style="dim"))


def models_report() -> RenderableType:
    """Every network and its options.

    Returns:
        For a rich console.
    """
    table = plain_table("model", "options", "smallest picture", left=2)
    sentences = Table.grid(padding=(0, 2))
    sentences.add_column(no_wrap=True)
    sentences.add_column()
    for network in networks().values():
        options = " ".join(f"{name}={value}" for name, value in network.options().items())
        table.add_row(network.name, options or "-", f"{network.smallest} x {network.smallest}")
        sentences.add_row(network.name, f"{network.summary} ({network.source})")
    legend = (
        "Options: --model-options NAME=VALUE ... A network of your own: --model "
        "package.module:factory."
    )
    return Group(table, sentences, Text(""), Text(legend, style="dim"))


def data_sets_report(found: Sequence[Listed]) -> RenderableType:
    """Every data set, and where it is.

    Args:
        found: by ``list_data_sets``.

    Returns:
        For a rich console.
    """
    table = plain_table("data set", "training", "test", "classes", "input", "download")
    sentences = Table.grid(padding=(0, 2))
    sentences.add_column(no_wrap=True)
    sentences.add_column(overflow="fold")
    for listed in found:
        source = listed.source
        counts = ("-", "-") if source.examples is None else (f"{n:,}" for n in source.examples)
        table.add_row(
            source.name,
            *counts,
            "-" if source.classes is None else str(source.classes),
            "-" if source.shape is None else " x ".join(map(str, source.shape)),
            size(listed.size) if listed.size else "-",
        )
        where = f" In {listed.folder}." if listed.folder is not None else ""
        options = " ".join(f"{name}={value}" for name, value in source.options().items())
        text = f"{source.summary} ({source.source}; licence: {source.licence})."
        if source.examples is None:  # the user's own
            text = f"{source.summary}."
        sentences.add_row(source.name, f"{text}{f' Options: {options}.' if options else ''}{where}")
    legend = (
        "Files are looked for in --data-dir, $FDFA_DATA and the cache; what is nowhere is "
        "downloaded when it is needed, or by fdfa data get NAME."
    )
    return Group(table, sentences, Text(""), Text(legend, style="dim"))


def verification_report(found: Verified) -> RenderableType:
    """What the files of a data set were found to be.

    Args:
        found: by ``verify``.

    Returns:
        For a rich console.
    """
    words = {
        "official": "official",
        "repacked": "official, repacked",
        "differs": "DIFFERS from the official one",
        "missing": "not there",
    }
    lines = [f"{file.name}: {words[file.state]}" for file in found.files]
    if found.problem is not None:
        lines.append(f"Cannot be read: {found.problem}")
    elif found.examples is not None and found.shape is not None:
        train, test = found.examples
        shape = " x ".join(map(str, found.shape))
        lines.append(
            f"{found.name}: {train:,} training and {test:,} test examples of {shape}, "
            f"{found.classes} classes, read to the last byte"
            f"{'' if found.folder is None else f' from {found.folder}'}."
        )
    return Text("\n".join(lines))

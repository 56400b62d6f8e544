"""How Sphinx builds these pages: `make docs`, every warning an error, no network."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.environment import BuildEnvironment
from sphinx.util import inspect, logging

import fdfa

sys.path.append(str(Path(__file__).resolve().parent.parent))

from tests.docs.public_names import unexplained

project = "fdfa"
author = "fdfa contributors"
version = release = fdfa.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

myst_heading_anchors = 3  # `page.md#a-heading` is a link

# Docstrings: Google form, in reStructuredText.
napoleon_numpy_docstring = False
napoleon_use_ivar = (
    True  # attributes are fields of their class, not entries of the index
)
default_role = (
    "code"  # single backticks: the command line shows such docstrings as they are
)
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_typehints_format = "short"
autodoc_type_aliases = {"TapSpec": "fdfa.engine.selection.TapSpec"}
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True

# Every link to a name of ours must lead somewhere. Pages of other projects are not at hand.
nitpicky = True
# nothing outside fdfa is linked to; P is the arguments of whatever loss function it is
nitpick_ignore_regex = [("py:.*", r"(?!fdfa\b).*"), ("py:obj", r"fdfa\..*\.P")]

html_theme = "furo"
html_title = "fdfa"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False


for field in PyObject.doc_field_types:
    if field.name == "variable":
        field.label = "Attributes"  # as the docstrings say, instead of Variables


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("autodoc-process-signature", _estimators_begin_at_init)
    app.connect("autodoc-process-docstring", _bars_are_absolute_values, priority=900)
    app.connect("missing-reference", _types_may_be_private)
    app.connect("env-check-consistency", _warn_of_unexplained_names)


def _estimators_begin_at_init(
    app: Sphinx, kind: str, name: str, value: Any, *rest: Any
) -> Any:
    """Shows what an estimator takes: `__new__` takes anything, to word its errors."""
    if kind != "class" or not issubclass(value, fdfa.Estimator):
        return None
    parameters = inspect.signature(value.__init__, bound_method=True)
    return inspect.stringify_signature(parameters, show_annotation=False), ""


def _bars_are_absolute_values(*event: Any) -> None:
    r"""Writes |h| as \|h\|: reStructuredText would put a substitution there. Literals stay."""
    lines: list[str] = event[-1]
    in_example = False
    for number, line in enumerate(lines):
        in_example = line.lstrip().startswith(">>>") or (
            in_example and bool(line.strip())
        )
        if not in_example:
            lines[number] = re.sub(
                r"(``.*?``)|\|", lambda found: found[1] or r"\|", line
            )


def _types_may_be_private(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: Element
) -> Element | None:
    """The type of an argument need have no page; what a role links to must (it has `refwarn`)."""
    return None if "refwarn" in node else text


def _warn_of_unexplained_names(app: Sphinx, env: BuildEnvironment) -> None:
    """A public name that no page of the reference explains fails the build."""
    objects = env.domains.python_domain.objects
    modules = [name for name in env.domains.python_domain.modules if "." in name]
    kinds = ("class", "exception", "function", "data", "type")
    explained = [name for name, entry in objects.items() if entry.objtype in kinds]
    for name in unexplained([*explained, *modules]):
        logging.getLogger(__name__).warning("the reference does not explain %s", name)

"""Where the library says that something is wrong, found in its source; nothing is listed by hand.

Two kinds of places. A *raise site* is a ``raise`` with a text, or a call of a function that does
nothing but raise (``refuse(...)``). A *collected text* stands in a list of problems, in an
exception that ends up in one, or in a function that words problems; it is raised elsewhere.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import fdfa

__all__ = ["PACKAGE", "Site", "collected_texts", "lost_makers", "raise_sites"]

PACKAGE = Path(fdfa.__file__).parent
# These end a study at the user's wish; they are no errors and show no text.
_INTERRUPTS = {"KeyboardInterrupt", "TrainingInterrupted", "StudyInterrupted"}
# Caught at once, and their texts put into a list.
_COLLECTED = {"_UnsuitableError"}
_LISTS = {"problems", "failures"}
# Functions that word a problem, or a part of a text, in several ways, for others to raise.
_MAKERS = {
    ("data/registry.py", "_unfinished"),
    ("engine/estimator.py", "Estimator._incomplete"),
    ("engine/selection.py", "_explicit_problem"),
    ("studies/typed_options.py", "_wording"),
    ("training/checkpoint.py", "_way_out"),
    ("training/non_finite.py", "_first_layer"),
    ("training/non_finite.py", "not_finite"),
    ("training/non_finite.py", "where_it_began"),
}


@dataclasses.dataclass(frozen=True)
class Site:
    """One statement, or call, that says what is wrong.

    Attributes:
        file: from ``src/fdfa`` on.
        function: in which it stands.
        first: line.
        last: line.
        source: its code on one line.
        pattern: what its text looks like, where that stands there; None if it is made elsewhere.
    """

    file: str
    function: str
    first: int
    last: int
    source: str
    pattern: re.Pattern[str] | None = None

    def __str__(self) -> str:
        return f"src/fdfa/{self.file}:{self.first} ({self.function}): {self.source[:100]}"


@functools.cache
def raise_sites() -> tuple[Site, ...]:
    """Every raise site of the package, file by file."""
    modules = _modules()
    raisers: set[tuple[str, str]] = set()
    while True:  # a function whose last word is a call of a raiser is one, too
        before = len(raisers)
        for name, module in modules.items():
            visible = module.visible(raisers)
            raisers |= {(name, f.name) for f in module.functions if _only_raises(f, visible)}
        if len(raisers) == before:
            break
    return tuple(
        _site(module.file, function, node)
        for module in modules.values()
        for visible in [module.visible(raisers)]
        for function, node in module.nodes
        if _raises_text(node) or _calls(node, visible)
    )


@functools.cache
def collected_texts() -> tuple[Site, ...]:
    """Every text that is put into a list of problems, or made for others to raise."""
    return tuple(
        dataclasses.replace(_site(file, function, node), pattern=re.compile(_regex(node)))
        for module in _modules().values()
        for file in [module.file]
        for function, statement in module.nodes
        for node in _collected(statement, makes=(file, function) in _MAKERS)
    )


def lost_makers() -> set[tuple[str, str]]:
    """The functions named above that are there no more."""
    return _MAKERS - {(m.file, name) for m in _modules().values() for name, _ in m.nodes}


def _collected(node: ast.AST, *, makes: bool) -> Iterator[ast.expr]:
    """The texts that a statement puts into a list of problems, or returns."""
    added: list[ast.expr] = []
    match node:
        case ast.Return(value=ast.expr() as value) if makes:
            added = _entries(value)
        case ast.Raise(exc=ast.Call(func=ast.Name(id=name), args=args)) if name in _COLLECTED:
            added = args
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="append"), args=args) if (
            name in _LISTS
        ):
            added = args
        case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in _LISTS:
            added = _entries(value)
        case ast.AugAssign(target=ast.Name(id=name), value=value) if name in _LISTS:
            added = _entries(value)
    yield from (entry for entry in added if _is_text(entry))


def _entries(value: ast.expr) -> list[ast.expr]:
    """The texts in a list, or either of two."""
    match value:
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [entry for part in parts for entry in _entries(part)]
        case ast.IfExp(body=first, orelse=second):
            return [*_entries(first), *_entries(second)]
        case ast.Starred(value=inner):
            return _entries(inner)
        case ast.ListComp(elt=inner) | ast.GeneratorExp(elt=inner):
            return [inner]
    return [value]


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):  # "...".rstrip()
        return _is_text(node.func.value)
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(node.value)
    )


def _regex(node: ast.expr) -> str:
    """What a text looks like: the words that stand there, and anything in the braces."""
    if isinstance(node, ast.Constant):
        return re.escape(str(node.value))
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_regex, node.values))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return _regex(node.func.value)
    return r"[\s\S]*?"


@dataclasses.dataclass(frozen=True)
class _Module:
    """A source file.

    Attributes:
        name: dotted.
        file: from ``src/fdfa`` on.
        nodes: of its syntax tree, each with the dotted name of the function around it.
        functions: that it defines, nested ones and methods included.
        imported: own name of what it imports to where that comes from.
    """

    name: str
    file: str
    nodes: tuple[tuple[str, ast.AST], ...]
    functions: tuple[ast.FunctionDef, ...]
    imported: dict[str, tuple[str, str]]

    def visible(self, raisers: set[tuple[str, str]]) -> set[str]:
        """What the raisers are called here."""
        own = {name for module, name in raisers if module == self.name}
        return own | {name for name, source in self.imported.items() if source in raisers}


@functools.cache
def _modules() -> dict[str, _Module]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE)
        parts = [part for part in ("fdfa", *file.with_suffix("").parts) if part != "__init__"]
        nodes = tuple(_within(ast.parse(path.read_text(encoding="utf-8"))))
        name = ".".join(parts)
        found[name] = _Module(
            name,
            file.as_posix(),
            nodes,
            tuple(node for _, node in nodes if isinstance(node, ast.FunctionDef)),
            {
                alias.asname or alias.name: (node.module or "", alias.name)
                for _, node in nodes
                if isinstance(node, ast.ImportFrom)
                for alias in node.names
            },
        )
    return found


def _only_raises(function: ast.FunctionDef, raisers: set[str]) -> bool:
    """Whether it gives nothing back and its last statement raises, whatever stands before."""
    last = function.body[-1]
    raises = isinstance(last, ast.Raise) or (
        isinstance(last, ast.Expr) and _calls(last.value, raisers)
    )
    inside = [node for statement in function.body for node in ast.walk(statement)]
    gives = any(isinstance(node, (ast.Return, ast.Yield, ast.YieldFrom)) for node in inside)
    return raises and not gives


def _raises_text(node: ast.AST) -> bool:
    """``raise`` with something behind it, but for what only signals to a caller near by."""
    if not isinstance(node, ast.Raise) or node.exc is None:
        return False
    called = node.exc.func if isinstance(node.exc, ast.Call) else None
    if called is None:
        # `raise ValueError`: no text. `raise error`: the error of someone else, who has a text.
        return not (isinstance(node.exc, ast.Name) and node.exc.id[0].isupper())
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return name not in _INTERRUPTS | _COLLECTED


def _calls(node: ast.AST, names: set[str]) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names


def _within(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Every node with the dotted name of the function around it."""

    def below(node: ast.AST, name: str) -> Iterator[tuple[str, ast.AST]]:
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                inner = f"{name}.{child.name}".lstrip(".")
            yield inner, child
            yield from below(child, inner)

    return below(tree, "")


def _site(file: str, function: str, node: ast.AST) -> Site:
    last = node.end_lineno or node.lineno
    return Site(file, function, node.lineno, last, " ".join(ast.unparse(node).split()))

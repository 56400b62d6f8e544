"""Nothing that the library reads can run code: it has neither pickle nor ``eval``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import fdfa

SOURCES = sorted(Path(fdfa.__file__).parent.rglob("*.py"))
# `pickletools` is allowed: it lists the instructions of a pickle and carries none of them out.
MODULES = (
    "pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal",
    "shelve",
)  # fmt: skip
# By the last names of the dotted path: also through `from torch import load`.
ATTRIBUTES = (
    "torch.load", "torch.save", "torch.package", "torch.hub", "torch.jit.load", "torch.export.load",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "numpy.load", "multiprocessing.reduction",
    "builtins.eval", "builtins.exec", "builtins.compile", "torch.serialization",
)  # fmt: skip
BUILTINS = ("eval", "exec", "compile", "__import__")


def forbidden(source: str) -> Iterator[str]:
    """What a source uses that can run code out of a file."""
    for node in ast.walk(ast.parse(source)):
        where = f"line {getattr(node, 'lineno', '?')}: "
        if isinstance(node, ast.Import):
            for name in node.names:
                if is_one_of(name.name, MODULES + ATTRIBUTES):
                    yield f"{where}import {name.name}"
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                if is_one_of(f"{node.module}.{name.name}", MODULES + ATTRIBUTES):
                    yield f"{where}from {node.module} import {name.name}"
        elif isinstance(node, ast.Attribute):
            if is_one_of(ast.unparse(node), MODULES + ATTRIBUTES):
                yield f"{where}{ast.unparse(node)}"
        elif isinstance(node, ast.Name) and node.id in BUILTINS:
            yield f"{where}{node.id}"
        elif isinstance(node, ast.Constant) and node.value in MODULES:
            yield f"{where}{node.value!r}, as if to import it by name"


def is_one_of(path: str, names: tuple[str, ...]) -> bool:
    """Whether a dotted path is one of the names, or lies below one."""
    return any(path == name or path.startswith(f"{name}.") for name in names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_source_can_run_code_out_of_a_file(path: Path) -> None:
    assert list(forbidden(path.read_text(encoding="utf-8"))) == []


def test_the_sources_are_found() -> None:
    assert {"checkpoint.py", "contents.py", "errors.py"} <= {path.name for path in SOURCES}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, pickle as p",
        "from pickle import loads",
        "import _pickle",
        "import marshal",
        "import shelve",
        "import joblib",
        "import torch\ntorch.load('x')",
        "import torch\ntorch.save(1, 'x')",
        "loader = torch.load",
        "from torch import load",
        "from torch import load as read",
        "from torch.jit import load",
        "import torch.hub",
        "torch.hub.load('x', 'y')",
        "torch.serialization.load('x')",
        "yaml.load('x')",
        "from yaml import load",
        "numpy.load('x')",
        "eval('1')",
        "exec('1')",
        "run = eval",
        "import builtins\nbuiltins.eval('1')",
        "compile('1', '', 'eval')",
        "__import__('os')",
        "importlib.import_module('pickle')",
        "def f():\n    import pickle",
        "torch.multiprocessing\nimport multiprocessing.reduction",
    ],
)
def test_what_is_forbidden_is_noticed(source: str) -> None:
    assert list(forbidden(source))


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "import pickletools\npickletools.genops(b'')",
        "json.load(file)",
        "safetensors.torch.load(raw)",
        "torch.compile(model)",
        "model.compile()",
        "re.compile('x')",
        "learner.load_state_dict(state)",
        "'it is copied and pickled as torch.load does'",
        "evaluate(model)",
        "from safetensors.torch import load_file",
    ],
)
def test_what_is_allowed_is_not(source: str) -> None:
    assert not list(forbidden(source))

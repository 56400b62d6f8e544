"""Command lines that cannot be: what the panel shows."""

from __future__ import annotations

import contextlib
import io
import json
import sys

from fdfa.cli import main
from fdfa.errors import ConfigError
from tests.errors.provoke import Case, Here

__all__ = ["CLI_CASES"]


def _typed(name: str, *argv: str, config: object = None) -> Case:
    """The error itself, in place of the panel with its text."""

    def run(here: Here) -> None:
        path = here.folder / "config.json"
        path.write_text(json.dumps(config))
        words = [word.replace("CONFIG", str(path)) for word in argv]
        here.patch.setattr("fdfa.cli.error_panel", _raise_it)
        here.patch.setattr("sys.path", [*sys.path])  # a command adds where it was typed
        with contextlib.redirect_stderr(io.StringIO()) as shown:
            status = main(words)
        raise AssertionError(f"status {status}: {shown.getvalue()}")

    return Case(name, ConfigError, run)


def _raise_it(text: str) -> None:
    """Called while the error is handled whose text is to be shown."""
    raise


COMPARE = {"compare": {"methods": ["dfa"]}}
CLI_CASES = [
    _typed("unknown command", "trian", "--epochs", "3"),
    _typed("completion for an unknown shell", "--completion", "fish"),
    _typed("a list twice", "compare", "--methods", "dfa", "--epochs", "3", "--methods", "fdfa"),
    _typed(
        "a list twice, in two spellings", "train", "--model_options=a=1", "--model-options", "b=2"
    ),
    _typed("the other command's configuration", "train", "--config", "CONFIG", config=COMPARE),
    _typed("the other command's, with =", "compare", "--config=CONFIG", config={"train": {}}),
    _typed("unknown method", "train", "--method", "fdaf"),
    _typed("unknown option", "train", "--options", "feedback_rat=0.1"),
    _typed("an option without its method", "compare", "--options", "probe_every=4"),
    _typed("unknown command for data sets", "data", "fetch", "mnist"),
    _typed("nothing to download", "data", "get", "digits"),
    _typed("no run", "resume", "CONFIG.d"),
]

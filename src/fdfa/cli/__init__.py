"""The command ``fdfa``: one thin layer over the studies.

Exit status: 0 if all went well, 1 if a run failed, 2 for a mistake in what was asked, 130 after
Ctrl-C.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence

from rich.console import Console

import fdfa
from fdfa.cli.command import speaks_not
from fdfa.cli.parsing import COMMANDS, parse
from fdfa.errors import ConfigError, DataError, FDFAError, briefly, unknown_name
from fdfa.studies.report import error_panel

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: what stands behind ``fdfa``; None takes the process's own.

    Returns:
        The exit status.

    Example:
        >>> main(["--version"])
        fdfa 0.1.0
        0
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    # Of the processes that torchrun started, the first speaks for all.
    silent = speaks_not()
    for stream in (sys.stdout, sys.stderr):  # a terminal that knows no ± shall still have its table
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    out, err = Console(highlight=False, quiet=silent), Console(stderr=True, highlight=False)
    try:
        return _dispatch(argv, out, err)
    except SystemExit as stop:  # tyro has printed help, or a mistake with the nearest option
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        err.print("Interrupted.")
        return 130
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if "--debug" in argv:
            traceback.print_exception(error)
        ours = isinstance(error, (FDFAError, ValueError, OSError))
        text = str(error) if ours else f"{briefly(error, named=True)}. --debug shows where."
        err.print(error_panel(text))
        # A mistake in what was asked, or bad luck: a damaged file, a full disk, no memory.
        return 2 if isinstance(error, ValueError) and not isinstance(error, DataError) else 1


def _dispatch(argv: list[str], out: Console, err: Console) -> int:
    if argv and argv[0] in ("--version", "-V"):
        out.print(f"fdfa {fdfa.__version__}")
        return 0
    if argv and not argv[0].startswith("-") and argv[0] not in COMMANDS:
        raise ConfigError(unknown_name("command", argv[0], list(COMMANDS)))
    # A network of the user's own lies where the user stands, as with `python -m`.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return int(parse(argv).run(out, err))

"""Ctrl-C, and the signal with which a cluster ends a job: stop between two steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from fdfa.training import Trainer

__all__ = ["stopping_gently"]


@contextlib.contextmanager
def stopping_gently(trainer: Trainer) -> Iterator[None]:
    """Let SIGINT and SIGTERM ask a trainer to stop; a second one stops at once.

    Python gives signals to the main thread alone: in another one nothing changes.

    Args:
        trainer: is asked.

    Raises:
        KeyboardInterrupt: at the second signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(_number: int, _frame: FrameType | None) -> None:
        if trainer.stop_requested:
            raise KeyboardInterrupt
        trainer.stop_requested = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

"""The exceptions of ``fdfa``: one family, each also of the built-in type that Python users expect.

Every text says what is wrong (with the dotted name and the value), why, and what to do. ``except
fdfa.errors.FDFAError`` catches them all; ``except ValueError`` goes on catching a bad value.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DistributedError",
    "FDFAError",
    "NonFiniteLossError",
    "ProbeError",
    "UnsupportedModelError",
    "briefly",
    "unknown_name",
]

_LONGEST = 300  # characters that are quoted of others


class FDFAError(Exception):
    """Base of every exception that ``fdfa`` raises on purpose.

    Example:
        >>> try:
        ...     raise ProbeError("tap 'features.3' (ReLU) lost its tangent")
        ... except FDFAError as error:
        ...     print(error)
        tap 'features.3' (ReLU) lost its tangent
    """


class UnsupportedModelError(FDFAError, ValueError):
    """A model that cannot be trained as asked; carries *all* problems found, not only the first.

    Args:
        problems: one text a problem, or a single text. Each names the module, the reason and the
            remedy.

    Attributes:
        problems: the texts, in the order in which they were found.

    Raises:
        ValueError: if no problem is given.

    Example:
        >>> error = UnsupportedModelError(["'head' is frozen", "'norm' is bypassed"])
        >>> print(error)
        2 problems found:
          1. 'head' is frozen
          2. 'norm' is bypassed
        >>> UnsupportedModelError("the model has no parameters").problems
        ('the model has no parameters',)
    """

    problems: tuple[str, ...]

    def __init__(self, problems: str | Iterable[str]) -> None:
        found = (problems,) if isinstance(problems, str) else tuple(problems)
        if not found:
            raise ValueError(
                "an UnsupportedModelError needs at least one problem to report. Give a text, or a "
                "list of texts."
            )
        # `args` holds what the constructor takes: this is all that pickle and copy rely on.
        super().__init__(found)
        self.problems = found

    def __str__(self) -> str:
        """Joins the problems: a single one stands alone, several are numbered."""
        if len(self.problems) == 1:
            return self.problems[0]
        lines = [f"  {number}. {problem}" for number, problem in enumerate(self.problems, 1)]
        return "\n".join([f"{len(self.problems)} problems found:", *lines])


class ProbeError(FDFAError, RuntimeError):
    """A tangent that was lost on its way, or an operator that has no forward derivative.

    Example:
        >>> isinstance(ProbeError("lost"), RuntimeError)
        True
    """


class CheckpointError(FDFAError, RuntimeError):
    """A checkpoint that is missing, damaged, or of another model or method.

    Example:
        >>> isinstance(CheckpointError("damaged"), RuntimeError)
        True
    """


class ConfigError(FDFAError, ValueError):
    """A configuration that names something unknown or holds a value out of range.

    Example:
        >>> isinstance(ConfigError("epochs must be positive"), ValueError)
        True
    """


class DataError(FDFAError, ValueError):
    """A data set that is missing, truncated, corrupt or lying about its contents.

    Example:
        >>> isinstance(DataError("truncated"), ValueError)
        True
    """


class DistributedError(FDFAError, RuntimeError):
    """Processes that disagree, or a wrapper order that would silently train wrongly.

    Example:
        >>> isinstance(DistributedError("the ranks disagree"), RuntimeError)
        True
    """


class NonFiniteLossError(FDFAError, ArithmeticError):
    """A loss that is infinite or not a number: the training went astray.

    Example:
        >>> isinstance(NonFiniteLossError("the loss is nan"), ArithmeticError)
        True
    """


def briefly(error: BaseException, *, named: bool = False) -> str:
    r"""What another program says, so that it can be quoted in a sentence of ours.

    Args:
        error: of Python, torch, the system, the user.
        named: whether its type stands before.

    Returns:
        Its first line (torch adds pages to it), one more where that ends in a colon; blanks joined,
        no full stop at the end, of a long one the beginning.

    Example:
        >>> briefly(RuntimeError("no\tmemory left. \nframe #1: c10::Error"), named=True)
        'RuntimeError: no memory left'
    """
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1]).rstrip(". ")
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]} ..."
    if not named:
        return text or type(error).__name__
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def unknown_name(kind: str, given: str, valid: Sequence[str], *, also: Sequence[str] = ()) -> str:
    """Words the complaint about a misspelt name, with the nearest match and all valid ones.

    Args:
        kind: what the name stands for, in the singular: ``"tap"``, ``"method"``, ``"option"``.
        given: the name that was not found.
        valid: the names that would have been accepted, in the order in which to show them.
        also: other names that would have been; only the nearest is ever shown.

    Returns:
        One line of text, to be put into an exception.

    Example:
        >>> unknown_name("tap", "layr1", ["layer1", "layer2"])
        "unknown tap 'layr1'. Did you mean 'layer1'? Valid taps: layer1, layer2."
        >>> unknown_name("method", "xyz", ["dfa", "fdfa"])
        "unknown method 'xyz'. Valid methods: dfa, fdfa."
    """
    text = f"unknown {kind} {given!r}."
    lowered = {name.lower(): name for name in (*also, *valid)}
    nearest = difflib.get_close_matches(given.lower(), lowered, n=1, cutoff=0.5)
    if nearest:
        text += f" Did you mean {lowered[nearest[0]]!r}?"
    if not valid:
        return f"{text} There are no {_plural(kind)} to choose from."
    return f"{text} Valid {_plural(kind)}: {', '.join(valid)}."


def _plural(kind: str) -> str:
    """The plural of a regular English noun, for texts only."""
    if kind.endswith("y") and kind[-2:-1] not in "aeiou":
        return kind[:-1] + "ies"
    return kind + ("es" if kind.endswith(("s", "x", "ch", "sh")) else "s")

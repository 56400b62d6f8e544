"""Options of methods and data sets: taken apart, checked, with every default in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import fdfa.data
from fdfa.errors import ConfigError, unknown_name
from fdfa.methods import canonical, described
from fdfa.studies.typed_options import typed_options

__all__ = [
    "assignments",
    "by_first_name",
    "data_set_options",
    "method_options",
    "options_by_method",
    "rate_shares",
    "resolved_options",
    "seeded",
]

T = TypeVar("T")


def assignments(texts: Sequence[str]) -> dict[str, str]:
    """Take ``NAME=VALUE`` texts apart.

    Args:
        texts: as they stand on a command line.

    Returns:
        Name to value, both still text. Hyphens in names count as underscores.

    Raises:
        ConfigError: if one has no ``=``, or a name comes twice.

    Example:
        >>> assignments(["feedback-rate=0.05", "noise=normal"])
        {'feedback_rate': '0.05', 'noise': 'normal'}
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise ConfigError(
                f"option {text!r} is not of the form NAME=VALUE. Write {text.strip('= ') or 'NAME'}"
                "=VALUE, as in depth=2."
            )
        if name in found:
            raise ConfigError(f"option {name!r} is given twice. Give it once.")
        found[name] = value.strip()
    return found


def method_options(method: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Options of a method from text, checked against its signature.

    Args:
        method: a name of ``fdfa.methods()``.
        texts: option to value, as text.

    Returns:
        Keyword arguments for ``fdfa.wrap``.

    Raises:
        ConfigError: if the method or an option is unknown, or a value is not of its type.

    Example:
        >>> method_options("fdfa", {"feedback_rate": "0.05", "taps": "relu1,relu2"})
        {'feedback_rate': 0.05, 'taps': ('relu1', 'relu2')}
    """
    valid = list(resolved_options(method, {}))
    function = described(method).estimator.__init__
    return typed_options(texts, function, valid=valid, owner=f"method {method!r}")


def data_set_options(data: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Options of a data set from text, checked against its loader's signature.

    Args:
        data: name of the data set.
        texts: option to value, as text.

    Returns:
        Keyword arguments for ``fdfa.data.load``.

    Raises:
        ConfigError: if the data set or an option is unknown, or a value is not of its type.

    Example:
        >>> data_set_options("digits", {})
        {}
    """
    source = fdfa.data.describe(data)
    return typed_options(
        texts, source.loader, valid=list(source.options()), owner=f"data set {data!r}"
    )


def options_by_method(chosen: Sequence[str], texts: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Options of several methods from text, each named after its method: ``fdfa.probe_every=4``.

    Args:
        chosen: methods that take part.
        texts: ``method.option`` to value, as text.

    Returns:
        For each method that has options, its keyword arguments.

    Raises:
        ConfigError: if an option has no method, one that does not take part, or a bad value, or is
            given under two names of its method.

    Example:
        >>> options_by_method(["dfa", "fdfa"], {"fdfa.probe_every": "4"})
        {'fdfa': {'probe_every': 4}}
    """
    chosen = [canonical(method) for method in chosen]
    grouped: dict[str, dict[str, str]] = {}
    for name, value in by_first_name("options", texts, of=_by_first_method).items():
        method, dot, option = name.rpartition(".")
        if not dot:
            raise ConfigError(
                f"option {name!r} does not say which method it is for. Write "
                f"METHOD.{name}={value}, with a method of {', '.join(chosen)}."
            )
        if method not in chosen:
            try:
                described(method)
            except ConfigError as error:
                raise ConfigError(f"option {name!r}: {error}") from None
            raise ConfigError(
                f"option {name!r}: {method!r} takes no part in the comparison. Add it to the "
                "methods, or leave the option out."
            )
        grouped.setdefault(method, {})[option] = value
    return {method: method_options(method, given) for method, given in grouped.items()}


def rate_shares(texts: Mapping[str, str]) -> dict[str, float]:
    """Learning rates of methods, as shares of the others', from text.

    Args:
        texts: method to number, as text.

    Returns:
        Method to number.

    Raises:
        ConfigError: if one is no number, or a method is named twice.

    Example:
        >>> rate_shares({"fg_w": "0.1"})
        {'fg-w': 0.1}
    """
    shares = {}
    for method, text in by_first_name("rate_shares", texts).items():
        try:
            shares[method] = float(text)
        except ValueError:
            raise ConfigError(
                f"rate_shares: {method!r} takes a number, not {text!r}. Write {method}=0.1, say."
            ) from None
    return shares


def by_first_name(
    what: str, given: Mapping[str, T], *, of: Callable[[str], str] = canonical
) -> dict[str, T]:
    """What is given by names of methods, by the first of each method's names.

    Args:
        what: is given, for the error's text.
        given: by any of their names.
        of: the name to go by instead of another.

    Returns:
        The same values.

    Raises:
        ConfigError: if two names are of one method.

    Example:
        >>> by_first_name("rate_shares", {"mezo": 0.1, "dfa": 0.5})
        {'spsa': 0.1, 'dfa': 0.5}
    """
    found: dict[str, tuple[str, T]] = {}
    for name, value in given.items():
        first = of(name)
        if first in found:
            raise ConfigError(
                f"{what}: {first!r} is given twice, as {found[first][0]!r} and as {name!r}. Give it"
                " once."
            )
        found[first] = name, value
    return {first: value for first, (_, value) in found.items()}


def resolved_options(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a method with every default in place.

    Args:
        method: a name of ``fdfa.methods()``.
        given: the options that were chosen.

    Returns:
        All options.

    Raises:
        ConfigError: if the method or an option is unknown.

    Example:
        >>> resolved_options("backpropagation", {"seed": 3})
        {'output': None, 'seed': 3}
    """
    defaults = described(method).options()
    for name in given:
        if name not in defaults:
            raise ConfigError(f"method {method!r}: {unknown_name('option', name, list(defaults))}")
    return {**defaults, **given}


def seeded(options: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The same options with the run's seed, unless they name one of their own.

    Args:
        options: with every default in place.
        seed: of the run.

    Returns:
        Keyword arguments for ``fdfa.wrap``.

    Example:
        >>> seeded({"output": None, "seed": None}, 7)
        {'output': None, 'seed': 7}
    """
    own = options.get("seed")
    return {**options, "seed": seed if own is None else own}


def _by_first_method(name: str) -> str:
    """``kp.decay`` is ``kolen-pollack.decay``."""
    method, dot, option = name.rpartition(".")
    return f"{canonical(method)}{dot}{option}"

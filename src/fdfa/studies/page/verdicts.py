"""Each contestant against the baseline on the same data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from fdfa.errors import ConfigError, unknown_name
from fdfa.studies.page.contestants import Contestant
from fdfa.studies.page.paired_tests import Paired, adjusted, paired

__all__ = ["Verdict", "baselines", "verdicts"]

_REFERENCE = "backpropagation"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How one contestant's test accuracy compares.

    Attributes:
        baseline: name of the contestant that it is compared with.
        is_baseline: whether it is that one itself.
        paired: what its runs say, seed by seed; None without a common seed of finished runs.
        adjusted: p after Holm's correction over all comparisons of the page; None without p.
    """

    baseline: str
    is_baseline: bool
    paired: Paired | None
    adjusted: float | None


def verdicts(entries: Sequence[Contestant], *, against: str | None = None) -> tuple[Verdict, ...]:
    """Compare every contestant with the baseline of its data set.

    Args:
        entries: the contestants.
        against: name, or method, of the baseline; default: backpropagation if it took part, else
            the first.

    Returns:
        One for each.

    Raises:
        ConfigError: if there is no such contestant.
    """
    bases = baselines(entries, against=against)
    pairs = []
    for entry, base in zip(entries, bases, strict=True):
        alone = base is None or base is entry
        pairs.append(None if base is None or alone else paired(entry.accuracies, base.accuracies))
    tested = [place for place, pair in enumerate(pairs) if pair is not None and pair.p is not None]
    ps = [pair.p for pair in pairs if pair is not None and pair.p is not None]
    corrected = dict(zip(tested, adjusted(ps), strict=True))
    return tuple(
        Verdict("" if base is None else base.name, base is entry, pair, corrected.get(place))
        for place, (entry, base, pair) in enumerate(zip(entries, bases, pairs, strict=True))
    )


def baselines(
    entries: Sequence[Contestant], *, against: str | None = None
) -> tuple[Contestant | None, ...]:
    """What each contestant is compared with: one on the same data.

    Args:
        entries: the contestants.
        against: name, or method, of the baseline.

    Returns:
        One for each; None where the one that was asked for has not learned the same data.

    Raises:
        ConfigError: if there is no such contestant.
    """
    wanted = against or _REFERENCE
    named = [entry for entry in entries if entry.name == wanted]
    named = named or [entry for entry in entries if entry.method == wanted]
    if against is not None and not named:
        known = dict.fromkeys(name for entry in entries for name in (entry.name, entry.method))
        raise ConfigError(unknown_name("baseline", against, list(known)))
    found = []
    for entry in entries:
        alike = [base for base in named if base.data == entry.data]
        if against is None:
            alike = alike or [other for other in entries if other.data == entry.data]
        found.append(alike[0] if alike else None)
    return tuple(found)

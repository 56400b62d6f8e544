"""On which networks the variance of gradient estimates is measured, and of which rules."""

from __future__ import annotations

import dataclasses
from typing import Literal

from fdfa.errors import ConfigError, unknown_name
from fdfa.studies.whole_numbers import MOST_SEED, check_whole

__all__ = [
    "FGA",
    "FGW",
    "INNOVATION",
    "MEAN",
    "MOMENTUM",
    "PROJECTION",
    "RULES",
    "GridPoint",
    "VarianceSettings",
    "decay_name",
    "decaying",
    "name_of",
    "places",
]

Kind = Literal["linear", "relu"]
_IN_WORDS: dict[Kind, str] = {"linear": "linear", "relu": "ReLU"}
FGW, FGA = "FG-W", "FG-A"
MOMENTUM, INNOVATION = "FDFA, momentum", "FDFA, innovation"
MEAN, PROJECTION = "multi-tangent, mean", "multi-tangent, projection"
RULES = (FGW, FGA, MOMENTUM, INNOVATION, MEAN, PROJECTION)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VarianceSettings:
    """On which networks the variance is measured, and how exactly.

    Attributes:
        data: data sets, of any that `fdfa data list` names; the batch is their first examples.
        data_dir: folder with their files; default: $FDFA_DATA, then the cache, then a download.
        networks: linear, relu: what is behind each hidden layer.
        widths: of networks of --depth hidden layers.
        depths: hidden layers of networks of --width units each.
        width: units of each hidden layer where depths are compared.
        depth: hidden layers where widths are compared.
        batch: examples.
        feedback_rate: alpha of FDFA; the innovation takes its fastest rate where that is less.
        probes: that the innovation takes, at most; 4/alpha where that is less.
        tangents: of the multi-tangent rules.
        draws: gradients of each rule; large networks get fewer, 32 at least.
        seed: of weights and probes.

    Raises:
        ConfigError: if a number is out of range, or a name unknown.

    Example:
        >>> VarianceSettings(data=("digits",)).widths
        (64, 128, 256, 512, 1024, 2048, 4096)
    """

    data: tuple[str, ...] = ("digits", "mnist")
    data_dir: str | None = None
    networks: tuple[Kind, ...] = ("linear", "relu")
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048, 4096)
    depths: tuple[int, ...] = (1, 2, 4, 8)
    width: int = 256
    depth: int = 2
    batch: int = 32
    feedback_rate: float = 0.1
    probes: int = 64
    tangents: int = 4
    draws: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every value; data are looked for when they are needed."""
        for name in ("data", "networks", "widths", "depths"):
            if not getattr(self, name):
                raise ConfigError(f"{name}: there is nothing to measure. Name at least one.")
        for kind in self.networks:
            if kind not in _IN_WORDS:
                raise ConfigError(unknown_name("network", str(kind), list(_IN_WORDS)))
        for name in ("widths", "depths"):
            for number in getattr(self, name):
                check_whole(name, number, least=1, most=100_000)
        for name in ("width", "depth", "batch"):
            check_whole(name, getattr(self, name), least=1, most=100_000)
        check_whole("probes", self.probes, least=1, most=1_000_000)
        check_whole("tangents", self.tangents, least=1, most=1000)
        check_whole("draws", self.draws, least=2)
        check_whole("seed", self.seed, least=0, most=MOST_SEED)
        if not 0 < self.feedback_rate < 1:
            raise ConfigError(
                f"feedback_rate={self.feedback_rate!r}: an average whose noise is below that of one"
                " probe has a rate in (0, 1). Pass 0.1, say."
            )


@dataclasses.dataclass(frozen=True)
class GridPoint:
    """Where a variance is measured.

    Attributes:
        data: name of the data set.
        kind: of the network.
        width: units of each hidden layer.
        depth: hidden layers.
    """

    data: str
    kind: Kind
    width: int
    depth: int

    @property
    def subject(self) -> str:
        """Data and kind of network.

        Returns:
            Both in words.
        """
        return f"{self.data}, {_IN_WORDS[self.kind]}"


def places(settings: VarianceSettings) -> list[GridPoint]:
    """Every network on every data set, each once.

    Args:
        settings: of the reproduction.

    Returns:
        Those of one width after those of one depth.

    Example:
        >>> settings = VarianceSettings(data=("digits",), networks=("relu",), widths=(64, 256))
        >>> [(place.width, place.depth) for place in places(settings)]
        [(64, 2), (256, 2), (256, 1), (256, 4), (256, 8)]
    """
    sizes = dict.fromkeys(
        [
            *((width, settings.depth) for width in settings.widths),
            *((settings.width, depth) for depth in settings.depths),
        ]
    )
    return [
        GridPoint(data, kind, *size)
        for data in settings.data
        for kind in settings.networks
        for size in sizes
    ]


def decaying(settings: VarianceSettings) -> list[GridPoint]:
    """Where the innovation's noise is followed until it is gone: one linear network a data set.

    Args:
        settings: of the reproduction.

    Returns:
        The places; none if no linear network is measured.
    """
    linear = "linear" in settings.networks
    return [GridPoint(d, "linear", settings.width, settings.depth) for d in settings.data if linear]


def name_of(place: GridPoint, rule: str) -> str:
    """The name under which a measurement is kept.

    Args:
        place: of it.
        rule: that was measured.

    Returns:
        The name.
    """
    return f"{place.subject}, {place.depth} x {place.width}, {rule}"


def decay_name(place: GridPoint) -> str:
    """The name under which a decay is kept.

    Args:
        place: of it.

    Returns:
        The name.
    """
    return name_of(place, f"{INNOVATION}, decay")

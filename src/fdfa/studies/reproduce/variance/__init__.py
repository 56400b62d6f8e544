"""How the variance of a gradient estimate grows with width and depth, beside exact theory.

Bacho & Chu 2024, arXiv:2212.07282: learned direct feedback has a lower variance than forward
gradients. Weights stand still, as they were initialised; the batch is fixed.
"""

from __future__ import annotations

import functools

import fdfa.data
from fdfa.studies.reproduce.findings import Units
from fdfa.studies.reproduce.variance.bands import known
from fdfa.studies.reproduce.variance.cases import Case
from fdfa.studies.reproduce.variance.findings import expectations
from fdfa.studies.reproduce.variance.pictures import grids, panels
from fdfa.studies.reproduce.variance.settings import (
    RULES,
    VarianceSettings,
    decay_name,
    decaying,
    name_of,
    places,
)

__all__ = ["expectations", "grids", "measure", "panels"]


def measure(settings: VarianceSettings, units: Units) -> None:
    """Every rule's variance, on every network.

    Args:
        settings: of the reproduction.
        units: keeps what is measured.
    """
    # Whatever is wrong with the data is found before anything is measured.
    data = {
        name: fdfa.data.load(name, directory=settings.data_dir)
        for name in dict.fromkeys(settings.data)
    }
    for place in places(settings):
        case = Case(settings, place, data[place.data])
        for rule in RULES:
            units.get(
                name_of(place, rule),
                functools.partial(case.measured, rule),
                lambda found: (
                    f"{known(found['variance']['found']):.4g} |g|^2,"
                    f" in theory {found['variance']['expected']:.4g}"
                ),
            )
    for place in decaying(settings):
        units.get(
            decay_name(place),
            Case(settings, place, data[place.data], exactly=True).decay,
            lambda found: (
                f"{known(found[-1]['found']):.2g} |g|^2 after {found[-1]['probes']:,} probes"
            ),
        )

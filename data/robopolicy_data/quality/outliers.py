"""Which episodes stick out of their dataset, and in what: robust z-scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LIMIT = 3.5  # Iglewicz and Hoaglin 1993, "How to detect and handle outliers"
FEWEST = 8  # episodes below which nothing can be said to stick out


@dataclass(frozen=True)
class Trait:
    """A measure by which an episode may stick out."""

    label: str
    unit: str
    side: int  # +1: only large values are bad, -1: only small, 0: both
    smallest: float  # difference from the median that matters to anybody, in the unit


TRAITS: dict[str, Trait] = {
    "duration_s": Trait("duration", "s", 0, 0.5),
    "idle_share": Trait("idle share", "", 1, 0.05),
    "path": Trait("path", "", 0, 0.0),
    "sparc": Trait("smoothness (SPARC)", "", -1, 0.3),
    "jerk": Trait("smoothness (jerk)", "", -1, 0.5),
    "novelty": Trait("novelty", "", 1, 0.25),
    "saturated_share": Trait("commands at the stop", "", 1, 0.05),
    "lag_s": Trait("lag behind the command", "s", 0, 0.02),
}


@dataclass(frozen=True)
class Outlier:
    """An episode and what is unusual about it."""

    episode: int  # its number
    measure: str  # a key of `TRAITS`, "duplicate" or "label"
    z: float | None
    reason: str

    def __str__(self) -> str:
        return f"episode {self.episode}: {self.reason}"


def robust_z(values: np.ndarray) -> np.ndarray:
    """Return 0.6745 (x - median) / MAD for each of ``values`` (E,); NaN stays NaN.

    Where more than half of the values are equal the MAD is zero; then 1.2533 times the mean absolute deviation takes
    the place of 1.4826 MAD, and where that is zero too, so are all scores.
    """
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return np.full(len(values), np.nan)
    away = values - np.median(known)
    scale = 1.4826 * float(np.median(np.abs(away[np.isfinite(away)])))
    if scale == 0:
        scale = 1.2533 * float(np.mean(np.abs(away[np.isfinite(away)])))
    scores: np.ndarray = away / scale if scale > 0 else away * 0.0
    return scores


def find_outliers(numbers: Sequence[int], measures: Mapping[str, np.ndarray], unit: str = "") -> list[Outlier]:
    """Return every episode that sticks out by a trait, the worst first.

    Args:
        numbers: of the episodes.
        measures: {trait: (E,)}, NaN where an episode has none.
        unit: of the path, for the words.
    """
    if len(numbers) < FEWEST:
        return []
    found = []
    for key, trait in TRAITS.items():
        values = measures[key]
        middle = float(np.nanmedian(values)) if np.isfinite(values).any() else 0.0
        for i, z in enumerate(robust_z(values)):
            bad = z * trait.side if trait.side else abs(z)
            if not np.isfinite(z) or bad <= LIMIT or abs(values[i] - middle) <= trait.smallest:
                continue
            words = f"{trait.label} {_say(values[i], key, unit)}, median {_say(middle, key, unit)} (z {z:+.1f})"
            found.append(Outlier(numbers[i], key, float(z), words))
    return sorted(found, key=lambda o: -abs(o.z or 0.0))


def _say(value: float, key: str, unit: str) -> str:
    if key.endswith("_share"):
        return f"{value:.0%}"
    return f"{value:.3g} {unit if key == 'path' else TRAITS[key].unit}".rstrip()

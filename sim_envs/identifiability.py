"""Which numbers of a fit the measurements hold: standard errors, what cannot be told apart, what may be anything."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from robopolicy.errors import ContractError

Residuals = Callable[[np.ndarray], np.ndarray]  # (P, B) values, B points -> (R, B) predicted - measured
Kept = dict[int, tuple[str, int | None]]  # {which unknown: why it is kept at nominal, and what it goes with}

WIDE = 0.3  # a standard error above this part of the unknown's scale: the measurements say nothing about it
ALIKE = 0.999  # two estimates correlated beyond this cannot be told apart, however many measurements there are
CLEAR = 2.0  # how often the spread a fit has to be worse, summed over blocks: four alike will do
FAR = 3 * WIDE  # of the unknown's scale: moved so far the fit has to be worse
NEAR_BOUND = 1e-3  # of the range between the bounds


@dataclass(frozen=True)
class Unknown:
    """A number to identify.

    Raises:
        ContractError: unless low <= nominal <= high and low < high, all finite, and the scale is positive.
    """

    name: str
    unit: str
    nominal: float
    low: float
    high: float
    scale: float  # how much of it matters: the doubt there is before anything was measured
    keep: int = 0  # of two that cannot be told apart the one with the larger number stays unknown

    def __post_init__(self) -> None:
        finite = np.isfinite([self.nominal, self.low, self.high, self.scale]).all()
        if not (finite and self.low <= self.nominal <= self.high and self.low < self.high and self.scale > 0):
            raise ContractError(f"{self.name}: nominal {self.nominal:g} within {self.low:g} to {self.high:g}?")


def at_bound(unknown: Unknown, value: float) -> bool:
    """Return whether a value is at one of its bounds."""
    return min(value - unknown.low, unknown.high - value) < NEAR_BOUND * (unknown.high - unknown.low)


def _inverse(jacobian: np.ndarray) -> np.ndarray:
    """(JᵀJ)⁻¹ with directions that the measurements do not see made very uncertain, not left out."""
    _, size, right = np.linalg.svd(jacobian, full_matrices=False)
    found: np.ndarray = (right.T / np.maximum(size, 1e-9 * max(size[0], 1e-30)) ** 2) @ right
    return found


def condition_of(jacobian: np.ndarray) -> float:
    """Return the condition number of a Jacobian (R, P); 1 without columns."""
    return float(np.linalg.cond(jacobian)) if jacobian.shape[1] else 1.0


def covariance_of(jacobian: np.ndarray, residual: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """The sandwich (JᵀJ)⁻¹ (Σ gᵦgᵦᵀ) (JᵀJ)⁻¹ with gᵦ = Jᵦᵀrᵦ, or the textbook's σ²(JᵀJ)⁻¹ if that is larger."""
    inverse = _inverse(jacobian)
    _, block = np.unique(blocks, return_inverse=True)
    gradients = np.zeros((block.max() + 1, jacobian.shape[1]))
    np.add.at(gradients, block, jacobian * residual[:, None])
    sandwich = inverse @ (gradients.T @ gradients) @ inverse
    textbook = inverse * float(residual @ residual) / max(len(residual) - jacobian.shape[1], 1)
    return sandwich if np.trace(sandwich) > np.trace(textbook) else textbook


def _correlation(covariance: np.ndarray) -> np.ndarray:
    spread = np.sqrt(np.diag(covariance))
    found: np.ndarray = covariance / np.maximum(np.outer(spread, spread), 1e-300)
    return found


def alike(unknowns: Sequence[Unknown], jacobian: np.ndarray) -> Kept:
    """What to keep at nominal, and why: whatever changes nothing, and one of each two that change the same."""
    kept: Kept = {}
    left = list(range(len(unknowns)))
    while len(left) > 1:
        columns = jacobian[:, left]
        size = np.linalg.norm(columns, axis=0)
        if size.min() < 1e-9 * max(size.max(), 1e-30):
            kept[left.pop(int(np.argmin(size)))] = "it changes nothing that was measured", None
            continue
        correlation = np.triu(_correlation(_inverse(columns / size)), 1)
        i, j = (int(k) for k in np.unravel_index(int(np.argmax(np.abs(correlation))), correlation.shape))
        if abs(correlation[i, j]) <= ALIKE:
            break
        drop, other = (i, j) if unknowns[left[i]].keep <= unknowns[left[j]].keep else (j, i)
        why = f"it cannot be told apart from {unknowns[left[other]].name} (correlation {correlation[i, j]:+.3f})"
        kept[left[drop]] = why, left[other]
        del left[drop]
    return kept


def vague_ones(
    unknowns: Sequence[Unknown],
    free: np.ndarray,
    values: np.ndarray,
    jacobian: np.ndarray,
    residual: np.ndarray,
    blocks: np.ndarray,
) -> Kept:
    """What else to keep at nominal, the vaguest first, until all that are left have a small standard error.

    Not what is at a bound: there the slope is not zero, and no standard error means anything.
    """
    kept: Kept = {}
    inside = [k for k, i in enumerate(free) if not at_bound(unknowns[i], values[i])]
    jacobian, left = jacobian[:, inside], free[inside].tolist()
    inner = list(left)
    while left:
        columns = jacobian[:, [k for k, i in enumerate(inner) if i in left]]
        covariance = covariance_of(columns, residual, blocks)
        errors = np.sqrt(np.diag(covariance))
        k = int(np.argmax(errors))
        if errors[k] <= WIDE:
            break
        u, correlation = unknowns[left[k]], _correlation(covariance)[k]
        why = f"its standard error would be {errors[k] * u.scale:.2g} {u.unit}".rstrip()
        correlation[k], other = 0, None
        if abs(correlation[m := int(np.argmax(np.abs(correlation)))]) > 0.9:
            why, other = f"{why}, for it goes with {unknowns[left[m]].name} ({correlation[m]:+.3f})", left[m]
        kept[left[k]] = why, other
        del left[k]
    return kept


def flat_ones(
    unknowns: Sequence[Unknown], free: np.ndarray, values: np.ndarray, residuals: Residuals, blocks: np.ndarray
) -> Kept:
    """What else to keep at nominal: all that may be moved to a side without a significantly worse fit."""
    inside = [int(i) for i in free if not at_bound(unknowns[i], values[i])]
    if not inside:
        return {}
    points = np.repeat(values[:, None], 1 + 2 * len(inside), axis=1)
    for k, i in enumerate(inside):
        u = unknowns[i]
        for side, sign in enumerate((-1, 1)):
            points[i, 1 + 2 * k + side] = np.clip(values[i] + sign * FAR * u.scale, u.low, u.high)
    _, block = np.unique(blocks, return_inverse=True)
    costs = np.zeros((block.max() + 1, points.shape[1]))
    np.add.at(costs, block, residuals(points) ** 2)
    worse = costs[:, 1:] - costs[:, :1]  # (blocks, 2 a parameter)
    score = worse.sum(axis=0) / np.maximum(np.sqrt((worse**2).sum(axis=0)), 1e-300)
    score = score.reshape(-1, 2).min(axis=1)
    flat = [inside[k] for k in np.flatnonzero(score <= CLEAR)]
    return {i: (f"moved by {FAR * unknowns[i].scale:.2g} {unknowns[i].unit} it fits no worse", None) for i in flat}


def pairs_of(names: Sequence[str], covariance: np.ndarray) -> list[tuple[str, str, float]]:
    """Return the pairs of names that correlate by more than .8, and how much, the strongest first."""
    correlation = _correlation(covariance)
    found = [
        (a, names[j], float(correlation[i, j]))
        for i, a in enumerate(names)
        for j in range(i)
        if abs(correlation[i, j]) > 0.8
    ]
    return sorted(found, key=lambda pair: -abs(pair[2]))

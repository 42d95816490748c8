"""Identification: least squares on what was measured, and which of the numbers the measurements really hold.

`mujoco.sysid` does the optimisation (bounded Levenberg-Marquardt with batched finite differences). Its own residual is
not used: there a delay is a resampling of sensors and a command has no delay, and every column of the Jacobian compiles
the model again. Ours write into compiled models.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from robopolicy.errors import ContractError, MissingExtra

Residuals = Callable[[np.ndarray], np.ndarray]  # (P, B) values, B points -> (R, B) predicted - measured

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


@dataclass(frozen=True)
class Estimate:
    """What became of an unknown."""

    name: str
    unit: str
    nominal: float
    value: float
    std_err: float | None  # None if it was not identified, or is at a bound
    status: str  # "identified", "at a bound" or "kept nominal"
    note: str = ""  # why it was kept

    @property
    def moved(self) -> bool:
        """Whether it is identified and differs from nominal by more than two standard errors."""
        return self.std_err is not None and bool(abs(self.value - self.nominal) > 2 * self.std_err)


@dataclass(frozen=True)
class Fit:
    """What was identified and how well the measurements hold it."""

    estimates: tuple[Estimate, ...]
    rms_before: float  # of the residuals at the nominal values
    rms_after: float
    condition: float  # of the scaled Jacobian with all unknowns in it
    condition_kept: float  # with only those that were identified
    pairs: tuple[tuple[str, str, float], ...]  # estimates that correlate by more than .8, and how much

    @property
    def values(self) -> np.ndarray:
        """The values (P,), in the order of the unknowns."""
        return np.array([estimate.value for estimate in self.estimates])


def fit(
    unknowns: Sequence[Unknown],
    residuals: Residuals,
    *,
    blocks: np.ndarray,
    max_iters: int = 40,
    step: float = 1e-4,
    start: np.ndarray | None = None,
) -> Fit:
    """Identify ``unknowns``, keep at nominal what the measurements cannot tell, and identify the others again.

    Standard errors are robust to residuals that hang together within a block (the sandwich of Liang and Zeger,
    Longitudinal data analysis using generalized linear models, 1986): a model that is wrong somewhere makes them
    larger, where the textbook's formula would call them tiny. They still assume that the model could be right, and
    that a slope means something: so what is identified has also to fit significantly worse when it is moved by a
    noticeable part of its scale to either side, everything else unchanged. Contacts, whose slopes are jagged, often
    fail that.

    Args:
        unknowns: P of them.
        residuals: predicted - measured at B points at once, all in one unit.
        blocks: (R,) int, which residuals hang together, such as half a second of one recording.
        max_iters: of each optimisation.
        step: of the finite differences, in parts of each unknown's scale.
        start: (P,) where to look first; None is the nominal values.

    Raises:
        ContractError: if the residuals at the nominal values are not finite, or are fewer than the unknowns.
        MissingExtra: without what mujoco.sysid needs.
    """
    nominal = np.array([unknown.nominal for unknown in unknowns])
    scale = np.array([unknown.scale for unknown in unknowns])
    before = residuals(nominal[:, None])[:, 0]
    if not np.isfinite(before).all():
        raise ContractError("the simulation of the nominal parameters is not finite; check model and commands")
    if len(before) <= len(unknowns) or len(blocks) != len(before):
        raise ContractError(f"{len(before)} measurements of {len(blocks)} in blocks, for {len(unknowns)} unknowns")
    free = np.arange(len(unknowns))
    first = _off_bounds(unknowns, nominal if start is None else start)
    jacobian = _jacobian(unknowns, residuals, first, free, step)
    condition = _condition(jacobian)
    kept = _alike(unknowns, jacobian)
    values = np.where([i in kept for i in free], nominal, first)
    while True:
        free = np.array([i for i in range(len(unknowns)) if i not in kept], dtype=int)
        values[free] = _off_bounds(unknowns, values)[free]
        values, jacobian = _minimise(unknowns, residuals, values, free, max_iters, step)
        vague = _vague(unknowns, free, values, jacobian, residuals(values[:, None])[:, 0], blocks)
        vague = vague or _flat(unknowns, free, values, residuals, blocks)
        if not vague:
            break
        kept |= vague
        values[list(vague)] = nominal[list(vague)]
    end = residuals(values[:, None])[:, 0]
    covariance = _covariance(jacobian, end, blocks) if free.size else np.zeros((0, 0))
    errors = dict(zip(free.tolist(), np.sqrt(np.diag(covariance)) * scale[free], strict=True))
    notes = _notes(unknowns, kept)
    return Fit(
        tuple(_estimate(u, float(values[i]), errors.get(i), notes.get(i, "")) for i, u in enumerate(unknowns)),
        float(np.sqrt(np.mean(before**2))),
        float(np.sqrt(np.mean(end**2))),
        condition,
        _condition(jacobian),
        tuple(_pairs([unknowns[i].name for i in free], covariance)),
    )


def _estimate(unknown: Unknown, value: float, error: float | None, why: str) -> Estimate:
    made = Estimate(unknown.name, unknown.unit, unknown.nominal, value, error, "identified")
    if error is None:
        return replace(made, status="kept nominal", note=why)
    if _at_bound(unknown, value):
        return replace(
            made, std_err=None, status="at a bound", note=f"the bounds are {unknown.low:g} to {unknown.high:g}"
        )
    return replace(made, note=why)


def _at_bound(unknown: Unknown, value: float) -> bool:
    return min(value - unknown.low, unknown.high - value) < NEAR_BOUND * (unknown.high - unknown.low)


def _notes(unknowns: Sequence[Unknown], kept: dict[int, tuple[str, int | None]]) -> dict[int, str]:
    """Why each was kept; and of those that were not, what they are right only together with."""
    notes = {i: why for i, (why, _) in kept.items()}
    for i, (_, other) in kept.items():
        if other is not None and other not in kept:
            said = f"only together with {unknowns[i].name} at its nominal value"
            notes[other] = f"{notes[other]}; {said}" if other in notes else said
    return notes


def _minimise(
    unknowns: Sequence[Unknown], residuals: Residuals, start: np.ndarray, free: np.ndarray, max_iters: int, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return all values (P,) and the Jacobian (R, len(free)) there, per scale of each."""
    from mujoco import sysid  # it leaves its names out when a package of its own is missing

    if not hasattr(sysid, "optimize"):
        raise MissingExtra("a package of mujoco.sysid", "sysid")
    scale = np.array([unknown.scale for unknown in unknowns])

    def scaled(x: np.ndarray, _: object = None) -> tuple[list[np.ndarray], None, None]:
        points = np.repeat(start[:, None], 1 if x.ndim == 1 else x.shape[1], axis=1)
        points[free] = x.reshape(len(free), -1) * scale[free, None]
        found = residuals(points)
        return [found[:, 0] if x.ndim == 1 else found], None, None

    if free.size == 0:
        return start, np.zeros((len(residuals(start[:, None])), 0))
    parameters = sysid.ParameterDict()
    for i in free:
        u = unknowns[i]
        parameters.add(sysid.Parameter(u.name, start[i] / u.scale, u.low / u.scale, u.high / u.scale))
    best, _ = sysid.optimize(
        parameters, scaled, "mujoco", verbose=False, max_iters=max_iters, eps=step, xtol=1e-4, output=io.StringIO()
    )
    values = start.copy()
    values[free] = best.as_vector() * scale[free]
    return values, _jacobian(unknowns, residuals, values, free, step)


def _jacobian(
    unknowns: Sequence[Unknown], residuals: Residuals, values: np.ndarray, free: np.ndarray, step: float
) -> np.ndarray:
    """Forward differences, backward at an upper bound; (R, len(free)) per scale."""
    moves = np.array([unknowns[i].scale for i in free]) * step
    moves = np.where(values[free] + moves > [unknowns[i].high for i in free], -moves, moves)
    points = np.repeat(values[:, None], 1 + len(free), axis=1)
    points[free, 1 + np.arange(len(free))] += moves
    found = residuals(points)
    slopes: np.ndarray = (found[:, 1:] - found[:, :1]) / (step * np.sign(moves))
    return slopes


def _off_bounds(unknowns: Sequence[Unknown], values: np.ndarray) -> np.ndarray:
    """The values, those at a bound moved off it: dry friction of nothing has no slope to follow."""
    room = np.array([min(0.1 * u.scale, 0.1 * (u.high - u.low)) for u in unknowns])
    found: np.ndarray = np.clip(values, [u.low for u in unknowns] + room, [u.high for u in unknowns] - room)
    return found


def _inverse(jacobian: np.ndarray) -> np.ndarray:
    """(JᵀJ)⁻¹ with directions that the measurements do not see made very uncertain, not left out."""
    _, size, right = np.linalg.svd(jacobian, full_matrices=False)
    found: np.ndarray = (right.T / np.maximum(size, 1e-9 * max(size[0], 1e-30)) ** 2) @ right
    return found


def _condition(jacobian: np.ndarray) -> float:
    return float(np.linalg.cond(jacobian)) if jacobian.shape[1] else 1.0


def _covariance(jacobian: np.ndarray, residual: np.ndarray, blocks: np.ndarray) -> np.ndarray:
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


def _alike(unknowns: Sequence[Unknown], jacobian: np.ndarray) -> dict[int, tuple[str, int | None]]:
    """What to keep at nominal, and why: whatever changes nothing, and one of each two that change the same."""
    kept: dict[int, tuple[str, int | None]] = {}
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


def _vague(
    unknowns: Sequence[Unknown],
    free: np.ndarray,
    values: np.ndarray,
    jacobian: np.ndarray,
    residual: np.ndarray,
    blocks: np.ndarray,
) -> dict[int, tuple[str, int | None]]:
    """What else to keep at nominal, the vaguest first, until all that are left have a small standard error.

    Not what is at a bound: there the slope is not zero, and no standard error means anything.
    """
    kept: dict[int, tuple[str, int | None]] = {}
    inside = [k for k, i in enumerate(free) if not _at_bound(unknowns[i], values[i])]
    jacobian, left = jacobian[:, inside], free[inside].tolist()
    inner = list(left)
    while left:
        columns = jacobian[:, [k for k, i in enumerate(inner) if i in left]]
        covariance = _covariance(columns, residual, blocks)
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


def _flat(
    unknowns: Sequence[Unknown], free: np.ndarray, values: np.ndarray, residuals: Residuals, blocks: np.ndarray
) -> dict[int, tuple[str, int | None]]:
    """What else to keep at nominal: all that may be moved to a side without a significantly worse fit."""
    inside = [int(i) for i in free if not _at_bound(unknowns[i], values[i])]
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


def _pairs(names: Sequence[str], covariance: np.ndarray) -> list[tuple[str, str, float]]:
    correlation = _correlation(covariance)
    found = [
        (a, names[j], float(correlation[i, j]))
        for i, a in enumerate(names)
        for j in range(i)
        if abs(correlation[i, j]) > 0.8
    ]
    return sorted(found, key=lambda pair: -abs(pair[2]))

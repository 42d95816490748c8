"""Identification: least squares on what was measured, of those numbers that the measurements hold.

`mujoco.sysid` does the optimisation (bounded Levenberg-Marquardt with batched finite differences). Its own residual is
not used: there a delay is a resampling of sensors and a command has no delay, and every column of the Jacobian compiles
the model again. Ours write into compiled models.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from robopolicy.errors import ContractError, MissingExtra
from sim_envs.identifiability import (
    Kept,
    Residuals,
    Unknown,
    alike,
    at_bound,
    condition_of,
    covariance_of,
    flat_ones,
    pairs_of,
    vague_ones,
)


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
    condition = condition_of(jacobian)
    kept = alike(unknowns, jacobian)
    values = np.where([i in kept for i in free], nominal, first)
    while True:
        free = np.array([i for i in range(len(unknowns)) if i not in kept], dtype=int)
        values[free] = _off_bounds(unknowns, values)[free]
        values, jacobian = _minimise(unknowns, residuals, values, free, max_iters, step)
        vague = vague_ones(unknowns, free, values, jacobian, residuals(values[:, None])[:, 0], blocks)
        vague = vague or flat_ones(unknowns, free, values, residuals, blocks)
        if not vague:
            break
        kept |= vague
        values[list(vague)] = nominal[list(vague)]
    end = residuals(values[:, None])[:, 0]
    covariance = covariance_of(jacobian, end, blocks) if free.size else np.zeros((0, 0))
    errors = dict(zip(free.tolist(), np.sqrt(np.diag(covariance)) * scale[free], strict=True))
    notes = _notes(unknowns, kept)
    return Fit(
        tuple(_estimate(u, float(values[i]), errors.get(i), notes.get(i, "")) for i, u in enumerate(unknowns)),
        float(np.sqrt(np.mean(before**2))),
        float(np.sqrt(np.mean(end**2))),
        condition,
        condition_of(jacobian),
        tuple(pairs_of([unknowns[i].name for i in free], covariance)),
    )


def _estimate(unknown: Unknown, value: float, error: float | None, why: str) -> Estimate:
    made = Estimate(unknown.name, unknown.unit, unknown.nominal, value, error, "identified")
    if error is None:
        return replace(made, status="kept nominal", note=why)
    if at_bound(unknown, value):
        return replace(
            made, std_err=None, status="at a bound", note=f"the bounds are {unknown.low:g} to {unknown.high:g}"
        )
    return replace(made, note=why)


def _notes(unknowns: Sequence[Unknown], kept: Kept) -> dict[int, str]:
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

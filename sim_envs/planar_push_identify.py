"""What planar Push-T does not know of the world that it doubles, from recorded pushes by least squares."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.interfaces import Clock
from sim_envs.planar import CENTROID, OUTLINE, PX, place
from sim_envs.planar_push_physics import (
    NOMINAL,
    RESISTANCE,
    STIFFNESS,
    TICK_S,
    TICKS,
    WALLS,
    Physics,
    PlanarPush,
    turned,
)

ARM = 50.0  # px: a radian of error counts as so many, about the distance of the T's corners from its centroid
FIT_STEPS, ERROR_STEPS = 5, 10  # actions of 0.1 s: windows short enough to be smooth, and the second that is reported
MOVED = 2.0  # px: windows in which the T moved less tell nothing
CLEAR = 4.0  # px from a wall: a T jammed between pusher and wall goes anywhere
ROUGH = 1.0  # px: errors beyond it count linearly; a corner caught or missed is no matter of parameters
LOW = Physics(friction=0.0, centre_px=15.0, gyration_px=15.0, damping=5.0, catch_s=0.002, relax_s=0.004)
HIGH = Physics(friction=2.0, centre_px=100.0, gyration_px=120.0, damping=400.0, catch_s=0.05, relax_s=1.0)
SCALES = Physics(friction=0.2, centre_px=5.0, gyration_px=5.0, damping=30.0, catch_s=0.004, relax_s=0.05)


@dataclass(frozen=True)
class Recording:
    """An episode of pushes as a robot recorded it, beginning at rest."""

    states: np.ndarray  # (T + 1, 5) px, px, px, px, rad: before each action and after the last
    targets: np.ndarray  # (T, 2) px: what was sent

    def __post_init__(self) -> None:
        if self.states.shape != (len(self.targets) + 1, 5) or self.targets.shape[1:] != (2,):
            raise ContractError(
                f"a recording of states {self.states.shape} and targets {self.targets.shape}; want (T + 1, 5), (T, 2)"
            )


@dataclass(frozen=True)
class Window:
    """A piece of a recording: from one state, with one speed, some targets, to another state."""

    state: np.ndarray  # (5,)
    velocity: np.ndarray  # (2,) px/s of the pusher
    targets: np.ndarray  # (N, 2) px
    end: np.ndarray  # (5,)


@dataclass(frozen=True)
class Deviation:
    """How far off the T is after a second that was predicted open loop, over windows in which it moved."""

    windows: int
    median_px: float  # of the centroid's distance
    rms_px: float
    median_rad: float

    def __str__(self) -> str:
        degrees = np.degrees(self.median_rad)
        return f"median {self.median_px:.2f} px, {degrees:.2f} deg; RMS {self.rms_px:.2f} px; {self.windows} windows"


@dataclass(frozen=True)
class Identified:
    """Found parameters, with one standard error each from the curvature of the fit: a lower bound of what is known."""

    physics: Physics
    spread: dict[str, float]
    windows: int


def record(robot: Any, clock: Clock, seed: int, steps: int) -> Recording:
    """Push the T of ``robot`` about for ``steps`` actions from the start ``seed``, and return what it did.

    Args:
        robot: a `Robot` and `Environment` with the spec of gym-pusht.
        clock: a simulated one, which the robot lives by.
        seed: of the start and of the pushes.
        steps: actions; fewer are made if the T comes home.
    """
    robot.reset(seed)
    rng = np.random.default_rng((seed, 2))
    states, targets = [_seen(robot)], []
    for k in range(steps):
        if k % 8 == 0:  # press on long enough for the pusher to arrive, then go for another place on or near the T
            pose = states[-1][2:]
            target = pose[:2] + turned(pose[2], CENTROID) + rng.normal(0, 50, 2)
        due_ns = clock.now_ns()
        targets.append(robot.command(np.clip(target, 60, 450), due_ns))
        clock.sleep_until(due_ns + robot.spec.period_ns)
        states.append(_seen(robot))
        if robot.success():
            break
    return Recording(np.array(states), np.array(targets, dtype=float))


def windows(recordings: Sequence[Recording], steps: int) -> list[Window]:
    """Cut recordings into pieces of ``steps`` actions in which the T moved and was clear of the walls."""
    found = []
    for recording in recordings:
        speeds = _speeds(recording)
        for k in range(0, len(recording.targets) - steps + 1, steps):
            part = recording.states[k : k + steps + 1]
            travelled = np.abs(_difference(part[1:], part[:1])[:, 2:] * [1, 1, ARM]).max()
            if travelled > MOVED and all(_clear(state) for state in part):
                found.append(Window(part[0], speeds[k], recording.targets[k : k + steps], part[-1]))
    return found


def open_loop_error(physics: Physics, recordings: Sequence[Recording], steps: int = ERROR_STEPS) -> Deviation:
    """Return how far off the T is after ``steps`` actions predicted from a recorded state.

    Raises:
        ContractError: if the T never moved.
    """
    errors = _errors(physics, _require(windows(recordings, steps)))
    distances = np.linalg.norm(errors[:, :2], axis=1)
    return Deviation(
        len(errors), float(np.median(distances)), float(np.sqrt((distances**2).mean())),
        float(np.median(np.abs(errors[:, 2]))),
    )  # fmt: skip


def identify(recordings: Sequence[Recording], first: Physics = NOMINAL, *, evaluations: int = 30) -> Identified:
    """Return the physics that predicts half a second of the recordings best, from ``first`` on.

    Trust-region least squares with a robust loss (scipy), numerical derivatives, each parameter within its bounds.

    Raises:
        ContractError: if the T never moved in the recordings.
    """
    from scipy.optimize import least_squares

    pieces, scales = _require(windows(recordings, FIT_STEPS)), _vector(SCALES)

    def residuals(x: np.ndarray) -> np.ndarray:
        errors: np.ndarray = (_errors(_physics(x * scales), pieces) * [1, 1, ARM]).ravel()
        return errors

    low, high = _vector(LOW) / scales, _vector(HIGH) / scales
    found = least_squares(
        residuals, np.clip(_vector(first) / scales, low, high), bounds=(low, high), loss="soft_l1", f_scale=ROUGH,
        diff_step=0.02, max_nfev=evaluations,
    )  # fmt: skip
    freedom = max(len(found.fun) - len(scales), 1)
    covariance = np.linalg.pinv(found.jac.T @ found.jac) * 2 * found.cost / freedom
    spread = np.sqrt(np.diag(covariance)) * scales
    names = [field.name for field in fields(Physics)]
    return Identified(_physics(found.x * scales), dict(zip(names, spread.tolist(), strict=True)), len(pieces))


def _errors(physics: Physics, pieces: Sequence[Window]) -> np.ndarray:
    """Return predicted minus recorded poses of the T's centroid at the ends, (W, 3) px, px, rad."""
    world, errors = PlanarPush(physics), []
    for piece in pieces:
        world.put(piece.state, piece.velocity)
        for target in piece.targets:
            world.step(target)
        errors.append(_difference(_centred(world.state()), _centred(piece.end))[2:])
    return np.array(errors)


def _centred(state: np.ndarray) -> np.ndarray:
    return np.array([*state[:2], *state[2:4] + turned(state[4], CENTROID), state[4]])


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a - b of states (..., 5), the angle the short way round."""
    difference = a - b
    difference[..., 4] = (difference[..., 4] + np.pi) % (2 * np.pi) - np.pi
    return difference


def _speeds(recording: Recording) -> np.ndarray:
    """Return the pusher's velocity before each action, (T, 2) px/s: it follows from the targets, by its PD control."""
    position, velocity, speeds = recording.states[0, :2], np.zeros(2), []
    for target in recording.targets:
        speeds.append(velocity)
        for _ in range(TICKS):
            velocity = velocity + TICK_S * (STIFFNESS * (target - position) - RESISTANCE * velocity)
            position = position + TICK_S * velocity
    return np.array(speeds)


def _clear(state: np.ndarray) -> bool:
    corners = place(OUTLINE, np.array([*_centred(state)[2:4] * PX, state[4]])) / PX
    return bool(corners.min() > WALLS[0] + CLEAR and corners.max() < WALLS[1] - CLEAR)


def _require(pieces: list[Window]) -> list[Window]:
    if not pieces:
        raise ContractError(f"no window in which the T moved by {MOVED:g} px, clear of the walls; record more pushes")
    return pieces


def _seen(robot: Any) -> np.ndarray:
    state: np.ndarray = robot.read().state["state"].astype(float)
    return state


def _vector(physics: Physics) -> np.ndarray:
    return np.array([getattr(physics, field.name) for field in fields(physics)])


def _physics(values: np.ndarray) -> Physics:
    return Physics(*(float(v) for v in values))

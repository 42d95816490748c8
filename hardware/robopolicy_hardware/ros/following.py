"""JointTrajectory messages as a motion in time, as ROS 2's joint_trajectory_controller follows them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.topics.config import NumbersTopic
from robopolicy.trajectory import hermite


@dataclass(frozen=True)
class Points:
    """The timed points of a JointTrajectory, in the order of our joints."""

    start_ns: int  # of its header on the wall clock; 0 begins when it comes
    times_s: np.ndarray  # (N,) from the start, ascending
    positions: np.ndarray  # (N, D), units of the action
    velocities: np.ndarray | None  # (N, D) a second, or positions alone


@dataclass(frozen=True)
class Motion:
    """A motion through timed points: cubic Hermite where velocities are given, else straight; the last one is held."""

    times_ns: np.ndarray  # (N,) int64, ascending
    positions: np.ndarray  # (N, D)
    velocities: np.ndarray | None  # (N, D) a second

    @property
    def end_ns(self) -> int:
        """When the last point is reached."""
        return int(self.times_ns[-1])

    def at(self, now_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Return position (D,) and velocity (D,) a second at an instant; beyond the ends the end's, at rest."""
        still = np.zeros(self.positions.shape[1])
        if now_ns <= self.times_ns[0]:
            return self.positions[0].copy(), still if self.velocities is None else self.velocities[0].copy()
        if now_ns >= self.end_ns:
            return self.positions[-1].copy(), still
        k = int(np.searchsorted(self.times_ns, now_ns, side="right")) - 1
        h = (self.times_ns[k + 1] - self.times_ns[k]) / 1e9
        u = (now_ns - self.times_ns[k]) / 1e9 / h
        p0, p1 = self.positions[k], self.positions[k + 1]
        if self.velocities is None:
            return p0 + u * (p1 - p0), (p1 - p0) / h
        return hermite(u, h, p0, p1, self.velocities[k], self.velocities[k + 1])


def points_of(message: Any, topic: NumbersTopic, where: str) -> Points | None:
    """Return what a ``trajectory_msgs/msg/JointTrajectory`` asks for, None of an empty one, which asks to stop.

    Raises:
        ContractError: naming a joint that is missing or not ours, or a point that is not finite, of another length,
            not later than the one before it, or the last one with a velocity, at which nothing could stop.
    """
    if not message.points:
        return None
    names, joints = list(message.joint_names), topic.joints
    if sorted(names) != sorted(joints):
        raise ContractError(f"{where}: a trajectory of the joints {names}; want {list(joints)}, each once")
    order = [names.index(joint) for joint in joints]
    times_s = np.array([one.time_from_start.sec + one.time_from_start.nanosec / 1e9 for one in message.points])
    if np.any(np.diff(times_s) <= 0) or times_s[0] < 0:
        raise ContractError(f"{where}: the points' times {times_s.round(3).tolist()} s do not rise from 0")
    positions = _rows([one.positions for one in message.points], order, "positions", where)
    velocities = None
    if any(len(one.velocities) for one in message.points):
        velocities = _rows([one.velocities for one in message.points], order, "velocities", where)
        if np.any(np.abs(velocities[-1]) > 1e-6):
            raise ContractError(f"{where}: the last point has a velocity, and nothing after it; want zeros there")
    stamp = message.header.stamp
    return Points(int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec), times_s, positions, velocities)


def motion_of(points: Points, now_ns: int, wall_ns: int, position: np.ndarray, velocity: np.ndarray) -> Motion:
    """Return the motion from where the set-point is now through every point that is still to come.

    Args:
        points: asked for.
        now_ns: of the robot's clock.
        wall_ns: the same instant on the wall clock.
        position: (D,) the set-point in force now.
        velocity: (D,) with which it moves.

    Raises:
        ContractError: if all points are past.
    """
    start_ns = now_ns if points.start_ns == 0 else points.start_ns - wall_ns + now_ns
    times_ns = start_ns + np.round(points.times_s * 1e9).astype(np.int64)
    left = times_ns > now_ns
    if points.start_ns == 0 and not left.any():
        return Motion(np.array([now_ns]), points.positions[-1:], None)  # one point, due at once
    if not left.any():
        raise ContractError(f"a trajectory that ended {(now_ns - times_ns[-1]) / 1e9:.3f} s ago")
    velocities = None
    if points.velocities is not None:
        velocities = np.vstack([velocity, points.velocities[left]])
    return Motion(np.concatenate([[now_ns], times_ns[left]]), np.vstack([position, points.positions[left]]), velocities)


def _rows(rows: list[Any], order: list[int], what: str, where: str) -> np.ndarray:
    for k, row in enumerate(rows):
        if len(row) != len(order):
            raise ContractError(f"{where}: point {k} has {len(row)} {what}; want {len(order)}")
    values = np.array([np.asarray(row, np.float64)[order] for row in rows])
    if not np.isfinite(values).all():
        raise ContractError(f"{where}: {what} of point {int(np.argmin(np.isfinite(values).all(axis=1)))} not finite")
    return values

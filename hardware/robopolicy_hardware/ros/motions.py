"""Whole motions on the topic of a joint_trajectory_controller, and how one of them is stopped."""

from typing import Any

import numpy as np

from robopolicy.errors import ConfigError, UnsafeCommand
from robopolicy.topics.config import ActionTopic
from robopolicy.trajectory import NS, hermite
from robopolicy.types import ActionChunk
from robopolicy_hardware.ros.set_points import TRAJECTORY, trajectory

BRAKE_S = 0.25  # in which a motion that is stopped comes to rest
BRAKE_POINTS = 10  # of the message that says so


class Motions:
    """What a controller that follows trajectories was told last: messages to send, and where it is by now.

    A motion is one JointTrajectory with positions and velocities: the controller's own cubics between the points are
    the motion's. It replaces the one before it; its stamp is 0, which is "from now on". Stopped in mid-motion, the arm
    brakes on its way, from where and as fast as it was told to be.

    Args:
        topic: of the arm's commands.
        names: joints, in the order of the action.

    Raises:
        ConfigError: if the topic carries no trajectories.
    """

    def __init__(self, topic: ActionTopic, names: tuple[str, ...]) -> None:
        if topic.type != TRAJECTORY:
            raise ConfigError(f"action: send: chunk wants type: {TRAJECTORY}, not {topic.type or 'none'}")
        self._names, self._frame = names, topic.frame
        self._told: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None  # stamps (H,), positions, velocities (H, J)

    def begin(self, chunk: ActionChunk, velocities: np.ndarray, now_ns: int) -> Any:
        """Return the message of the rows (H, J) that are still due after ``now_ns``, robot clock.

        Raises:
            UnsafeCommand: if it has another shape, is not finite, does not end at rest or is over.
        """
        values = np.asarray(chunk.values, np.float64)
        velocities = np.asarray(velocities, np.float64)
        if values.shape != velocities.shape or values.shape[1:] != (len(self._names),):
            raise UnsafeCommand(
                f"motion has points {values.shape} and velocities {velocities.shape}; want (H, {len(self._names)}) both"
            )
        if not (np.all(np.isfinite(values)) and np.all(np.isfinite(velocities))):
            raise UnsafeCommand("motion is not finite")
        if np.any(velocities[-1] != 0):
            raise UnsafeCommand("motion does not end at rest; a controller refuses that")
        due = chunk.stamps_ns > now_ns
        if not np.any(due):
            raise UnsafeCommand("motion is over before it begins")
        message = trajectory(self._names, self._frame, chunk.stamps_ns[due] - now_ns, values[due], velocities[due])
        at, speed = self.at(now_ns) or (values[due][0], velocities[due][0])  # it begins where the controller is
        self._told = (
            np.concatenate([[now_ns], chunk.stamps_ns[due]]), np.concatenate([at[None], values[due]]),
            np.concatenate([speed[None], velocities[due]]),
        )  # fmt: skip
        return message

    def at(self, now_ns: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Return position (J,) and velocity (J,) that the controller was told for ``now_ns``; None without a motion."""
        if self._told is None:
            return None
        stamps, values, velocities = self._told
        if now_ns < stamps[0] or now_ns >= stamps[-1]:
            edge = 0 if now_ns < stamps[0] else -1
            return values[edge], velocities[edge]
        k = int(np.searchsorted(stamps, now_ns, side="right")) - 1
        width_s = (stamps[k + 1] - stamps[k]) * NS
        u = (now_ns - stamps[k]) * NS / width_s
        return hermite(u, width_s, values[k], values[k + 1], velocities[k], velocities[k + 1])

    def end(self, now_ns: int) -> tuple[Any, np.ndarray] | None:
        """Forget the motion; return the message that brakes it and where it rests then (J,), None if it stands already.

        It goes on along the motion, ever slower: after t seconds it is where it would have been after
        t - t^2 / (2 `BRAKE_S`). So a stop goes nowhere that the motion, which all limits let through, would not have.
        """
        now = self.at(now_ns)
        if now is None or not np.any(now[1]):
            self._told = None
            return None
        t = BRAKE_S * np.arange(1, BRAKE_POINTS + 1) / BRAKE_POINTS
        then = [self.at(now_ns + round(one / NS)) for one in t - t**2 / (2 * BRAKE_S)]
        positions, velocities = (np.stack(part) for part in zip(*(one for one in then if one is not None), strict=True))
        self._told = None
        due_ns = np.round(t / NS).astype(np.int64)
        slower = (1 - t / BRAKE_S)[:, None]
        slower[-1] = 0.0
        message = trajectory(self._names, self._frame, due_ns, positions, velocities * slower)
        return message, positions[-1]

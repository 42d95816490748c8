"""Whole motions for controllers that take them: what is ahead is sent when the plan changes, not point by point."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from robopolicy.types import ActionChunk, Observation

Told = tuple[np.ndarray, np.ndarray]
Limit = Callable[[ActionChunk, np.ndarray, Observation, Told | None], tuple[ActionChunk, np.ndarray]]


class Follower(Protocol):
    """What a `Robot` has beside, whose controller interpolates: it takes a motion at once."""

    def told(self) -> "Told | None":
        """Return position (A,) and velocity (A,) per second of the motion now; None without one: a stop ends it."""
        ...

    def follow(self, chunk: ActionChunk, velocities: np.ndarray) -> None:
        """Move through ``chunk``, each row when it is due, with velocities (H, A) per second; then hold the last.

        Raises:
            UnsafeCommand: if it is not finite or of the wrong shape; nothing of it is sent then.
        """
        ...


class Planning(Protocol):
    """What is asked of the agent: `robopolicy.realtime.RealTime`."""

    plans: int

    def ahead(self, step_ns: int) -> tuple[ActionChunk, np.ndarray] | None:
        """Return the motion from the next step on, and its velocities (H, A); None without one."""
        ...


class Following:
    """Satisfies ``robopolicy.interfaces.Robot`` around one that is a `Follower` too.

    A command sends the whole motion ahead if the agent has a new plan, or if the robot was stopped since; all limits
    act on it first. The commands themselves are passed on: the robot decides what of them its controllers want.

    Args:
        robot: takes motions.
        agent: whose motion it is.
        limit: acts on a motion, given the newest observation and what it takes over from, as the safety layer does on
            a command.
    """

    def __init__(self, robot: Any, agent: Planning, limit: Limit) -> None:
        self.spec = robot.spec
        self._robot: Any = robot
        self._agent, self._limit = agent, limit
        self._seen: Observation | None = None
        self._sent = -1  # plans of the agent when a motion was sent last

    def __getattr__(self, name: str) -> Any:
        return getattr(self._robot, name)  # state, reason and trips of a watched robot

    def read(self) -> Observation:
        """Return the robot's newest observation."""
        self._seen = self._robot.read()
        return self._seen

    def command(self, action: np.ndarray, due_ns: int) -> np.ndarray:
        """Send the motion ahead if it is another one, and the command; return what was really sent (A,)."""
        told = self._robot.told()
        if self._agent.plans != self._sent or told is None:
            ahead = self._agent.ahead(self.spec.period_ns)
            if ahead is not None and self._seen is not None:
                self._robot.follow(*self._limit(*ahead, self._seen, told))
                self._sent = self._agent.plans
        sent: np.ndarray = self._robot.command(action, due_ns)
        return sent

    def stop(self, reason: str = "") -> np.ndarray:
        """Stop the robot, wherever in a motion it is; return the set-point that holds (A,)."""
        held: np.ndarray = self._robot.stop(reason)
        return held

    def close(self) -> None:
        """Release the robot; idempotent."""
        self._robot.close()

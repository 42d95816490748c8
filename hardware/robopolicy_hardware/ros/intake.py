"""Set-points and trajectories as they come in over topics: checked, and turned into what a robot is to do now."""

import threading
from dataclasses import replace
from typing import Any

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.topics.config import NumbersTopic, TopicConfig
from robopolicy.topics.messages import command_of, numbers
from robopolicy_hardware.ros.following import Motion, Points, motion_of, points_of
from robopolicy_hardware.ros.set_points import JOINT_STATE, TRAJECTORY, of_action, of_gripper
from robopolicy_hardware.ros.transport import Transport

STOP = "an empty trajectory"


class Intake:
    """What others command over topics. Messages are checked in the thread that receives them.

    A set-point takes force as it comes. A JointTrajectory is followed in time, from the set-point in force through its
    points to the last, which is held; a new one replaces it; an empty one asks to stop.

    Args:
        config: which topic is commanded, and how.
        transport: carries it.

    Attributes:
        received: messages so far that were taken.
        refused: messages that were not, and `why` the last one was not.
    """

    def __init__(self, config: TopicConfig, transport: Transport) -> None:
        self._config = config
        self.received = self.refused = 0
        self.why = ""
        self._lock = threading.Lock()
        self._came: dict[str, Any] = {}  # newest of each part since the last `wanted`: (values or points, when)
        self._last: dict[str, np.ndarray] = {}  # the newest set-point of each part
        self._motion: Motion | None = None
        self._came_ns: int | None = None  # when the newest message came, on the clock of `wanted`
        self._parts = self._commanded()
        self._heard = [
            transport.subscribe(topic.topic, kind, self._take(part, topic, kind)) for part, topic, kind in self._parts
        ]

    def wanted(self, now_ns: int, wall_ns: int, held: np.ndarray) -> np.ndarray | str | None:
        """Return the set-point (A,) float32 of now, None if nothing is asked for, or why to stop.

        Args:
            now_ns: of the robot's clock.
            wall_ns: the same instant on the wall clock.
            held: (A,) the set-point in force, with which a first trajectory begins.
        """
        with self._lock:
            came, self._came = self._came, {}
        if came:
            self._came_ns = now_ns
        for part, value in came.items():
            if value is STOP:
                self.forget()
                return STOP
            if isinstance(value, Points):
                try:
                    self._motion = motion_of(value, now_ns, wall_ns, *self._here(now_ns, held))
                except ContractError as error:
                    self.refuse(str(error))
            else:
                self._last[part] = value
        if self._motion is not None:
            self._last["action"] = self._motion.at(now_ns)[0]
        elif not came:
            return None
        return self._joined(held)

    def silent_s(self, now_ns: int) -> float | None:
        """Return for how long nothing came, or a trajectory is over; None if nothing is being commanded."""
        if self._came_ns is None:
            return None
        since_ns = max(self._came_ns, self._motion.end_ns if self._motion is not None else 0)
        return (now_ns - since_ns) / 1e9

    def forget(self) -> None:
        """Follow nothing of what came so far."""
        with self._lock:
            self._came = {}
        self._last, self._motion, self._came_ns = {}, None, None

    def refuse(self, why: str) -> None:
        """Count one more that was not taken."""
        with self._lock:
            self.refused, self.why = self.refused + 1, why

    def close(self) -> None:
        """Take no more; idempotent."""
        for one in self._heard:
            one.close()

    def _here(self, now_ns: int, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._motion is not None:
            return self._motion.at(now_ns)
        position = self._last.get("action", held[: len(self._names)].astype(np.float64))
        return position, np.zeros(len(position))

    def _joined(self, held: np.ndarray) -> np.ndarray:
        """Return the set-point of both parts; one that did not come yet is held."""
        wanted = held.astype(np.float64)
        gripper = self._last.get("gripper", wanted[-1:])
        if "action" in self._last and self._config.action.kind == "tool_pose":
            wanted = command_of(self._last["action"], gripper)
        elif "action" in self._last:
            wanted[: len(self._names)] = self._last["action"]
        if "gripper" in self._last:
            wanted[-1:] = gripper
        return wanted.astype(np.float32)

    def _commanded(self) -> list[tuple[str, NumbersTopic, str]]:
        action = self._config.action
        kind, _ = of_action(action, 1.0 / self._config.rate_hz)
        self._names = action.joints or action.names
        if kind in (JOINT_STATE, TRAJECTORY):
            action = replace(action, joints=self._names)  # it names joints: it must name all of ours
        found: list[tuple[str, NumbersTopic, str]] = [("action", action, kind)]
        if action.gripper is not None:
            found.append(("gripper", action.gripper, of_gripper(action.gripper)[0]))
        return found

    def _take(self, part: str, topic: NumbersTopic, kind: str) -> Any:
        def take(received: Any, came_ns: int) -> None:
            try:
                value = (points_of if kind == TRAJECTORY else _values)(received, topic, part)
            except ContractError as error:
                self.refuse(str(error))
                return
            with self._lock:
                self._came[part] = STOP if value is None else value
                self.received += 1

        return take


def _values(received: Any, topic: NumbersTopic, part: str) -> np.ndarray:
    values, _, _ = numbers(received, topic, part)
    if not np.all(np.isfinite(values)):
        raise ContractError(f"{part}: a set-point on {topic.topic} is not finite")
    return values

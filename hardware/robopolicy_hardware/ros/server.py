"""Any robot as one behind ROS 2 topics: it publishes what it observes and takes set-points, by the same file."""

import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np

from robopolicy.errors import ContractError, SpecMismatch, UnsafeCommand
from robopolicy.interfaces import Clock, Robot
from robopolicy.topics.config import CameraTopic, NumbersTopic, TopicConfig
from robopolicy.topics.messages import command_of, numbers
from robopolicy_hardware.ros.saying import of_numbers, of_picture, require_said
from robopolicy_hardware.ros.set_points import JOINT_STATE, TRAJECTORY, of_action, of_gripper
from robopolicy_hardware.ros.streams import type_of
from robopolicy_hardware.ros.transport import Transport


class RobotServer:
    """The other end of `RosRobot`: a twin that is served looks like an arm, to our node and to everybody's.

    Set-points are taken in the thread that receives them, checked, and handed to the robot at the next `step`. Stamps
    are those of the robot's observations, on the wall clock.

    Args:
        robot: served; nobody else may drive it.
        config: which topic is which field, as the client has it.
        transport: carries the topics.
        clock: the robot's.

    Attributes:
        received: set-points so far that were taken.
        refused: set-points that were not, and `why` the last one was not.

    Raises:
        SpecMismatch: if the robot has not what the file names.
        ConfigError: if what the file names cannot be published or commanded.
    """

    def __init__(self, robot: Robot, config: TopicConfig, transport: Transport, clock: Clock) -> None:
        self._robot, self._config, self._clock = robot, config, clock
        self.received = self.refused = 0
        self.why = ""
        self._lock = threading.Lock()
        self._wanted: dict[str, np.ndarray] = {}  # the newest set-point of each part: action, gripper
        _require_has(robot, config)
        self._said = self._publishers(transport)
        self._seen_ns: dict[str, int] = {}  # stamp of each camera's last published picture
        self._heard = [transport.subscribe(topic.topic, kind, self._take(part, topic))
                       for part, topic, kind in self._commanded()]  # fmt: skip

    def step(self) -> None:
        """Let the robot act on the newest set-point, and publish what it observes now."""
        wanted = self._command()
        if wanted is not None:
            try:
                self._robot.command(wanted, self._clock.now_ns())
                self.received += 1
            except UnsafeCommand as error:
                self._refuse(str(error))
        seen = self._robot.read()
        wall_ns = time.time_ns() - self._clock.now_ns()
        for kind, publisher, streams in self._said:
            parts = [(topic, seen.state[name]) for name, topic in streams]
            publisher.send(of_numbers(kind, parts, seen.stamp_ns + wall_ns))
        for name, (kind, publisher) in self._shown.items():
            stamp_ns = seen.image_stamps_ns[name]
            if self._seen_ns.get(name) != stamp_ns:
                self._seen_ns[name] = stamp_ns
                publisher.send(of_picture(kind, seen.images[name], stamp_ns + wall_ns))

    def close(self) -> None:
        """Take no more set-points; idempotent. The robot is its owner's."""
        for one in (*self._heard, *(publisher for _, publisher, _ in self._said),
                    *(publisher for _, publisher in self._shown.values())):  # fmt: skip
            one.close()

    def _publishers(self, transport: Transport) -> list[tuple[str, Any, list[tuple[str, NumbersTopic]]]]:
        by_topic: dict[tuple[str, str], list[tuple[str, NumbersTopic]]] = {}
        self._shown: dict[str, tuple[str, Any]] = {}
        for name, topic in self._config.state.items():
            kind = type_of(f"state {name}", topic)
            require_said(f"state {name}", topic, kind)
            by_topic.setdefault((topic.topic, kind), []).append((name, topic))
        for name, camera in self._config.cameras.items():
            kind = type_of(f"camera {name}", camera)
            self._shown[name] = (kind, transport.publisher(camera.topic, kind))
        return [(kind, transport.publisher(name, kind), streams) for (name, kind), streams in by_topic.items()]

    def _commanded(self) -> list[tuple[str, NumbersTopic, str]]:
        action = self._config.action
        kind, _ = of_action(action, 1.0 / self._config.rate_hz)
        if kind in (JOINT_STATE, TRAJECTORY):
            action = replace(action, joints=action.joints or action.names)  # it names joints: it must name all of ours
        found: list[tuple[str, NumbersTopic, str]] = [("action", action, kind)]
        if action.gripper is not None:
            found.append(("gripper", action.gripper, of_gripper(action.gripper)[0]))
        return found

    def _take(self, part: str, topic: NumbersTopic) -> Any:
        def take(received: Any, came_ns: int) -> None:
            try:
                values, _, _ = numbers(received, topic, part)
                if not np.all(np.isfinite(values)):
                    raise ContractError(f"{part}: a set-point on {topic.topic} is not finite")
            except ContractError as error:
                self._refuse(str(error))
                return
            with self._lock:
                self._wanted[part] = values

        return take

    def _refuse(self, why: str) -> None:
        self.refused, self.why = self.refused + 1, why

    def _command(self) -> np.ndarray | None:
        """Return the set-point (A,) of what came since the last step, None without any."""
        with self._lock:
            if not self._wanted:
                return None
            wanted, self._wanted = self._wanted, {}
            self._last = {**getattr(self, "_last", {}), **wanted}
        if len(self._last) < len(self._commanded()):
            return None  # the other part did not come yet
        if "gripper" not in self._last:
            return self._last["action"].astype(np.float32)
        if self._config.action.kind == "tool_pose":
            return command_of(self._last["action"], self._last["gripper"]).astype(np.float32)
        return np.concatenate([self._last["action"], self._last["gripper"]]).astype(np.float32)


def _require_has(robot: Robot, config: TopicConfig) -> None:
    have: dict[str, Any] = {**{f"camera {name}": 0 for name in robot.spec.cameras},
                            **{f"state {name}": part.dim for name, part in robot.spec.state.items()}}  # fmt: skip
    lacking = [what for what in config.observed() if what not in have]
    if lacking:
        raise SpecMismatch(f"the robot has no {', '.join(lacking)}; it has {', '.join(have)}")
    if config.action.kind != robot.spec.action.kind:
        raise SpecMismatch(f"the file commands {config.action.kind}, the robot takes {robot.spec.action.kind} actions")
    for what, topic in config.observed().items():
        if not isinstance(topic, CameraTopic) and topic.joints and len(topic.joints) != have[what]:
            raise SpecMismatch(f"{what}: the file names {len(topic.joints)} joints, the robot has {have[what]} numbers")

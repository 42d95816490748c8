"""Any robot as one behind ROS 2 topics: it publishes what it observes and takes set-points, by the same file."""

import time
from typing import Any

import numpy as np

from robopolicy.errors import ConfigError, SpecMismatch, UnsafeCommand
from robopolicy.interfaces import Clock, Robot
from robopolicy.topics.config import CameraTopic, NumbersTopic, TopicConfig
from robopolicy.types import Observation
from robopolicy_hardware.ros.intake import STOP, Intake
from robopolicy_hardware.ros.saying import INFO, info_topic, of_info, of_numbers, of_picture, require_said
from robopolicy_hardware.ros.streams import SURE_NS, type_of
from robopolicy_hardware.ros.transport import Transport


class RobotServer:
    """The other end of `RosRobot`: a twin that is served looks like an arm, to our node and to everybody's.

    Set-points are taken in the thread that receives them, checked, and handed to the robot at the next `step`; a
    JointTrajectory is followed in time. Stamps are those of the robot's observations, on the wall clock. A camera of a
    robot that knows its calibration has a ``camera_info`` beside its pictures.

    Args:
        robot: served; nobody else may drive it.
        config: which topic is which field, as the client has it.
        transport: carries the topics.
        clock: the robot's.
        timeout_s: without a command for so long (of a trajectory: since its end) the robot is stopped where it is; None
            holds the last command for ever, as the position controllers of ROS 2 do.

    Attributes:
        received: messages so far that commanded it.
        refused: those that were not taken, and `why` the last one was not.
        holds: why the robot holds, nothing while it is being commanded.

    Raises:
        SpecMismatch: if the robot has not what the file names.
        ConfigError: if what the file names cannot be published or commanded.
    """

    def __init__(
        self, robot: Robot, config: TopicConfig, transport: Transport, clock: Clock, *, timeout_s: float | None = None
    ) -> None:
        self._robot, self._config, self._clock, self._timeout_s = robot, config, clock, timeout_s
        self._offset_ns: int | None = None
        _require_has(robot, config)
        self._said = self._publishers(transport)
        self._infos = self._info_publishers(transport)
        self._told_ns = -1  # stamp of the last published numbers: none is published twice
        self._seen_ns: dict[str, int] = {}  # stamp of each camera's last published picture
        self._intake = Intake(config, transport)
        self.hold("nothing was commanded yet")

    @property
    def received(self) -> int:
        """Messages so far that commanded it."""
        return self._intake.received

    @property
    def refused(self) -> int:
        """Messages so far that were not taken."""
        return self._intake.refused

    @property
    def why(self) -> str:
        """Why the last one was not."""
        return self._intake.why

    def step(self) -> Observation:
        """Let the robot act on what came, and publish what it observes now; return that."""
        now_ns, offset_ns = self._clock.now_ns(), self._wall_offset_ns()
        wanted = self._intake.wanted(now_ns, now_ns + offset_ns, self._held)
        silent_s = self._intake.silent_s(now_ns)
        if wanted is STOP:
            self.hold("a trajectory without points")
        elif self._timeout_s is not None and silent_s is not None and silent_s > self._timeout_s:
            self.hold(f"no command for {self._timeout_s:g} s")
        elif isinstance(wanted, np.ndarray):
            try:
                self._held, self.holds = self._robot.command(wanted, now_ns), ""
            except UnsafeCommand as error:
                self._intake.refuse(str(error))
        seen = self._robot.read()
        self._publish(seen, offset_ns)
        return seen

    def hold(self, why: str) -> None:
        """Stop the robot where it is and forget what came so far."""
        self._intake.forget()
        self._held, self.holds = self._robot.stop(why), why

    def close(self) -> None:
        """Take no more set-points; idempotent. The robot is its owner's."""
        self._intake.close()
        for publisher in (*(one for _, one, _ in self._said), *(one for _, one in self._shown.values()),
                          *(one for one, _ in self._infos.values())):  # fmt: skip
            publisher.close()

    def _publish(self, seen: Observation, offset_ns: int) -> None:
        for kind, publisher, streams in self._said if seen.stamp_ns != self._told_ns else ():
            parts = [(topic, seen.state[name]) for name, topic in streams]
            publisher.send(of_numbers(kind, parts, seen.stamp_ns + offset_ns))
        self._told_ns = seen.stamp_ns
        for name, stamp_ns in seen.image_stamps_ns.items():
            if name not in self._shown or self._seen_ns.get(name) == stamp_ns:
                continue
            self._seen_ns[name] = stamp_ns
            kind, publisher = self._shown[name]
            publisher.send(of_picture(kind, seen.images[name], stamp_ns + offset_ns, name))
            if name in self._infos:
                infos, calibration = self._infos[name]
                infos.send(of_info(calibration, seen.images[name].shape[:2], stamp_ns + offset_ns, name))

    def _wall_offset_ns(self) -> int:
        """Return the wall clock less the robot's; the last one known if this thread is stopped between the two."""
        for _ in range(3):
            before_ns, wall_ns, after_ns = self._clock.now_ns(), time.time_ns(), self._clock.now_ns()
            if self._offset_ns is None or after_ns - before_ns <= SURE_NS:
                self._offset_ns = wall_ns - before_ns
            if after_ns - before_ns <= SURE_NS:
                break
        return self._offset_ns

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

    def _info_publishers(self, transport: Transport) -> dict[str, tuple[Any, dict[str, Any]]]:
        calibrations: dict[str, dict[str, Any]] = getattr(self._robot, "camera_calibration", dict)()
        topics = {name: info_topic(camera.topic) for name, camera in self._config.cameras.items()}
        if len(set(topics.values())) < len(topics):
            raise ConfigError(f"the cameras' camera_info would share a topic: {topics}; want a namespace each")
        return {
            name: (transport.publisher(topic, INFO), calibrations[name])
            for name, topic in topics.items() if name in calibrations
        }  # fmt: skip


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
    action = config.action
    if action.kind == "joint":
        names = (*(action.joints or action.names), *(("gripper",) if action.gripper is not None else ()))
        if len(names) != robot.spec.action.dim:
            raise SpecMismatch(
                f"the file commands {len(names)} joints ({', '.join(names)}), the robot has {robot.spec.action.dim} "
                f"({', '.join(robot.spec.action.names)})"
            )

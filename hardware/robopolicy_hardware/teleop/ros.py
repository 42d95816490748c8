"""Any ROS 2 teleoperator drives through a topic: velocities, poses, a joystick, or a leader arm's joints."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from robopolicy.errors import UsageError
from robopolicy.rotations import matrix_to_quat, quat_to_matrix
from robopolicy.spec import PolicySpec
from robopolicy.types import Command, Event, Observation, Status
from robopolicy_hardware.ros.codec import message
from robopolicy_hardware.ros.dds import Topics
from robopolicy_hardware.teleop.jog import Buttons, Jog, alive
from robopolicy_hardware.teleop.leader import LeaderArm
from robopolicy_hardware.teleop.target import ToolTarget

MAX_AGE_S = 0.1  # older than this nobody is driving
DEFAULT_TOPICS = {
    "geometry_msgs/msg/TwistStamped": "/teleop/twist",
    "geometry_msgs/msg/Twist": "/teleop/twist",
    "geometry_msgs/msg/PoseStamped": "/teleop/pose",
    "sensor_msgs/msg/Joy": "/joy",
    "sensor_msgs/msg/JointState": "/leader/joint_states",
}
# The order that ROS's joy_node gives an Xbox pad. 6 axes and 2 buttons are a SpaceMouse's: x y z roll pitch yaw.
JOY_BUTTONS = {"a": 0, "b": 1, "x": 2, "y": 3, "left": 4, "right": 5, "back": 6, "start": 7}
JOY_EVENTS: dict[str, Event | str] = {
    "a": "go", "b": "failure", "x": "discard", "y": "takeover", "back": "redo", "start": "pause",
}  # fmt: skip


class RosTeleop:
    """A `Teleop` that follows a ROS 2 topic; a message older than ``max_age_s`` is a hold.

    ``TwistStamped`` and ``Twist``: speeds in the base frame. ``PoseStamped``: a hand whose motion since it was engaged
    moves the tool. ``Joy``: a pad, its right shoulder button held, or a SpaceMouse. ``JointState``: a leader arm, by
    joint name; the robot goes to its pose at a limited speed and then follows it.

    Args:
        spec: of the robot.
        topic: None takes the usual one of the type.
        kind: message type; None is TwistStamped, for a robot of joints JointState.
        domain: None takes ROS_DOMAIN_ID.
        speed: factor of the motion; not of a leader arm's.
        max_age_s: see above.

    Raises:
        MissingExtra: if cyclonedds or rosbags is not installed.
        UsageError: if the type is none of these or does not fit the robot.
    """

    def __init__(
        self,
        spec: PolicySpec,
        *,
        topic: str | None = None,
        kind: str | None = None,
        domain: int | None = None,
        speed: float = 1.0,
        max_age_s: float = MAX_AGE_S,
    ) -> None:
        joints = spec.action.kind == "joint"
        kind = _full_name(kind or ("sensor_msgs/msg/JointState" if joints else "geometry_msgs/msg/TwistStamped"))
        if joints != (kind == "sensor_msgs/msg/JointState"):
            raise UsageError(f"{kind} does not drive a robot of {spec.action.kind} actions; a JointState drives joints")
        topics = Topics(domain, node="robopolicy_teleop")
        message(kind)
        self._max_age_s = max_age_s
        self._follow = _follower(kind, spec, speed)
        self.topic = topic or DEFAULT_TOPICS[kind]
        self.help = f"following {kind} on {self.topic} (domain {topics.domain});  g gripper"
        self.latency_s = 0.0
        self._closed = False
        self._wish: float | None = None  # what is to become of the gripper
        self._subscription = topics.subscribe(self.topic, kind)
        self._is_joy = kind == "sensor_msgs/msg/Joy"
        self._buttons = Buttons(JOY_EVENTS)

    def engage(self, observation: Observation, set_point: np.ndarray | None) -> None:
        """Start from where the robot is; a hand's pose is taken from where it is now."""
        self._follow.engage(observation, set_point)
        self._closed = bool("gripper" in observation.state and observation.state["gripper"][0] < 0.5)

    def read(self, observation: Observation) -> Command:
        """Return the newest message's command, or a hold if it is too old or nobody publishes."""
        newest = self._subscription.newest()
        if newest is None:
            return Command(None, "hold", reason=self._silent())
        received, came_ns = newest
        age_s = (time.monotonic_ns() - came_ns) / 1e9
        self.latency_s = age_s
        if age_s > self._max_age_s:
            return Command(
                None, "hold", reason=self._silent(f"the newest message on {self.topic} is {age_s:.2f} s old")
            )
        grip, self._wish = self._wish, None
        return self._follow.follow(observation, received, grip)

    @property
    def trouble(self) -> str:
        """Why somebody publishes and nothing comes, in one line worth telling once."""
        return self._subscription.trouble

    def press(self, key: str) -> None:
        """Take a key of the terminal: g closes or opens the gripper, which velocities and poses say nothing of."""
        if key == "g":
            self._closed = not self._closed
            self._wish = 0.0 if self._closed else 1.0

    def events(self) -> Sequence[Event]:
        """Return the events of a joystick's buttons."""
        if not self._is_joy:
            return ()
        for joy in self._subscription.unseen():
            pressed = list(joy.buttons)
            if len(pressed) > max(JOY_BUTTONS.values()):
                self._buttons.look(frozenset(name for name, i in JOY_BUTTONS.items() if pressed[i]))
        return self._buttons.events()

    def show(self, status: Status) -> None:
        """Note the phase: A starts an episode or ends it with success."""
        self._buttons.phase = status.phase

    def close(self) -> None:
        """Leave the topic; idempotent."""
        self._subscription.close()

    def _silent(self, otherwise: str = "") -> str:
        if undecoded := self._subscription.undecoded:
            return f"{undecoded} messages on {self.topic} cannot be read; {otherwise}".removesuffix("; ")
        return self.trouble or otherwise or f"nothing comes on {self.topic}"


class _Velocity:
    def __init__(self, spec: PolicySpec, speed: float) -> None:
        self._jog, self._speed = Jog(spec), speed

    def engage(self, observation: Observation, set_point: np.ndarray | None) -> None:
        self._jog.engage(observation, set_point)

    def follow(self, observation: Observation, received: Any, grip: float | None) -> Command:
        twist = getattr(received, "twist", received)
        linear, angular = self._speed * _xyz(twist.linear), self._speed * _xyz(twist.angular)
        return self._jog.move(observation, linear, angular, grip)


class _Hand:
    def __init__(self, spec: PolicySpec, speed: float) -> None:
        self._target, self._speed = ToolTarget(spec), speed

    def engage(self, observation: Observation, set_point: np.ndarray | None) -> None:
        self._target.engage(observation, set_point)
        self._start = (self._target.position, quat_to_matrix(self._target.quat))
        self._anchor: tuple[np.ndarray, np.ndarray] | None = None

    def follow(self, observation: Observation, received: Any, grip: float | None) -> Command:
        q = received.pose.orientation
        position, rotation = _xyz(received.pose.position), quat_to_matrix(np.array([q.w, q.x, q.y, q.z]))
        if self._anchor is None:
            self._anchor = (position, rotation)
        moved = self._speed * (position - self._anchor[0])
        turned = rotation @ self._anchor[1].T
        self._target.see(observation)
        self._target.place(self._start[0] + moved, matrix_to_quat(turned @ self._start[1]), grip)
        return Command(self._target.command(), "human")


class _Joystick:
    def __init__(self, spec: PolicySpec, speed: float) -> None:
        self._jog = Jog(spec, speed=speed)

    def engage(self, observation: Observation, set_point: np.ndarray | None) -> None:
        self._jog.engage(observation, set_point)

    def follow(self, observation: Observation, received: Any, grip: float | None) -> Command:
        axes, buttons = np.array(received.axes, np.float64), list(received.buttons)
        if len(axes) == 6 and len(buttons) == 2:
            return self._jog.drive(observation, alive(axes[:3]), alive(axes[3:]), _grip(buttons[0], buttons[1], grip))
        if len(axes) < 6 or len(buttons) <= JOY_BUTTONS["right"]:
            return Command(None, "hold", reason=f"a Joy of {len(axes)} axes and {len(buttons)} buttons is no known pad")
        if not buttons[JOY_BUTTONS["right"]]:
            return Command(None, "hold", reason="the right shoulder button is not held")
        linear = np.array([axes[1], axes[0], axes[4]])
        angular = np.array([0.0, 0.0, axes[3]])
        grip = _grip(axes[5] < -0.5, axes[2] < -0.5, grip)  # triggers rest at 1 and go to -1
        return self._jog.drive(observation, alive(linear), alive(angular), grip)


def _follower(kind: str, spec: PolicySpec, speed: float) -> Any:
    """Return what follows messages of one type."""
    if kind == "sensor_msgs/msg/JointState":
        return LeaderArm(spec)
    if kind == "sensor_msgs/msg/Joy":
        return _Joystick(spec, speed)
    if kind == "geometry_msgs/msg/PoseStamped":
        return _Hand(spec, speed)
    return _Velocity(spec, speed)


def _full_name(kind: str) -> str:
    """Accept ``TwistStamped``, ``geometry_msgs/TwistStamped`` and ``geometry_msgs/msg/TwistStamped``."""
    for name in DEFAULT_TOPICS:
        if kind in (name, name.rpartition("/")[2], name.replace("/msg/", "/")):
            return name
    raise UsageError(f"--message {kind} is not followed; these are: {', '.join(DEFAULT_TOPICS)}")


def _grip(close: bool, open_: bool, otherwise: float | None) -> float | None:
    return 0.0 if close else 1.0 if open_ else otherwise


def _xyz(vector: Any) -> np.ndarray:
    return np.array([vector.x, vector.y, vector.z])

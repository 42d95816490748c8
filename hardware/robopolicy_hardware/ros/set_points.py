"""Set-points as messages: what a command looks like on the topic of a controller."""

from collections.abc import Callable
from typing import Any

import numpy as np

from robopolicy.errors import ConfigError
from robopolicy.rotations import matrix_to_quat, rot6d_to_matrix
from robopolicy.topics.config import ActionTopic, NumbersTopic
from robopolicy_hardware.ros.codec import message

ARRAY, JOINT_STATE = "std_msgs/msg/Float64MultiArray", "sensor_msgs/msg/JointState"
TRAJECTORY, POSE = "trajectory_msgs/msg/JointTrajectory", "geometry_msgs/msg/PoseStamped"
NUMBER = "std_msgs/msg/Float64"
OF_JOINTS, OF_GRIPPERS = (ARRAY, JOINT_STATE, TRAJECTORY), (ARRAY, JOINT_STATE, NUMBER)

Make = Callable[[np.ndarray, int], Any]  # (values, stamp ns of the ROS clock) -> message


def of_action(topic: ActionTopic, period_s: float) -> tuple[str, Make]:
    """Return the message type of an action's topic, and what makes such a message of the set-point's own part.

    A ``joint`` action is an array, a JointState or a JointTrajectory of one point that is due in a period; a
    ``tool_pose`` is a PoseStamped of its first nine elements.

    Raises:
        ConfigError: if the kind of action cannot be commanded, or the type is none of its.
    """
    if topic.open is not None:
        raise ConfigError("action: closed and open are of a gripper; give action.gripper a topic of its own")
    if topic.kind == "tool_pose":
        _require_whole("action", topic, "pose")
        _require_type("action", topic, topic.type or POSE, (POSE,))
        return POSE, lambda values, stamp_ns: _pose(values, topic.frame, stamp_ns)
    if topic.kind != "joint":
        raise ConfigError(
            f"action: a robot cannot be held still by {topic.kind} commands; want kind: joint or tool_pose"
        )
    names = topic.joints or topic.names  # a message is read by the controller's names, a dataset by those of the config
    if topic.joints and topic.names and len(topic.joints) != len(topic.names):
        raise ConfigError(
            f"action: {len(topic.joints)} joints and {len(topic.names)} names; want as many, or one of them"
        )
    if not names:
        raise ConfigError("action: joints are commanded by name; say names: [...] in the order of the controller")
    kind = topic.type or ARRAY
    _require_type("action", topic, kind, OF_JOINTS)
    _require_whole("action", topic, {ARRAY: "data", JOINT_STATE: "position"}.get(kind, "points"))
    if kind == TRAJECTORY:
        due_ns = np.array([round(period_s * 1e9)], np.int64)
        return kind, lambda values, stamp_ns: trajectory(names, topic.frame, due_ns, np.asarray(values)[None], None)
    return kind, _numbers(kind, names, topic.frame)


def of_gripper(topic: NumbersTopic) -> tuple[str, Make]:
    """Return the same of a gripper that is commanded on a topic of its own, its value (1,) 0 closed .. 1 open."""
    kind = topic.type or ARRAY
    _require_type("action.gripper", topic, kind, OF_GRIPPERS)
    _require_whole("action.gripper", topic, "position" if kind == JOINT_STATE else "data")
    if topic.open is None or topic.closed is None:
        raise ConfigError("action.gripper: say what the robot calls closed and open (0 and 1 if it says so itself)")
    if len(topic.joints) > 1:
        raise ConfigError(f"action.gripper: one number commands it, not {len(topic.joints)} joints")
    closed, open_ = topic.closed, topic.open
    make = _numbers(kind, topic.joints or ("gripper",), "")
    return kind, lambda values, stamp_ns: make(closed + np.asarray(values) * (open_ - closed), stamp_ns)


def _require_whole(where: str, topic: NumbersTopic, field: str) -> None:
    """What would be published is the whole message: nothing else of it may be meant."""
    if topic.field not in ("", field) or topic.index:
        meant = f"field: {topic.field}" if topic.field not in ("", field) else f"index: {list(topic.index)}"
        raise ConfigError(f"{where}: {meant} cannot be published; the set-point is all of {field!r}")


def header(stamp_ns: int, frame: str = "") -> Any:
    """Return a ``std_msgs/msg/Header``."""
    time = message("builtin_interfaces/msg/Time")(stamp_ns // 1_000_000_000, stamp_ns % 1_000_000_000)
    return message("std_msgs/msg/Header")(time, frame)


def _require_type(what: str, topic: NumbersTopic, kind: str, valid: tuple[str, ...]) -> None:
    if kind not in valid:
        raise ConfigError(f"{what}: {topic.topic} of type {kind} is not commanded; want one of {', '.join(valid)}")


def _numbers(kind: str, names: tuple[str, ...], frame: str) -> Make:
    none = np.zeros(0)

    def make(values: np.ndarray, stamp_ns: int) -> Any:
        data = np.array(values, np.float64)
        if kind == NUMBER:
            return message(kind)(float(data[0]))
        if kind == ARRAY:
            return message(kind)(message("std_msgs/msg/MultiArrayLayout")([], 0), data)
        return message(kind)(header(stamp_ns, frame), list(names), data, none, none)

    return make


def trajectory(
    names: tuple[str, ...], frame: str, due_ns: np.ndarray, positions: np.ndarray, velocities: np.ndarray | None
) -> Any:
    """Return a JointTrajectory; its stamp is 0, which lets the controller begin at once.

    Args:
        names: (J,) of the joints.
        frame: of its header.
        due_ns: (H,) int64, from now on.
        positions: (H, J).
        velocities: (H, J) per second, or None: the controller makes its own.
    """
    none, duration = np.zeros(0), message("builtin_interfaces/msg/Duration")
    point = message("trajectory_msgs/msg/JointTrajectoryPoint")
    points = [
        point(
            np.array(positions[i], np.float64), none if velocities is None else np.array(velocities[i], np.float64),
            none, none, duration(int(due) // 1_000_000_000, int(due) % 1_000_000_000),
        )
        for i, due in enumerate(due_ns)
    ]  # fmt: skip
    return message(TRAJECTORY)(header(0, frame), list(names), points)


def _pose(values: np.ndarray, frame: str, stamp_ns: int) -> Any:
    w, x, y, z = matrix_to_quat(rot6d_to_matrix(values[3:9])).tolist()
    place = message("geometry_msgs/msg/Point")(*np.asarray(values[:3], np.float64).tolist())
    pose = message("geometry_msgs/msg/Pose")(place, message("geometry_msgs/msg/Quaternion")(x, y, z, w))
    return message(POSE)(header(stamp_ns, frame), pose)

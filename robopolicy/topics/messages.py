"""What a ROS message holds: its stamp, its numbers, its picture."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.rotations import matrix_to_rot6d, quat_to_matrix
from robopolicy.spec import TOOL_POSE, ActionSpec
from robopolicy.topics.config import ActionTopic, NumbersTopic

_IMAGE, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
PICTURES = (_IMAGE, _COMPRESSED)
_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "8UC1": 1, "8UC3": 3}
_DEPTH = ("16UC1", "mono16")
_SUGGESTED = {  # units of the fields that have a unit of their own in ROS
    "position": ("m",), "orientation": ("quat",), "pose": ("m", "m", "m", "quat", "quat", "quat", "quat"),
    "force": ("N",), "torque": ("Nm",), "linear": ("m/s",), "angular": ("rad/s",),
    "joint position": ("rad",), "joint velocity": ("rad/s",), "joint effort": ("Nm",),
}  # fmt: skip


def raw_stamp_ns(raw: bytes | memoryview) -> int:
    """Return the header stamp of a serialized message that begins with a header, without reading the rest."""
    order = "little" if raw[1] & 1 else "big"  # CDR: two bytes of representation, two of options
    seconds = int.from_bytes(raw[4:8], order, signed=True)  # type: ignore[arg-type]
    return seconds * 1_000_000_000 + int.from_bytes(raw[8:12], order)  # type: ignore[arg-type]


def stamp_ns(message: Any) -> int | None:
    """Return a message's header stamp, None if it has no header."""
    header = getattr(message, "header", None)
    return None if header is None else int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def numbers(message: Any, topic: NumbersTopic, where: str) -> tuple[np.ndarray, tuple[int, ...], tuple[str, ...]]:
    """Return the numbers (D,) float64 that a field holds, where quaternions (wxyz) start in them, and likely units.

    Joints of an action come in its own order where a message names them; a JointTrajectory of one point is a set-point.

    Raises:
        ContractError: if the message has no such field, joint or element.
    """
    if not topic.field and hasattr(message, "points") and hasattr(message, "joint_names"):
        message = _set_point(message, topic, where)
    field = topic.field or next((name for name in ("position", "pose") if hasattr(message, name)), "data")
    value = message
    for part in field.split("."):
        if not hasattr(value, part):
            have = [name for name in getattr(value, "__dataclass_fields__", {}) if not name.startswith("__")]
            raise ContractError(f"{where}: {topic.topic} has no field {field!r}; {part!r} is not among {have}")
        value = getattr(value, part)
    name = field.rpartition(".")[2]
    if hasattr(message, "velocity") and hasattr(message, "name"):
        name = f"joint {name}"
    vector, quats = _vector(value, where, topic)
    if wanted := topic.joints or _named(message, topic):
        vector = _joints(message, vector, wanted, topic, where)
    if topic.index:
        if max(topic.index) >= len(vector) or min(topic.index) < 0:
            raise ContractError(
                f"{where}: {topic.topic} holds {len(vector)} numbers; index asks for {list(topic.index)}"
            )
        vector, quats = vector[list(topic.index)], ()
    if topic.open is not None and topic.closed is not None:
        return (vector - topic.closed) / (topic.open - topic.closed), (), ("open",)
    return vector, quats, _SUGGESTED.get(name, ("1",)) if not topic.index else ("1",)


def picture(message: Any, where: str) -> np.ndarray | bytes:
    """Return (H, W, 3) uint8 RGB, (H, W) uint16 mm, or the bytes of a compressed image as the camera sent them.

    Raises:
        ContractError: if the encoding is not one of those this reads.
    """
    if message.__msgtype__ == _COMPRESSED:
        return bytes(message.data)
    height, width, encoding = int(message.height), int(message.width), message.encoding
    if not height * width:
        raise ContractError(f"{where}: a picture of {height} x {width}")
    if encoding in _DEPTH:
        order = ">" if message.is_bigendian else "<"
        depth = _rows(message, height, 2 * width, where).view(f"{order}u2")
        return np.array(depth, np.uint16)  # a copy: the message is kept
    if encoding not in _CHANNELS:
        raise ContractError(f"{where}: encoding {encoding!r} is not read; want one of {sorted([*_CHANNELS, *_DEPTH])}")
    channels = _CHANNELS[encoding]
    pixels = _rows(message, height, channels * width, where).reshape(height, width, channels)
    if channels == 1:
        return np.repeat(pixels, 3, axis=2)
    channel = [2, 1, 0] if encoding.startswith("bgr") or encoding == "8UC3" else [0, 1, 2]  # 8UC3 is OpenCV's: BGR
    return np.ascontiguousarray(pixels[..., channel])


def decoded(image: np.ndarray | None, where: str) -> np.ndarray:
    """Return what ``cv2.imdecode(data, IMREAD_UNCHANGED)`` made of a compressed image as `picture` returns pictures.

    Raises:
        ContractError: if it made nothing of it, or something that is neither 8 bits nor depth.
    """
    if image is None:
        raise ContractError(f"{where}: a compressed image cannot be decoded; want jpeg or png")
    if image.dtype == np.uint16 and image.ndim == 2:
        return image
    if image.dtype != np.uint8:
        raise ContractError(f"{where}: a compressed image is {image.dtype} {image.shape}; want 8 bits, or 16 of depth")
    if image.ndim == 2:
        return np.repeat(image[..., None], 3, axis=2)
    return np.ascontiguousarray(image[..., 2::-1])


def command_of(pose: np.ndarray, gripper: np.ndarray) -> np.ndarray:
    """Return the ``tool_pose`` command (10,) of a pose x y z qw qx qy qz (7,) and a gripper (1,), 0 closed, 1 open."""
    return np.concatenate([pose[:3], matrix_to_rot6d(quat_to_matrix(pose[3:7])), gripper])


def action_spec(topic: ActionTopic, dim: int, units: tuple[str, ...]) -> ActionSpec:
    """Return what is commanded: ``dim`` elements of the action's topic, with their likely units, and its gripper.

    Raises:
        ContractError: if names, units and numbers do not go together.
    """
    if topic.kind == "tool_pose":
        if dim != 7:
            raise ContractError(f"action: a tool_pose wants a pose, 7 numbers; {topic.topic} has {dim}")
        return TOOL_POSE
    names = topic.names or topic.joints or tuple(f"a{i}" for i in range(dim))
    if len(names) != dim:
        raise ContractError(f"action has {dim} numbers, and the config {len(names)} names")
    if len(units) not in (1, dim):
        raise ContractError(f"action has {dim} numbers, and {len(units)} units")
    if topic.gripper is not None:
        names, units = (*names, "gripper"), (*(units if len(units) == dim else units * dim), "open")
    return ActionSpec(topic.kind, names, units)  # type: ignore[arg-type]


def _vector(value: Any, where: str, topic: NumbersTopic) -> tuple[np.ndarray, tuple[int, ...]]:
    if hasattr(value, "position") and hasattr(value, "orientation"):
        (position, _), (quat, _) = (_vector(part, where, topic) for part in (value.position, value.orientation))
        return np.concatenate([position, quat]), (3,)
    if hasattr(value, "w"):
        return np.array([value.w, value.x, value.y, value.z], np.float64), (0,)
    if hasattr(value, "x"):
        return np.array([value.x, value.y, value.z], np.float64), ()
    try:
        return np.atleast_1d(np.array(value, np.float64)).reshape(-1), ()
    except (TypeError, ValueError):
        raise ContractError(f"{where}: field {topic.field!r} of {topic.topic} holds no numbers") from None


def _set_point(message: Any, topic: NumbersTopic, where: str) -> Any:
    if len(message.points) != 1:
        raise ContractError(f"{where}: {topic.topic} holds {len(message.points)} points; a set-point is one")
    point = message.points[0]
    return SimpleNamespace(name=message.joint_names, position=point.positions, velocity=point.velocities)


def _named(message: Any, topic: NumbersTopic) -> tuple[str, ...]:
    """The names of an action, if they are the names of joints in the message: their order is the action's."""
    names = topic.names if isinstance(topic, ActionTopic) and not topic.index else ()
    return names if names and set(names) <= set(getattr(message, "name", ())) else ()


def _joints(message: Any, vector: np.ndarray, wanted: tuple[str, ...], topic: NumbersTopic, where: str) -> np.ndarray:
    names = list(getattr(message, "name", ()))
    for joint in wanted:
        if joint not in names:
            raise ContractError(f"{where}: {topic.topic} has no joint {joint!r}; it has {names}")
    if len(vector) != len(names):
        raise ContractError(f"{where}: {topic.topic} has {len(names)} joints and {len(vector)} numbers")
    return vector[[names.index(joint) for joint in wanted]]


def _rows(message: Any, height: int, used: int, where: str) -> np.ndarray:
    """The used bytes of every row: rows may be padded."""
    data, step = np.frombuffer(message.data, np.uint8), int(message.step)
    if step < used or len(data) < step * height:
        raise ContractError(f"{where}: an image of {height} rows of {step} bytes, {used} used, holds {len(data)} bytes")
    return np.ascontiguousarray(data[: step * height].reshape(height, step)[:, :used])

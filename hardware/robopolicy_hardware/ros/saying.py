"""States and pictures as messages: what a robot publishes, by the file that says how it is read."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robopolicy.errors import ConfigError
from robopolicy.topics.config import NumbersTopic
from robopolicy_hardware.ros.codec import message
from robopolicy_hardware.ros.set_points import ARRAY, JOINT_STATE, NUMBER, POSE, header

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
INFO = "sensor_msgs/msg/CameraInfo"
SAID = (JOINT_STATE, POSE, ARRAY, NUMBER)
JPEG_QUALITY = 90


def require_said(what: str, topic: NumbersTopic, kind: str) -> None:
    """Refuse a stream that cannot be published; raises ConfigError."""
    if kind not in SAID:
        raise ConfigError(f"{what}: {kind} on {topic.topic} is not published; want one of {', '.join(SAID)}")
    if kind == JOINT_STATE and not topic.joints:
        raise ConfigError(f"{what}: joints are published by name; say joints: [...] of {topic.topic}")
    if kind == POSE and topic.field not in ("pose", "pose.position", "pose.orientation"):
        raise ConfigError(
            f"{what}: field {topic.field!r} of {topic.topic}; want pose, pose.position or pose.orientation"
        )


def of_numbers(kind: str, parts: Sequence[tuple[NumbersTopic, np.ndarray]], stamp_ns: int) -> Any:
    """Return one message that holds all streams of a topic.

    Args:
        kind: its type, one of `SAID`.
        parts: (how it is read, its numbers (D,) as the spec has them).
        stamp_ns: of its header, ROS clock.
    """
    native = [(topic, _native(topic, values)) for topic, values in parts]
    if kind == JOINT_STATE:
        return _joint_state(native, stamp_ns)
    if kind == POSE:
        return _pose(native, stamp_ns)
    size = 1 + max(max(topic.index or range(len(values))) for topic, values in native)
    data = np.zeros(size)
    for topic, values in native:
        data[list(topic.index or range(len(values)))] = values
    if kind == NUMBER:
        return message(kind)(float(data[0]))
    return message(kind)(message("std_msgs/msg/MultiArrayLayout")([], 0), data)


def of_picture(kind: str, picture: np.ndarray, stamp_ns: int, camera: str = "") -> Any:
    """Return a picture (H, W, 3) uint8 RGB, or (H, W) uint16 mm, as an Image, or as a JPEG in a CompressedImage."""
    head = header(stamp_ns, optical_frame(camera))
    if kind == COMPRESSED:
        import simplejpeg

        data = simplejpeg.encode_jpeg(np.ascontiguousarray(picture), JPEG_QUALITY, "RGB", "420")
        return message(kind)(head, "jpeg", np.frombuffer(data, np.uint8))
    encoding, size = ("rgb8", 3) if picture.ndim == 3 else ("16UC1", 2)
    height, width = picture.shape[:2]
    data = np.ascontiguousarray(picture).view(np.uint8).reshape(-1)
    return message(IMAGE)(head, height, width, encoding, 0, size * width, data)


def of_info(calibration: Mapping[str, Any], size: tuple[int, int], stamp_ns: int, camera: str) -> Any:
    """Return the CameraInfo of a picture without distortion.

    Args:
        calibration: its ``K`` (3, 3), pixels.
        size: (H, W) of the picture, pixels.
        stamp_ns: of the picture.
        camera: its name, of which the frame is called.
    """
    k = np.asarray(calibration["K"], np.float64)
    p = np.hstack([k, np.zeros((3, 1))])
    whole = message("sensor_msgs/msg/RegionOfInterest")(0, 0, 0, 0, False)
    head = header(stamp_ns, optical_frame(camera))
    return message(INFO)(
        head, size[0], size[1], "plumb_bob", np.zeros(5), k.ravel(), np.eye(3).ravel(), p.ravel(), 0, 0, whole
    )


def info_topic(topic: str) -> str:
    """Return the camera_info topic beside that of a camera's pictures, as image_transport places it.

    ``/front/image_raw`` and ``/front/image_raw/compressed`` have ``/front/camera_info``.
    """
    base = topic.removesuffix("/compressed").rpartition("/")[0]
    return f"{base}/camera_info"


def optical_frame(camera: str) -> str:
    """Return the frame of a camera's pictures: x right, y down, z into the scene."""
    return f"{camera}_optical_frame" if camera else ""


def _native(topic: NumbersTopic, values: np.ndarray) -> np.ndarray:
    """Undo the scaling of a gripper."""
    if topic.open is None or topic.closed is None:
        return np.asarray(values, np.float64)
    return topic.closed + np.asarray(values, np.float64) * (topic.open - topic.closed)


def _joint_state(parts: Sequence[tuple[NumbersTopic, np.ndarray]], stamp_ns: int) -> Any:
    names = list(dict.fromkeys(joint for topic, _ in parts for joint in topic.joints))
    arrays: Mapping[str, np.ndarray] = {
        field: np.zeros(len(names)) if any((topic.field or "position") == field for topic, _ in parts) else np.zeros(0)
        for field in ("position", "velocity", "effort")
    }
    for topic, values in parts:
        arrays[topic.field or "position"][[names.index(joint) for joint in topic.joints]] = values
    return message(JOINT_STATE)(header(stamp_ns), names, *arrays.values())


def _pose(parts: Sequence[tuple[NumbersTopic, np.ndarray]], stamp_ns: int) -> Any:
    position, quat = np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])
    for topic, values in parts:
        if topic.field != "pose.orientation":
            position = values[:3]
        if topic.field != "pose.position":
            quat = values[-4:]
    w, x, y, z = quat.tolist()
    point = message("geometry_msgs/msg/Point")(*position.tolist())
    pose = message("geometry_msgs/msg/Pose")(point, message("geometry_msgs/msg/Quaternion")(x, y, z, w))
    return message(POSE)(header(stamp_ns, "base"), pose)

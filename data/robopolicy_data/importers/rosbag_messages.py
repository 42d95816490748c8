"""What a ROS message holds: its stamp, its numbers, its picture."""

from typing import Any

import numpy as np

from robopolicy.errors import DatasetError
from robopolicy_data.importers.rosbag_config import NumbersTopic

_IMAGE, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
PICTURES = (_IMAGE, _COMPRESSED)
_CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "8UC1": 1, "8UC3": 3}
_DEPTH = ("16UC1", "mono16")
_JPEG_START = b"\xff\xd8"
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

    Raises:
        DatasetError: if the message has no such field, joint or element.
    """
    field = topic.field or ("position" if hasattr(message, "position") else "data")
    value = message
    for part in field.split("."):
        if not hasattr(value, part):
            have = [name for name in getattr(value, "__dataclass_fields__", {}) if not name.startswith("__")]
            raise DatasetError(f"{where}: {topic.topic} has no field {field!r}; {part!r} is not among {have}")
        value = getattr(value, part)
    name = field.rpartition(".")[2]
    if hasattr(message, "velocity") and hasattr(message, "name"):
        name = f"joint {name}"
    vector, quats = _vector(value, where, topic)
    if topic.joints:
        vector = _joints(message, vector, topic, where)
    if topic.index:
        if max(topic.index) >= len(vector) or min(topic.index) < 0:
            raise DatasetError(
                f"{where}: {topic.topic} holds {len(vector)} numbers; index asks for {list(topic.index)}"
            )
        vector, quats = vector[list(topic.index)], ()
    return vector, quats, _SUGGESTED.get(name, ("1",)) if not topic.index else ("1",)


def picture(message: Any, where: str) -> np.ndarray | bytes:
    """Return (H, W, 3) uint8 RGB, (H, W) uint16 mm, or the JPEG bytes that the camera sent.

    Raises:
        DatasetError: if the encoding is not one of those this reads.
    """
    if message.__msgtype__ == _COMPRESSED:
        data = bytes(message.data)
        return data if data[:2] == _JPEG_START and _is_colour(data) else _decoded(data, message.format, where)
    height, width, encoding = int(message.height), int(message.width), message.encoding
    if encoding in _DEPTH:
        order = ">" if message.is_bigendian else "<"
        depth = _rows(message, height, 2 * width, where).view(f"{order}u2")
        return np.ascontiguousarray(depth, dtype=np.uint16)
    if encoding not in _CHANNELS:
        raise DatasetError(f"{where}: encoding {encoding!r} is not read; want one of {sorted([*_CHANNELS, *_DEPTH])}")
    channels = _CHANNELS[encoding]
    pixels = _rows(message, height, channels * width, where).reshape(height, width, channels)
    if channels == 1:
        return np.repeat(pixels, 3, axis=2)
    channel = [2, 1, 0] if encoding.startswith("bgr") or encoding == "8UC3" else [0, 1, 2]  # 8UC3 is OpenCV's: BGR
    return np.ascontiguousarray(pixels[..., channel])


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
        raise DatasetError(f"{where}: field {topic.field!r} of {topic.topic} holds no numbers") from None


def _joints(message: Any, vector: np.ndarray, topic: NumbersTopic, where: str) -> np.ndarray:
    names = list(getattr(message, "name", ()))
    for joint in topic.joints:
        if joint not in names:
            raise DatasetError(f"{where}: {topic.topic} has no joint {joint!r}; it has {names}")
    if len(vector) != len(names):
        raise DatasetError(f"{where}: {topic.topic} has {len(names)} joints and {len(vector)} numbers")
    return vector[[names.index(joint) for joint in topic.joints]]


def _rows(message: Any, height: int, used: int, where: str) -> np.ndarray:
    """The used bytes of every row: rows may be padded."""
    data, step = np.frombuffer(message.data, np.uint8), int(message.step)
    if step < used or len(data) < step * height:
        raise DatasetError(f"{where}: an image of {height} rows of {step} bytes, {used} used, holds {len(data)} bytes")
    return np.ascontiguousarray(data[: step * height].reshape(height, step)[:, :used])


def _is_colour(data: bytes) -> bool:
    import simplejpeg

    try:
        return bool(simplejpeg.decode_jpeg_header(data)[2] != "Gray")
    except ValueError:
        return False


def _decoded(data: bytes, described: str, where: str) -> np.ndarray:
    """A grey JPEG or a PNG, 8 or 16 bits."""
    import cv2

    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if image is None:
        raise DatasetError(f"{where}: a compressed image ({described!r}) cannot be decoded; want jpeg or png")
    if image.dtype == np.uint16 and image.ndim == 2:
        return image
    if image.dtype != np.uint8:
        raise DatasetError(f"{where}: a compressed image is {image.dtype} {image.shape}; want 8 bits, or 16 of depth")
    if image.ndim == 2:
        return np.repeat(image[..., None], 3, axis=2)
    return np.ascontiguousarray(image[..., 2::-1])

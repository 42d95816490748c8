"""Real ROS 2 bags, written by rosbags, of streams whose every value follows from its stamp."""

from pathlib import Path

import numpy as np
import simplejpeg
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

STORE = get_typestore(Stores.ROS2_JAZZY)
START = 1_700_000_000_000_000_000
MS = 1_000_000
JOINTS = ("a", "b", "c")


def message(kind, **fields):
    return STORE.types[kind](**fields)


def header(stamp_ns):
    time = message("builtin_interfaces/msg/Time", sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)
    return message("std_msgs/msg/Header", stamp=time, frame_id="f")


def joints(stamp_ns, *, names=JOINTS):
    t = (stamp_ns - START) / 1e9
    values = {"a": t, "b": -2 * t, "c": np.sin(t)}
    position = np.array([values[name] for name in names])
    return "sensor_msgs/msg/JointState", message(
        "sensor_msgs/msg/JointState", header=header(stamp_ns), name=list(names), position=position,
        velocity=position * 10, effort=position * 0,
    )  # fmt: skip


def pose(stamp_ns):
    t = (stamp_ns - START) / 1e9
    point = message("geometry_msgs/msg/Point", x=t, y=2 * t, z=0.5)
    turn = message("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=float(np.sin(t / 2)), w=float(np.cos(t / 2)))
    both = message("geometry_msgs/msg/Pose", position=point, orientation=turn)
    return "geometry_msgs/msg/PoseStamped", message("geometry_msgs/msg/PoseStamped", header=header(stamp_ns), pose=both)


def floats(values):
    layout = message("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
    kind = "std_msgs/msg/Float64MultiArray"
    return kind, message(kind, layout=layout, data=np.asarray(values, np.float64))


def text(word):
    return "std_msgs/msg/String", message("std_msgs/msg/String", data=word)


def pixels(stamp_ns, height=12, width=16):
    """Smooth, and different at every millisecond."""
    k = (stamp_ns // MS) % 200
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 3 + k, columns * 2 + k // 2, 255 - rows - k], -1).astype(np.uint8)


def image(stamp_ns, encoding="rgb8", *, height=12, width=16, pad=4):
    rgb = pixels(stamp_ns, height, width)
    if encoding == "16UC1":
        rows = (rgb[..., 0].astype("<u2") * 20).view(np.uint8).reshape(height, -1)
    elif encoding == "mono8":
        rows = np.ascontiguousarray(rgb[..., 0])
    else:
        rows = (rgb[..., ::-1] if encoding == "bgr8" else rgb).reshape(height, -1)
    padded = np.pad(rows, ((0, 0), (0, pad)), constant_values=77)  # rows may be padded
    kind = "sensor_msgs/msg/Image"
    return kind, message(
        kind, header=header(stamp_ns), height=height, width=width, encoding=encoding, is_bigendian=0,
        step=padded.shape[1], data=padded.reshape(-1),
    )  # fmt: skip


def jpeg(stamp_ns, height=12, width=16):
    return simplejpeg.encode_jpeg(pixels(stamp_ns, height, width), 90, "RGB", "420")


def compressed(stamp_ns, data=None, described="jpeg"):
    kind = "sensor_msgs/msg/CompressedImage"
    data = jpeg(stamp_ns) if data is None else data
    return kind, message(kind, header=header(stamp_ns), format=described, data=np.frombuffer(data, np.uint8))


def write_bag(path: Path, messages, plugin=StoragePlugin.MCAP):
    """Write (topic, bag time ns, (type, message)) in the order of the bag's time."""
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        connections = {}
        for topic, bag_ns, (kind, value) in sorted(messages, key=lambda one: one[1]):
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[topic], bag_ns, STORE.serialize_cdr(value, kind))
    return path


def recording(seconds=3.0, *, camera_hz=30, jitter_ms=2, seed=0):
    """An arm with a front camera (30 Hz), a slower wrist camera, depth, joints, a pose, a gripper and commands."""
    rng = np.random.default_rng(seed)

    def stamps(rate, late_ms=0):
        base = START + (np.arange(int(seconds * rate)) * 1e9 / rate).astype(np.int64)
        return [int(s + rng.integers(0, jitter_ms * MS)) for s in base], late_ms * MS

    out = []
    for topic, make, (times, late) in (
        ("/front", compressed, stamps(camera_hz, 30)),
        ("/wrist", lambda s: image(s, "bgr8"), stamps(12, 20)),
        ("/depth", lambda s: image(s, "16UC1", pad=0), stamps(10, 20)),
        ("/joints", lambda s: joints(s, names=("c", "a", "b")), stamps(100, 1)),
        ("/pose", pose, stamps(50, 1)),
        ("/gripper", lambda s: floats([(s - START) / 1e9, 9.0]), stamps(20)),
        ("/command", lambda s: floats([(s - START) / 1e9, 1.0]), stamps(20)),
    ):
        out += [(topic, s + late, make(s)) for s in times]
    return out


CONFIG = """
rate_hz: {rate}
primary: {primary}
task: pick up
robot: ur5
cameras:
  front: {{topic: /front, latency_s: 0.01}}
  wrist: {{topic: /wrist, max_age_s: 0.06}}
  depth: {{topic: /depth, max_age_s: 0.08}}
state:
  q: {{topic: /joints, field: position, joints: [a, b, c]}}
  pos: {{topic: /pose, field: pose.position}}
  quat: {{topic: /pose, field: pose.orientation}}
  gripper: {{topic: /gripper, index: [0], stamp: bag, align: before}}
action: {{topic: /command, stamp: bag, max_age_s: 0.2, names: [x, y], units: m}}
"""


def write_config(path: Path, *, rate=10, primary="front", more="") -> Path:
    path.write_text(CONFIG.format(rate=rate, primary=primary) + more)
    return path

"""A fake arm on the wire, in a process of its own: ROS 2 topics in and out over real DDS, a first-order lag between.

    python fake_ros_arm.py DOMAIN joint|pose LOG [clock offset s]

It logs every command that reaches it as a line of JSON, and takes words on its standard input: ``blind`` stops the
front camera, ``small`` halves its pictures, ``nan`` makes a joint NaN, ``back`` sets its stamps back by two seconds.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

LOOPBACK = (
    "<CycloneDDS><Domain><General><Interfaces><NetworkInterface name='lo' multicast='false'/></Interfaces>"
    "<AllowMulticast>false</AllowMulticast></General><Discovery><ParticipantIndex>auto</ParticipantIndex>"
    "<MaxAutoParticipantIndex>60</MaxAutoParticipantIndex>"
    "<Peers><Peer address='127.0.0.1'/></Peers></Discovery></Domain></CycloneDDS>"
)
NAMES = ("a", "b", "c")
HOME = np.array([0.1, -0.2, 0.3])
FINGER_OPEN = 0.04  # m
STATES = """
cameras:
  front: {topic: /front/image_raw, latency_s: 0.005, max_age_s: 0.08}
  wrist: {topic: /wrist/image_raw/compressed, max_age_s: 0.08}
primary: front
rate_hz: 20
robot: fake arm
"""
JOINT = (
    STATES
    + """
state:
  q: {topic: /joint_states, field: position, joints: [a, b, c]}
  dq: {topic: /joint_states, field: velocity, joints: [c, a, b]}
action: {topic: /joint_commands, kind: joint, names: [a, b, c], units: rad}
"""
)
POSE = (
    STATES
    + """
state:
  tool_pos: {topic: /tool, type: geometry_msgs/msg/PoseStamped, field: pose.position}
  tool_quat: {topic: /tool, type: geometry_msgs/msg/PoseStamped, field: pose.orientation}
  gripper: {topic: /joint_states, field: position, joints: [finger], closed: 0.0, open: 0.04}
action:
  topic: /tool_commands
  kind: tool_pose
  frame: base
  gripper: {topic: /finger_commands, type: std_msgs/msg/Float64MultiArray, closed: 0.0, open: 0.04}
"""
)


class Arm:
    """The fake arm's process, as tests see it."""

    def __init__(self, folder: Path, domain: int, kind: str = "joint", offset_s: float = 0.0) -> None:
        self.log, self.config = folder / "commands.jsonl", folder / "arm.yaml"
        self.log.write_text("")
        self.config.write_text(JOINT if kind == "joint" else POSE)
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(domain), kind, str(self.log), str(offset_s)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "CYCLONEDDS_URI": LOOPBACK}, text=True,
        )  # fmt: skip
        assert self.process.stdout.readline() == "up\n"

    def tell(self, word: str) -> None:
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def commands(self, topic: str) -> np.ndarray:
        """Every command that came on a topic so far, (N, D)."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]
        return np.array([line["values"] for line in lines if line["topic"] == topic])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        self.process.stdin.close()
        self.process.stdout.close()


def main(domain: int, kind: str, log: Path, offset_s: float) -> None:
    import simplejpeg

    from robopolicy_hardware.ros.codec import message
    from robopolicy_hardware.ros.dds import Topics
    from robopolicy_hardware.ros.set_points import header

    topics = Topics(domain)
    image_type, jpeg_type = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
    joints = topics.publisher("/joint_states", "sensor_msgs/msg/JointState")
    front = topics.publisher("/front/image_raw", image_type)
    wrist = topics.publisher("/wrist/image_raw/compressed", jpeg_type)
    tool = topics.publisher("/tool", "geometry_msgs/msg/PoseStamped")
    lock, words = threading.Lock(), set()
    at = {
        "joint": HOME.copy(),
        "pose": np.array([0.4, 0.0, 0.3, 0.0, 1.0, 0.0, 0.0]),
        "finger": np.array([FINGER_OPEN]),
    }
    goal = {name: value.copy() for name, value in at.items()}

    def listen(topic: str, type_: str, part: str, values) -> object:
        def take(received, came_ns) -> None:
            told = values(received)
            with lock:
                goal[part] = np.array(told)
                with log.open("a") as file:
                    file.write(json.dumps({"topic": topic, "values": list(map(float, told))}) + "\n")

        return topics.subscribe(topic, type_, take)

    def pose_of(m):
        p, q = m.pose.position, m.pose.orientation
        sign = 1.0 if np.dot([q.w, q.x, q.y, q.z], at["pose"][3:]) >= 0 else -1.0  # the nearer of the same rotation's
        return [p.x, p.y, p.z, sign * q.w, sign * q.x, sign * q.y, sign * q.z]

    array = "std_msgs/msg/Float64MultiArray"
    if kind == "joint":
        kept = [listen("/joint_commands", array, "joint", lambda m: m.data)]
    else:
        kept = [
            listen("/tool_commands", "geometry_msgs/msg/PoseStamped", "pose", pose_of),
            listen("/finger_commands", array, "finger", lambda m: m.data),
        ]
    threading.Thread(target=lambda: [words.add(line.strip()) for line in sys.stdin], daemon=True).start()
    print("up", flush=True)
    start_s, k = time.monotonic(), 0
    point, quaternion, pose = (message(f"geometry_msgs/msg/{n}") for n in ("Point", "Quaternion", "Pose"))
    while kept:
        time.sleep(max(0.0, start_s + k * 0.01 - time.monotonic()))
        k += 1
        stamp_ns = time.time_ns() + round((offset_s - 2.0 * ("back" in words)) * 1e9)
        with lock:
            for name in at:
                at[name] += 0.1 * (goal[name] - at[name])
            at["pose"][3:] /= np.linalg.norm(at["pose"][3:])
        position = np.concatenate([[9.0], at["finger"], at["joint"][::-1]])  # by name, in an order of its own
        if "nan" in words:
            position[2] = np.nan
        names = ["other", "finger", *NAMES[::-1]]
        joints.send(
            message("sensor_msgs/msg/JointState")(header(stamp_ns), names, position, 10 * position, position * 0)
        )
        x, y, z, w, *xyz = at["pose"].tolist()
        tool.send(message("geometry_msgs/msg/PoseStamped")(header(stamp_ns), pose(point(x, y, z), quaternion(*xyz, w))))
        if k % 3 == 0:
            height, width = (12, 16) if "small" in words else (24, 32)
            rgb = np.full((height, width, 3), (k // 3) % 200, np.uint8)
            if "blind" not in words:
                data = rgb[..., ::-1].reshape(-1)
                front.send(message(image_type)(header(stamp_ns), height, width, "bgr8", 0, 3 * width, data))
            data = np.frombuffer(simplejpeg.encode_jpeg(rgb, 90, "RGB"), np.uint8)
            wrist.send(message(jpeg_type)(header(stamp_ns), "jpeg", data))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), float(sys.argv[4]))

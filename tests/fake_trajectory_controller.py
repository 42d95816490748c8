"""A fake joint_trajectory_controller and the arm behind it, on a clock that it steps: it interpolates as the real one.

Of ros2_controllers it does what matters here: joints by name, a new trajectory replaces the old one and begins where it
is, cubics between points that have velocities, lines between points that have none, the last point held. What is not
real: no dynamics (the arm is where it is told to be), no tolerances, no partial joint lists.
"""

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from robopolicy.clock import SimClock
from robopolicy_hardware.ros.codec import message
from robopolicy_hardware.ros.local import LocalTopics
from robopolicy_hardware.ros.set_points import header
from robopolicy_hardware.ros.streams import sure_offset_ns

STATE, TRAJECTORY, NUMBER = "sensor_msgs/msg/JointState", "trajectory_msgs/msg/JointTrajectory", "std_msgs/msg/Float64"
STEP_NS = 2_000_000
OWN = ("b", "a")  # the controller's order is its own
YAML = """
rate_hz: 100
state:
  q: {topic: /joint_states, joints: [a, b]}
  gripper: {topic: /joint_states, joints: [finger], closed: 0.0, open: 0.04}
action:
  topic: /arm_controller/joint_trajectory
  type: trajectory_msgs/msg/JointTrajectory
  kind: joint
  names: [a, b]
  units: rad
  send: chunk
  gripper: {topic: /finger, type: std_msgs/msg/Float64, closed: 0.0, open: 0.04}
"""


class Stepped(SimClock):
    """A clock on which a fake arm lives: as it sleeps, the controller moves and the joints are published."""

    def __init__(self, wire, home=(0.0, 0.0)):
        super().__init__(time.monotonic_ns())
        self._offset_ns = sure_offset_ns(None)
        self.received, self.came_ns, self.fingers = [], [], []  # messages and when they came, numbers
        self.track, self.track_ns = [], []  # (J,) a, b every 2 ms
        self.late_ns = lambda: 0  # by how much more a loop sleeps than it wanted to
        self._at, self._speed = np.array(home, np.float64), np.zeros(2)
        self._motion = None
        topics = LocalTopics(wire)
        topics.subscribe("/arm_controller/joint_trajectory", TRAJECTORY, self._take)
        topics.subscribe("/finger", NUMBER, lambda received, came_ns: self.fingers.append(received.data))
        self._joints = topics.publisher("/joint_states", STATE)
        self._say()

    def sleep_until(self, stamp_ns):
        stamp_ns += self.late_ns() if stamp_ns > self.now_ns() else 0
        while self.now_ns() < stamp_ns:
            super().sleep_until(min(self.now_ns() + STEP_NS, stamp_ns))
            self._at, self._speed = self._desired(self.now_ns())
            self.track.append(self._at.copy())
            self.track_ns.append(self.now_ns())
            self._say()

    def _take(self, received, came_ns):
        order = [list(received.joint_names).index(name) for name in ("a", "b")]
        now_ns = self.now_ns()
        times = [now_ns, *(now_ns + p.time_from_start.sec * 10**9 + p.time_from_start.nanosec for p in received.points)]
        places = np.array([self._at, *(p.positions[order] for p in received.points)])
        speeds = [self._speed, *(p.velocities[order] if len(p.velocities) else None for p in received.points)]
        self._motion = np.array(times), places, speeds
        self.received.append(received)
        self.came_ns.append(now_ns)

    def _desired(self, now_ns):
        if self._motion is None:
            return self._at, self._speed
        times, places, speeds = self._motion
        if now_ns >= times[-1]:
            return places[-1], np.zeros(2)
        k = int(np.searchsorted(times, now_ns, side="right")) - 1
        width = (times[k + 1] - times[k]) / 1e9
        u, step = (now_ns - times[k]) / 1e9 / width, places[k + 1] - places[k]
        if speeds[k + 1] is None or speeds[k] is None:
            return places[k] + u * step, step / width
        m0, m1 = speeds[k] * width, speeds[k + 1] * width
        at = (
            (2 * u**3 - 3 * u**2 + 1) * places[k] + (u**3 - 2 * u**2 + u) * m0
            + (-2 * u**3 + 3 * u**2) * places[k + 1] + (u**3 - u**2) * m1
        )  # fmt: skip
        speed = (
            (6 * u**2 - 6 * u) * (places[k] - places[k + 1]) + (3 * u**2 - 4 * u + 1) * m0 + (3 * u**2 - 2 * u) * m1
        ) / width
        return at, speed

    def _say(self):
        position = np.array([self._at[1], 0.02, self._at[0]])
        none = np.zeros(0)
        stamp = header(self.now_ns() - self._offset_ns)
        self._joints.send(message(STATE)(stamp, ["b", "finger", "a"], position, none, none))

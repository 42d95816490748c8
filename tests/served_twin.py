"""`robopolicy twin serve` as a process, and a bystander that sees all of it on the wire."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from fake_ros_arm import LOOPBACK

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "launch" / "config"
STATE, BOOL, INT = "sensor_msgs/msg/JointState", "std_msgs/msg/Bool", "std_msgs/msg/Int64"
AT_REST = 0.02  # rad/s
FASTEST = 2.61  # rad/s, of the arm's fastest joints


class Process:
    """A process whose lines are kept."""

    def __init__(self, *words) -> None:
        environment = {**os.environ, "CYCLONEDDS_URI": LOOPBACK, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=environment,
        )  # fmt: skip
        self.lines: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def says(self, pattern: str, timeout_s: float = 90.0) -> str:
        """Wait for a line; return it."""
        found = until(lambda: next((one for one in self.lines if re.search(pattern, one)), None) or self._gone(pattern),
                      timeout_s)  # fmt: skip
        return found

    def ends(self, timeout_s: float = 60.0) -> int:
        """Wait for its end; return the exit status."""
        code = self.process.wait(timeout_s)
        self._reading.join(10)
        return code

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reading.join(10)
        self.process.stdout.close()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def _gone(self, pattern: str) -> None:
        ended = self.process.poll() is not None and not self._reading.is_alive()
        if ended and not any(re.search(pattern, one) for one in self.lines):
            raise AssertionError(f"it ended without {pattern!r}: " + "\n".join(self.lines))


def serve(domain: int, *options, task: str = "lift") -> Process:
    """Start `robopolicy twin serve` and wait until it serves."""
    made = Process("-m", "robopolicy.cli.main", "twin", "serve", task, "--domain", domain, *options)
    try:
        made.says("^serving ")
    except BaseException:
        made.close()
        raise
    return made


def policy(config: Path, domain: int, what: str) -> Process:
    """Start `policy_node.py`."""
    return Process(Path(__file__).parent / "policy_node.py", config, domain, what)


def outcome(node: Process) -> dict[str, str]:
    """Return how a policy node ended."""
    return json.loads(node.says(r'^\{"ended"'))


class Bystander:
    """Sees joint states, commands and success, and asks for new starts."""

    def __init__(self, domain: int, command: tuple[str, str]) -> None:
        from robopolicy_hardware.ros.dds import Topics

        self.topics = Topics(domain, node="bystander")
        self._lock = threading.Lock()
        self._states: list[tuple[int, float, np.ndarray, np.ndarray]] = []
        self.commands: list[tuple[int, object]] = []
        self.successes: list[bool] = []
        self.topics.subscribe("/joint_states", STATE, self._state)
        self.topics.subscribe(*command, lambda message, ns: self.commands.append((ns, message)))
        self.topics.subscribe("/robopolicy_twin/success", BOOL, lambda message, ns: self.successes.append(message.data))
        self._reset = self.topics.publisher("/robopolicy_twin/reset", INT)
        until(lambda: self._states)

    def _state(self, message, came_ns) -> None:
        keep = [k for k, name in enumerate(message.name) if name.startswith("joint")]
        stamp_s = message.header.stamp.sec + message.header.stamp.nanosec / 1e9
        with self._lock:
            self._states.append((came_ns, stamp_s, message.position[keep], message.velocity[keep]))

    def states(self, since_ns: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return when they came (N,) ns, their stamps (N,) s, positions (N, 7) rad, velocities (N, 7) rad/s."""
        with self._lock:
            kept = [one for one in self._states if one[0] >= since_ns]
        came, stamps = np.array([one[0] for one in kept]), np.array([one[1] for one in kept])
        positions, velocities = (np.array([one[k] for one in kept]).reshape(-1, 7) for k in (2, 3))
        return came, stamps, positions, velocities

    def reset(self, seed: int) -> None:
        from robopolicy_hardware.ros.codec import message

        until(lambda: self._reset.subscribers)
        self._reset.send(message(INT)(seed))

    def require_no_jump(self, since_ns: int = 0) -> float:
        """The arm never went from one joint state to the next faster than it can; return its fastest joint's speed."""
        _, stamps, positions, velocities = self.states(since_ns)
        steps, times_s = np.abs(np.diff(positions, axis=0)).max(axis=1), np.diff(stamps)
        assert (times_s > 0).all()
        assert (steps <= 1.2 * FASTEST * times_s + 1e-3).all()
        return float(np.abs(velocities).max())

    def rests(self, since_ns: int) -> bool:
        """Whether every joint state since then is at rest; not without any."""
        _, _, _, velocities = self.states(since_ns)
        return len(velocities) > 0 and float(np.abs(velocities).max()) < AT_REST

    def moves(self, since_ns: int) -> bool:
        """Whether a joint state since then is clearly in motion; not without any."""
        _, _, _, velocities = self.states(since_ns)
        return len(velocities) > 0 and float(np.abs(velocities).max()) > 3 * AT_REST

    def close(self) -> None:
        self.topics.close()


def until(seen, timeout_s: float = 60.0):
    """Ask again until it is so; return it."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if found := seen():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come")

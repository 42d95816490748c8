"""Parts of the tests of the node: a rig around a mock robot, and what listens to the node's topics."""

import json
import time
from dataclasses import replace

import numpy as np

from robopolicy.clock import WallClock
from robopolicy.errors import UsageError
from robopolicy.loop import run_episode
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.types import Command, Decision, EpisodeMeta, Verdict
from robopolicy_hardware.mock import MockRobot
from robopolicy_hardware.ros.node_status import StatusTopics
from robopolicy_hardware.ros.set_points import ARRAY
from robopolicy_hardware.safety import SafetyLayer, limits_for
from robopolicy_hardware.supervisor import Supervised, Watchdogs

JOINTS = PolicySpec(
    state={"q": StateSpec(2, ("rad",)), "gripper": StateSpec(1, ("open",))},
    action=ActionSpec("joint", ("j1", "j2", "gripper"), ("rad", "rad", "open")),
    rate_hz=50.0,
)


def until(so, timeout_s=30.0):
    deadline_s = time.monotonic() + timeout_s
    while not (found := so()):
        assert time.monotonic() < deadline_s
        time.sleep(0.002)
    return found


class Sways:
    """A scripted agent that moves to and fro; ``before`` is called first, and every fifth step is a decision."""

    def __init__(self, before=lambda step: None):
        self.decision, self._before, self.step, self.statistic = None, before, 0, 0.25
        self._verdict = None

    def reset(self, seed=0):
        self.step = 0

    def act(self, observation):
        self._before(self.step)
        self.step += 1
        self.decision, verdict = None, self._verdict if self.step % 5 == 2 else None  # some say it twice
        if self.step % 5 == 1:
            chunk = np.zeros((1, 4, 3), np.float32)
            self.decision = Decision(self.step // 5, observation.stamp_ns, np.zeros(2, np.float32), chunk, 2)
            alarm = self.statistic > 1
            verdict = Verdict(
                observation.stamp_ns, {"overlap": self.statistic}, self.statistic, 1.0, 0.125,
                "alarm" if alarm else "nominal", 0.002, "overlap is high" if alarm else "",
            )  # fmt: skip
            self._verdict = verdict
        goal = np.float32([0.3 * np.sin(self.step / 10), 0.1, 0.5])
        return Command(goal, "policy", verdict)


class MockRig:
    """A `Rig` around a mock robot and a scripted agent, with the real loop, limits, watchdogs and topics."""

    def __init__(self, transport, name="/robopolicy", agent=None, watchdogs=None, max_steps=10**6, estop=None):
        self.clock, self.rival = WallClock(), ""
        self.inner = MockRobot(JOINTS, self.clock)
        self.robot = Supervised(self.inner, watchdogs or Watchdogs(silent_s=5.0), estop=estop)
        self.agent, self.max_steps, self.closed = agent or Sways(), max_steps, 0
        # Old observations are allowed: it is the node that must not command after a stop.
        self.safety = SafetyLayer(replace(limits_for(JOINTS), max_age_s=60.0), JOINTS)
        self.topics = StatusTopics(
            transport, self.robot, self.clock, name=name, hardware="mock", counts=self.safety.counts,
            plan_latency_s=lambda: 0.02,
        )  # fmt: skip

    def require_alone(self):
        if self.rival:
            raise UsageError(f"{self.rival} publishes on /commands too")

    def run(self, agent, done):
        meta = EpisodeMeta("sway", "mock", 3)
        return run_episode(
            self.robot, agent(self.agent), self.clock, self.safety, meta, max_steps=self.max_steps,
            watchers=[self.topics], done=done,
        )  # fmt: skip

    def close(self):
        self.closed += 1
        self.topics.close()
        self.robot.close()


class Ears:
    """What a node said so far, newest last."""

    def __init__(self, transport, name="/robopolicy"):
        self.statuses, self.scores, self.diagnostics = [], [], []
        transport.subscribe(f"{name}/status", "std_msgs/msg/String", self._status)
        transport.subscribe(f"{name}/failure_score", ARRAY, self._score)
        transport.subscribe("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", self._found)

    def _status(self, received, came_ns):
        self.statuses.append(json.loads(received.data))

    def _score(self, received, came_ns):
        labels = [dimension.label for dimension in received.layout.dim]
        self.scores.append(dict(zip(labels, received.data.tolist(), strict=True)))

    def _found(self, received, came_ns):
        self.diagnostics.append(received)

    @property
    def now(self):
        """The newest status, or one that says nothing."""
        return self.statuses[-1] if self.statuses else {"state": "", "reason": "", "running": None, "ended": ""}

    def found(self, part):
        """The newest finding on a part: (level, says, values)."""
        for status in self.diagnostics[-1].status if self.diagnostics else []:
            if status.name.endswith(f": {part}"):
                return status.level, status.message, {pair.key: pair.value for pair in status.values}
        return None

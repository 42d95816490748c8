"""A watcher that tells the network how the loop is: status, failure score and diagnostics."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

import numpy as np

from robopolicy.interfaces import Clock
from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta, Step, Verdict
from robopolicy_hardware.ros.node_messages import (
    DIAGNOSTICS,
    ERROR,
    OK,
    STRING,
    WARN,
    Finding,
    diagnostics_message,
    score_message,
    status_message,
)
from robopolicy_hardware.ros.set_points import ARRAY
from robopolicy_hardware.ros.transport import Transport

LOOK_S = 0.05  # how often the state is looked at
REPEAT_S = 1.0  # status and diagnostics are said again, for who came late
WINDOW = 500  # steps that rates and latencies are of
HUNG_S = 1.0  # without a step of a running episode: the loop hangs


class Watched(Protocol):
    """A robot with a state, as `robopolicy_hardware.supervisor.Supervised`."""

    state: Any
    reason: str


class StatusTopics:
    """Satisfies ``robopolicy.interfaces.Watcher``: fills ``NAME/status``, ``NAME/failure_score`` and ``/diagnostics``.

    The loop's thread only notes numbers, and sends the score of a new decision; the rest is said by a thread of its
    own, so that a loop that hangs is told of too.

    Args:
        transport: carries the topics; a publisher a topic, as its QoS allows.
        robot: whose state is told.
        clock: the loop's.
        name: of the node, as in ``/robopolicy``.
        hardware: the robot's name.
        counts: how often each safety limit acted, as `SafetyLayer.counts`.
        plan_latency_s: returns how long a plan takes, None if nobody knows.
    """

    def __init__(
        self,
        transport: Transport,
        robot: Watched,
        clock: Clock,
        *,
        name: str = "/robopolicy",
        hardware: str = "",
        counts: Mapping[str, int] | None = None,
        plan_latency_s: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._robot, self._clock, self._name, self._hardware = robot, clock, name.rstrip("/"), hardware
        self._counts = {} if counts is None else counts
        self._plan_latency_s = plan_latency_s
        self._steps, self._rate_hz, self._running = 0, 0.0, False
        self._source, self._ended = "", ""
        self._verdict: Verdict | None = None
        self._ticks_ns: deque[int] = deque(maxlen=WINDOW)
        self._latencies_ns: deque[int] = deque(maxlen=WINDOW)
        self._status = transport.publisher(f"{self._name}/status", STRING, latched=True)
        self._score = transport.publisher(f"{self._name}/failure_score", ARRAY)
        self._diagnostics = transport.publisher("/diagnostics", DIAGNOSTICS)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._say, name="status", daemon=True)
        self._thread.start()

    def on_start(self, meta: EpisodeMeta, spec: PolicySpec) -> None:
        """An episode begins: count anew."""
        self._steps, self._rate_hz, self._ended, self._verdict = 0, spec.rate_hz, "", None
        self._ticks_ns.clear()
        self._latencies_ns.clear()
        self._ticks_ns.append(self._clock.now_ns())
        self._running = True

    def on_step(self, step: Step) -> None:
        """Note when, how late and by whom; send the score of a new decision."""
        now_ns = self._clock.now_ns()
        self._ticks_ns.append(now_ns)
        self._latencies_ns.append(now_ns - step.observation.stamp_ns)
        self._steps, self._source = self._steps + 1, step.source
        verdict = step.verdict
        if verdict is not None and (self._verdict is None or verdict.stamp_ns != self._verdict.stamp_ns):
            self._score.send(score_message(verdict))
        self._verdict = verdict or self._verdict

    def on_end(self, meta: EpisodeMeta) -> None:
        """The episode is over; its notes say why, if it was an error."""
        self._running, self._ended = False, meta.notes

    def status(self) -> dict[str, Any]:
        """Return what ``NAME/status`` says."""
        return {
            "state": self._robot.state, "reason": self._robot.reason, "running": self._running,
            "source": self._source if self._running else "", "steps": self._steps, "ended": self._ended,
        }  # fmt: skip

    def findings(self) -> list[Finding]:
        """Return what ``/diagnostics`` says, a finding a part: robot, loop, monitor."""
        name = self._name.lstrip("/")
        return [self._of_robot(name), self._of_loop(name), *self._of_monitor(name)]

    def close(self) -> None:
        """Say it a last time and leave the topics; idempotent."""
        if self._over.is_set():
            return
        self._over.set()
        self._thread.join()
        with suppress(Exception):
            self._tell()
        for publisher in (self._status, self._score, self._diagnostics):
            publisher.close()

    def _say(self) -> None:
        said: tuple[Any, ...] = ()
        next_s = 0.0
        while not self._over.wait(LOOK_S):
            status = self.status()
            new = tuple(status[key] for key in ("state", "reason", "running", "source"))
            if new != said or time.monotonic() >= next_s:
                said, next_s = new, time.monotonic() + REPEAT_S
                with suppress(Exception):  # whatever the network has against it: it is said again in a second
                    self._tell()

    def _tell(self) -> None:
        self._status.send(status_message(self.status()))
        self._diagnostics.send(diagnostics_message(self.findings(), self._hardware, time.time_ns()))

    def _of_robot(self, name: str) -> Finding:
        state, reason = self._robot.state, self._robot.reason
        level = ERROR if state == "fault" else WARN if state == "hold" and self._running else OK
        acted = {f"limit {limit}": str(count) for limit, count in dict(self._counts).items()}
        return Finding(f"{name}: robot", level, f"{state}: {reason}" if reason else state, acted)

    def _of_loop(self, name: str) -> Finding:
        ticks, latencies = np.array(list(self._ticks_ns)), np.array(list(self._latencies_ns))
        values = {"steps": str(self._steps), "wanted rate Hz": f"{self._rate_hz:g}"}
        if len(ticks) > 2:
            periods_ms = np.diff(ticks[1:]) / 1e6
            wanted_ms = 1e3 / self._rate_hz
            values["rate Hz"] = f"{1e3 / float(np.mean(periods_ms)):.2f}"
            values["period error p99 ms"] = f"{np.percentile(np.abs(periods_ms - wanted_ms), 99):.2f}"
        if len(latencies):
            for share in (50, 99):
                values[f"latency p{share} ms"] = f"{np.percentile(latencies, share) / 1e6:.2f}"
        plan_s = self._plan_latency_s()
        if plan_s is not None:
            values["plan latency ms"] = f"{plan_s * 1e3:.1f}"
        if not self._running:
            return Finding(f"{name}: loop", WARN if self._ended else OK, self._ended or "no episode", values)
        silent_s = (self._clock.now_ns() - int(ticks[-1])) / 1e9 if len(ticks) else 0.0
        if silent_s > max(HUNG_S, 5 / self._rate_hz):
            return Finding(f"{name}: loop", ERROR, f"no step for {silent_s:.1f} s", values)
        return Finding(f"{name}: loop", OK, f"running, {self._source}" if self._source else "running", values)

    def _of_monitor(self, name: str) -> list[Finding]:
        verdict = self._verdict
        if verdict is None:
            return []
        level = ERROR if verdict.acts else OK if verdict.state == "nominal" else WARN
        values = {key: f"{getattr(verdict, key):.6g}" for key in ("statistic", "threshold", "p_value")}
        values["latency ms"] = f"{verdict.latency_s * 1e3:.2f}"
        values |= {f"score {key}": f"{value:.6g}" for key, value in verdict.scores.items()}
        says = f"{verdict.state}: {verdict.reason}" if verdict.reason else verdict.state
        return [Finding(f"{name}: monitor", level, says, values)]

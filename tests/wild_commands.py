"""Commands that nobody would give, and what a safety layer may make of them at most."""

import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from robopolicy.errors import UnsafeCommand
from robopolicy.rotations import matrix_to_quat, matrix_to_rot6d, matrix_to_rotvec, quat_to_matrix, rot6d_to_matrix
from robopolicy.spec import PolicySpec
from robopolicy.types import Observation
from robopolicy_hardware.safety import SafetyLayer, SafetyLimits

BATCH = 100  # commands of one manner
ROUNDING = 2.0**-23  # of float32, as a share of the value
MANNERS = ("far", "jump", "alternate", "walk", "wave", "edge", "huge", "broken", "restart", "pause", "outside")


@dataclass
class Log:
    """What came of the commands of one layer, row by row."""

    sent: list[np.ndarray] = field(default_factory=list)  # (A,)
    start: list[np.ndarray] = field(default_factory=list)  # (A,) what the step began from
    dt_s: list[float] = field(default_factory=list)  # the time it may use: since the one before, a period at most
    fresh: list[bool] = field(default_factory=list)  # it began from rest, as at first and after a stall or a pause
    refused: Counter = field(default_factory=Counter)  # by manner
    wrongly: int = 0  # refused ones that should not be, and the other way round


class Wild:
    """Drives a safety layer.

    Args:
        layer: fresh.
        limits: its limits.
        spec: of its robot.
        low, high: (A,) of commands in the box; wild ones reach half the width beyond.
        home: (A,) where the robot stands at first.
        seed: of everything random.
    """

    def __init__(
        self, layer: SafetyLayer, limits: SafetyLimits, spec: PolicySpec, low: np.ndarray, high: np.ndarray,
        home: np.ndarray, seed: int,
    ) -> None:  # fmt: skip
        self._layer, self._limits, self._spec, self._low, self._high = layer, limits, spec, low, high
        self._pose = spec.action.kind == "tool_pose"
        self._rng = np.random.default_rng(seed)
        self._now_ns, self._last_ns = 10**12, 0
        self._home, self._at = home.copy(), home.copy()  # where the robot is measured
        self._previous: np.ndarray | None = None
        self.log = Log()
        self.limit_s = 0.0  # CPU time in the layer

    def run(self, commands: int) -> Log:
        """Give that many commands, or a few more."""
        while commands > 0:
            manner = str(self._rng.choice(MANNERS))
            goals, jitter = self._goals(manner), float(self._rng.choice([0.0, 0.0, 0.5, 0.95]))
            for k, goal in enumerate(goals):
                waited = self._rng.uniform(1.0 - jitter, 1.0 + jitter)
                self._interrupt(manner, k)
                self._now_ns += round(self._spec.period_ns * waited)
                self._give(goal, manner)
            commands -= len(goals)
        return self.log

    def _interrupt(self, manner: str, k: int) -> None:
        """Stop now and then: forget the previous command, wait, or be pushed elsewhere."""
        if manner in ("restart", "outside") and k % 25 == 0:
            self._layer.reset()
            self._previous = None
        if manner == "outside" and k == 0:
            self._at = self._rng.uniform(*self._wide(0.1))
            if self._pose:
                self._at[3:9] = matrix_to_rot6d(quat_to_matrix(self._rng.normal(size=4)))
        elif manner == "outside" and k == BATCH // 2:
            self._layer.reset()
            self._previous, self._at = None, self._home.copy()
        elif manner == "pause" and k % 25 == 0:
            self._now_ns += int(self._rng.choice([3, 20])) * self._spec.period_ns

    def _give(self, goal: np.ndarray, manner: str) -> None:
        observation, forgot = self._observation(), self._previous is None
        elapsed_s, two_s = (self._now_ns - self._last_ns) / 1e9, 2 * self._spec.period_ns / 1e9
        fresh = forgot or elapsed_s > two_s
        measured = forgot or elapsed_s > max(two_s, 0.1)
        begin_s = time.process_time()
        try:
            sent = self._layer.limit(goal, observation, self._now_ns).astype(np.float64)
        except UnsafeCommand:
            self.log.refused[manner] += 1
            self.log.wrongly += manner != "broken"
            return
        finally:
            self.limit_s += time.process_time() - begin_s
        self.log.wrongly += not (np.shape(goal) == sent.shape and bool(np.all(np.isfinite(goal))))
        period_s = self._spec.period_ns / 1e9
        self.log.sent.append(sent)
        self.log.start.append(self._as_seen() if measured else self._previous)
        self.log.dt_s.append(period_s if fresh else min(elapsed_s, period_s))
        self.log.fresh.append(fresh)
        self._previous, self._last_ns, self._at = sent, self._now_ns, sent.copy()

    def _as_seen(self) -> np.ndarray:
        return self._at.astype(np.float32).astype(np.float64)

    def _observation(self) -> Observation:
        at = self._at.astype(np.float32)
        if self._pose:
            quat = np.float32(matrix_to_quat(rot6d_to_matrix(self._at[3:9])))
            return Observation(self._now_ns, {"tool_pos": at[:3], "tool_quat": quat, "gripper": at[9:]})
        return Observation(self._now_ns, {"q": at[:-1], "gripper": at[-1:]})

    def _wide(self, beyond: float) -> tuple[np.ndarray, np.ndarray]:
        return self._low - beyond * (self._high - self._low), self._high + beyond * (self._high - self._low)

    def _goals(self, manner: str) -> np.ndarray:
        """(BATCH, A)."""
        rng, shape = self._rng, (BATCH, len(self._low))
        low, high = self._wide(0.5)
        ticks = np.arange(BATCH)[:, None]
        if manner == "jump":
            goals = rng.uniform(low, high, shape)
        elif manner == "alternate":
            goals = np.where((ticks // rng.integers(1, 30)) % 2 == 0, low, high) * np.ones(shape)
        elif manner == "walk":
            goals = self._at + np.cumsum(rng.normal(0, 0.01, shape), axis=0)
        elif manner == "wave":
            goals = (low + high) / 2 + (high - low) / 2 * np.sin(ticks * rng.uniform(0.001, 0.3, shape[1]))
        elif manner == "edge":
            goals = np.where(rng.random(shape[1]) < 0.5, self._low, self._high) + rng.normal(0, 1e-3, shape)
        elif manner == "huge":
            goals = rng.choice([-1e30, -1e6, -10, 0, 10, 1e6, 1e30], shape)
        else:
            goals = np.repeat(rng.uniform(low, high, (BATCH // 50, shape[1])), 50, axis=0)
        if self._pose:
            columns = quat_to_matrix(rng.normal(size=4)) if manner == "walk" else None
            goals[:, 3:9] = rng.normal(size=(BATCH, 6)) if columns is None else matrix_to_rot6d(columns)
            goals[:, :3] = np.clip(goals[:, :3], -1e6, 1e6)
        if manner == "broken":
            broken = rng.random(BATCH) < 0.5
            goals[broken, rng.integers(0, shape[1], BATCH)[broken]] = rng.choice(
                [np.nan, np.inf, -np.inf], broken.sum()
            )
        return goals


@dataclass(frozen=True)
class Excess:
    """How far the commands were beyond a limit at most, over the limit, what float32 rounds taken off; and how near."""

    limit: str
    beyond: float  # in the limit's units, 0 if it was kept
    used: float  # the largest value as a share of the limit


def excesses(log: Log, limits: SafetyLimits, spec: PolicySpec) -> list[Excess]:
    """Compare every command that was sent with the limits, by arithmetic of its own."""
    sent, start = np.array(log.sent), np.array(log.start)
    dt, fresh = np.array(log.dt_s)[:, None], np.array(log.fresh)
    some = dt[:, 0] > 0
    sent, start, dt, fresh = sent[some], start[some], dt[some], fresh[some]
    fresh = fresh | ~_follow(sent, start)
    if spec.action.kind == "tool_pose":
        return _of_pose(sent, start, dt, fresh, limits)
    velocity = (sent - start) / dt
    before = np.where(fresh[:, None], 0.0, np.roll(velocity, 1, axis=0))
    rounded = 2 * ROUNDING * np.maximum(np.abs(sent), np.abs(start)) / dt
    slack = rounded + np.where(fresh[:, None], 0.0, np.roll(rounded, 1, axis=0))
    found = [_box(sent, start, limits)]
    found.append(_within("speed", np.abs(velocity), np.array(limits.max_rate), rounded))
    found.append(_within("acceleration", np.abs(velocity - before) / dt, np.array(limits.max_accel), slack / dt))
    return found


def _of_pose(
    sent: np.ndarray, start: np.ndarray, dt: np.ndarray, fresh: np.ndarray, limits: SafetyLimits
) -> list[Excess]:
    rest = fresh[:, None]
    velocity = (sent[:, :3] - start[:, :3]) / dt
    turn = np.array([matrix_to_rotvec(rot6d_to_matrix(b) @ rot6d_to_matrix(a).T)
                     for a, b in zip(start[:, 3:9], sent[:, 3:9], strict=True)]) / dt  # fmt: skip
    rounded = 4 * ROUNDING / dt
    slack = 2 * rounded + np.where(rest, 0.0, 2 * np.roll(rounded, 1, axis=0))
    found = [_box(sent[:, :3], start[:, :3], limits)]
    each = [("speed", velocity, limits.max_speed_m_s, limits.max_accel_m_s2),
            ("turn", turn, limits.max_turn_rad_s, limits.max_turn_accel_rad_s2)]  # fmt: skip
    for name, rate, most, accel in each:
        before = np.where(rest, 0.0, np.roll(rate, 1, axis=0))
        change = np.linalg.norm(rate - before, axis=1, keepdims=True) / dt
        found.append(_within(name, np.linalg.norm(rate, axis=1, keepdims=True), most, rounded))
        found.append(_within(f"{name} acceleration", change, accel, slack / dt))
    return found


def _follow(sent: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Which rows begin where the row before ended."""
    return np.all(start == np.roll(sent, 1, axis=0), axis=1) & (np.arange(len(sent)) > 0)


def _within(name: str, value: np.ndarray, most: np.ndarray | float, rounded: np.ndarray) -> Excess:
    return Excess(name, max(0.0, float(np.max(value - most - rounded))), float(np.max((value - rounded) / most)))


def _box(sent: np.ndarray, start: np.ndarray, limits: SafetyLimits) -> Excess:
    """How much farther out a command is than where it began, or than the box."""
    low, high = np.array(limits.low) + limits.margin, np.array(limits.high) - limits.margin

    def out(x: np.ndarray) -> np.ndarray:
        return np.maximum(np.maximum(low - x, x - high), 0.0)

    rounded = 2 * ROUNDING * np.maximum(np.abs(low), np.abs(high))
    return Excess("box", max(0.0, float(np.max(out(sent) - out(start) - rounded))), 1.0)

"""What a guarded robot does when its monitor speaks: which reaction to which state, the way back, a slower time."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np

from robopolicy.errors import ContractError, UnknownName
from robopolicy.interfaces import Agent
from robopolicy.measured import measured_action
from robopolicy.rotations import matrix_to_rot6d, matrix_to_rotvec, rot6d_to_matrix, rotvec_to_matrix
from robopolicy.spec import ActionSpec, PolicySpec
from robopolicy.types import Command, Decision, MonitorState, Observation, Step

Reaction = Literal["log", "slow", "hold", "retreat", "handover", "stop"]
REACTIONS: tuple[Reaction, ...] = get_args(Reaction)  # the mildest first: a harder one takes over from a milder one
LATE: tuple[str, ...] = ("hold", "log")
NEAR = 1e-3  # m, rad or the action's own unit: nearer than this to the newest way point, the robot stands
STOOD = 2  # periods that a way point counts for at most: the time before it in which the robot stood is no way


@dataclass(frozen=True)
class Reactions:
    """What is done in which state of the monitor.

    ======== ============================================================================================
    reaction does
    ======== ============================================================================================
    log      nothing: the verdict is attached to the step
    slow     the agent goes on at ``speed`` of its pace; a ``warn`` is answered likewise, as long as it lasts: that of
             a calibrated monitor, which looks at an episode's largest statistic, till its end or ``rearm``
    hold     the robot stands where it is
    retreat  goes back the way of the last ``retreat_s`` in which it moved, its gripper as it is; then holds
    handover holds, and gives the robot to the operator (`robopolicy.shared_control`)
    stop     the robot is stopped and the episode ends
    ======== ============================================================================================

    Alarm, overrun and fault latch: all but log last until ``rearm`` or ``reset``. A late verdict (``stale``) does not:
    with ``on_late="hold"`` (fail closed) what it judged late is thrown away, the robot holds, and plans anew until a
    verdict is in time (each such plan is a decision, and brings an overrun nearer); with ``"log"`` (fail open) it goes
    on.

    Attributes:
        on_alarm: reaction to an alarm.
        on_overrun: to an episode longer than any calibrated one; None is as to an alarm.
        on_fault: to a monitor that cannot judge; None is as to an alarm, but hold at least.
        on_late: ``"hold"`` or ``"log"``, to a verdict that took longer than ``deadline_s``.
        deadline_s: what judging may take, on the loop's clock; None does not look.
        speed: of slow, a share of the pace.
        retreat_s: of motion that is gone back.
        retreat_share: of the speed at which it came there, at most.
        retreat_m_s: of a tool on its way back, at most.
        retreat_rad_s: of a tool's turning and of joints, at most.

    Raises:
        UnknownName: naming the reactions.
        ContractError: if a number makes no sense.
    """

    on_alarm: str = "hold"
    on_overrun: str | None = None
    on_fault: str | None = None
    on_late: str = "hold"
    deadline_s: float | None = None
    speed: float = 0.25
    retreat_s: float = 2.0
    retreat_share: float = 0.5
    retreat_m_s: float = 0.05
    retreat_rad_s: float = 0.3

    def __post_init__(self) -> None:
        for name in (self.on_alarm, self.on_overrun, self.on_fault):
            if name is not None and name not in REACTIONS:
                raise UnknownName("reaction", name, REACTIONS)
        if self.on_late not in LATE:
            raise UnknownName("reaction to a late verdict", self.on_late, LATE)
        for name in ("deadline_s", "speed", "retreat_s", "retreat_share", "retreat_m_s", "retreat_rad_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value < np.inf:
                raise ContractError(f"reactions: {name} is {value}; want a finite number above 0")
        if not self.speed < 1:
            raise ContractError(f"reactions: speed is {self.speed}; slow is a share of the pace, below 1")

    @classmethod
    def never(cls) -> "Reactions":
        """Return those of a monitor that only tells: log, whatever it says."""
        return cls("log", "log", "log", "log")

    def to(self, state: MonitorState) -> str:
        """Return the reaction to a state; ``"log"`` where there is none."""
        if state == "alarm":
            return self.on_alarm
        if state == "overrun":
            return self.on_overrun or self.on_alarm
        if state == "fault":
            return self.on_fault or harder("hold", self.on_alarm)
        if state == "stale":
            return self.on_late
        return "slow" if state == "warn" and self.on_alarm == "slow" else "log"

    @property
    def used(self) -> frozenset[str]:
        """Every reaction that some state may bring about."""
        states: tuple[MonitorState, ...] = ("alarm", "overrun", "fault", "warn")
        return frozenset(map(self.to, states))

    def require(self, action: ActionSpec) -> None:
        """Refuse what a robot with this action could not do; raises ContractError saying so."""
        if "retreat" in self.used and action.kind in ("tool_delta", "tracks"):
            raise ContractError(f"retreat goes back to where the robot was; {action.kind} commands do not say where")
        if "slow" in self.used and action.kind == "tracks":
            raise ContractError("slow plays a part of each command; of tracks there is none")


def harder(one: str, other: str) -> str:
    """Return the harder of two reactions."""
    return max(one, other, key=REACTIONS.index)


class Trail:
    """Where the robot was of late: what it was observed at, or sent where that is not known.

    Args:
        spec: of the robot; its gripper is no part of the way.
        reactions: how far back, how fast.
    """

    def __init__(self, spec: PolicySpec, reactions: Reactions) -> None:
        self._action, self._reactions, self._period_s = spec.action, reactions, spec.period_ns / 1e9
        self._gripper = grippers(spec.action)
        self.reset()

    def reset(self) -> None:
        """Forget it."""
        self._points: deque[tuple[np.ndarray, float]] = deque(maxlen=10_000)  # way points, s since the one before
        self._sent: np.ndarray | None = None
        self._held: np.ndarray | None = None  # the gripper's part of the newest command that was no stop
        self._stamp_ns = 0

    def see(self, step: Step) -> None:
        """Take in what happened."""
        at = measured_action(step.observation, self._action)
        at = step.sent.astype(np.float64) if at is None else at
        self._sent = step.sent.astype(np.float64)
        if step.source != "hold":
            self._held = self._sent[self._gripper]
        elif self._held is None:
            self._held = at[self._gripper]
        stamp_ns = step.observation.stamp_ns
        if self._points:
            moved = _distance(self._points[-1][0], at, self._action, self._gripper)
            if max(moved) < NEAR:
                return
        lasted_s = min((stamp_ns - self._stamp_ns) / 1e9, STOOD * self._period_s) if self._points else 0.0
        self._points.append((at, lasted_s))
        self._stamp_ns = stamp_ns

    def back(self, now_ns: int) -> "Way | None":
        """Return the way back from the command in force, to be begun at ``now_ns``; None if there is none."""
        if self._sent is None or self._held is None:
            return None
        allowed, points, lasting, driven_s = self._reactions, [self._sent], [0.0], 0.0
        for at, lasted_s in reversed(self._points):
            points.append(at)
            lasting.append(lasted_s)
            if driven_s >= allowed.retreat_s:
                break
            driven_s += lasted_s
        if len(points) < 2:
            return None
        took_s = [0.0, *lasting[1:-1]]  # from a way point to the one before it; to the first, from the command
        ends_s = [0.0]
        for (start, stop), lasted_s in zip(pairwise(points), took_s, strict=True):
            away_m, turned = _distance(start, stop, self._action, self._gripper)
            bounded = self._action.kind in ("tool_pose", "joint")
            least_s = max(away_m / allowed.retreat_m_s, turned / allowed.retreat_rad_s) if bounded else 0.0
            ends_s.append(ends_s[-1] + max(lasted_s / allowed.retreat_share, least_s, self._period_s))
        return Way(self._action, np.array(points), np.array(ends_s), self._held, self._gripper, now_ns)


@dataclass(frozen=True)
class Way:
    """A way with times: straight from point to point, the gripper as it is."""

    action: ActionSpec
    points: np.ndarray  # (K, A) float64
    at_s: np.ndarray  # (K,) when each is reached, from 0 on
    held: np.ndarray  # (G,) of the gripper
    gripper: np.ndarray  # (A,) bool
    begun_ns: int

    def at(self, now_ns: int) -> np.ndarray | None:
        """Return the command (A,) float32 that is due, None when the way is over."""
        since_s = (now_ns - self.begun_ns) / 1e9
        if since_s > self.at_s[-1]:
            return None
        k = min(int(np.searchsorted(self.at_s, since_s, side="right")) - 1, len(self.at_s) - 2)
        width_s = self.at_s[k + 1] - self.at_s[k]
        share = 1.0 if width_s <= 0 else (since_s - self.at_s[k]) / width_s
        values = between(self.points[k], self.points[k + 1], share, self.action)
        values[self.gripper] = self.held
        return values.astype(np.float32)


def between(start: np.ndarray, stop: np.ndarray, share: float, action: ActionSpec) -> np.ndarray:
    """Return the command (A,) float64 that lies ``share`` of the way from one to another; a pose turns about one axis.

    A gripper is where the way leads to.
    """
    start, stop = np.asarray(start, np.float64), np.asarray(stop, np.float64)
    values: np.ndarray = start + share * (stop - start)
    if action.kind == "tool_pose":
        before = rot6d_to_matrix(start[3:9])
        turn = matrix_to_rotvec(rot6d_to_matrix(stop[3:9]) @ before.T)
        values[3:9] = matrix_to_rot6d(rotvec_to_matrix(share * turn) @ before)
    gripper = grippers(action)
    values[gripper] = stop[gripper]
    return values


def grippers(action: ActionSpec) -> np.ndarray:
    """Return which elements (A,) bool are a gripper's: those of unit ``open``, or called so."""
    units = action.units * action.dim if len(action.units) == 1 else action.units
    return np.array([unit == "open" or "gripper" in name for name, unit in zip(action.names, units, strict=True)])


def _distance(start: np.ndarray, stop: np.ndarray, action: ActionSpec, gripper: np.ndarray) -> tuple[float, float]:
    """How far in m and how far turned in rad; joints turn, of other actions the first is in their own unit."""
    if action.kind == "tool_pose":
        turn = matrix_to_rotvec(rot6d_to_matrix(stop[3:9]) @ rot6d_to_matrix(start[3:9]).T)
        return float(np.linalg.norm(stop[:3] - start[:3])), float(np.linalg.norm(turn))
    away = float(np.max(np.abs(stop - start)[~gripper], initial=0.0))
    return (0.0, away) if action.kind == "joint" else (away, 0.0)


class SlowTime:
    """A time that goes on at another pace than the clock's, from an instant on; it never jumps."""

    def __init__(self) -> None:
        self.pace = 1.0
        self._since_ns = self._own_ns = 0

    def at(self, now_ns: int) -> int:
        """Return this time when the clock says ``now_ns``; before the last change it went with the clock."""
        since_ns = now_ns - self._since_ns
        return self._own_ns + (since_ns if since_ns < 0 or self.pace == 1.0 else round(since_ns * self.pace))

    def go(self, pace: float, now_ns: int) -> None:
        """Go at ``pace`` from ``now_ns`` on."""
        self._own_ns, self._since_ns, self.pace = self.at(now_ns), now_ns, pace


class Slowed:
    """An agent that lives by the stamps of its observations, asked at another pace; satisfies `Agent`.

    Slow, it is asked as often as a step of its own time has passed, told that time, and the commands go straight from
    its last one to its new one; of ``tool_delta`` each is a part. At its own pace it is asked at every step, as ever.

    Args:
        agent: ``act`` looks at no clock.
        spec: of the robot.
    """

    def __init__(self, agent: Agent, spec: PolicySpec) -> None:
        self.decision: Decision | None = None
        self._agent, self._spec, self._seed = agent, spec, 0
        self._before: np.ndarray | None = None  # (A,) the agent's command before the newest
        self._goal: Command | None = None  # its newest
        self._asked_ns = self._next_ns = 0
        self._forget()

    def reset(self, seed: int = 0) -> None:
        """Start a new episode, at its own pace."""
        self._agent.reset(seed)
        self._seed = seed
        self._forget()

    def replan(self, history: Sequence[Observation]) -> None:
        """Forget the running chunk; its own pace again."""
        flush(self._agent, history, lambda: self._agent.reset(self._seed))
        self._forget()

    def act(self, observation: Observation) -> Command:
        """Return the agent's command, or what lies on the way to it."""
        now_ns = self._time.at(observation.stamp_ns)
        if self._time.pace == 1.0 or self._goal is None or now_ns >= self._next_ns:
            self._before = None if self._goal is None else self._goal.values
            self._goal = self._agent.act(replace(observation, stamp_ns=now_ns))
            self.decision = self._agent.decision
            if self.decision is not None:  # it was made of what was seen now
                self.decision = replace(self.decision, stamp_ns=observation.stamp_ns)
            # Half a tick early: stamps are not to the nanosecond.
            self._next_ns = now_ns + self._spec.period_ns - round(self._time.pace * self._spec.period_ns / 2)
            self._asked_ns = now_ns
        else:
            self.decision = None
        return self._now(now_ns)

    def at_pace(self, pace: float, observation: Observation, command: Command) -> Command:
        """Go at ``pace`` from this step on; return what this step's command is then."""
        now_ns = self._time.at(observation.stamp_ns)
        self._time.go(pace, observation.stamp_ns)
        self._next_ns = now_ns + self._spec.period_ns - round(pace * self._spec.period_ns / 2)
        return self._now(now_ns)

    def _now(self, now_ns: int) -> Command:
        goal, pace = self._goal, self._time.pace
        assert goal is not None
        if pace == 1.0 or goal.values is None or goal.source == "hold":
            return goal
        action = self._spec.action
        if action.kind == "tool_delta":
            values = np.where(grippers(action), goal.values, goal.values * pace)
        elif self._before is None:
            return goal
        else:
            share = min((now_ns - self._asked_ns) / self._spec.period_ns + pace, 1.0)
            values = between(self._before, goal.values, share, action)
        return replace(goal, values=values.astype(np.float32))

    def _forget(self) -> None:
        self._time = SlowTime()
        self._before = self._goal = None


def flush(agent: Any, history: Sequence[Observation], otherwise: Callable[[], None]) -> None:
    """Let an agent forget what it would play; ``otherwise`` is done for one that cannot."""
    replan = getattr(agent, "replan", None)
    if replan is None:
        otherwise()
    else:
        replan(list(history))

"""A robot that is watched: states, watchdogs, and one way to stop, whoever asks for it."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from robopolicy.errors import ContractError, RobopolicyError, StaleFrame, UnsafeCommand, UsageError
from robopolicy.interfaces import Robot
from robopolicy.rotations import matrix_to_rotvec, quat_to_matrix, rot6d_to_matrix
from robopolicy.spec import PolicySpec
from robopolicy.types import ActionChunk, Observation

State = Literal["idle", "ready", "running", "hold", "fault"]
POLL_S = 0.01  # how often the watchdogs look
CLOSE_S = 5.0  # for the watching thread to end
TOOL = ("the tool's position", "the tool's rotation")
PRESSED = "the emergency stop is pressed"
LOCK_S = 0.05  # a stop that cannot have the robot to itself by then goes ahead: better two words than none


@dataclass(frozen=True)
class Watchdogs:
    """When a watched robot is stopped by itself; None does not watch.

    Raises:
        ContractError: if a time is not finite and positive.
    """

    silent_s: float | None = (
        0.1  # how much later than a control period the next command may come: the loop hangs or died
    )
    plan_over_s: float | None = 0.5  # how long the last row of a plan may be held as a command; `RealTime` watches
    plan_late_s: float | None = 2.0  # how long a plan may be awaited; `RealTime` watches
    deadman_s: float | None = None  # age of the operator's newest heartbeat
    deadman_topic: str = ""  # std_msgs/msg/Bool: true while the operator holds it
    estop_s: float | None = None  # age of the newest word of an external emergency stop
    estop_topic: str = ""  # std_msgs/msg/Bool: true while it is pressed
    tracking: tuple[float, ...] | None = None  # command minus measured, latches: (A,) of joints, (2,) m, rad of a tool

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None or isinstance(value, str):
                continue
            if not (np.all(np.isfinite(value)) and np.all(np.asarray(value) > 0)):
                raise ContractError(f"watchdog {field.name} is {value}; want finite and above 0 (None does not watch)")
        for name in ("deadman", "estop"):
            if getattr(self, f"{name}_topic") and getattr(self, f"{name}_s") is None:
                raise ContractError(f"watchdog {name}_topic: say {name}_s too, how old its newest word may be")


class Supervised:
    """Satisfies ``robopolicy.interfaces.Robot`` around another robot, and stops it when nobody else does.

    ======== ==================================================== ==============================
    state    means                                                left by
    ======== ==================================================== ==============================
    idle     nothing was read yet, or a fault was reset           a fresh observation
    ready    observations are fresh, nothing was commanded        a command, a stop
    running  commands come                                        a stop, a watchdog
    hold     the robot holds: a stop, a late loop, no deadman     a command
    fault    the robot holds, and takes no command                `reset`, by a person
    ======== ==================================================== ==============================

    The emergency stop is a fault in every state; a robot that nothing moves is not told to hold for it.

    A thread of its own watches on the monotonic clock, so that a loop that hangs, in a policy, a camera or the network,
    does not leave the robot at its last velocity.

    Args:
        robot: watched; its ``stop`` is called from two threads, never its ``read`` and ``command``. One call at a time
            as long as they return; a stop goes ahead beside one that hangs.
        watchdogs: what is watched.
        deadman: returns the age in seconds of the operator's heartbeat, None before the first.
        estop: returns (pressed, age in seconds of that word or None).
        alone: a robot that must never be called from two threads at once, as a simulation: a stop waits for a call that
            hangs. Such a robot does not move meanwhile.

    Attributes:
        state: see above.
        reason: for it.
        trips: why the watchdogs, or a read that failed, stopped it: every reason so far, oldest first.
    """

    def __init__(
        self,
        robot: Robot,
        watchdogs: Watchdogs | None = None,
        *,
        deadman: Callable[[], float | None] | None = None,
        estop: Callable[[], tuple[bool, float | None]] | None = None,
        alone: bool = False,
    ) -> None:
        self.spec = robot.spec
        self.state: State = "idle"
        self.reason = ""
        self._robot, self._dogs = robot, watchdogs or Watchdogs()
        self.trips: list[str] = []
        self._deadman, self._estop, self._alone = deadman, estop, alone
        if (self._dogs.deadman_s is not None) != (deadman is not None):
            raise ContractError("watchdog deadman: its age limit and what tells its age go together")
        if (self._dogs.estop_s is not None) != (estop is not None):
            raise ContractError("watchdog estop: its age limit and what tells of it go together")
        if self._dogs.tracking is not None:
            _require_tracked(self._dogs.tracking, self.spec)
        self._silent_s = None if self._dogs.silent_s is None else self._dogs.silent_s + self.spec.period_ns / 1e9
        self._lock = threading.RLock()
        self._sent: np.ndarray | None = None
        self._sent_s = 0.0
        self._unheld: str | None = None  # the reason for a stop that did not reach the robot: it is tried again
        self._open = True
        self._thread = threading.Thread(target=self._watch, name="watchdogs", daemon=True)
        self._thread.start()

    def read(self) -> Observation:
        """Return the robot's newest observation; raises what it raises, and then the robot holds."""
        with self._lock:
            try:
                observation = self._robot.read()
            except RobopolicyError as error:
                self._trip("hold", str(error))
                raise
            if self.state == "idle":
                self.state = "ready"
            if self.state == "running":
                self._require_tracking(observation)
        return observation

    def command(self, action: np.ndarray, due_ns: int) -> np.ndarray:
        """Pass the set-point on, unless there is a reason not to.

        Raises:
            UnsafeCommand: in a fault, with its reason and what ends it; without deadman or with the emergency stop
                pressed; and what the robot raises.
        """
        with self._lock:
            self._require_free()
            sent = self._robot.command(action, due_ns)
            self._require_no_fault()
            self._sent, self._sent_s, self.state, self.reason = sent.copy(), time.monotonic(), "running", ""
            self._unheld = None
        return sent

    def told(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return position and velocity (A,) of the motion now, of a robot that takes motions; None without one."""
        now: tuple[np.ndarray, np.ndarray] | None = self._robot.told()  # type: ignore[attr-defined]
        return now

    def follow(self, chunk: ActionChunk, velocities: np.ndarray) -> None:
        """Pass a whole motion on to a robot that takes them (`robopolicy.following`); refused as `command` is."""
        with self._lock:
            self._require_free()
            self._robot.follow(chunk, velocities)  # type: ignore[attr-defined]
            self._require_no_fault()

    def stop(self, reason: str = "") -> np.ndarray:
        """Hold; return the set-point that holds (A,)."""
        return self._halt("hold", reason)

    def fault(self, reason: str) -> np.ndarray:
        """Hold, and take no command until `reset`."""
        return self._halt("fault", reason)

    def refusal(self) -> str | None:
        """Return why nothing is to begin now, None if it may: a fault, or what the emergency stop says."""
        if self.state == "fault":
            return f"the robot is in a {self._latched}"
        return self._emergency()

    def reset(self) -> None:
        """End a fault: a person has put right what it was about.

        Raises:
            UsageError: while the emergency stop is pressed, was so a moment ago, or is silent.
        """
        with self._lock:
            if self.state != "fault":
                return
            if (why := self._emergency()) is not None:
                raise UsageError(f"nothing is reset: {why}{'; release it, then reset' if why == PRESSED else ''}")
            self.state, self.reason, self._sent = "idle", "", None

    def close(self) -> None:
        """Stop watching and release the robot; idempotent."""
        self._open = False
        if self._thread is not threading.current_thread():
            self._thread.join(CLOSE_S)
        self._robot.close()

    def _require_free(self) -> None:
        """Refuse a command if there is a reason to."""
        if self.state == "fault":
            raise UnsafeCommand(self._latched)
        if (why := self._why_not()) is not None:
            self._trip(*why)
            raise UnsafeCommand(why[1])

    def _require_no_fault(self) -> None:
        """Stop once more if a fault came while a command was on its way: which of them came last nobody knows."""
        if self.state == "fault":
            self._trip("fault", self.reason)
            raise UnsafeCommand(self._latched)

    @property
    def _latched(self) -> str:
        return f"fault: {self.reason}; put it right, then reset"

    def _trip(self, state: State, reason: str) -> None:
        """Stop for a reason of its own, and remember it."""
        if self.state in ("running", "ready") or state == "fault":
            self.trips.append(reason)
        try:
            self._hold(state, reason)
        except StaleFrame as error:  # it tells nothing any more: it holds by itself
            self.reason = f"{reason}; {error}"

    def _trip_or_latch(self, state: State, reason: str, *, owned: bool) -> None:
        """As `_trip`; but a robot that nothing moves is not told to hold: it may be somebody else's to move."""
        if self.state == "running" or self._unheld is not None or not owned:
            self._trip(state, reason)
            return
        self.trips.append(reason)
        self.state, self.reason = state, reason

    def _halt(self, state: State, reason: str) -> np.ndarray:
        """Stop because somebody says so: from any thread, any number of times."""
        owned = self._lock.acquire(timeout=-1 if self._alone else LOCK_S)
        try:
            return self._hold(state, reason)
        finally:
            if owned:
                self._lock.release()

    def _hold(self, state: State, reason: str) -> np.ndarray:
        """The one way to stop."""
        if self._unheld is not None:
            self.reason, self._unheld = self._unheld, None
        if self.state != "fault":
            self.state, self.reason = state, reason
        self._sent, why = None, self.reason
        try:
            return self._robot.stop(reason)
        except StaleFrame:  # it tells nothing, and was told nothing: it holds by itself
            raise
        except Exception as error:
            self._unheld, self.reason = why, f"{why}; the robot could not be stopped: {error}"
            raise

    def _why_not(self) -> tuple[State, str] | None:
        """Return why nothing may be commanded now, and the state that it leads to."""
        if (emergency := self._emergency()) is not None:
            return "fault", emergency
        if self._deadman is not None and self._dogs.deadman_s is not None:
            age_s = self._deadman()
            if age_s is None or age_s > self._dogs.deadman_s:
                return "hold", f"nobody holds the deadman's switch: its last word is {_seconds(age_s)} old"
        return None

    def _emergency(self) -> str | None:
        """Return what is wrong with the emergency stop: it is pressed, or nothing is heard of it."""
        if self._estop is None or self._dogs.estop_s is None:
            return None
        pressed, age_s = self._estop()
        if pressed:
            return PRESSED
        if age_s is None or age_s > self._dogs.estop_s:
            return f"nothing is heard of the emergency stop for {_seconds(age_s)}"
        return None

    def _require_tracking(self, observation: Observation) -> None:
        if self._dogs.tracking is None or self._sent is None:
            return
        pose = self.spec.action.kind == "tool_pose"
        off = _off_tool(observation, self._sent) if pose else np.abs(_joints(observation) - self._sent)
        if not np.all(off <= self._dogs.tracking):
            worst = int(np.argmax(np.nan_to_num(off, nan=np.inf) / np.asarray(self._dogs.tracking)))
            name = TOOL[worst] if pose else self.spec.action.names[worst]
            self._trip(
                "fault",
                f"{name} is {off[worst]:.3g} from its command; at most {self._dogs.tracking[worst]:g} is allowed",
            )

    def _watch(self) -> None:
        while self._open:
            time.sleep(POLL_S)
            if self._looked() is None and self._unheld is None:
                continue
            owned = self._lock.acquire(timeout=LOCK_S)
            try:
                if not owned and self._alone:
                    continue
                if (why := self._looked()) is not None:
                    self._trip_or_latch(*why, owned=owned)
                elif self._unheld is not None:
                    self._hold(self.state, self._unheld)
            except Exception:  # of the robot's stop: `_hold` has noted it, and it is tried again until it works
                continue
            finally:
                if owned:
                    self._lock.release()

    def _looked(self) -> tuple[State, str] | None:
        """Return what is `_wrong`; that this cannot be told, because what tells of it fails, is a fault."""
        try:
            return self._wrong()
        except Exception as error:
            return "fault", f"the watchdogs cannot look: {error or type(error).__name__}"

    def _wrong(self) -> tuple[State, str] | None:
        """Return why the robot is to be stopped, and the state that it leads to; at rest only a press counts."""
        if self.state == "fault":
            return None
        if self.state != "running":
            return ("fault", PRESSED) if self._emergency() == PRESSED else None
        silent_s = time.monotonic() - self._sent_s
        if (why := self._why_not()) is not None:
            return why
        if self._silent_s is not None and silent_s > self._silent_s:
            return "hold", f"no command for {silent_s:.2f} s: the loop is late"
        return None


def _seconds(age_s: float | None) -> str:
    return "ever" if age_s is None else f"{age_s:.2f} s"


def _require_tracked(tracking: tuple[float, ...], spec: PolicySpec) -> None:
    """Refuse a tracking error that could never be told; raises ContractError."""
    kind, dims = spec.action.kind, {name: part.dim for name, part in spec.state.items()}
    if kind == "tool_pose":
        want, measured = len(TOOL), (dims.get("tool_pos"), dims.get("tool_quat")) == (3, 4)
    elif kind == "joint":
        want, measured = spec.action.dim, dims.get("q", 0) + dims.get("gripper", 0) == spec.action.dim
    else:
        raise ContractError(f"watchdog tracking is of joint and tool_pose commands; these are {kind}")
    if len(tracking) != want:
        wanted = "a tool pose has 2, m and rad" if kind == "tool_pose" else f"the action has {want}"
        raise ContractError(f"watchdog tracking has {len(tracking)} numbers; {wanted}")
    if not measured:
        needs = "tool_pos and tool_quat" if kind == "tool_pose" else f"q and gripper, {want} numbers together"
        raise ContractError(f"watchdog tracking compares with {needs}; the robot has {', '.join(dims) or 'no state'}")


def _joints(observation: Observation) -> np.ndarray:
    """Measured joints and gripper, (A,)."""
    parts = [observation.state[name] for name in ("q", "gripper") if name in observation.state]
    return np.concatenate(parts).astype(np.float64)


def _off_tool(observation: Observation, sent: np.ndarray) -> np.ndarray:
    """Distance of the measured tool from its command (2,): m and rad."""
    turned = rot6d_to_matrix(sent[3:9].astype(np.float64)) @ quat_to_matrix(observation.state["tool_quat"]).T
    away = sent[:3] - observation.state["tool_pos"]
    return np.array([np.linalg.norm(away), np.linalg.norm(matrix_to_rotvec(turned))])

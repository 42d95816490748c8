"""A robot that is watched: states, watchdogs, and one way to stop, whoever asks for it."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from robopolicy.errors import ContractError, RobopolicyError, StaleFrame, UnsafeCommand
from robopolicy.interfaces import Robot
from robopolicy.types import Observation

State = Literal["idle", "ready", "running", "hold", "fault"]
POLL_S = 0.01  # how often the watchdogs look
LOCK_S = 0.05  # a stop that cannot have the robot to itself by then goes ahead: better two words than none


@dataclass(frozen=True)
class Watchdogs:
    """When a watched robot is stopped by itself; None does not watch.

    Raises:
        ContractError: if a time is not finite and positive.
    """

    silent_s: float | None = 0.1  # since the last command of a running robot: the loop hangs or died
    deadman_s: float | None = None  # age of the operator's newest heartbeat
    estop_s: float | None = None  # age of the newest word of an external emergency stop
    tracking: tuple[float, ...] | None = None  # (A,) of command minus measured, in the action's units; latches

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not (np.all(np.isfinite(value)) and np.all(np.asarray(value) > 0)):
                raise ContractError(f"watchdog {field.name} is {value}; want finite and above 0 (None does not watch)")


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

    A thread of its own watches on the monotonic clock, so that a loop that hangs, in a policy, a camera or the network,
    does not leave the robot at its last velocity.

    Args:
        robot: watched; its ``stop`` is called from two threads, never its ``read`` and ``command``.
        watchdogs: what is watched.
        deadman: returns the age in seconds of the operator's heartbeat, None before the first.
        estop: returns (pressed, age in seconds of that word or None).
    """

    def __init__(
        self,
        robot: Robot,
        watchdogs: Watchdogs | None = None,
        *,
        deadman: Callable[[], float | None] | None = None,
        estop: Callable[[], tuple[bool, float | None]] | None = None,
    ) -> None:
        self.spec = robot.spec
        self.state: State = "idle"
        self.reason = ""
        self._robot, self._dogs = robot, watchdogs or Watchdogs()
        self._deadman, self._estop = deadman, estop
        if (self._dogs.deadman_s is not None) != (deadman is not None):
            raise ContractError("watchdog deadman: its age limit and what tells its age go together")
        if (self._dogs.estop_s is not None) != (estop is not None):
            raise ContractError("watchdog estop: its age limit and what tells of it go together")
        if self._dogs.tracking is not None and len(self._dogs.tracking) != self.spec.action.dim:
            raise ContractError(
                f"watchdog tracking has {len(self._dogs.tracking)} numbers; the action has {self.spec.action.dim}"
            )
        self._lock = threading.RLock()
        self._sent: np.ndarray | None = None
        self._sent_s = 0.0
        self._open = True
        self._thread = threading.Thread(target=self._watch, name="watchdogs", daemon=True)
        self._thread.start()

    def read(self) -> Observation:
        """Return the robot's newest observation; raises what it raises, and then the robot holds."""
        try:
            observation = self._robot.read()
        except RobopolicyError as error:
            self._halt("hold", str(error))
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
        if self.state == "fault":
            raise UnsafeCommand(f"fault: {self.reason}; put it right, then reset")
        if (why := self._why_not()) is not None:
            self._halt(*why)
            raise UnsafeCommand(why[1])
        with self._lock:
            sent = self._robot.command(action, due_ns)
            self._sent, self._sent_s, self.state, self.reason = sent.copy(), time.monotonic(), "running", ""
        return sent

    def stop(self, reason: str = "") -> np.ndarray:
        """Hold; return the set-point that holds (A,)."""
        return self._halt("hold", reason)

    def fault(self, reason: str) -> np.ndarray:
        """Hold, and take no command until `reset`."""
        return self._halt("fault", reason)

    def reset(self) -> None:
        """End a fault: a person has put right what it was about."""
        with self._lock:
            if self.state == "fault":
                self.state, self.reason, self._sent = "idle", "", None

    def close(self) -> None:
        """Stop watching and release the robot; idempotent."""
        self._open = False
        if self._thread is not threading.current_thread():
            self._thread.join()
        self._robot.close()

    def _halt(self, state: State, reason: str) -> np.ndarray:
        """The one way to stop: from any thread, any number of times."""
        owned = self._lock.acquire(timeout=LOCK_S)
        try:
            if self.state != "fault":
                self.state, self.reason = state, reason
            self._sent = None
            return self._robot.stop(reason)
        finally:
            if owned:
                self._lock.release()

    def _why_not(self) -> tuple[State, str] | None:
        """Return why nothing may be commanded now, and the state that it leads to."""
        if self._estop is not None and self._dogs.estop_s is not None:
            pressed, age_s = self._estop()
            if pressed:
                return "fault", "the emergency stop is pressed"
            if age_s is None or age_s > self._dogs.estop_s:
                return "fault", f"nothing is heard of the emergency stop for {_seconds(age_s)}"
        if self._deadman is not None and self._dogs.deadman_s is not None:
            age_s = self._deadman()
            if age_s is None or age_s > self._dogs.deadman_s:
                return "hold", f"nobody holds the deadman's switch: its last word is {_seconds(age_s)} old"
        return None

    def _require_tracking(self, observation: Observation) -> None:
        if self._dogs.tracking is None or self._sent is None:
            return
        measured = _measured(observation, len(self._sent))
        if measured is None:
            return
        off = np.abs(measured - self._sent)
        if np.any(off > self._dogs.tracking):
            worst = int(np.argmax(off / np.asarray(self._dogs.tracking)))
            name = self.spec.action.names[worst]
            self.fault(
                f"{name} is {off[worst]:.3g} from its command; at most {self._dogs.tracking[worst]:g} is allowed"
            )

    def _watch(self) -> None:
        while self._open:
            time.sleep(POLL_S)
            if self.state != "running":
                continue
            silent_s = time.monotonic() - self._sent_s
            why = self._why_not()
            if self._dogs.silent_s is not None and silent_s > self._dogs.silent_s:
                why = why or ("hold", f"no command for {silent_s:.2f} s: the loop is late")
            if why is not None:
                try:
                    self._halt(*why)
                except StaleFrame as error:  # it tells nothing any more: it holds by itself
                    self.reason = f"{why[1]}; {error}"


def _seconds(age_s: float | None) -> str:
    return "ever" if age_s is None else f"{age_s:.2f} s"


def _measured(observation: Observation, dim: int) -> np.ndarray | None:
    joints = np.concatenate([observation.state.get(name, np.empty(0)) for name in ("q", "gripper")])
    return joints.astype(np.float64) if len(joints) == dim else None

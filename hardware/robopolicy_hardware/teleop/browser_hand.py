"""Who drives from which browser, what they hold and press, and whether they are still there; for any thread."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from robopolicy.types import Event

ANYBODYS: tuple[Event, ...] = ("pause",)  # what stops the robot is everybody's; the rest is the driver's


@dataclass(frozen=True)
class Grasp:
    """A handle in somebody's hand."""

    number: int  # of this grasp, 1, 2, ...
    origin: np.ndarray  # (3,) m, where the handle was taken
    position: np.ndarray  # (3,) m, where it is now, base frame
    quat: np.ndarray  # (4,) wxyz, how far it was turned since it was taken, base frame
    turned: bool = False  # it was turned, though it may be back
    over: bool = False  # it was let go: this is where


@dataclass(frozen=True)
class Seen:
    """One browser."""

    name: str
    beat_s: float  # when it answered last, of the hand's clock
    latency_s: float = 0.0  # round trip to the page and back


@dataclass(frozen=True)
class HandState:
    """What all browsers together want, at one instant."""

    driver: int | None = None  # client number
    present: bool = False  # the driver's page answers
    released: bool = True  # the driver has not touched anything since it became the driver
    turning: bool = False  # the handle turns the tool in place of moving it
    grasp: Grasp | None = None
    latency_s: float = 0.0
    clients: dict[int, Seen] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """Why the robot holds; empty if it does not."""
        if self.driver is None:
            return "no browser is connected"
        if not self.present:
            return f"{self.clients[self.driver].name} does not answer"
        return "take the handle" if self.released else ""


class Hand:
    """The state that browsers write and the loop reads.

    The first browser drives; another one only after asking to, or when the driver's page is gone or silent. A driver
    whose page has not answered for ``silence_s`` is not there: the robot holds. One who comes back must touch the
    handle or the gripper before the robot follows again.

    Args:
        silence_s: without an answer for so long the driver is not there.
        now_s: monotonic seconds.
    """

    def __init__(self, silence_s: float, now_s: Callable[[], float] = time.monotonic) -> None:
        self._silence_s, self._now_s = silence_s, now_s
        self._lock = threading.Lock()
        self._state = HandState()
        self._grasps = 0
        self._events: list[Event] = []
        self._grip: float | None = None

    def look(self) -> HandState:
        """Return what is wanted now."""
        with self._lock:
            return replace(self._state, present=self._present())

    def joined(self, client: int, name: str) -> None:
        """A browser came; it drives if nobody does."""
        with self._lock:
            self._set(clients={**self._state.clients, client: Seen(name, self._now_s())})
            if not self._present():
                self._hand_to(client)

    def left(self, client: int) -> None:
        """A browser went; if it drove, the robot holds, and one that is still there drives next."""
        with self._lock:
            clients = {number: seen for number, seen in self._state.clients.items() if number != client}
            if client == self._state.driver:
                self._hand_to(None)
            self._set(clients=clients)
            if self._state.driver is None and clients:
                self._hand_to(min(clients))

    def beat(self, client: int, latency_s: float) -> None:
        """A browser's page answered after ``latency_s``; an answer later than ``silence_s`` is none.

        It was on its way together with what the hand did during the silence.
        """
        with self._lock:
            if (seen := self._state.clients.get(client)) is not None:
                beat_s = self._now_s() if latency_s <= self._silence_s else seen.beat_s
                fresh = replace(seen, beat_s=beat_s, latency_s=latency_s)
                self._set(clients={**self._state.clients, client: fresh})
                if client == self._state.driver:
                    self._set(latency_s=latency_s)

    def drive(self, client: int) -> None:
        """A browser asked to drive: it does."""
        with self._lock:
            if client in self._state.clients and client != self._state.driver:
                self._hand_to(client)

    def grasped(self, client: int, position: np.ndarray) -> bool:
        """The handle was taken at ``position`` (3,) m; False if it was not the driver who did."""
        with self._lock:
            if client != self._state.driver:
                return False
            self._grasps += 1
            where = np.array(position, np.float64)
            self._set(grasp=Grasp(self._grasps, where, where, np.array([1.0, 0, 0, 0])), released=False)
            return True

    def moved(self, client: int, position: np.ndarray, quat: np.ndarray) -> None:
        """The handle in hand is at ``position`` (3,) m, turned by ``quat`` (4,) wxyz since it was taken."""
        with self._lock:
            if client == self._state.driver and (grasp := self._state.grasp) is not None and not grasp.over:
                where, turn = np.array(position, np.float64), np.array(quat, np.float64)
                turned = grasp.turned or bool(turn[0] < 1)
                self._set(grasp=replace(grasp, position=where, quat=turn, turned=turned))

    def let_go(self, client: int) -> None:
        """The handle was let go: the loop follows it to where that was, and no further."""
        with self._lock:
            if client == self._state.driver and (grasp := self._state.grasp) is not None:
                self._set(grasp=replace(grasp, over=True))

    def followed(self, number: int) -> None:
        """The loop has followed the grasp of this number to its end."""
        with self._lock:
            if (grasp := self._state.grasp) is not None and grasp.number == number:
                self._set(grasp=None)

    def turned_over(self, client: int) -> bool:
        """The handle shall turn the tool, or move it again; False if it was not the driver who said so."""
        with self._lock:
            if client != self._state.driver:
                return False
            self._set(turning=not self._state.turning)
            return True

    def gripped(self, client: int, opening: float) -> bool:
        """The gripper shall be at ``opening``, 0 to 1; False if it was not the driver who said so."""
        with self._lock:
            if client != self._state.driver:
                return False
            self._grip = opening
            self._set(released=False)
            return True

    def pressed(self, client: int, event: Event, *, paused: bool = False) -> bool:
        """A button was pressed; False if it is the driver's and somebody else pressed it.

        While the robot is ``paused`` the pause button lets it go on, which is the driver's. Two presses of it before
        the loop looks are one: both wanted the robot to stop.
        """
        with self._lock:
            if client != self._state.driver and (event not in ANYBODYS or paused):
                return False
            if event == "pause" and event in self._events:
                return True
            self._events.append(event)
            if event in ("start", "takeover"):
                self._set(released=False)
            return True

    def take_grip(self) -> float | None:
        """Return the opening asked for since the last call, or None."""
        with self._lock:
            grip, self._grip = self._grip, None
            return grip

    def take_events(self) -> list[Event]:
        """Return what was pressed since the last call, oldest first."""
        with self._lock:
            events, self._events = self._events, []
            return events

    def _present(self) -> bool:
        seen = self._state.clients.get(-1 if self._state.driver is None else self._state.driver)
        return seen is not None and self._now_s() - seen.beat_s <= self._silence_s

    def _hand_to(self, client: int | None) -> None:
        self._grip = None
        self._set(driver=client, grasp=None, released=True, latency_s=0.0)

    def _set(self, **changes: object) -> None:
        self._state = replace(self._state, **changes)  # type: ignore[arg-type]

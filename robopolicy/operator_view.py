"""What the operator of a session sees at every step, and is told after every episode."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from robopolicy.interfaces import Teleop, Watcher
from robopolicy.pace import Pace
from robopolicy.shared_control import Shared
from robopolicy.types import Phase, Status

TOLD_S = 3.0  # how long a remark stays on the line while recording


@dataclass
class OperatorView:
    """The lamp and the voice of a session.

    Attributes:
        message: stays on the line until it is replaced; one of ``note`` for 3 s of an episode.
        dropped: steps of this episode that the recorder could not take.
    """

    teleop: Teleop
    shared: Shared
    recorder: Watcher
    watchers: tuple[Watcher, ...]
    tell: Callable[[str], None]  # takes a line that stays
    episodes: int  # wanted
    pace: Pace = field(default_factory=Pace)  # of the running loop
    message: str = ""
    dropped: int = 0
    _message_s: float = 0.0
    _stall: str = ""  # the newest late step, told for a while
    _stall_s: float = 0.0
    _committed: int = 0  # episodes that this session had written when the running one began
    _troubles: set[str] = field(default_factory=set)  # of the device, told already

    def begin(self, pace: Pace) -> None:
        """An episode is about to be recorded."""
        self.pace, self.message, self.dropped, self._stall = pace, "", 0, ""
        self._committed = len(getattr(self.recorder, "committed", ()))

    def note(self, text: str) -> None:
        """Put a remark on the line for a while."""
        self.message, self._message_s = text, self.pace.time_s

    def late(self, why: str) -> None:
        """Put a late step on the line for a while."""
        self._stall, self._stall_s = why, self.pace.time_s

    def clear_old(self) -> bool:
        """Take a note away that was there long enough, so that what the recorder has to say comes back; say if so."""
        old = bool(self.message) and self.pace.time_s - self._message_s > TOLD_S
        self.message = "" if old else self.message
        return old

    def show(self, phase: Phase, held: int) -> None:
        """Let the device and the panel show how it is, with ``held`` episodes in the dataset."""
        recording = phase != "waiting"
        trouble = str(getattr(self.teleop, "trouble", ""))
        if trouble and trouble not in self._troubles:  # once: the line is too short for it, and it comes every step
            self._troubles.add(trouble)
            self.tell(trouble)
        self.dropped = self._of_recorder("dropped", 0) if recording else 0
        status = Status(
            phase,
            held,
            self.episodes,
            time_s=self.pace.time_s if recording else 0.0,
            rate_hz=self.pace.rate_hz,
            camera_hz=self.pace.camera_hz,
            latency_s=float(getattr(self.teleop, "latency_s", 0.0)),
            dropped=self.dropped,
            source=self.shared.source,
            message=self.message or self._remark(recording),
        )
        self.teleop.show(status)

    def say_kept(self) -> None:
        """Say what recorder and watchers found in the episode that was kept."""
        for remark in filter(None, (self._of_recorder("message", ""), self._of_watchers())):
            self.tell(f"  {remark}")

    def say_cut_short(self, error: BaseException) -> None:
        """Say what becomes of the episode that something from outside has ended, such as Ctrl-C."""
        kept = len(getattr(self.recorder, "committed", ())) > self._committed
        written = getattr(self.recorder, "steps", self.pace.steps) if kept else self.pace.steps
        steps = f"{written} of its {self.pace.steps}" if written != self.pace.steps else f"{written}"
        why = f"{steps} steps, ended by {type(error).__name__}"
        becomes = "kept, without success" if kept else "not in the dataset; the next session recovers what was written"
        if self.pace.steps:
            self.tell(f"the episode being recorded is {becomes}: {why}")

    def _remark(self, recording: bool) -> str:
        if self._stall and 0 <= self.pace.time_s - self._stall_s < TOLD_S:
            return self._stall
        found = self._of_recorder("message", "") if recording else ""
        return found or self._of_watchers() or self.shared.reason

    def _of_recorder(self, name: str, otherwise: Any) -> Any:
        """Ask the recorder's status for one thing, if it has a status."""
        status = getattr(self.recorder, "status", None)
        return otherwise if status is None else getattr(status(), name, otherwise)

    def _of_watchers(self) -> str:
        return next(filter(None, (str(getattr(watcher, "message", "")) for watcher in self.watchers)), "")

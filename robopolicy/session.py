"""A session of demonstrations: wait, record, keep or discard, again, by what a person presses; always the same loop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from robopolicy.errors import NO_PLAN, StaleFrame, UnsafeCommand
from robopolicy.interfaces import Clock, Environment, Robot, Safety, Teleop, Watcher
from robopolicy.loop import run_episode
from robopolicy.operator_view import OperatorView
from robopolicy.pace import Pace
from robopolicy.shared_control import Shared
from robopolicy.stalls import SurvivesStalls
from robopolicy.types import EpisodeMeta, Event, Observation, Phase

FOREVER = 10**9  # steps; a person says when it is over
MONITOR = "monitor"  # what ended an episode that no person did: `Reactions` asked for a stop
FAULTS = (UnsafeCommand, StaleFrame, *NO_PLAN)  # that end an episode and not the session
PATIENCE = 20  # refused commands in a row, between episodes, before the session gives up


@dataclass(frozen=True)
class Outcome:
    """How one recorded episode ended."""

    ended: str  # success, failure, discard, redo, quit, time limit, monitor, or the name of an error
    meta: EpisodeMeta
    steps: int
    time_s: float
    rate_hz: float
    skipped: int  # ticks that a stall swallowed
    kept: bool


@dataclass(frozen=True)
class SessionResult:
    """What a session came to."""

    episodes: int  # the dataset holds
    outcomes: tuple[Outcome, ...]
    quit: bool  # before there were enough


@dataclass(frozen=True)
class Wishes:
    """What a session is to do.

    Attributes:
        describe: from a seed to what is known of the episode beforehand.
        episodes: wanted in the end.
        held: already there.
        seed: of the first episode; a simulated world starts from it, a policy draws its samples from it.
        auto_success: a simulated world's own success ends the episode.
        time_limit_s: an episode that takes longer ends, without success.
        undo: takes the newest kept episode away and returns its seed, or None if there is nothing to take away.
        tell: takes one line for each thing that happened.
    """

    describe: Callable[[int], EpisodeMeta]
    episodes: int
    held: int = 0
    seed: int = 0
    auto_success: bool = False
    time_limit_s: float | None = None
    undo: Callable[[], int | None] = lambda: None
    tell: Callable[[str], None] = lambda line: None


def keep_unless_discarded(meta: EpisodeMeta) -> bool:
    """Decide for a recorder: what the person discarded goes, everything else stays, failures too."""
    return meta.extra.get("ended") not in ("discard", "redo", "quit")


def run_session(
    robot: Robot,
    shared: Shared,
    teleop: Teleop,
    clock: Clock,
    safety: Safety,
    recorder: Watcher,
    wishes: Wishes,
    *,
    watchers: Sequence[Watcher] = (),
) -> SessionResult:
    """Record episodes until there are enough or the person quits.

    Between episodes the world stands at the next start and the person may move about; ``start`` puts it back there and
    records. ``success`` and ``failure`` keep the episode, ``discard`` does not, ``redo`` does not and offers the same
    start again, ``undo`` takes the newest kept one away, ``pause`` holds (and records that it held), ``takeover`` and
    ``release`` switch between policy and person. A policy's monitor may hand over to the person, or end the episode.

    A step so late that safety refuses its observation sends the set-point in force once more and is marked ``stall``;
    three in a row, or any other refusal, a stale frame, or a policy that has no plan for what it sees end the episode,
    not the session: it is kept, without success, and its notes say why.

    Args:
        robot: what is driven.
        shared: who drives.
        teleop: where events come from and the status goes, usually the one in ``shared``.
        clock: shared with the robot.
        safety: limits every command, also between episodes.
        recorder: sees the episodes that are recorded; its ``keep`` is `keep_unless_discarded`.
        wishes: what to do.
        watchers: see the recorded episodes too; what one has in ``message`` the operator sees.
    """
    view = OperatorView(teleop, shared, recorder, tuple(watchers), wishes.tell, wishes.episodes)
    return _Session(robot, shared, teleop, clock, safety, recorder, wishes, tuple(watchers), view).run()


@dataclass
class _Session:
    robot: Robot
    shared: Shared
    teleop: Teleop
    clock: Clock
    safety: Safety
    recorder: Watcher
    wishes: Wishes
    watchers: tuple[Watcher, ...]
    view: OperatorView
    pace: Pace = field(default_factory=Pace)
    phase: Phase = "waiting"
    ended: str = ""
    asked: bool = False  # whether to quit while recording
    handed: str = ""  # why the monitor gave the robot to the person last, told already
    outcomes: list[Outcome] = field(default_factory=list)

    def run(self) -> SessionResult:
        self.held, self.seed = self.wishes.held, self.wishes.seed
        pressed = ""
        while self.held < self.wishes.episodes and pressed != "quit":
            pressed = self._wait()
            if pressed == "undo":
                self._undo()
            elif pressed == "start":
                outcome = self._record()
                pressed = outcome.ended
        self.view.show("waiting", self.held)
        return SessionResult(self.held, tuple(self.outcomes), pressed == "quit")

    def _wait(self) -> str:
        """Let the person look and move at the next start; return ``start``, ``undo`` or ``quit``."""
        self._to_start()
        self.phase, self.shared.waiting = "waiting", True
        refused = 0
        while True:
            self.pace = self.view.pace = Pace()
            self.ended = ""
            try:
                self._loop(self.wishes.describe(self.seed), self._pressed_while_waiting, ())
            except FAULTS as error:
                refused = refused + 1 if self.pace.steps < PATIENCE else 1
                if refused >= PATIENCE:
                    raise
                self.view.message = str(error)
                self.clock.sleep_until(self.clock.now_ns() + self.robot.spec.period_ns)
            else:
                return self.ended

    def _record(self) -> Outcome:
        self._to_start()
        self.phase, self.shared.waiting, self.ended, self.asked = "recording", False, "", False
        self.handed = ""
        self.pace = Pace()
        self.view.begin(self.pace)
        watchers = (self.recorder, *self.watchers)
        try:
            meta = self._loop(self.wishes.describe(self.seed), self._pressed_while_recording, watchers)
            self.ended = self.ended or MONITOR
        except FAULTS as error:
            self.ended = f"{type(error).__name__}: {error}"
            meta = self.wishes.describe(self.seed)
        except BaseException as error:
            self.view.say_cut_short(error)
            raise
        self.view.message = self.ended if ":" in self.ended else ""  # an error is worth reading while one waits
        outcome = self._outcome(meta)
        self.outcomes.append(outcome)
        self.held += outcome.kept
        self.seed += self.ended != "redo"
        self._say(outcome)
        return outcome

    def _loop(
        self, meta: EpisodeMeta, done: Callable[[Observation], bool], watchers: tuple[Watcher, ...]
    ) -> EpisodeMeta:
        self.shared.set_point = self.robot.stop("before the loop")  # where whoever drives begins
        safety = SurvivesStalls(self.safety, self.shared.set_point, self._stalled)
        return run_episode(
            self.robot, self.shared, self.clock, safety, meta, max_steps=FOREVER,
            watchers=(self.shared, self.pace, *watchers), done=done, finish=self._finish,
        )  # fmt: skip

    def _to_start(self) -> None:
        if isinstance(self.robot, Environment):
            self.robot.reset(self.seed)

    def _pressed_while_waiting(self, observation: Observation) -> bool:
        self.pace.see(observation)
        for event in self.teleop.events():
            if event in ("start", "undo", "quit"):
                self.ended = event
                break
            if event in ("success", "failure"):
                self.view.message = "press start first"
        self.view.show("waiting", self.held)
        return bool(self.ended)

    def _pressed_while_recording(self, observation: Observation) -> bool:
        self.pace.see(observation)
        if self.view.clear_old():
            self.asked = False
        for event in self.teleop.events():
            self._take(event)
            if self.ended:
                break
        limit_s = self.wishes.time_limit_s
        if not self.ended and self.wishes.auto_success and self._succeeded():
            self.ended = "success"
        if not self.ended and limit_s is not None and self.pace.time_s >= limit_s:
            self.ended = "time limit"
        self._tell_handover()
        self.phase = "paused" if self.shared.paused else "recording"
        self.view.show(self.phase if not self.ended else "saving", self.held)
        return bool(self.ended)

    def _take(self, event: Event) -> None:
        if event in ("success", "failure", "discard", "redo") or (event == "quit" and self.asked):
            self.ended = event
        elif event == "quit":
            self.asked = True
            self.view.note("recording: end the episode first, or quit again to discard it")
        elif event == "pause" or (event == "start" and self.shared.paused):
            self.shared.pause(not self.shared.paused)
            self._mark("pause" if self.shared.paused else "go on")
        elif event in ("takeover", "release"):
            driver = self.shared.driver
            (self.shared.switch if event == "takeover" else self.shared.release)()
            if self.shared.driver != driver:
                self._mark("takeover" if self.shared.driver == "human" else "release")
        elif event == "undo":
            self.view.note("undo works between episodes; discard ends this one")

    def _tell_handover(self) -> None:
        """Say and mark once that the monitor gave the robot to the person."""
        if self.shared.handed_over != self.handed:
            self.handed = self.shared.handed_over
            if self.handed:
                self._mark("handover")
                self.view.note(f"yours: {self.handed}")

    def _stalled(self, why: str) -> None:
        self.view.late(why)
        if self.phase != "waiting":
            self._mark("stall")

    def _mark(self, name: str) -> None:
        mark = getattr(self.recorder, "mark", None)
        if mark is not None:
            mark(name)

    def _finish(self, meta: EpisodeMeta) -> EpisodeMeta:
        if self.phase == "waiting":
            return meta
        extra: dict[str, Any] = {
            **meta.extra,
            "ended": self.ended or MONITOR,
            "achieved_hz": round(self.pace.mean_hz, 3),
        }
        if isinstance(self.robot, Environment):
            extra |= {"score": self.robot.score(), "world_success": self.robot.success()}
        notes = meta.notes
        if self.ended == "time limit":
            notes = f"{notes} ended by the time limit of {self.wishes.time_limit_s:g} s".strip()
        return replace(meta, success=self.ended == "success", notes=notes, extra=extra)

    def _succeeded(self) -> bool:
        return isinstance(self.robot, Environment) and self.robot.success()

    def _undo(self) -> None:
        seed = self.wishes.undo()
        if seed is None:
            self.view.message = "nothing to undo"
            return
        self.held -= 1
        self.seed, self.view.message = seed, ""
        self.wishes.tell(f"undone: the newest episode (seed {seed}) is gone; the same start again")

    def _outcome(self, meta: EpisodeMeta) -> Outcome:
        kept = self.pace.steps > 0 and self.ended not in ("discard", "redo", "quit")
        skipped = int(meta.extra.get("skipped_ticks", 0))
        return Outcome(self.ended, meta, self.pace.steps, self.pace.time_s, self.pace.mean_hz, skipped, kept)

    def _say(self, outcome: Outcome) -> None:
        kept = f"episode {self.held} of {self.wishes.episodes}" if outcome.kept else "not kept"
        shares = " ".join(f"{name} {share:.0%}" for name, share in self.pace.shares().items())
        self.wishes.tell(
            f"{kept}: {outcome.ended}, {outcome.steps} steps in {outcome.time_s:.1f} s, "
            f"{outcome.rate_hz:.1f} of {self.robot.spec.rate_hz:g} Hz, {outcome.skipped} ticks skipped, "
            f"{self.view.dropped} steps dropped; {shares}"
        )
        if outcome.kept:
            self.view.say_kept()

"""A node without its middleware: a robot and its policy, configured, started, stopped and released, by whoever asks."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from typing import Literal, Protocol

from robopolicy.errors import RobopolicyError, UsageError
from robopolicy.interfaces import Agent, Watcher
from robopolicy.spec import PolicySpec
from robopolicy.types import Command, Decision, EpisodeMeta, Observation, Step
from robopolicy_hardware.supervisor import Supervised

JOIN_S = 2.0  # for the loop to end, once it was told to

Phase = Literal["unconfigured", "inactive", "active"]


class Rig(Protocol):
    """A robot and what drives it, ready to run episodes: what a node is made around."""

    robot: Supervised

    def require_alone(self) -> None:
        """Refuse to drive beside somebody else who commands the robot; raises UsageError naming who it is."""
        ...

    def run(self, agent: Callable[[Agent], Agent], done: Callable[[Observation], bool]) -> EpisodeMeta:
        """Run one episode with the loop and watchers that ``robopolicy deploy`` has.

        Args:
            agent: wraps what would act.
            done: asked with each observation; True ends the episode.
        """
        ...

    def close(self) -> None:
        """Release all of it; idempotent."""
        ...


class RobotNode:
    """Configured, active or not: the states of a ROS 2 lifecycle node, and episodes that start and stop when active.

    Every method may be called from any thread, one at a time is served; `stop` does not wait for the others. The robot
    is made, driven and released in one thread of the node's own: what draws pictures wants that.

    Args:
        make: opens the robot and loads its policy.
        say: told in one line how an episode ended, in the node's own thread.

    Attributes:
        phase: of the lifecycle.
        ended: how the last episode ended, if it was an error: one line.
    """

    def __init__(self, make: Callable[[], Rig], say: Callable[[str], None] = lambda line: None) -> None:
        self.phase: Phase = "unconfigured"
        self.ended = ""
        self._say = say
        self._make = make
        self._rig: Rig | None = None
        self._lock = threading.RLock()
        self._stopping, self._stops = threading.Event(), 0
        self._acknowledged = threading.Event()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="episode")
        self._episode: Future[None] | None = None

    @property
    def stops(self) -> int:
        """How many stops were asked for so far."""
        return self._stops

    @property
    def running(self) -> bool:
        """Whether an episode runs."""
        return self._episode is not None and not self._episode.done()

    def configure(self) -> None:
        """Open the robot and load its policy; raises what they raise, and stays unconfigured then."""
        with self._lock:
            self._require("configure", "unconfigured")
            self._rig = self._worker.submit(self._make).result()
            self.phase = "inactive"

    def activate(self) -> None:
        """Let episodes start; nothing moves yet. UsageError if somebody else commands the robot too."""
        with self._lock:
            self._require("activate", "inactive")
            self._opened().require_alone()
            self.phase = "active"

    def start(self, stops: int | None = None) -> str:
        """Start an episode in a thread of its own; return that it runs.

        Args:
            stops: `stops` when this was asked for, if it waited to be served; None is now.

        Raises:
            UsageError: if the node is not active, an episode runs already, the robot is in a fault, its emergency stop
                is pressed or silent, somebody else commands it too, or a stop was asked for meanwhile.
        """
        stops = self._stops if stops is None else stops
        with self._lock:
            self._require("start", "active")
            rig = self._opened()
            if self.running:
                raise UsageError("an episode runs already; stop it first")
            if (why := rig.robot.refusal()) is not None:
                raise UsageError(why)
            rig.require_alone()
            self._stopping.clear()
            self._acknowledged.clear()
            if self._stops != stops:  # counted before it is set: whichever way they meet, the stop wins
                raise UsageError("a stop was asked for meanwhile; start again")
            self.ended = ""
            self._episode = self._worker.submit(self._run, rig)
            return "running"

    def stop(self, reason: str) -> str:
        """Hold at once, end the episode, and return in one line how that went."""
        self._stops += 1
        self._stopping.set()
        rig, episode = self._rig, self._episode
        if rig is None:
            return "nothing to stop: not configured"
        held = _held(rig, reason)
        if episode is None:
            return held
        try:
            episode.result(JOIN_S)
        except Late:
            return f"{held}; the loop hangs for {JOIN_S:g} s now, and will command nothing when it goes on"
        return _held(rig, reason)  # the loop may have given one more command, and has stopped with its own reason

    def reset(self) -> str:
        """End a fault that a person has put right; return the robot's state. UsageError: as `Supervised.reset`."""
        with self._lock:
            rig = self._opened()
            rig.robot.reset()
            return str(rig.robot.state)

    def acknowledge(self) -> str:
        """Arm the monitor of a running episode again, at its next step: a person has put right what it was about.

        Raises:
            UsageError: if no episode runs.
        """
        if not self.running:
            raise UsageError("no episode runs: there is no alarm to acknowledge")
        self._acknowledged.set()
        return "at its next step the monitor is armed again, and the policy plans anew"

    def deactivate(self, reason: str = "deactivated") -> None:
        """Hold, and start no more episodes."""
        with self._lock:
            self._require("deactivate", "active")
            self.stop(reason)
            self.phase = "inactive"

    def cleanup(self) -> None:
        """Hold and release the robot and its policy; idempotent.

        Raises:
            UsageError: if the loop hangs: it holds the robot, which was stopped.
        """
        with self._lock:
            if self._rig is None:
                return
            told = self.stop("the node ends")
            if self.running:
                raise UsageError(told)
            rig, self._rig, self._episode, self.phase = self._rig, None, None, "unconfigured"
            self._worker.submit(rig.close).result()

    def close(self) -> None:
        """Clean up and end the thread; idempotent."""
        try:
            self.cleanup()
        finally:
            self._worker.shutdown(wait=not self.running, cancel_futures=True)

    def _run(self, rig: Rig) -> None:
        try:
            rig.run(
                lambda agent: _Stoppable(agent, self._stopping, self._acknowledged), lambda _: self._stopping.is_set()
            )
        except RobopolicyError as error:
            self.ended = str(error)
        except BaseException as error:
            self.ended = f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"
        self._say(f"the episode is over{f': {self.ended}' if self.ended else ''}")

    def _require(self, what: str, phase: Phase) -> None:
        if self.phase != phase:
            raise UsageError(f"{what}: the node is {self.phase}; it must be {phase}")

    def _opened(self) -> Rig:
        if self._rig is None:
            raise UsageError(f"the node is {self.phase}; configure it first")
        return self._rig


class _Stoppable:
    """An agent that only holds once a stop was asked for, also if that was while it thought.

    A guarded one is armed again in the loop's own thread, once that was asked for.
    """

    def __init__(self, agent: Agent, stopping: threading.Event, acknowledged: threading.Event) -> None:
        self._agent, self._stopping, self._acknowledged = agent, stopping, acknowledged

    @property
    def decision(self) -> Decision | None:
        return self._agent.decision

    def act(self, observation: Observation) -> Command:
        if self._acknowledged.is_set():
            self._acknowledged.clear()
            if getattr(self._agent, "latched", None) is not None:
                self._agent.rearm()  # type: ignore[attr-defined]
        command = self._agent.act(observation)
        return Command(None, "hold", reason="stopped") if self._stopping.is_set() else command

    def reset(self, seed: int = 0) -> None:
        self._agent.reset(seed)

    def on_start(self, meta: EpisodeMeta, spec: PolicySpec) -> None:
        """A guarded agent is a watcher, so this is one; there is nothing to note yet."""

    def on_step(self, step: Step) -> None:
        if isinstance(self._agent, Watcher):
            self._agent.on_step(step)

    def on_end(self, meta: EpisodeMeta) -> None:
        """Nothing to note any more."""


def _held(rig: Rig, reason: str) -> str:
    try:
        rig.robot.stop(reason)
    except RobopolicyError as error:
        return f"the robot holds by itself: {error}"
    except Exception as error:  # of the network or a driver: whoever asks must hear it, and be able to ask again
        return f"the robot could not be stopped: {error}; it is tried again"
    return f"{rig.robot.state}: {rig.robot.reason}"

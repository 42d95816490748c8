"""The seams: Protocols of at most five methods. Each has a contract test class in `robopolicy.testing`."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from robopolicy.spec import PolicySpec
from robopolicy.types import Command, Decision, EpisodeMeta, Event, Observation, Plan, Shape, Status, Step, Verdict


@runtime_checkable
class Clock(Protocol):
    """Time as the loop sees it: wall, simulated, ROS or fake."""

    def now_ns(self) -> int:
        """Return the time in nanoseconds; it never goes back."""
        ...

    def sleep_until(self, stamp_ns: int) -> None:
        """Return at ``stamp_ns`` or at once when that is past."""
        ...


@runtime_checkable
class Robot(Protocol):
    """An arm, real or simulated. Time passes for it by its clock, never by being called."""

    spec: PolicySpec  # what it observes and what it takes; horizons are 1

    def read(self) -> Observation:
        """Return the newest observation in fresh arrays.

        Raises:
            StaleFrame: if a stream is older than the robot allows.
        """
        ...

    def command(self, action: np.ndarray, due_ns: int) -> np.ndarray:
        """Take the set-point ``action`` (A,) from ``due_ns`` on; return what was really sent (A,) float32.

        Raises:
            UnsafeCommand: on a wrong length or a non-finite number; the previous set-point stays.
        """
        ...

    def stop(self, reason: str = "") -> np.ndarray:
        """Hold the present position; idempotent, any number of times. Return the set-point that holds (A,)."""
        ...

    def close(self) -> None:
        """Release what the robot holds; idempotent."""
        ...


@runtime_checkable
class Environment(Protocol):
    """What a simulated `Robot` has beside: it can be put back to a start and judged.

    It may also have these, each absent as if it said nothing; `robopolicy.behaviour` asks any world for them:

    - ``modes: tuple[str, ...]``: the behaviours by which an episode can succeed, enumerated; constant.
    - ``mode() -> str | None``: which of them the episode so far is; None while that is not decided.
    - ``failure() -> str``: a slug of what has gone wrong and is so as of the newest ``read``, such as ``"dropped"``;
      "" when nothing has. It goes when it was mended.
    """

    instruction: str  # the task in words
    max_steps: int  # steps, at the spec's rate, after which an episode has failed

    def reset(self, seed: int) -> None:
        """Put the world into the start that ``seed`` names: the same seed, the same start."""
        ...

    def success(self) -> bool:
        """Whether the task is done, as of the newest ``read``."""
        ...

    def score(self) -> float:
        """How far the episode came at its best, 0 to 1, as of the newest ``read``."""
        ...

    def disturb(self, rng: np.random.Generator) -> str:
        """Do something to the world that no demonstration holds; return what, in words.

        Raises:
            UsageError: if this environment has no disturbance.
        """
        ...

    def picture(self) -> np.ndarray:
        """Return a view for people, (H, W, 3) uint8 RGB; raises NoGLBackend if nothing can be drawn."""
        ...


@runtime_checkable
class Task(Protocol):
    """A MuJoCo task: what is on the table, how it starts and when it is done.

    Optional beside the methods below:

    - ``modes``, ``mode()``, ``failure()``: as an `Environment` has them.
    - ``watch() -> None``: called each time the physics has come to a new time, before anything is asked, so that what
      depends on the way is kept; ``reset`` forgets it.
    - ``place(state) -> None``: put what is not ``tracked`` (a drawer, a socket) where an observed state has it; and
      ``placed: tuple[str, ...]``, the names of the states that it needs for that.
    - ``home``, ``home_spread``: (3,) m each, where the tool starts and +- how far from there.
    - ``braked() -> bool``: while it is, the arm stands still and set-points that fall due are dropped.
    - ``progress() -> float``, ``disturb(rng) -> str``, ``units``, ``stick``, ``tracked``: see sim_envs/README.md.
    """

    instruction: str
    max_steps: int  # at 20 Hz

    def build(self) -> Any:
        """Return the task's scene as a ``mujoco.MjSpec``, without the arm."""
        ...

    def bind(self, model: Any, data: Any) -> None:
        """Take the compiled ``MjModel`` and ``MjData`` that the queries below look at."""
        ...

    def reset(self, rng: np.random.Generator) -> None:
        """Place the objects."""
        ...

    def success(self) -> bool:
        """Whether the task is done now."""
        ...

    def queries(self) -> Mapping[str, np.ndarray]:
        """Return named task states (D,) float32, e.g. ``{"cube_pos": ...}``; they join the observation."""
        ...


@runtime_checkable
class Policy(Protocol):
    """Observations in, candidate chunks out; it knows nothing of time, robots or monitors."""

    spec: PolicySpec

    def plan(
        self,
        window: Sequence[Observation],
        *,
        n: int = 1,
        previous: np.ndarray | None = None,
        delay_steps: int = 0,
        executed: np.ndarray | None = None,
        generator: Any = None,
    ) -> Plan:
        """Plan from the last ``spec.n_obs`` observations.

        Args:
            window: ``spec.n_obs`` observations, oldest first.
            n: number of candidate chunks drawn from one encoding.
            previous: (H, A) the chunk now being played, row 0 at the newest observation, or None.
            delay_steps: rows of ``previous`` that will have been executed before this plan arrives.
            executed: (K, A) the commands of the K steps before the newest observation, oldest first, K at most
                ``spec.n_obs - 1``, fewer at the start of an episode; None if nobody knows.
            generator: ``torch.Generator`` or ``np.random.Generator`` that the samples are drawn from.

        Returns:
            chunks (n, H, A) float32 in robot units, and features (E,).
        """
        ...

    def reset(self) -> None:
        """Forget the episode."""
        ...


@runtime_checkable
class Agent(Protocol):
    """What sits in the loop: one observation in, one command out. `Chunked`, `Guarded`, `Teleoperated`.

    One that is a `Watcher` too hears of every step. It may have ``replan(history) -> None``, which forgets what it
    would play next, and ``at_pace(pace, observation, command) -> Command``, which lets its time go at another pace.
    """

    decision: Decision | None  # the plan made in the latest ``act``; None if it made none

    def act(self, observation: Observation) -> Command:
        """Return what to do now."""
        ...

    def reset(self, seed: int = 0) -> None:
        """Start a new episode; ``seed`` fixes every sample drawn in it."""
        ...


@runtime_checkable
class Score(Protocol):
    """One number a decision, larger is worse.

    A class of scores is made by ``(*, layout=None, seed=0, **settings)`` and remade from what ``arrays`` gave by the
    classmethod ``from_arrays``. It may also have these, each absent as if it said nothing:

    - ``requires: frozenset[str]``: the keys of ``Decision.aux`` that it cannot do without.
    - ``min_candidates: int``: chunks a decision that it cannot do with less than; 1.
    - ``learns_failures: bool``: its ``fit`` takes ``failures``, failed episodes, beside the successful ones.
    """

    name: str

    def fit(self, episodes: Sequence[Sequence[Decision]]) -> None:
        """Learn from successful episodes.

        Raises:
            ContractError: if there is nothing to learn from, or a number is not finite.
        """
        ...

    def update(self, decision: Decision) -> float:
        """Return the score of the newest decision; finite."""
        ...

    def reset(self) -> None:
        """Start a new episode."""
        ...

    def held_out(self, episodes: Sequence[Sequence[Decision]]) -> list[np.ndarray]:
        """Return each fitted episode's scores (T_i,) as if it had been left out of the fit, whole."""
        ...

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all that ``fit`` learnt, and the settings, as numbers: no array of objects."""
        ...


@runtime_checkable
class Monitor(Protocol):
    """Judges each decision of an episode.

    One that can be armed again in mid-episode, and remember the episode, has ``acknowledge() -> None`` too; another is
    reset for that.
    """

    def step(self, decision: Decision) -> Verdict:
        """Return the verdict on the episode up to and including ``decision``."""
        ...

    def reset(self) -> None:
        """Start a new episode."""
        ...


@runtime_checkable
class Teleop(Protocol):
    """A person's hand on the robot, the buttons beside it and the lamp above it."""

    def engage(self, observation: Observation, set_point: np.ndarray | None) -> None:
        """Drive from here on without a bump: from ``set_point`` (A,), now in force, or else from where the robot is."""
        ...

    def read(self, observation: Observation) -> Command:
        """Return the newest command, source ``"human"``, or ``"hold"`` when nobody is there.

        Called at every tick at which the person drives; not while a policy does or the robot is paused.
        """
        ...

    def events(self) -> Sequence[Event]:
        """Return what was pressed since the last call, oldest first."""
        ...

    def show(self, status: Status) -> None:
        """Let the person know; called every tick, so it must cost nothing when nothing changed."""
        ...

    def close(self) -> None:
        """Release what the device holds; idempotent."""
        ...


@runtime_checkable
class Scene(Protocol):
    """What can be drawn in 3-D: a twin, or a robot that knows its meshes."""

    def shapes(self) -> Sequence[Shape]:
        """Return every visible part; constant."""
        ...

    def poses(self) -> Mapping[str, np.ndarray]:
        """Return each part's pose now, {name: (7,) float32 x y z qw qx qy qz}, in the base frame."""
        ...


@runtime_checkable
class Watcher(Protocol):
    """Sees every step, changes none: recorder, viewer, logger, publisher."""

    def on_start(self, meta: EpisodeMeta, spec: PolicySpec) -> None:
        """An episode begins."""
        ...

    def on_step(self, step: Step) -> None:
        """One tick happened."""
        ...

    def on_end(self, meta: EpisodeMeta) -> None:
        """The episode is over; ``meta`` now holds success and what else became known."""
        ...


@runtime_checkable
class Safety(Protocol):
    """The last word on a command before it is sent."""

    def limit(self, action: np.ndarray, observation: Observation, now_ns: int) -> np.ndarray:
        """Return the nearest allowed command (A,).

        Raises:
            UnsafeCommand: if nothing may be sent (not finite, wrong length, observation too old).
        """
        ...

    def reset(self) -> None:
        """Forget the previous command; call it at the start of an episode."""
        ...

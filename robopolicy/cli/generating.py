"""Simulated demonstrations from a range of seeds, in this process or in several: the same episodes either way."""

import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

from robopolicy import __version__
from robopolicy.cli.perturbing import drawn
from robopolicy.cli.watched import read_limits
from robopolicy.clock import SimClock
from robopolicy.errors import EvaluationError, UsageError
from robopolicy.interfaces import Agent
from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta

PATIENCE = 20  # failures in a row before a demonstrator is given up
BATCH = 100_000  # seeds that workers are given at a time
RETRIES = 3  # runs of a seed after the one in which its worker died
EPISODE_S = 600.0  # by the wall clock, that a worker may take for one episode before it is taken to hang


@dataclass(frozen=True)
class Scene:
    """Who demonstrates what, the same in every process; picklable if ``make_agent`` is.

    Attributes:
        robot: a simulated world's name.
        make_agent: called with the world's spec; what it makes may say more of each episode, ``about() -> dict``.
        cameras: None is all of the world's.
        rate_hz: None is the world's own.
        size: (H, W) of its pictures; None is the world's own.
        keep_failures: keep what did not succeed.
        operator, task, notes: stored with each episode; no task is the world's own.
        patience: failures in a row that end it; None is never.
        limits: file of safety limits; None are the cautious defaults.
        perturbations: of the world, each as AXIS:SEVERITY; what was drawn is stored with each episode.
        who: demonstrates, in messages.
    """

    robot: str
    make_agent: Callable[[PolicySpec], Agent]
    cameras: tuple[str, ...] | None = None
    rate_hz: float | None = None
    size: tuple[int, int] | None = None
    keep_failures: bool = False
    operator: str = "expert"
    task: str = ""
    notes: str = ""
    patience: int | None = PATIENCE
    limits: Path | None = None
    perturbations: tuple[str, ...] = ()
    who: str = "the expert"


@dataclass(frozen=True)
class Attempt:
    """One demonstration, kept or not."""

    seed: int
    success: bool
    kept: Path | None = None  # the episode's folder


@dataclass(frozen=True)
class Generated:
    """What came of it so far."""

    held: int  # episodes in the dataset
    attempts: int = 0
    successes: int = 0
    next_seed: int = 0


class EpisodeClock(SimClock):
    """Simulated time that begins anew with each episode, so that stamps do not tell which process made it."""

    def restart(self) -> None:
        """Go back to 0; whoever lives by this clock must be reset next."""
        self._now_ns = 0


class Demonstrator:
    """A world, an agent and a recorder, built once; each seed gives the same episode, whatever came before it.

    Args:
        scene: what is demonstrated.
        path: the dataset that kept episodes go to; made if absent, at the first of them.

    Attributes:
        spec: of the world.
    """

    def __init__(self, scene: Scene, path: Path) -> None:
        from robopolicy.cli.worlds import make_safety, make_world
        from robopolicy_data.recorder import Recorder

        self.scene, self.path, self._clock = scene, path, EpisodeClock()
        self._world = make_world(
            scene.robot, self._clock, cameras=scene.cameras, rate_hz=scene.rate_hz, size=scene.size,
            perturbations=scene.perturbations,
        )  # fmt: skip
        self.spec: PolicySpec = self._world.spec
        self._limits, _ = read_limits(scene.limits, self.spec)
        self._make_safety, self._agent = make_safety, scene.make_agent(self.spec)
        # Simulated time can wait for the disk: nothing is dropped.
        self._recorder = Recorder(path, keep=self._keep, background=False)

    def prepare(self, seed: int) -> None:
        """Nothing: all is there."""

    def run(self, seed: int) -> Attempt:
        """Demonstrate from the start that ``seed`` names."""
        from robopolicy.loop import run_episode

        world, before = self._world, len(self._recorder.committed)
        self._clock.restart()
        world.reset(seed)
        meta = run_episode(
            world, self._agent, self._clock, self._make_safety(self.spec, self._limits), self._describe(seed),
            max_steps=world.max_steps, watchers=[self._recorder], done=lambda _: world.success(), finish=self._finish,
        )  # fmt: skip
        new = self._recorder.committed[before:]
        kept = self.path / "episodes" / f"{new[0]:06d}" if new else None
        return Attempt(seed, bool(meta.success), kept)

    def try_drawing(self) -> None:
        """Raise NoGLBackend, before there is a dataset, if the cameras cannot be drawn."""
        self._world.read()

    def close(self) -> None:
        """Let world and dataset go."""
        self._recorder.close()
        self._world.close()

    def _keep(self, meta: EpisodeMeta) -> bool:
        return self.scene.keep_failures or meta.success is True

    def _describe(self, seed: int) -> EpisodeMeta:
        scene, world = self.scene, self._world
        calibration = world.camera_calibration() if hasattr(world, "camera_calibration") else {}
        return EpisodeMeta(
            task=scene.task or world.instruction, robot=scene.robot, seed=seed, operator=scene.operator,
            embodiment=getattr(world, "embodiment", "robot"), notes=scene.notes, software=f"robopolicy {__version__}",
            cameras={name: calibration[name] for name in self.spec.cameras if name in calibration},
        )  # fmt: skip

    def _finish(self, meta: EpisodeMeta) -> EpisodeMeta:
        about = {**getattr(self._world, "about", dict)(), **getattr(self._agent, "about", dict)()}
        extra = {"score": self._world.score(), **drawn(self._world), **about}
        return replace(meta, success=self._world.success(), extra=extra)


def generate(
    demonstrator: Demonstrator, episodes: int, *, held: int, seed: int, jobs: int = 1, most: int | None = None
) -> Iterator[Generated]:
    """Record until the dataset holds ``episodes``; yield how it stands after each attempt, in the order of seeds.

    With several jobs, spawned workers record into datasets of their own below the dataset's ``.wip``, and their
    episodes are moved into it by a rename, in the order of seeds: encoding and flushing, the dear part, is done by
    those who have the pictures already. So the dataset always holds the first so many seeds, and whoever goes on after
    a kill begins at the first that is missing. A worker that dies costs its episode's time.

    Args:
        demonstrator: says what is demonstrated and where to; the only one that runs if ``jobs`` is 1.
        episodes: wanted in the end.
        held: how many there are.
        seed: of the first attempt.
        jobs: processes; 1 is this one.
        most: attempts at most, None is any number.

    Raises:
        UsageError: after ``scene.patience`` failures running.
        EvaluationError: if a worker cannot be built, an episode raises, or its worker hangs or dies again and again.
    """
    scene, stands, running = demonstrator.scene, Generated(held, next_seed=seed), 0
    attempts = map(demonstrator.run, count(seed)) if jobs == 1 else _in_workers(demonstrator, seed, jobs)
    with ExitStack() as stack:
        if isinstance(attempts, Generator):
            stack.callback(attempts.close)  # now, not when it is collected: it ends processes
        while stands.held < episodes and (most is None or stands.attempts < most):
            attempt = next(attempts)
            stands = Generated(
                held=stands.held + (attempt.kept is not None),
                attempts=stands.attempts + 1,
                successes=stands.successes + attempt.success,
                next_seed=attempt.seed + 1,
            )
            running = 0 if attempt.success else running + 1
            yield stands
            if running == scene.patience and not scene.keep_failures:
                raise UsageError(
                    f"{scene.who} of {scene.robot} failed {running} times running, last with seed {attempt.seed}"
                )


def _in_workers(demonstrator: Demonstrator, seed: int, jobs: int) -> Iterator[Attempt]:
    """Yield attempts without end; an episode is in the dataset when its attempt is yielded."""
    from robopolicy_data.writer import DatasetWriter

    with DatasetWriter(demonstrator.path, demonstrator.spec) as writer:
        folder = writer.path / ".wip" / f"jobs-{uuid4().hex}"  # what a kill leaves there, the next writer deletes
        folder.mkdir(parents=True)
        try:
            for attempt in _ordered(partial(_in_folder, demonstrator.scene, folder), seed, jobs):
                if attempt.kept is not None:
                    number = writer.adopt(attempt.kept, move=True)
                    attempt = replace(attempt, kept=writer.path / "episodes" / f"{number:06d}")
                yield attempt
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _in_folder(scene: Scene, folder: Path) -> Demonstrator:
    return Demonstrator(scene, folder / uuid4().hex)


def _ordered(build: Callable[[], Demonstrator], seed: int, jobs: int) -> Iterator[Attempt]:
    """Yield what workers attempt, without end, in the order of seeds, which they finish in any order.

    What goes wrong with a seed is raised in its turn: one process alone might never have come so far.
    """
    from robopolicy.evaluation.results import Patience
    from robopolicy.evaluation.workers import run_items

    done: dict[int, Any] = {}
    while True:
        batch = range(seed, seed + BATCH)  # begun in this order, and only as far as the consumer goes
        patience = Patience(episode_s=EPISODE_S, retries=RETRIES)
        with closing(run_items(build, batch, jobs=jobs, patience=patience)) as results:
            for result in results:
                done[result.item] = result
                while seed in done:
                    yield _attempt(done.pop(seed), jobs)
                    seed += 1


def _attempt(result: Any, jobs: int) -> Attempt:
    """Return what came of a seed, by the `Result` of its worker; raises EvaluationError if nothing did."""
    from robopolicy.evaluation.results import Lost, Raised

    seed, value = result.item, result.value
    if isinstance(value, Raised):
        raise EvaluationError(f"seed {seed}: {value.what}")
    if isinstance(value, Lost) and value.hung:
        raise EvaluationError(
            f"seed {seed}: its worker {value.how} and was ended; with one job there is no limit, and "
            f"--seed {seed + 1} leaves this start out"
        )
    if isinstance(value, Lost):
        raise EvaluationError(
            f"seed {seed}: {result.attempts} workers died of it, the last by {value.how}; {jobs} jobs may want more "
            "memory than there is"
        )
    attempt: Attempt = value
    return attempt

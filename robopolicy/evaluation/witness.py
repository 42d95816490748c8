"""The watcher of one episode of an evaluation: it counts, times, names what went wrong, disturbs and films."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.behaviour import failure_of, mode_of
from robopolicy.evaluation.failures import FailureTrace
from robopolicy.evaluation.outcomes import Mark, Outcome
from robopolicy.evaluation.tool_path import ToolPath
from robopolicy.interfaces import Agent
from robopolicy.spec import PolicySpec
from robopolicy.types import Decision, EpisodeMeta, Observation, Step, Verdict


@dataclass(frozen=True)
class Options:
    """What an evaluation may do beside running episodes."""

    max_steps: int | None = None  # None: the world's own
    disturb_at: int | None = None  # step before which the world is disturbed
    decisions: bool = False  # keep every decision in out/decisions/IDENTITY/SEED.npz, a monitor's verdicts beside it
    video_every: int | None = None  # film every so many steps into out/IDENTITY/SEED.webm; `film` does
    realtime: bool = False  # at the pace of the wall clock, which does not wait for plans

    def words(self) -> str:
        """Return those that change how an episode goes, in words; "" if none does."""
        said = [
            "" if self.max_steps is None else f"{self.max_steps} steps at most",
            "" if self.disturb_at is None else f"disturbed at step {self.disturb_at}",
            "at the pace of the wall clock" if self.realtime else "",
        ]
        return ", ".join(part for part in said if part)


class Witness:
    """Watches one episode: counts, keeps verdicts and decisions, disturbs and films when asked to.

    Args:
        world: what is watched; asked for success, score, mode and failure only if it is an `Environment`, by way of
            ``done`` as the loop's own.
        agent: whose decisions are kept.
        seed: of the episode.
        options: what to keep, when to disturb.
        film_path: of the video, or None.
    """

    def __init__(self, world: Any, agent: Agent, seed: int, options: Options, film_path: Path | None) -> None:
        self.decisions: list[Decision] = []
        self.verdicts: list[Verdict] = []
        self._world, self._agent, self._seed, self._options = world, agent, seed, options
        self._marks: list[Mark] = []
        self._steps = 0
        self._first_ns: int | None = None  # stamp of the first observation
        self._success_ns: int | None = None
        self._judged = False  # whether the world is one that tells of success
        self._failures, self._path = FailureTrace(), ToolPath(world.spec)
        self._alarm: tuple[int, str] | None = None
        self._disturbance: tuple[int, str] | None = None
        self._film = None
        self._film_path = film_path
        if film_path is not None:
            from robopolicy.evaluation.video import VideoWriter

            rate_hz = world.spec.rate_hz / (options.video_every or 1)
            self._film = VideoWriter(film_path, rate_hz=rate_hz)

    def done(self, observation: Observation) -> bool:
        """Whether the task is done; disturbs the world first if it is time to."""
        if self._steps == self._options.disturb_at and self._disturbance is None:
            what = self._world.disturb(np.random.default_rng((self._seed, 1)))
            self._disturbance = (self._steps, what)
        self._judged = True
        self._failures.see(self._steps, failure_of(self._world), float(self._world.score()))
        success = bool(self._world.success())
        if success and self._success_ns is None:
            self._first_ns = observation.stamp_ns if self._first_ns is None else self._first_ns
            self._success_ns = observation.stamp_ns
        return success

    def on_start(self, meta: EpisodeMeta, spec: PolicySpec) -> None:
        """Nothing is known yet."""

    def on_step(self, step: Step) -> None:
        """Keep what this step tells."""
        if self._first_ns is None:
            self._first_ns = step.observation.stamp_ns
        if self._options.decisions and self._agent.decision is not None:
            self.decisions.append(self._agent.decision)
        if (verdict := step.verdict) is not None:
            if self._options.decisions:
                self.verdicts.append(verdict)
            p, threshold = float(verdict.p_value), float(verdict.threshold)
            self._marks.append(Mark(self._steps, float(verdict.statistic), threshold, p, verdict.state))
            if verdict.acts and self._alarm is None:
                self._alarm = (self._steps, verdict.reason)
        if self._film is not None and self._steps % (self._options.video_every or 1) == 0:
            self._film.add(self._world.picture(), alarm=self._alarm is not None)
        self._failures.drive(self._steps, held=step.source == "hold")
        self._path.add(step.observation)
        self._steps += 1

    def on_end(self, meta: EpisodeMeta) -> None:
        """Film the last moment."""
        if self._film is not None:
            self._film.add(self._world.picture(), alarm=self._alarm is not None)

    def close(self) -> None:
        """Finish the video."""
        if self._film is not None:
            self._film.close()

    def outcome(self, success: bool, score: float, wall_s: float, *, stopped: str = "", lost: str = "") -> Outcome:
        """Return the episode in numbers; call it while the world still stands as the episode left it.

        Args:
            success: whether the task was done at the end.
            score: 0 to 1.
            wall_s: what the episode cost.
            stopped: why safety ended it before its time.
            lost: why the policy had no plan, which ended it before its time.
        """
        alarm, disturbance = self._alarm or (None, ""), self._disturbance or (None, "")
        failure, onset = "", None
        if self._judged and not success:
            self._failures.see(self._steps, failure_of(self._world), score)
            failure, onset = self._failures.cause(self._steps, stopped="lost" if lost else "stopped" if stopped else "")
        return Outcome(
            seed=self._seed,
            success=success,
            score=score,
            steps=self._steps,
            alarm_step=alarm[0],
            alarm_reason=alarm[1],
            disturb_step=disturbance[0],
            disturbance=disturbance[1],
            marks=tuple(self._marks),
            video=self._film_path.name if self._film_path is not None else None,
            wall_s=round(wall_s, 3),
            stopped=stopped,
            lost=lost,
            mode=mode_of(self._world) if self._judged else None,
            failure=failure,
            onset_step=onset,
            success_s=self._success_s() if success else None,
            smoothness=self._path.smoothness(),
            perturbations=tuple(map(str, getattr(self._world, "perturbations", ()))),
            drawn="; ".join(getattr(self._world, "describe", dict)().values()),
        )

    def _success_s(self) -> float | None:
        if self._first_ns is None:
            return None
        last_ns = self._success_ns
        if last_ns is None:  # seen only after the last command: a period after the newest observation of a step
            last_ns = (self._path.newest_ns or self._first_ns) + self._world.spec.period_ns
        return round((last_ns - self._first_ns) * 1e-9, 6)

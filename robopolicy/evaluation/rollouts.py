"""One episode as an evaluation runs it, and the same over many seeds in parallel processes."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from robopolicy.clock import SimClock, WallClock
from robopolicy.errors import NO_PLAN, ContractError, EvaluationError, LateCommand, UnsafeCommand
from robopolicy.evaluation.batched import Batched, Share
from robopolicy.evaluation.outcomes import Outcome, OutcomeLog, load_about, load_outcomes
from robopolicy.evaluation.results import WAITING, Patience
from robopolicy.evaluation.witness import Options, Witness
from robopolicy.evaluation.workers import Seeds, run_in_workers
from robopolicy.interfaces import Agent, Safety
from robopolicy.loop import run_episode
from robopolicy.monitor.decisions import save_decisions, save_verdicts, verdicts_path
from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta, Observation

__all__ = ["Options", "Outcome", "Rollout", "evaluate", "film", "load_about", "load_outcomes"]

MakeWorld = Callable[[SimClock | WallClock], Any]  # a Robot that is an Environment too
MakeAgent = Callable[..., Agent]  # called without arguments, or with ``share`` where environments share a policy
MakeSafety = Callable[[PolicySpec], Safety]
PLAIN, FILMED = Options(), Options(video_every=2)


class Rollout:
    """A world, an agent and a safety layer, built once and run from any number of seeds.

    Args:
        make_world: called with the clock that the loop shares.
        make_agent: called once; reset for each episode. At the pace of the wall clock it is asked once beforehand: the
            first plan is slow.
        make_safety: called with the world's spec.
        options: see there.
        out: folder of decisions and videos; None keeps none.
        identity: files lie in a subfolder of this name, so that another evaluation does not overwrite them.
        share: passed on to ``make_agent``: where it takes a policy that others in this process use too.
    """

    def __init__(
        self,
        make_world: MakeWorld,
        make_agent: MakeAgent,
        make_safety: MakeSafety,
        options: Options = PLAIN,
        out: Path | None = None,
        identity: str = "",
        *,
        share: Share | None = None,
    ) -> None:
        self._clock = WallClock() if options.realtime else SimClock()
        self._world = make_world(self._clock)
        self._agent = make_agent() if share is None else make_agent(share=share)
        self._safety = make_safety(self._world.spec)
        if options.realtime:
            self._world.reset(0)
            self._agent.act(self._world.read())
        self._options = options
        self._out = out
        self._identity = identity

    def run(self, seed: int) -> Outcome:
        """Run the episode that ``seed`` names: the world's start, the policy's samples, the disturbance.

        One that safety stopped because a command came too late, or was no number, failed, whatever the world says; so
        did one in which the policy had no plan for what it saw.
        Where the world itself shows what is no number, that is the world's error.
        """
        start_s = time.perf_counter()
        self._world.reset(seed)
        witness = Witness(self._world, self._agent, seed, self._options, self._film_path(seed))
        meta, stopped = EpisodeMeta(self._world.instruction, type(self._world).__name__, seed), ""
        lost = ""
        try:
            meta = run_episode(
                self._world,
                self._agent,
                self._clock,
                self._safety,
                meta,
                max_steps=self._options.max_steps or self._world.max_steps,
                watchers=[witness],
                done=witness.done,
                finish=lambda meta: replace(meta, success=self._world.success()),
            )
        except UnsafeCommand as error:
            if not isinstance(error, LateCommand) and not _finite(self._world.read()):
                raise EvaluationError(f"the world shows what is no number, and so did the policy: {error}") from error
            stopped = str(error)
        except NO_PLAN as error:
            lost = str(error)
        finally:
            witness.close()
        score, wall_s = float(self._world.score()), time.perf_counter() - start_s
        if not np.isfinite(score):
            raise EvaluationError(f"the world's score is {score}; want a number from 0 to 1")
        outcome = witness.outcome(bool(meta.success), score, wall_s, stopped=stopped, lost=lost)
        outcome = replace(outcome, skipped_ticks=int(meta.extra.get("skipped_ticks", 0)))
        if self._options.decisions and self._out is not None and witness.decisions:
            folder = self._out / "decisions" / self._identity
            path = save_decisions(folder / f"{seed:06d}.npz", witness.decisions)
            if witness.verdicts:
                save_verdicts(verdicts_path(path), witness.verdicts)
            outcome = replace(outcome, decisions=str(path.relative_to(self._out)))
        if outcome.video is not None:
            outcome = replace(outcome, video=str(Path(self._identity, outcome.video)))
        return outcome

    def close(self) -> None:
        """Close the world."""
        self._world.close()

    def _film_path(self, seed: int) -> Path | None:
        if self._options.video_every is None or self._out is None:
            return None
        return self._out / self._identity / f"{seed:06d}.webm"


def evaluate(
    make_world: MakeWorld,
    make_agent: MakeAgent,
    seeds: Sequence[int],
    *,
    make_safety: MakeSafety,
    jobs: int = 2,
    out: str | Path | None = None,
    identity: str = "",
    about: Mapping[str, str] = MappingProxyType({}),
    options: Options = PLAIN,
    envs: int = 1,
    rows: int | None = None,
    patience: Patience = WAITING,
    on_progress: Callable[[Outcome], None] = lambda outcome: None,
    enough: Callable[[Outcome], bool] = lambda outcome: False,
) -> list[Outcome]:
    """Run one episode a seed and return the outcomes in the order of ``seeds``.

    Each worker is a fresh process (spawned: a forked child of a process with a GL context hangs) with one thread,
    which builds world, agent and safety once. A worker that dies costs its one episode, whose outcome says so.
    With ``out``, outcomes are appended to ``out/outcomes.jsonl`` as they come, and seeds found there under the
    same identity and options are not run again; ``load_outcomes`` returns those of the last call.

    Args:
        make_world: picklable, e.g. ``partial(make_world, "twin:lift")``; called with a clock.
        make_agent: picklable; called without arguments.
        seeds: no seed twice.
        make_safety: picklable; called with the world's spec.
        jobs: worker processes.
        out: folder of outcomes, decisions and videos.
        identity: names world, policy and monitor (their hashes), so that other outcomes in ``out`` are not taken
            for these; needed with ``out``.
        about: what ``load_about`` is to tell of this evaluation, such as the policy's sha.
        options: length, disturbance, what is kept.
        envs: episodes at once in each worker, which share its policy; ``make_agent`` then takes ``share=``.
        rows: plans of a batch, see `Batched`; ``envs`` and ``jobs`` change no bit of an episode, this does. None: each
            plan is made alone, as a robot's.
        patience: how long an episode may take; one that hangs has an error for an outcome, like one that crashes.
        on_progress: called with each outcome, at once with those found in ``out``.
        enough: called like ``on_progress``; True ends it: episodes under way are given up, and what was not run has
            no outcome.

    Raises:
        EvaluationError: if the world or the agent cannot be built in a worker.
        ContractError: if a seed comes twice, ``out`` comes without ``identity``, or plans are to be made together at
            the pace of the wall clock.
    """
    if options.realtime and (envs > 1 or rows is not None):
        raise ContractError("evaluate: at the pace of the wall clock every policy plans alone; want envs 1, rows None")
    if len(set(seeds)) < len(seeds):
        raise ContractError("evaluate: a seed appears twice")
    if out is not None and not identity:
        raise ContractError("evaluate: out needs an identity, or outcomes of another policy could be taken for these")
    folder = Path(out) if out is not None else None
    name = _identity(identity if rows is None else f"{identity}|plans by {rows}", options)
    log = OutcomeLog(folder, name) if folder is not None else None
    if log is not None:
        said = options.words()
        log.begin({**about, **({"options": said} if said else {})}, seeds)
    found = log.finished() if log is not None else {}
    outcomes = {seed: found[seed] for seed in seeds if seed in found and _has_files(found[seed], folder)}
    over = False
    for outcome in outcomes.values():
        on_progress(outcome)
        over = enough(outcome) or over
    build: Callable[[], Any] = partial(Rollout, make_world, make_agent, make_safety, options, folder, name)
    together = envs > 1 or rows is not None
    if together:
        build = partial(Batched, partial(Seeds, build), envs, rows)
    missing = [seed for seed in seeds if seed not in outcomes and not over]
    envs_each = envs if together else None
    with closing(run_in_workers(build, missing, jobs=jobs, envs=envs_each, patience=patience)) as running:
        for outcome in running:
            outcomes[outcome.seed] = outcome
            if log is not None:
                log.append(outcome)
            on_progress(outcome)
            if enough(outcome):
                break
    return [outcomes[seed] for seed in seeds if seed in outcomes]


def film(
    make_world: MakeWorld,
    make_agent: MakeAgent,
    seeds: Sequence[int],
    folder: str | Path,
    *,
    make_safety: MakeSafety,
    identity: str,
    jobs: int = 2,
    options: Options = FILMED,
    envs: int = 1,
    rows: int | None = None,
    patience: Patience = WAITING,
    on_progress: Callable[[Outcome], None] = lambda outcome: None,
) -> dict[int, Outcome]:
    """Run ``seeds`` once more with the camera on: a video each, made only once; return the outcomes by seed.

    Episodes repeat exactly, so filming every one would only cost time; the report compares what was filmed with
    what was counted. Filming takes time that a wall clock would not wait for, so films are of simulated time.
    ``Outcome.video`` is the path, or None with the reason in ``Outcome.error``.
    """
    folder = Path(folder)
    outcomes = evaluate(
        make_world,
        make_agent,
        seeds,
        make_safety=make_safety,
        jobs=jobs,
        out=folder,
        identity=identity,
        options=replace(options, video_every=options.video_every or 2, realtime=False),
        envs=envs,
        rows=rows,
        patience=patience,
        on_progress=on_progress,
    )
    return {o.seed: replace(o, video=str(folder / o.video)) if o.video else o for o in outcomes}


def _finite(observation: Observation) -> bool:
    return all(np.isfinite(values).all() for values in observation.state.values())


def _has_files(outcome: Outcome, folder: Path | None) -> bool:
    names = [name for name in (outcome.decisions, outcome.video) if name]
    return all(folder is not None and (folder / name).exists() for name in names)


def _identity(identity: str, options: Options) -> str:
    return hashlib.sha256(repr((identity, astuple(options))).encode()).hexdigest()[:16]

"""Demonstrations of mixed quality, recorded in the lift twin for the benchmarks of data quality."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from robopolicy.clock import SimClock
from robopolicy.interfaces import Agent
from robopolicy.loop import run_episode
from robopolicy.types import EpisodeMeta, Observation
from robopolicy_data.reader import Dataset
from robopolicy_data.recorder import Recorder
from robopolicy_hardware.safety import SafetyLayer, limits_for
from sim_envs.demonstrators import Clumsy, DownThenAcross, Hesitant, Unsteady, Wandering
from sim_envs.lift_expert import LiftExpert
from sim_envs.worlds import make_world

STATES = ("tool_pos", "tool_quat", "gripper", "cube_pos", "cube_quat")
KINDS: dict[str, Callable[[], Agent]] = {
    "expert": LiftExpert,
    "other style": DownThenAcross,
    "unsteady": lambda: Unsteady(LiftExpert(), 0.004),
    "hesitant": lambda: Hesitant(LiftExpert()),
    "clumsy": lambda: Clumsy(LiftExpert()),
    "wandering": lambda: Wandering(LiftExpert()),
    "novice": lambda: Hesitant(Wandering(Clumsy(LiftExpert()))),  # misses, leaves the task and stops, all in one
}


def record(path: Path, parts: Sequence[tuple[str, int]], seed: int, *, max_steps: int = 250) -> list[str]:
    """Record so many successful demonstrations of each kind; return the kind of each episode.

    ``meta.extra`` holds the kind, and the spans of the agent's own that do not belong to the task.
    """
    clock = SimClock()
    world = make_world("twin:lift", clock, cameras=())
    safety = SafetyLayer(limits_for(world.spec), world.spec)
    with Recorder(path, keep=lambda meta: meta.success is True) as recorder:
        for kind, count in parts:
            agent: Any = KINDS[kind]()

            def finish(meta: EpisodeMeta, kind: str = kind, agent: Any = agent) -> EpisodeMeta:
                extra = {"kind": kind, "spans": getattr(agent, "spans", [])}
                return replace(meta, success=world.success(), extra=extra)

            held = len(recorder.committed)
            while len(recorder.committed) < held + count:
                world.reset(seed)
                meta = EpisodeMeta(world.instruction, "twin:lift", seed, kind)
                run_episode(
                    world, agent, clock, safety, meta, max_steps=max_steps, watchers=[recorder],
                    done=lambda _: world.success(), finish=finish,
                )  # fmt: skip
                seed += 1
    world.close()
    return kinds(path)


def kinds(path: Path) -> list[str]:
    """Return the kind of each episode."""
    return [str(episode.meta.extra["kind"]) for episode in Dataset(path)]


def try_out(agent: Any, seeds: Sequence[int], *, max_steps: int | None = None) -> list[bool]:
    """Run ``agent`` once from each seed's start and return which episodes succeeded."""
    clock = SimClock()
    world = make_world("twin:lift", clock, cameras=())
    safety = SafetyLayer(limits_for(world.spec), world.spec)
    won = []
    for seed in seeds:
        world.reset(seed)

        def done(_: Observation) -> bool:
            return bool(world.success())

        run_episode(
            world, agent, clock, safety, EpisodeMeta(world.instruction, "twin:lift", seed),
            max_steps=max_steps or world.max_steps, done=done,
        )  # fmt: skip
        won.append(bool(world.success()))
    world.close()
    return won

"""`robopolicy data multiply`: many demonstrations of a few, by object-centric segments, kept if they succeed."""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import EachOnce, at_least
from robopolicy.errors import DatasetError, SpecMismatch, UsageError
from robopolicy.interfaces import Agent
from robopolicy.spec import TOOL_POSE, PolicySpec

PATIENCE = 100  # failures in a row after which it is no use


def add_actions(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    parser = actions.add_parser(
        "multiply", parents=[debug], help="many simulated demonstrations of a few: their segments about each object, "
        "moved to where it stands in a new start, played, and kept if they succeed (MimicGen)",
    )  # fmt: skip
    parser.add_argument("path", type=Path, metavar="D.zarr", help="the few, by a person or an expert")
    parser.add_argument("out", type=Path, metavar="OUT.zarr", help="created, or appended to")
    parser.add_argument("--task", metavar="NAME", help="default: that of the twin which the few were recorded in")
    parser.add_argument("--episodes", type=at_least(1), default=100, help="that OUT.zarr shall hold in the end")
    parser.add_argument("--source-episodes", nargs="+", metavar="EPISODES", help="of the few: 3 5-8; default: all")
    parser.add_argument(
        "--noise", type=float, default=0.001, metavar="M", help="of the positions played (default 1 mm)"
    )
    parser.add_argument("--seed", type=at_least(0), help="of the first start; default: after those of the few")
    parser.add_argument("--cameras", nargs="*", action=EachOnce, metavar="CAMERA", help="default: those of the few")
    parser.add_argument("--jobs", type=at_least(1), default=1, metavar="N", help="processes; the episodes are the same")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Multiply, and say how many attempts it took."""
    from contextlib import closing
    from functools import partial

    from robopolicy.cli.generating import Demonstrator, Scene, generate
    from robopolicy.cli.progress import bar, say
    from robopolicy.cli.record import accept, recorded
    from robopolicy.cli.worlds import size_for
    from robopolicy_data.reader import Dataset

    if not 0 <= args.noise <= 0.05:
        raise UsageError(f"--noise {args.noise:g} is out of range; want 0 to 0.05 m")
    if args.out.resolve() == args.path.resolve():
        raise UsageError(f"{args.out} would be multiplied into itself; name another dataset")
    few = Dataset(args.path)
    if few.spec.action != TOOL_POSE:
        raise SpecMismatch(f"{args.path} commands {few.spec.action.kind}; only tool_pose can be moved with an object")
    episodes = _chosen(few, args.source_episodes)
    task = args.task or _task_of(episodes)
    plans = _plans(few, episodes, task)
    cameras = tuple(few.spec.cameras) if args.cameras is None else tuple(args.cameras)
    scene = Scene(
        f"twin:{task}", partial(make_multiplied, plans, args.noise), cameras, few.spec.rate_hz,
        size_for(f"twin:{task}", few.spec),
        operator="multiplied", notes=f"multiplied from {args.path}", patience=PATIENCE, who="the multiplication",
    )  # fmt: skip
    with closing(Demonstrator(scene, args.out)) as demonstrator:
        demonstrator.try_drawing()
        accept(args.out, demonstrator.spec, recover=False)
        held, newest = recorded(args.out)
        seed = max((e.meta.seed or 0 for e in episodes), default=-1) + 1 if args.seed is None else args.seed
        seed, stands = max(seed, newest + 1), None
        with bar("multiply", args.episodes, "episodes") as progress:
            progress.at(held)
            for stands in generate(demonstrator, args.episodes, held=held, seed=seed, jobs=args.jobs):
                progress.at(stands.held, note=f"{stands.successes} of {stands.attempts} succeeded")
    if stands is None:
        say(f"{args.out} holds {held} episodes already; --episodes is how many it shall hold in the end")
        return
    share = stands.successes / stands.attempts
    say(f"{args.out} holds {stands.held} episodes of {len(plans)}: {stands.successes} of {stands.attempts} attempts "
        f"succeeded ({share:.0%})")  # fmt: skip


def make_multiplied(plans: Sequence[Any], noise_m: float, spec: PolicySpec) -> Agent:
    """Return the agent that plays ``plans`` on a robot that offers ``spec``; picklable under `functools.partial`."""
    from sim_envs.multiplied import Multiplied

    return Multiplied(plans, spec.rate_hz, noise_m=noise_m)


def _chosen(few: Any, words: Sequence[str] | None) -> list[Any]:
    """Return the episodes that are named and succeeded.

    Raises:
        DatasetError: if there is none, or not what was named.
    """
    from robopolicy_data.numbers import parse_numbers, require_episodes

    episodes = {episode.number: episode for episode in few}
    numbers = sorted(episodes) if words is None else parse_numbers(words)
    require_episodes(numbers, episodes, few.where)
    chosen = [episodes[number] for number in numbers if episodes[number].meta.success is True]
    if not chosen:
        raise DatasetError(f"{few.where}: of {len(numbers)} episodes none is marked as a success; only those are used")
    return chosen


def _task_of(episodes: Sequence[Any]) -> str:
    """Return the task of the twin that they were recorded in; UsageError if that is not one."""
    robots = Counter(episode.meta.robot for episode in episodes)
    kind, _, task = next(iter(robots)).partition(":")
    if len(robots) > 1 or kind != "twin" or not task:
        raise UsageError(f"--task: these were recorded with {', '.join(robots)}; say which task of ours it is")
    return task


def _plans(few: Any, episodes: Sequence[Any], task: str) -> list[Any]:
    from sim_envs.multiplied import plan_of
    from sim_envs.segments import Demonstration
    from sim_envs.tasks import canonical

    plans = []
    for episode in episodes:
        state = {name: episode.state(name) for name in few.spec.state}
        source = f"episode {episode.number} ({episode.attributes.get('uuid', '')[:12]})"
        plans.append(plan_of(canonical(task), Demonstration(source, episode.action(), state)))
    return plans

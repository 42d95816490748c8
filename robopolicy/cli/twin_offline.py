"""`robopolicy twin offline`: a policy judged in the twin from the starts that were recorded on the robot."""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least
from robopolicy.cli.running import AS_SAVED, Choice, add_running
from robopolicy.errors import SpecMismatch, UsageError

NUMBERS = {"tool_pose": 10, "joint": 8}  # of the twin's commands, the gripper's among them


def add_action(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    parser = actions.add_parser("offline", parents=[debug], help="judge a policy in the twin from recorded states")
    parser.add_argument("data", metavar="D.zarr", help="episodes with q, gripper and the objects' poses")
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="FOLDER", help="as train wrote it")
    parser.add_argument("--task", default="lift", metavar="NAME", help="what is on the table: lift, stack, drawer, ...")
    parser.add_argument("--episodes", metavar="NUMBERS", help="FIRST:LAST+1, or a list with commas (default: all)")
    parser.add_argument(
        "--step", type=at_least(0), default=0, metavar="N", help="of each episode to start from (default 0)"
    )
    parser.add_argument("--parameters", type=Path, metavar="FILE.json", help="as `twin identify` wrote them")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="of the report (default: CHECKPOINT/offline-DATASET)"
    )
    parser.add_argument("--jobs", type=at_least(1), default=2, metavar="N", help="processes (default 2)")
    parser.add_argument("--videos", type=at_least(0), default=8, metavar="N", help="in the report (default 8)")
    parser.add_argument("--device", default="cpu", help="where the policy computes: cpu, cuda (default cpu)")
    add_running(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from robopolicy.cli.progress import say

    out = args.out or args.checkpoint / f"offline-{Path(args.data).name}"
    headline, recorded = offline(
        args.data, args.checkpoint, out, task=args.task, episodes=args.episodes, step=args.step, jobs=args.jobs,
        parameters=args.parameters, videos=args.videos, device=args.device, choice=Choice.of(args),
    )  # fmt: skip
    say(f"{headline}; as recorded: {recorded}")
    say("report: ", (str(out / "report.html"), "bold"))


def offline(
    data: str,
    checkpoint: Path,
    out: Path,
    *,
    task: str = "lift",
    episodes: str | None = None,
    step: int = 0,
    parameters: Path | None = None,
    jobs: int = 2,
    videos: int = 8,
    device: str = "cpu",
    choice: Choice = AS_SAVED,
) -> tuple[str, str]:
    """Run a policy in the twin from each recorded start, as ``eval`` does from seeds.

    Returns:
        The headline in words, and how many of the recorded episodes succeeded.

    Raises:
        SpecMismatch: if the checkpoint does not fit the twin, or the dataset holds no states to start from.
        DatasetError, UsageError: if there are no such episodes or steps.
    """
    from robopolicy.cli.evaluate import Subject, roll_and_report
    from robopolicy.evaluation.rollouts import Options
    from robopolicy.training.checkpoint import read_spec

    starts, successes = read_starts(data, task, episodes, step)
    spec = read_spec(checkpoint)
    action = "joint" if spec.action.kind == "joint" else "tool_pose"
    world = partial(
        make_offline, task, starts, cameras=tuple(spec.cameras), parameters=parameters, action=action,
        rate_hz=spec.rate_hz,
    )  # fmt: skip
    subject = Subject.of(checkpoint, f"twin:{task}", device=device, choice=choice, make_world=world)
    where = f"{data}|{step}|{parameters and parameters.read_text()}"
    subject = replace(subject, identity=f"{subject.identity}|{where}")
    known = [one for one in successes.values() if one is not None]
    facts = {"checkpoint": str(checkpoint), "task": task, "starts": f"{data}, step {step}"}
    headline = roll_and_report(
        subject, list(starts), out, Options(), jobs=jobs, videos=videos, facts=facts,
        title=f"{checkpoint.name} in twin:{task} from {Path(data).name}",
    )  # fmt: skip
    return headline, f"{sum(known)} of {len(known)} succeeded" if known else "success unknown"


def read_starts(
    data: str, task: str, episodes: str | None = None, step: int = 0
) -> tuple[dict[int, Any], dict[int, bool | None]]:
    """Return {episode: (state, set-point or None)} at a step, and {episode: success}.

    Raises:
        SpecMismatch: naming the states that the dataset lacks.
        DatasetError, UsageError: if there are no such episodes or steps.
    """
    from robopolicy.evaluation.statistics import parse_seeds
    from robopolicy_data.numbers import require_episodes
    from robopolicy_data.reader import Dataset
    from sim_envs.tasks import make_task
    from sim_envs.tracked import placing_states

    dataset = Dataset(data)
    needs = ["q", "gripper", *placing_states(make_task(task))]
    lacking = [name for name in needs if name not in dataset.spec.state]
    if lacking:
        raise SpecMismatch(
            f"{data} has no state {', '.join(lacking)}: the twin cannot be put there; it has "
            f"{', '.join(dataset.spec.state)}. `robopolicy twin follow --record` records them beside a robot"
        )
    found = {episode.number: episode for episode in dataset}
    numbers = list(found) if episodes is None else parse_seeds(episodes)
    require_episodes(numbers, found, dataset.where)
    if not numbers:
        raise UsageError(f"{data} holds no episodes")
    starts = {number: _start(found[number], dataset.spec, needs, step) for number in numbers}
    return starts, {number: found[number].meta.success for number in numbers}


def _start(episode: Any, spec: Any, needs: list[str], step: int) -> tuple[Mapping[str, Any], Any]:
    if step >= episode.length:
        raise UsageError(f"--step {step}: {episode.where} has the steps 0 to {episode.length - 1}")
    names = [*needs, *(name for name in ("dq",) if name in spec.state)]
    state = {name: episode.state(name)[step] for name in names}
    # At a later step something may be in the gripper: it is held by the command that was in force.
    fits = NUMBERS.get(spec.action.kind) == spec.action.dim
    in_force = episode.action()[step - 1] if step and fits else None
    return state, in_force


def make_offline(
    task: str,
    starts: Mapping[int, Any],
    clock: Any,
    *,
    cameras: tuple[str, ...] = (),
    parameters: Path | None = None,
    action: str = "tool_pose",
    rate_hz: float = 20.0,
) -> Any:
    """Return the twin whose seeds are recorded starts; picklable under `functools.partial`.

    ``action`` and ``rate_hz`` are the policy's; an episode lasts as many seconds at any rate. Recorded set-points of
    another kind of command are left out.
    """
    import numpy as np

    from sim_envs.modes import OfflineTwin
    from sim_envs.tasks import make_task

    fitting = {
        n: (state, told if np.shape(told) == (NUMBERS[action],) else None) for n, (state, told) in starts.items()
    }
    world = OfflineTwin(make_task(task), clock, fitting, cameras=cameras, action=action, rate_hz=rate_hz)
    if parameters is None:
        return world
    from sim_envs.imperfections import Imperfect, Imperfections
    from sim_envs.parameters import apply, load

    identified = load(parameters)
    apply(identified, world.model)
    late = Imperfections(command_latency_s=identified.delay_s)
    return Imperfect(world, late, clock, np.random.default_rng(0))  # nothing of it is random

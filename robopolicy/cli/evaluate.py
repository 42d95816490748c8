"""`robopolicy eval`: a checkpoint over many seeds in parallel processes; success with its interval, and a report."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser("eval", parents=[debug], help="measure success over seeds, with its interval")
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--env", required=True, metavar="NAME", help="twin:TASK or gymnasium:ENV_ID")
    parser.add_argument("--seeds", default="100000:100050", help="FIRST:LAST+1, or a comma-separated list")
    parser.add_argument("--monitor", type=Path, metavar="FOLDER", help="also count its alarms, without acting on them")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: CHECKPOINT/eval-ENV")
    parser.add_argument("--jobs", type=at_least(1), default=2, help="processes")
    parser.add_argument("--disturb-at", type=at_least(0), metavar="STEP", help="disturb every episode at this step")
    parser.add_argument("--device", default="cpu", help="where the policy computes: cpu, cuda")
    parser.add_argument("--videos", type=at_least(0), default=8, help="videos in the report, failures first")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from robopolicy.cli.progress import say

    where = args.env.replace(":", "-").replace("/", "-") + (
        "" if args.disturb_at is None else f"-disturbed-{args.disturb_at}"
    )
    out = args.out or args.checkpoint / f"eval-{where}"
    summary = evaluate(
        args.checkpoint, args.env, args.seeds, out, monitor=args.monitor, jobs=args.jobs, videos=args.videos,
        disturb_at=args.disturb_at, device=args.device,
    )  # fmt: skip
    say(summary)
    say("report: ", (str(out / "report.html"), "bold"))


def evaluate(
    checkpoint: Path,
    env: str,
    seeds: str,
    out: Path,
    *,
    monitor: Path | None = None,
    jobs: int = 2,
    videos: int = 8,
    disturb_at: int | None = None,
    decisions: bool = False,
    candidates: int | None = None,
    device: str = "cpu",
    label: str = "evaluate",
    deployed: Sequence[tuple[str, Any]] = (),
) -> str:
    """Roll a checkpoint out over ``seeds``, resuming what ``out`` already holds; write results.json and report.html.

    Args:
        checkpoint: folder written by ``robopolicy train``.
        env: name of the simulated world.
        seeds: as on the command line.
        out: folder of outcomes, report and videos.
        monitor: folder of a monitor whose alarms are logged, not acted upon.
        jobs: worker processes.
        videos: how many episodes to show, failures first.
        disturb_at: step at which every episode is disturbed, or None.
        decisions: also keep every decision of every episode in ``out/decisions``, to calibrate from.
        candidates: chunks drawn a plan.
        device: where the policy computes, ``"cpu"`` or ``"cuda"``.
        label: what the progress bar says.
        deployed: single episodes to show at the top of the report, each with a label.

    Returns:
        The headline in words.
    """
    from robopolicy.cli.progress import bar
    from robopolicy.cli.worlds import check_device, make_agent, make_safety, world_factory
    from robopolicy.evaluation.page import failures_first
    from robopolicy.evaluation.report import versions, write_report
    from robopolicy.evaluation.rollouts import Options, film
    from robopolicy.evaluation.rollouts import evaluate as roll
    from robopolicy.evaluation.statistics import parse_seeds, summarise
    from robopolicy.training.checkpoint import checkpoint_sha

    numbers = parse_seeds(seeds)
    spec = check_fit(checkpoint, env)
    world = world_factory(env, tuple(spec.cameras))
    agent = partial(
        make_agent, str(checkpoint), monitor=monitor, on_alarm="log", candidates=candidates, device=check_device(device)
    )
    described, guard = {}, ""
    if monitor is not None:
        from robopolicy.monitor.monitor import load_monitor
        from robopolicy.monitor.runtime import file_sha

        described = load_monitor(monitor, policy_sha=checkpoint_sha(checkpoint)).describe()
        guard = file_sha(monitor / "monitor.json")
    sha = checkpoint_sha(checkpoint)
    software = versions(("robopolicy", "torch", "mujoco"))  # after an upgrade, episodes may come out otherwise
    identity = f"{sha}|{env}|{guard}|{candidates or ''}|{software}"
    with bar(label, len(numbers), "episodes") as progress:
        good = [0, 0]

        def show(outcome: Any) -> None:
            good[0] += bool(outcome.success)
            good[1] += 1
            progress.at(good[1], note=f"{good[0]}/{good[1]} succeeded")

        outcomes = roll(
            world, agent, numbers, make_safety=make_safety, jobs=jobs, out=out, identity=identity,
            about={"policy_sha": sha, "env": env, "software": software},
            options=Options(decisions=decisions, disturb_at=disturb_at), on_progress=show,
        )  # fmt: skip
    summary = summarise(outcomes)
    if videos:
        shown = failures_first(outcomes)[:videos]
        with bar("film", len(shown), "videos") as progress:
            films = film(
                world, agent, [outcome.seed for outcome in shown], out / "videos", make_safety=make_safety,
                identity=identity, jobs=jobs, options=Options(disturb_at=disturb_at, video_every=2),
                on_progress=lambda _: progress.advance(),
            )  # fmt: skip
    else:
        films = {}
    write_report(
        out, outcomes, summary, films, monitor=described or None, deployed=deployed,
        title=f"{checkpoint.name} in {env}",
        facts={"checkpoint": str(checkpoint), "sha": sha, "env": env, "seeds": seeds,
               "command": shlex.join(["robopolicy", *sys.argv[1:]])},
    )  # fmt: skip
    return summary.headline()


def check_fit(checkpoint: Path, env: str) -> Any:
    """Return the checkpoint's spec once it is sure that ``env`` offers what it needs.

    Raises:
        SpecMismatch: both sides printed.
        UnknownCamera, UnknownTask: naming what is valid.
    """
    from robopolicy.cli.worlds import make_world
    from robopolicy.clock import SimClock
    from robopolicy.training.checkpoint import read_spec

    spec = read_spec(checkpoint)
    world = make_world(env, SimClock(), cameras=tuple(spec.cameras))
    try:
        spec.require_from(world.spec, needs=f"checkpoint {checkpoint}", offers=f"robot {env}")
    finally:
        world.close()
    return spec

"""`robopolicy twin identify`: recorded motions in, the arm's friction, gains and delay out, with what they explain."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least
from robopolicy.errors import ContractError, DatasetError, UsageError
from robopolicy.spec import PolicySpec

DRIVEN = ("twin", "none")


def add_action(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    parser = actions.add_parser("identify", parents=[debug], help="fit the twin's arm to recorded motions")
    parser.add_argument("data", metavar="D.zarr", help="episodes with q and joint or tool pose commands")
    parser.add_argument("--task", default="lift", metavar="NAME", help="the twin's task: says what the arm holds")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.json", help="parameters; FILE.html beside it")
    parser.add_argument(
        "--held-out", type=at_least(1), metavar="N", help="last episodes, kept to judge on (default: a quarter)"
    )
    parser.add_argument(
        "--drive", choices=DRIVEN, default="twin",
        help="twin: commands go through the twin's drive, as when it plays; none: they are the joint servos' own",
    )  # fmt: skip
    parser.add_argument(
        "--anyway", action="store_true", help="keep parameters that explain nothing too, as FILE-doubtful.json"
    )
    parser.add_argument("--max-iters", type=at_least(1), default=30, metavar="N", help="of the optimiser (default 30)")
    parser.add_argument("--threads", type=at_least(1), default=1, metavar="N", help="that simulate (default 1)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        DatasetError: if the parameters explain nothing that they were not fitted to: they are not written then.
    """
    from robopolicy.cli.progress import bar, say
    from robopolicy.evaluation.identification import write_page
    from sim_envs.parameters import save
    from sim_envs.sysid_arm import arm_spec, identify
    from sim_envs.sysid_report import reported
    from sim_envs.tasks import make_task

    _require_out(args.out)
    task: Any = make_task(args.task)
    model = arm_spec(stick=bool(getattr(task, "stick", False))).compile()
    found = motions(args.data, model, through_drive=args.drive == "twin")
    count = args.held_out or max(1, len(found) // 4)
    if count >= len(found):
        raise UsageError(f"{args.data} holds {len(found)} episodes; {count} held out leaves none to identify from")
    seconds = sum(motion.duration_s for motion in found[:-count])
    say(f"{len(found) - count} episodes, {seconds:.0f} s of motion; {count} held out")
    with bar("identify", None, "arms") as progress:
        identified = identify(
            model, found[:-count], found[-count:], max_iters=args.max_iters, threads=args.threads,
            tick=lambda simulated, rms: progress.advance(simulated, f"error {1e3 * rms:.3f} mrad RMS"),
        )  # fmt: skip
    facts = {"dataset": str(args.data), "task": args.task, "drive": args.drive}
    parameters, report = reported(identified, facts)
    page = write_page(args.out.with_suffix(".html"), report)
    for line in report["lines"]:
        say(line)
    doubtful = args.out.with_name(f"{args.out.stem}-doubtful.json")
    if identified.useful or args.anyway:
        save(parameters, args.out if identified.useful else doubtful)
    if not identified.useful:
        kept = f"they are in {doubtful} all the same" if args.anyway else "they were not written"
        raise DatasetError(
            f"{args.data}: the parameters that fit it explain nothing else, {kept}; {page} shows why: move it further"
        )
    say(f"parameters in {args.out}, what they explain in {page}")


def _require_out(out: Path) -> None:
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.parent}")
    if out.suffix != ".json" or out.is_dir():
        raise UsageError(f"--out {out}: want a file FILE.json; the page FILE.html goes beside it")


def motions(where: str, model: Any, *, through_drive: bool) -> Sequence[Any]:
    """Return the episodes of a dataset as `sim_envs.sysid_arm.Motion`, times from each one's first step.

    Args:
        where: the dataset.
        model: of the arm.
        through_drive: the commands are what the twin's drive is given, not the joint servos' own set-points.

    Raises:
        DatasetError: if it lacks what it takes.
    """
    from robopolicy_data.reader import Dataset

    dataset = Dataset(where)
    joints, kind = 7, dataset.spec.action.kind
    if "q" not in dataset.spec.state or dataset.spec.state["q"].dim != joints:
        raise DatasetError(f"{where}: no state q of {joints} joints; it has {', '.join(dataset.spec.state) or 'none'}")
    if kind not in (("joint", "tool_pose") if through_drive else ("joint",)):
        raise DatasetError(f"{where}: its commands are {kind}; want joint" + " or tool_pose" * through_drive)
    if kind == "joint" and dataset.spec.action.dim < joints:
        raise DatasetError(f"{where}: commands of {dataset.spec.action.dim} joints; want {joints}")
    return [_motion(episode, model, dataset.spec, through_drive) for episode in dataset if episode.length > 1]


def _motion(episode: Any, model: Any, spec: PolicySpec, through_drive: bool) -> Any:
    from sim_envs.sysid_arm import Motion
    from sim_envs.sysid_drive import driven

    stamps = episode.stamps_ns("step")
    times_s, due_s = ((s - stamps[0]) / 1e9 for s in (stamps, episode.stamps_ns("action")))
    q, sent = episode.state("q").astype(float), episode.action().astype(float)
    dq = episode.state("dq").astype(float) if "dq" in spec.state else None
    if through_drive:
        due_s, sent = driven(model, spec.action.kind, q[0], 0.0, float(times_s[-1]), due_s, sent)
    try:
        return Motion(f"episode {episode.number}", times_s, q, due_s, sent[:, :7], dq=dq)
    except ContractError as error:
        raise DatasetError(f"{error}; leave it out with `robopolicy data edit`") from error

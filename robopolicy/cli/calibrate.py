"""`robopolicy calibrate`: successful rollouts in, a monitor with a valid threshold out."""

import argparse
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least
from robopolicy.cli.running import AS_SAVED, Choice, add_running
from robopolicy.errors import SpecMismatch, UsageError

SEEDS = "10000:10100"
CANDIDATES = 16  # chunks drawn a decision; scores of the spread depend on it, so it is fixed in the monitor


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser("calibrate", parents=[debug], help="calibrate a failure monitor on successes")
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="FOLDER", help="of the policy to guard")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="monitor folder")
    parser.add_argument(
        "--alpha",
        type=float,
        default=0.05,
        metavar="X",
        help="false alarms allowed, a fraction of good episodes (default 0.05)",
    )
    parser.add_argument("--rollouts", type=Path, metavar="FOLDER", help="rollouts made before; default: make them")
    parser.add_argument("--env", metavar="NAME", help="where to make them: twin:TASK, gymnasium:ENV_ID")
    parser.add_argument("--seeds", metavar="SEEDS", help=f"their starts; not those you evaluate on (default {SEEDS})")
    parser.add_argument("--jobs", type=at_least(1), metavar="N", help="processes (default 2)")
    parser.add_argument("--device", default="cpu", help="where the policy computes: cpu, cuda (default cpu)")
    add_running(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from robopolicy.cli.progress import say

    if not 0 < args.alpha < 1:
        raise UsageError(f"--alpha is {args.alpha:g}; it is a fraction between 0 and 1, e.g. 0.05")
    rollouts, choice = args.rollouts or args.out / "rollouts", Choice.of(args)
    if args.rollouts is None:
        if args.env is None:
            raise UsageError("calibrate needs --rollouts FOLDER, or --env NAME to make them")
        collect(
            args.checkpoint, args.env, args.seeds or SEEDS, rollouts, jobs=args.jobs or 2, device=args.device,
            choice=choice,
        )  # fmt: skip
    elif ignored := [f"--{name}" for name in ("env", "seeds", "jobs") if getattr(args, name) is not None]:
        raise UsageError(f"{ignored[0]} says how to make rollouts, and --rollouts {args.rollouts} are made: give one")
    say(calibrate(args.checkpoint, rollouts, args.out, alpha=args.alpha, choice=choice))


def collect(
    checkpoint: Path, env: str, seeds: str, out: Path, *, jobs: int = 2, device: str = "cpu", choice: Choice = AS_SAVED
) -> None:
    """Roll a checkpoint out over ``seeds`` and keep every decision in ``out``."""
    from robopolicy.cli.evaluate import evaluate

    evaluate(
        checkpoint, env, seeds, out, jobs=jobs, videos=0, decisions=True, candidates=CANDIDATES, device=device,
        choice=choice, label="rollouts",
    )  # fmt: skip


def calibrate(
    checkpoint: Path, rollouts: Path, out: Path, *, alpha: float, seed: int = 0, choice: Choice = AS_SAVED
) -> str:
    """Fit and calibrate a monitor on the successful episodes of ``rollouts``; return its promise in words.

    Rollouts that are under way, or were killed, count up to the first without an end: the successes behind it are the
    quick ones, and a threshold that was chosen on these would alarm at the others.

    Raises:
        NotEnoughCalibration: naming how many successes there are and how many ``alpha`` needs.
        SpecMismatch: if the rollouts are of another checkpoint; both are named.
    """
    from robopolicy.evaluation.outcomes import load_about, load_counted
    from robopolicy.monitor.decisions import load_decisions
    from robopolicy.monitor.monitor import fit_monitor

    sha, theirs = choice.resolve(checkpoint).sha, load_about(rollouts).get("policy_sha", "")
    if theirs != sha:
        raise SpecMismatch(
            f"rollouts {rollouts} are of policy {theirs[:12] or '(unnamed)'}, checkpoint {checkpoint} is {sha[:12]}; "
            "a monitor is calibrated on the policy it guards, with the same solver and goal"
        )
    good = [outcome for outcome in load_counted(rollouts)[0] if outcome.success and outcome.decisions]
    episodes = [load_decisions(rollouts / outcome.decisions) for outcome in good]
    monitor = fit_monitor(episodes, alpha=alpha, seed=seed, policy_sha=sha, seeds=[o.seed for o in good])
    monitor.save(out)
    return f"monitor in {out}: {monitor.guarantee()}"

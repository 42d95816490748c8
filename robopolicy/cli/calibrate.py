"""`robopolicy calibrate`: successful rollouts in, a monitor with a valid threshold out."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least
from robopolicy.cli.monitor_actions.same_policy import require_unanswered, timing_of
from robopolicy.cli.running import AS_SAVED, Choice, add_running
from robopolicy.errors import UsageError

SEEDS = "10000:10100"
DEFAULT_SCORES, DEFAULT_WINDOW = ("mahalanobis", "chunk_overlap"), 5  # for the help; `MonitorConfig` has them
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
    add_monitoring(parser)
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
    made = args.rollouts is not None
    if not made and args.env is None:
        raise UsageError("calibrate needs --rollouts FOLDER, or --env NAME to make them")
    if made and (ignored := [f"--{name}" for name in ("env", "seeds", "jobs") if getattr(args, name) is not None]):
        raise UsageError(f"{ignored[0]} says how to make rollouts, and --rollouts {args.rollouts} are made: give one")
    rollouts, choice = args.rollouts or args.out / "rollouts", Choice.of(args)
    config = config_of(args, () if args.scores else default_scores(args.checkpoint))
    if not made:
        collect(
            args.checkpoint, args.env, args.seeds or SEEDS, rollouts, jobs=args.jobs or 2, device=args.device,
            choice=choice,
        )  # fmt: skip
    say(calibrate(args.checkpoint, rollouts, args.out, config, choice=choice, roles=args.roles))


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
    checkpoint: Path,
    rollouts: Path,
    out: Path,
    config: Any = None,
    *,
    alpha: float = 0.05,
    choice: Choice = AS_SAVED,
    roles: Path | None = None,
) -> str:
    """Fit and calibrate a monitor on the successful episodes of ``rollouts``; return its promise in words.

    Rollouts that are under way, or were killed, count up to the first without an end: the successes behind it are the
    quick ones, and a threshold that was chosen on these would alarm at the others. Failed episodes are set aside and
    counted; a logistic combination and a supervised score learn from them.

    Args:
        checkpoint: of the policy.
        rollouts: an evaluation's folder, with decisions.
        out: the monitor's folder.
        config: `MonitorConfig`; None is the default one at ``alpha``.
        alpha: false alarms allowed, a fraction of good episodes.
        choice: solver and goal.
        roles: file that fixes which episode fits and which calibrates; written if it is not there.

    Raises:
        NotEnoughCalibration: naming how many successes there are and how many ``alpha`` needs.
        SpecMismatch: if the rollouts are of another checkpoint, both are named; or alarms were answered in them.
        MonitorError: if the scores do not fit what the policy gives.
        UsageError: if the rollouts are without decisions.
    """
    from robopolicy.cli.running import words
    from robopolicy.evaluation.outcomes import load_about, load_counted
    from robopolicy.monitor.alike import require_same
    from robopolicy.monitor.decisions import load_decisions
    from robopolicy.monitor.layout import ActionLayout
    from robopolicy.monitor.monitor import MonitorConfig, fit_monitor
    from robopolicy.monitor.roles import Roles
    from robopolicy.training.checkpoint import read_spec

    config = config or MonitorConfig(alpha=alpha)
    running, about = choice.resolve(checkpoint), load_about(rollouts)
    require_same(
        "policy", f"rollouts {rollouts} are of", about.get("policy_sha", ""), f"checkpoint {checkpoint} is",
        running.sha, "a monitor is calibrated on the policy it guards, with the same solver and goal",
    )  # fmt: skip
    require_unanswered(rollouts, about)
    counted, unfinished = load_counted(rollouts)
    kept = [outcome for outcome in counted if outcome.decisions and outcome.error is None]
    if counted and not kept:
        raise UsageError(f"{rollouts} has no decisions; calibrate --env keeps them, eval with --decisions")
    good, bad = [o for o in kept if o.success], [o for o in kept if not o.success]
    split = None
    if roles is not None:
        drawn = [o.seed for o in good]
        split = Roles.load(roles) if roles.exists() else Roles.split(drawn, alpha=config.alpha, seed=config.seed)
        split.save(roles)
    spec = read_spec(checkpoint)
    if "displaced" in config.scores:  # it names the camera
        named = {"views": tuple(spec.cameras), **config.settings.get("displaced", {})}
        config = replace(config, settings={**config.settings, "displaced": named})
    learns = config.how.combine == "logistic" or "supervised" in config.scores
    monitor = fit_monitor(
        [load_decisions(rollouts / o.decisions) for o in good],
        config,
        layout=ActionLayout.of(spec),
        roles=split,
        seeds=[o.seed for o in good],
        failures=[load_decisions(rollouts / o.decisions) for o in bad] if learns else (),
        failure_seeds=[o.seed for o in bad] if learns else (),
        failed=len(bad),
        policy_sha=running.sha,
        sampler=words(running.solver),
        env=about.get("env", ""),
        timing=timing_of(about),
    )
    monitor.save(out)
    aside = "" if not bad else f" {len(bad)} failed episodes " + ("taught it." if learns else "were set aside.")
    if unfinished.aside:
        aside += (
            f" {unfinished.aside} finished episodes do not count: {unfinished.waiting} that were asked for with them "
            "have not come to an end, and what ends early is easy."
        )
    return f"monitor in {out}: {monitor.guarantee()}{aside}"


def add_monitoring(parser: argparse.ArgumentParser, *, split: bool = True) -> None:
    """Add the options that say what a monitor is made of, and, with ``split``, of which episodes."""
    group = parser.add_argument_group("what the monitor looks at")
    group.add_argument(
        "--scores",
        nargs="+",
        metavar="NAME",
        help=f"default: {' '.join(DEFAULT_SCORES)}, of motion tracks displaced too; README names them",
    )
    group.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="SCORE.SETTING=VALUE",
        help="of a score: rnd.small=true (narrow networks, seconds on a CPU), knn.k=10, rnd.target=64,128,64; a wrong "
        "name is answered with those there are",
    )  # fmt: skip
    group.add_argument(
        "--combine", choices=["sum", "max", "min", "logistic"], default="sum",
        help="of the standardised scores (default sum); logistic weighs them by the failed rollouts",
    )  # fmt: skip
    group.add_argument(
        "--window",
        type=at_least(1),
        default=DEFAULT_WINDOW,
        metavar="N",
        help=f"decisions that are averaged, fewer at an episode's start (default {DEFAULT_WINDOW})",
    )
    group.add_argument(
        "--patience", type=at_least(0), default=0, metavar="N",
        help="decisions beside the newest that must be over the threshold too (default 0)",
    )  # fmt: skip
    group.add_argument(
        "--shape", choices=["const", "band"], default="const",
        help="one threshold, or a band around what is usual at each decision (default const)",
    )  # fmt: skip
    group.add_argument(
        "--alpha-time", type=float, metavar="X",
        help="false overruns allowed, a fraction of good episodes (default: the longest calibrated one, 1 / (n + 1))",
    )  # fmt: skip
    group.add_argument("--alpha-warn", type=float, metavar="X", help="p-value of a warning (default: twice alpha)")
    if not split:
        parser.set_defaults(split_seed=0)
        return
    group.add_argument("--split-seed", type=at_least(0), default=0, metavar="N", help="of the split (default 0)")
    group.add_argument(
        "--roles", type=Path, metavar="R.json",
        help="which episode fits and which calibrates; written if it is not there, kept to if it is",
    )  # fmt: skip


def default_scores(checkpoint: Path) -> tuple[str, ...]:
    """Return the scores that guard a checkpoint unless others are asked for: one more of motion tracks.

    They alone know where the pictures should show the robot, and a camera that was moved makes all their plans wrong.
    """
    from robopolicy.monitor.monitor import DEFAULT
    from robopolicy.policies.track_config import MotionTrackConfig
    from robopolicy.training.checkpoint import read_config

    scores: tuple[str, ...] = DEFAULT.scores
    return (*scores, "displaced") if isinstance(read_config(checkpoint), MotionTrackConfig) else scores


def config_of(args: argparse.Namespace, default: Sequence[str] = DEFAULT_SCORES) -> Any:
    """Return the `MonitorConfig` of the arguments of `add_monitoring`, and ``--alpha``.

    Args:
        args: as parsed.
        default: scores, unless others are asked for.

    Raises:
        UsageError: if a share is none, or a setting is of no score that is there.
        MonitorError: if there is no such score or setting, or a value makes no sense; it lists what does.
    """
    from robopolicy.monitor.monitor import MonitorConfig
    from robopolicy.monitor.scores import score_class
    from robopolicy.monitor.statistic import Combination

    if args.alpha_time is not None and not 0 < args.alpha_time < 1:
        raise UsageError(f"--alpha-time is {args.alpha_time:g}; it is a fraction between 0 and 1, e.g. 0.02")
    scores = tuple(args.scores or default)
    for score in scores:
        score_class(score)  # refused before anything is made
    return MonitorConfig(
        scores,
        Combination(args.combine, args.window, args.patience, args.shape),
        args.alpha,
        args.alpha_time,
        args.alpha_warn,
        args.split_seed,
        settings_of(args.set, [*scores, *getattr(args, "also", ())]),
    )


def settings_of(texts: Sequence[str], scores: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return {score: {setting: value}} of ``--set SCORE.SETTING=VALUE ...``.

    Args:
        texts: of the command line; the last one of a setting counts.
        scores: that there are; ``all`` is any.

    Raises:
        UsageError: if a text is none of that form, or of a score that is not there.
        MonitorError: if the score has no such setting, or a value makes no sense for it; it lists what does.
    """
    from robopolicy.monitor.scores import make_score
    from robopolicy.monitor.scores.settings import read_setting

    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        score, dot, setting = path.partition(".")
        if not (equals and dot and score and setting):
            raise UsageError(f"--set {text}: want SCORE.SETTING=VALUE, such as rnd.small=true")
        if score not in scores and "all" not in scores:
            raise UsageError(f"--set {text}: there is no score {score} here; there are {', '.join(scores)}")
        found.setdefault(score, {})[setting] = read_setting(score, setting, value)
    for score, settings in found.items():
        make_score(score, **settings)  # what does not go together
    return found

"""`robopolicy eval`: a checkpoint over many seeds in parallel processes; success with its interval, and a report."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from robopolicy.cli.against import Against, add_against
from robopolicy.cli.arguments import at_least, positive
from robopolicy.cli.calibrate import CANDIDATES
from robopolicy.cli.perturbing import add_perturbing, perturbations_of, unseen
from robopolicy.cli.reacting import add_reacting, reactions_of, reactions_told
from robopolicy.cli.running import AS_SAVED, Choice, add_running
from robopolicy.cli.together import ALONE, Together, add_together


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser("eval", parents=[debug], help="measure success over seeds, with its interval")
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="FOLDER", help="as train wrote it")
    parser.add_argument(
        "--env", required=True, metavar="NAME", help="twin:TASK, gymnasium:ENV_ID, robosuite:TASK or planar:pusht"
    )
    parser.add_argument(
        "--seeds",
        default="100000:100050",
        metavar="SEEDS",
        help="starts: FIRST:LAST+1, or a comma-separated list (default 100000:100050)",
    )
    parser.add_argument("--monitor", type=Path, metavar="FOLDER", help="also count its alarms")
    add_reacting(parser, default="log", late=False)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="of the report; what it holds is not run again (default: CHECKPOINT/eval-ENV)",
    )
    parser.add_argument("--jobs", type=at_least(1), default=2, metavar="N", help="processes (default 2)")
    add_together(parser)
    parser.add_argument(
        "--episode-timeout", type=positive, default=600.0, metavar="S",
        help="an episode that takes longer by the wall clock is recorded as hung; where several share a process they "
        "have so much each (default 600)",
    )  # fmt: skip
    parser.add_argument("--disturb-at", type=at_least(0), metavar="STEP", help="disturb every episode at this step")
    parser.add_argument(
        "--decisions", action="store_true",
        help="keep every decision and the monitor's verdicts in OUT/decisions, for calibrate --rollouts and monitor; "
        f"{CANDIDATES} chunks are drawn a plan, as calibrate does, or as many as --monitor wants",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="where the policy computes: cpu, cuda (default cpu)")
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="at the pace of the wall clock, as deploy --realtime: the world goes on while the policy plans, in the "
        "thread that commands too; wants as many idle cores as --jobs",
    )
    add_running(parser)
    add_perturbing(parser)
    add_against(parser)
    parser.add_argument(
        "--videos", type=at_least(0), default=8, metavar="N", help="videos in the report, failures first (default 8)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from robopolicy.cli.progress import say
    from robopolicy.evaluation.statistics import parse_seeds

    perturbations = perturbations_of(args)
    out = args.out or args.checkpoint / _folder(args, perturbations)
    summary = evaluate(
        args.checkpoint, args.env, args.seeds, out, monitor=args.monitor, jobs=args.jobs, videos=args.videos,
        disturb_at=args.disturb_at, device=args.device, realtime=args.realtime, choice=Choice.of(args),
        perturbations=perturbations, envs=args.envs, exact=args.exact, episode_s=args.episode_timeout,
        reactions=reactions_of(args, otherwise="log"),
        decisions=args.decisions, candidates=CANDIDATES if args.decisions and args.monitor is None else None,
        against=Against.of(args, parse_seeds(args.seeds)),
    )  # fmt: skip
    say(summary)
    say("report: ", (str(out / "report.html"), "bold"))


def _folder(args: argparse.Namespace, perturbations: Sequence[str] = ()) -> str:
    """Return the folder of an evaluation within its checkpoint's: one for each thing that may be compared."""
    parts = ["eval", args.env]
    if args.disturb_at is not None:
        parts.append(f"disturbed-{args.disturb_at}")
    if args.realtime:
        parts.append("realtime")
    parts += [f"on-{state}-{name}" for state in ("alarm", "overrun") if (name := getattr(args, f"on_{state}"))]
    if args.decisions:
        parts.append("decisions")
    parts += [part for part in (args.solver, args.solver_steps and f"{args.solver_steps}-steps") if part]
    if args.goal is not None:
        parts.append(f"goal-{Path(args.goal).name}")
    parts += [f"with-{folder.name}" for folder in args.companion or ()]
    parts += perturbations
    return "-".join(parts).replace(":", "-").replace("/", "-")


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
    realtime: bool = False,
    choice: Choice = AS_SAVED,
    perturbations: Sequence[str] = (),
    envs: int | None = None,
    exact: bool = False,
    episode_s: float | None = None,
    label: str = "evaluate",
    deployed: Sequence[tuple[str, Any]] = (),
    against: Against | None = None,
    reactions: Any = None,
) -> str:
    """Roll a checkpoint out over ``seeds``, resuming what ``out`` already holds; write results.json and report.html.

    Args:
        checkpoint: folder written by ``robopolicy train``.
        env: name of the simulated world.
        seeds: as on the command line.
        out: folder of outcomes, report and videos.
        monitor: folder of a monitor whose alarms are counted.
        jobs: worker processes.
        videos: how many episodes to show, failures first.
        disturb_at: step at which every episode is disturbed, or None.
        decisions: also keep every decision of every episode in ``out/decisions``, to calibrate from.
        candidates: chunks drawn a plan.
        device: where the policy computes, ``"cpu"`` or ``"cuda"``.
        realtime: at the pace of the wall clock: the world goes on while the policy plans.
        choice: another solver than the checkpoint's own, and a goal.
        perturbations: of the world, each as AXIS:SEVERITY, in the order of `perturbations_of`.
        envs: episodes at once in each process; None is as many as plan together.
        exact: every plan is made alone, as a robot's; otherwise in batches, which rounds them otherwise.
        episode_s: longest that an episode may take by the wall clock; None is for ever.
        label: what the progress bar says.
        deployed: single episodes to show at the top of the report, each with a label.
        against: another policy's evaluation to compare with.
        reactions: `Reactions` to the monitor, in simulated time never late; None only counts its alarms.

    Returns:
        The headline in words.
    """
    from robopolicy.evaluation.rollouts import Options
    from robopolicy.evaluation.statistics import parse_seeds

    disturbed = disturb_at is not None
    subject = Subject.of(
        checkpoint, env, monitor, candidates, device, choice, perturbations=perturbations, disturbed=disturbed,
        reactions=reactions,
    )  # fmt: skip
    options = Options(decisions=decisions, disturb_at=disturb_at, realtime=realtime)
    together = Together.of(checkpoint, envs, exact=exact, realtime=realtime)
    return roll_and_report(
        subject, parse_seeds(seeds), out, options, jobs=jobs, together=together, videos=videos, episode_s=episode_s,
        label=label, deployed=deployed, against=against, title=f"{checkpoint.name} in {env}",
        facts={"checkpoint": str(checkpoint), "env": env, "seeds": seeds},
    )  # fmt: skip


def roll_and_report(
    subject: "Subject",
    seeds: list[int],
    out: Path,
    options: Any,
    *,
    title: str,
    facts: dict[str, str],
    jobs: int = 2,
    together: Together = ALONE,
    videos: int = 8,
    episode_s: float | None = None,
    label: str = "evaluate",
    deployed: Sequence[tuple[str, Any]] = (),
    against: Against | None = None,
) -> str:
    """Run what ``out`` does not hold yet, film some of it, write the report; return the headline in words."""
    from robopolicy.cli.worlds import packages_of
    from robopolicy.evaluation.report import PACKAGES, versions, write_report
    from robopolicy.evaluation.results import Patience
    from robopolicy.evaluation.statistics import pace_words, summarise

    if together.rows is not None:
        facts = {**facts, "plans": f"in batches of {together.rows}"}
    if against is not None:
        against.require(subject.about, options)
        seeds = against.worth(seeds)
    patience = Patience.with_episodes(episode_s)
    outcomes = _roll(
        subject, seeds, out, options, jobs=jobs, together=together, patience=patience, label=label, against=against
    )
    said = {}
    if against is not None:
        outcomes = against.counted(outcomes)
        said = {"against": against.verdict(outcomes)}
    summary = summarise(outcomes, modes=subject.modes)
    pace = {"pace": pace_words(outcomes)} if options.realtime else {}
    software = versions((*PACKAGES, *packages_of(subject.about["env"])))
    films = _film(
        subject, outcomes, out / "videos", replace(options, decisions=False), jobs=jobs, together=together,
        patience=patience, videos=videos,
    )  # fmt: skip
    write_report(
        out, outcomes, summary, films, monitor=subject.monitor, deployed=deployed, title=title,
        facts={**facts, "sha": subject.sha, "versions": software, **subject.changes, **pace, **said,
               "command": shlex.join(["robopolicy", *sys.argv[1:]])},
    )  # fmt: skip
    blind = [subject.changes["unseen"]] if "unseen" in subject.changes else []
    return "; ".join([summary.headline(), *pace.values(), *said.values(), *blind])


@dataclass(frozen=True)
class Subject:
    """What is evaluated, ready for other processes."""

    make_world: partial  # called with a clock
    make_agent: partial  # called without arguments
    sha: str  # of the policy as it runs
    identity: str  # of all that decides how an episode goes
    about: dict[str, str]  # the same, to be read
    monitor: dict[str, Any] | None  # its description
    changes: dict[str, str]  # solver, goal and perturbations, where they are not as checkpoint and world have them
    modes: tuple[str, ...] = ()  # by which an episode can succeed, where the world enumerates them

    @classmethod
    def of(
        cls, checkpoint: Path, env: str, monitor: Path | None = None, candidates: int | None = None,
        device: str = "cpu", choice: Choice = AS_SAVED, make_world: partial | None = None,
        perturbations: Sequence[str] = (), disturbed: bool = False, reactions: Any = None,
    ) -> "Subject":  # fmt: skip
        """Check that everything fits together and return it; raises what `check_fit` and `Choice.resolve` raise.

        ``make_world`` makes a world of one's own, which then is only called ``env`` and has no ``perturbations``.
        ``disturbed``: episodes are to be disturbed; UsageError if the world has no disturbance. ``reactions`` are
        those to the monitor; None is `Reactions.never`.
        """
        from robopolicy.cli.worlds import check_device, make_agent, packages_of, world_factory
        from robopolicy.evaluation.report import versions
        from robopolicy.reactions import Reactions

        spec, modes, cameras = _fit(checkpoint, env, make_world, perturbations, disturbed=disturbed)
        running = choice.resolve(checkpoint).placed(cameras)
        described, guard = None, ""
        if monitor is not None:
            from robopolicy.monitor.runtime import file_sha

            described = running.load_monitor(monitor).describe()
            guard = file_sha(monitor / "monitor.json")
        reactions = reactions or Reactions.never()
        # After an upgrade of one of these, episodes may come out otherwise.
        software = versions(("robopolicy", "torch", "mujoco", *packages_of(env)))
        agent = partial(
            make_agent, running, monitor=monitor, on_alarm=reactions, candidates=candidates,
            device=check_device(device),
        )  # fmt: skip
        where = "" if device == "cpu" else f"|{device}"  # other hardware rounds otherwise, and draws other episodes
        other = {"perturbations": ", ".join(perturbations)} if perturbations else {}
        acting = ", ".join(f"{name}: {value}" for name, value in reactions_told(reactions).items())
        chosen = {**running.about, **({"reactions": acting} if acting else {})}
        told = unseen(perturbations, tuple(spec.cameras))
        world = f"{env}|{other['perturbations']}" if other else env
        return cls(
            make_world or world_factory(env, spec, perturbations), agent, running.sha,
            f"{running.sha}|{world}|{guard}|{candidates or ''}|{software}{where}{running.about.get('cameras', '')}"
            + (f"|{reactions!r}" if acting else ""),
            {"policy_sha": running.sha, "env": env, "software": software, "rate": f"{spec.rate_hz:g} Hz",
             **chosen, **other, **_told(modes)},
            described,
            {**chosen, **other, **({"unseen": told} if told else {})}, modes,
        )  # fmt: skip


def _roll(
    subject: Subject,
    seeds: list[int],
    out: Path,
    options: Any,
    *,
    jobs: int,
    together: Together,
    patience: Any,
    label: str,
    against: Against | None,
) -> list[Any]:
    """Run what is not run yet, with a bar; return the outcomes in the order of the seeds."""
    from robopolicy.cli.progress import bar
    from robopolicy.cli.worlds import make_safety
    from robopolicy.evaluation.rollouts import evaluate as roll

    with bar(label, len(seeds), "episodes") as progress:
        good = [0, 0]

        def show(outcome: Any) -> None:
            good[0] += bool(outcome.success)
            good[1] += 1
            progress.at(good[1], note=f"{good[0]}/{good[1]} succeeded")

        return roll(
            subject.make_world, subject.make_agent, seeds, make_safety=make_safety, jobs=jobs, out=out,
            identity=subject.identity, about=subject.about, options=options, envs=together.envs, rows=together.rows,
            patience=patience, on_progress=show, enough=(lambda _: False) if against is None else against.enough,
        )  # fmt: skip


def _film(
    subject: Subject, outcomes: list[Any], folder: Path, options: Any, *, jobs: int, together: Together, patience: Any,
    videos: int,
) -> dict[int, Any]:  # fmt: skip
    """Run some episodes once more with the camera on, failures first; return them by seed. What hung is left out."""
    from robopolicy.cli.progress import bar
    from robopolicy.cli.worlds import make_safety
    from robopolicy.evaluation.page import failures_first
    from robopolicy.evaluation.results import HUNG
    from robopolicy.evaluation.rollouts import film

    ended = [outcome for outcome in outcomes if not (outcome.error or "").startswith(HUNG)]
    shown = [outcome.seed for outcome in failures_first(ended)[:videos]]
    if not shown:
        return {}
    with bar("film", len(shown), "videos") as progress:
        return film(
            subject.make_world, subject.make_agent, shown, folder, make_safety=make_safety, identity=subject.identity,
            jobs=jobs, options=replace(options, video_every=2), envs=together.envs, rows=together.rows,
            patience=patience, on_progress=lambda _: progress.advance(),
        )  # fmt: skip


def _told(modes: Sequence[str]) -> dict[str, str]:
    return {"modes": ", ".join(modes)} if modes else {}


def check_fit(checkpoint: Path, env: str, make: partial | None = None, perturbations: Sequence[str] = ()) -> Any:
    """Return the checkpoint's spec once it is sure that ``env``, or what ``make`` makes, offers what it needs.

    Raises:
        SpecMismatch: both sides printed.
        UnknownCamera, UnknownTask: naming what is valid.
        UsageError: if the world cannot be perturbed so, and how it can.
    """
    return _fit(checkpoint, env, make, perturbations)[0]


def _fit(
    checkpoint: Path, env: str, make: partial | None, perturbations: Sequence[str], *, disturbed: bool = False
) -> tuple[Any, tuple[str, ...], dict[str, Any]]:
    """The checkpoint's spec, and modes and calibrated cameras of the world that it fits, and can be ``disturbed``."""
    from robopolicy.behaviour import modes_of
    from robopolicy.cli.worlds import require_disturbance, world_factory
    from robopolicy.clock import SimClock
    from robopolicy.training.checkpoint import read_spec

    spec = read_spec(checkpoint)
    world = (make or world_factory(env, spec, perturbations))(SimClock())
    try:
        spec.require_from(world.spec, needs=f"checkpoint {checkpoint}", offers=f"robot {env}")
        if disturbed:
            require_disturbance(world, env)
        cameras = dict(getattr(world, "camera_calibration", dict)())
    finally:
        world.close()
    return spec, modes_of(world), cameras

"""`robopolicy monitor replay`: the verdicts on stored decisions once more, held against those that were stored."""

import argparse
from pathlib import Path
from typing import Any

from robopolicy.cli.monitor_actions.same_policy import require_same_policy, timing_of
from robopolicy.errors import UsageError

SHOWN = 12  # lines of episodes that differ


def add_parser(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    parser = actions.add_parser(
        "replay", parents=[debug], help="work out stored verdicts again; exit 1 if a bit differs"
    )
    parser.add_argument("monitor", type=Path, metavar="M", help="folder, as calibrate wrote it")
    parser.add_argument(
        "--rollouts", required=True, type=Path, metavar="FOLDER", help="an evaluation with decisions and verdicts"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="only the episode of this seed")
    parser.add_argument("--html", type=Path, metavar="PAGE.html", help="draw the episodes")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the action; 1 if a verdict differs."""
    from robopolicy.cli.progress import say
    from robopolicy.evaluation.outcomes import load_about
    from robopolicy.monitor.alike import require_fit
    from robopolicy.monitor.artefact import load_monitor

    monitor = load_monitor(args.monitor)
    require_same_policy(args.rollouts, args.monitor, monitor)
    require_fit(monitor, str(args.monitor), timing=timing_of(load_about(args.rollouts)))
    episodes = replay(args.monitor, args.rollouts, seed=args.seed)
    compared = [one for one in episodes if one.difference is not None]
    unlike = [one for one in compared if one.difference]
    for one in unlike[:SHOWN]:
        print(f"episode {one.name}: {one.difference}")
    if len(unlike) > SHOWN:
        print(f"... and {len(unlike) - SHOWN} more episodes")
    alarms = sum(any(verdict.acts for verdict in one.verdicts) for one in episodes)
    told = f"{len(episodes)} episodes, {alarms} with an alarm, overrun or fault; "
    if compared:
        told += f"verdicts of {len(compared) - len(unlike)} of {len(compared)} as stored, bit for bit"
    if without := len(episodes) - len(compared):
        told += ("; " if compared else "") + f"{without} have no stored verdicts to compare with"
    say((told, "red" if unlike else "green"))
    if args.html is not None:
        from robopolicy.evaluation.monitor_page import write_replay

        say(f"page in {write_replay(args.html, args.monitor, args.rollouts, monitor, episodes)}")
    return 1 if unlike else 0


def replay(folder: Path, rollouts: Path, *, seed: int | None = None) -> list[Any]:
    """Return what the monitor in ``folder`` says of each stored episode, a `Replayed` each, by seed.

    It is worked out in a process of one thread, as in an evaluation: how many there are decides how sums are rounded.

    Raises:
        UsageError: if there is no episode with decisions, or none of this seed.
        EvaluationError: if the folder is not an evaluation's.
        SpecMismatch: if the decisions are not of the shape that was calibrated.
    """
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from robopolicy.evaluation.workers import one_thread

    with one_thread(), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_replayed, folder, rollouts, seed).result()


def _replayed(folder: Path, rollouts: Path, seed: int | None) -> list[Any]:
    from robopolicy.evaluation.monitor_page import Replayed
    from robopolicy.evaluation.outcomes import load_outcomes
    from robopolicy.monitor.artefact import load_monitor
    from robopolicy.monitor.decisions import load_decisions, load_verdicts, verdicts_path
    from robopolicy.monitor.replaying import first_difference, verdicts_of

    stored = [one for one in load_outcomes(rollouts) if one.decisions]
    wanted = [one for one in stored if seed is None or one.seed == seed]
    if not wanted:
        which = "" if seed is None else f" of seed {seed}"
        raise UsageError(f"{rollouts} has no decisions{which}; eval keeps them with --decisions")
    monitor, episodes = load_monitor(folder), []
    for one in wanted:
        path = rollouts / str(one.decisions)
        verdicts = verdicts_of(monitor, load_decisions(path))
        beside = verdicts_path(path)
        difference = first_difference(verdicts, load_verdicts(beside)) if beside.exists() else None
        episodes.append(Replayed(str(one.seed), one.success, verdicts, difference))
    return episodes

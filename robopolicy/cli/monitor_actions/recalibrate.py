"""`robopolicy monitor recalibrate`: more confirmed successes, a new version of the monitor, the old one kept."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from robopolicy.cli.monitor_actions.same_policy import require_one_world, require_same_policy, require_unanswered
from robopolicy.errors import UsageError


def add_parser(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    parser = actions.add_parser(
        "recalibrate", parents=[debug], help="calibrate on more successes: a new version, the old one kept"
    )
    parser.add_argument("monitor", type=Path, metavar="M", help="folder, as calibrate wrote it; stays as it is")
    parser.add_argument(
        "--add", required=True, nargs="+", type=Path, metavar="FOLDER",
        help="rollouts with decisions; their successes calibrate, failures are set aside and counted",
    )  # fmt: skip
    parser.add_argument("--out", required=True, type=Path, metavar="M2", help="folder of the new version")
    parser.add_argument(
        "--only-new", action="store_true", help="forget the old calibration episodes: after the world has changed"
    )
    parser.add_argument("--alpha", type=float, metavar="X", help="false alarms allowed (default: as before)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the action."""
    from robopolicy.cli.progress import say

    for line in recalibrate(args.monitor, args.add, args.out, only_new=args.only_new, alpha=args.alpha):
        say(line)


def recalibrate(
    folder: Path, rollouts: list[Path], out: Path, *, only_new: bool = False, alpha: float | None = None
) -> list[str]:
    """Write a monitor of the same scores, calibrated on the successes of ``rollouts`` too; return lines that say so.

    Rollouts that are under way, or were killed, count up to the first without an end, as in ``calibrate``. The new
    version begins without a journal of drift.

    Raises:
        UsageError: if ``out`` holds something already, or alpha is no fraction.
        SpecMismatch: if rollouts are of another policy, world or timing, both are named; or alarms were answered in
            them. With ``only_new`` world and timing of the old episodes do not matter.
        MonitorError: if an episode made the old monitor, comes twice, or there is none.
        NotEnoughCalibration: if there are too few.
    """
    from robopolicy.errors import MonitorError
    from robopolicy.evaluation.outcomes import load_about, load_counted
    from robopolicy.monitor.artefact import load_monitor
    from robopolicy.monitor.decisions import load_decisions
    from robopolicy.monitor.drift_journal import DriftJournal
    from robopolicy.monitor.monitor import recalibrated
    from robopolicy.monitor.runtime import file_sha

    if alpha is not None and not 0 < alpha < 1:
        raise UsageError(f"--alpha is {alpha:g}; it is a fraction between 0 and 1, e.g. 0.05")
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"--out {out} is not empty; the old version is kept: name a new folder")
    monitor = load_monitor(folder)
    kept, abouts = [], {path: load_about(path) for path in rollouts}
    env, timing = require_one_world(abouts, "a threshold of both together promises nothing about either")
    for path in rollouts:
        require_same_policy(path, folder, monitor)
        require_unanswered(path, abouts[path])
        kept += [(path, one) for one in load_counted(path)[0] if one.decisions and one.error is None]
    good, failed = [(path, one) for path, one in kept if one.success], sum(not one.success for _, one in kept)
    if not good:
        raise MonitorError(f"{', '.join(map(str, rollouts))}: no successful episode with decisions; want at least one")
    seeds = [one.seed for _, one in good]
    if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        raise MonitorError(f"episode {', '.join(map(str, twice[:5]))} comes twice; want each in one of the rollouts")
    new = recalibrated(
        monitor, [load_decisions(path / str(one.decisions)) for path, one in good], seeds,
        alpha=alpha, only_new=only_new, parent=file_sha(folder / "monitor.json"), env=env, timing=timing,
    )  # fmt: skip
    new.provenance = replace(new.provenance, failed=(0 if only_new else monitor.provenance.failed) + failed)
    new.save(out)
    before, after = monitor.calibration, new.calibration
    lines = [
        f"monitor in {out}: {before.n} calibration episodes before, {after.n} now; threshold {before.threshold:.4g} "
        f"before, {after.threshold:.4g} now. {new.guarantee()}"
    ]
    if failed:
        lines.append(f"{failed} failed episodes were set aside")
    if not only_new and any(one.drift and one.drift.warned for one in DriftJournal(folder, before.z).entries()):
        lines.append(
            f"monitor {folder} has warned of drift: its old episodes are unlike the new ones, and calibrated on both "
            "nothing is promised; --only-new forgets them"
        )
    return lines

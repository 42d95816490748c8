"""`robopolicy monitor inspect`: what a monitor is made of, what it promises, and whether that still holds."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LONGEST = 80  # letters of a row of episodes


def add_parser(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    parser = actions.add_parser("inspect", parents=[debug], help="what a monitor is, what it promises, its drift")
    parser.add_argument("monitor", type=Path, metavar="M", help="folder, as calibrate wrote it")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument("--html", type=Path, metavar="PAGE.html", help="draw it too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the action."""
    from robopolicy.cli.progress import say
    from robopolicy.monitor.artefact import load_monitor
    from robopolicy.monitor.drift_journal import DriftJournal

    monitor = load_monitor(args.monitor)
    journal = DriftJournal(args.monitor, monitor.calibration.z)
    if args.json:
        print(json.dumps({**monitor.describe(), "drift": journal.describe()}, indent=1))
    else:
        for name, words in _rows(monitor, journal):
            print(f"{name:<18} {words}")
        print(f"\n{monitor.guarantee()}")
    if args.html is not None:
        from robopolicy.evaluation.monitor_page import write_inspection

        page = write_inspection(args.html, args.monitor, monitor, journal)
        if not args.json:
            say(f"page in {page}")


def _rows(monitor: Any, journal: Any) -> Iterator[tuple[str, str]]:
    from robopolicy.evaluation.statistics import seed_words

    calibration, provenance = monitor.calibration, monitor.provenance
    said, how = calibration.describe(), monitor.statistic.how
    low, high = said["false_alarm_rate_95"]
    yield "scores", ", ".join(score.name for score in monitor.scores)
    yield "combination", f"{how.combine}, window {how.window}, patience {how.patience}, {how.shape}"
    yield "false alarms", f"alpha {calibration.alpha:g}; with these episodes {low:.1%} to {high:.1%} (95 %)"
    yield "threshold", f"{calibration.threshold:.6g}, number {said['k']} of {calibration.n} episodes, sorted"
    yield "warning", f"from p = {calibration.warn_rate:.3g} on"
    yield "overrun", f"after {calibration.longest} decisions, alpha {calibration.overrun_rate:.3g}"
    yield "calibrated", f"up to decision {calibration.calibrated}"
    yield "decisions", str(monitor.shape)
    layout = monitor.layout
    yield (
        "actions",
        f"{layout.kind}, {layout.dt_s:g} s a row, position {_some(layout.position)}, gripper {_some(layout.gripper)}",
    )
    yield (
        "policy",
        f"{provenance.policy_sha[:12] or '(unnamed)'}" + (f", {provenance.sampler}" if provenance.sampler else ""),
    )
    yield "plans made", provenance.timing + (f", in {provenance.env}" if provenance.env else "")
    for name, seeds in (("fit on", provenance.fit_seeds), ("calibrated on", provenance.calibration_seeds),
                        ("failures", provenance.failure_seeds)):  # fmt: skip
        if seeds:
            words = seed_words(seeds)
            words = words if len(words) <= LONGEST else f"{words[:LONGEST].rsplit(',', 1)[0]}, ... (--json has all)"
            yield name, f"{len(seeds)} episodes: {words}"
    yield "set aside", f"{provenance.failed} failed episodes"
    if provenance.parent:
        yield "recalibrated from", provenance.parent[:12]
    yield "created", f"{provenance.created}, {provenance.software}"
    yield "drift", journal.describe()["words"]


def _some(elements: tuple[int, ...]) -> str:
    return " ".join(map(str, elements)) or "none"

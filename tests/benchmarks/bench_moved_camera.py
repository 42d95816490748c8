"""Cameras moved since their calibration, seen by monitors: python tests/benchmarks/bench_moved_camera.py --work DIR

A motion-track policy lifts cubes while both cameras stand where they were calibrated, and each 2, 4 and 8 cm beside it,
turned as `camera` of `--perturb` says. Monitors of one set of rollouts look at the same episodes: a row each, with how
many were alarmed, at which decision in the median, and how many alarms name a camera. What DIR does not hold is made.
"""

import argparse
from pathlib import Path

import numpy as np
from commands import SHOWN, TRACKS, recorded, robopolicy, trained

from robopolicy.evaluation.outcomes import load_outcomes
from robopolicy.monitor.decisions import load_decisions
from robopolicy.monitor.monitor import load_monitor
from robopolicy.types import Decision

WORLD = "twin:lift"
PLAIN, VIEWS = ("mahalanobis", "chunk_overlap"), ("view_gap", "misfit")
MONITORS = (PLAIN, VIEWS, ("displaced",), (*PLAIN, "displaced"))
SEVERITIES = (0.0, 0.25, 0.5, 1.0)  # of 8 cm
ALPHA = "0.1"


def alarms(monitor: Path, episodes: list[list[Decision]]) -> str:
    """Return of how many episodes the monitor alarms, when, and how often it names a camera."""
    guard, at, named = load_monitor(monitor), [], 0
    for episode in episodes:
        guard.reset()
        for decision in episode:
            verdict = guard.step(decision)
            if verdict.state == "alarm":
                at.append(decision.index)
                named += "camera " in verdict.reason
                break
    when = f"at {np.median(at):.0f}" if at else ""
    return f"{len(at):3} of {len(episodes)} {when:6} {named:3} named"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--episodes", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    work: Path = asked.work
    work.mkdir(parents=True, exist_ok=True)
    data = recorded(work / "shown.zarr", WORLD, 60, *SHOWN)
    checkpoint = trained(work / "tracks", [data], *TRACKS, "--steps", str(asked.steps))
    calibrate = ("calibrate", "--checkpoint", str(checkpoint), "--alpha", ALPHA)
    rollouts, log = work / "all" / "rollouts", work / "calibrate.log"
    if not (work / "all" / "monitor.json").exists():
        every = ("--scores", *PLAIN, *VIEWS, "displaced")
        robopolicy(
            log, *calibrate, *every, "--env", WORLD, "--seeds", "10000:10060", "--jobs", str(asked.jobs), "--out",
            str(work / "all"),
        )  # fmt: skip
    for scores in MONITORS:
        if not (work / "-".join(scores) / "monitor.json").exists():
            out = ("--out", str(work / "-".join(scores)))
            robopolicy(log, *calibrate, "--scores", *scores, "--rollouts", str(rollouts), *out)
    print(f"{'alarms of':40}" + "".join(f"{80 * severity:.0f} mm".rjust(28) for severity in SEVERITIES))
    seen, rates = [], []
    for severity in SEVERITIES:
        out = work / f"moved-{severity:g}"
        robopolicy(
            work / "eval.log", "eval", "--checkpoint", str(checkpoint), "--env", WORLD, "--seeds",
            f"20000:{20000 + asked.episodes}", "--perturb", f"camera:{severity:g}", "--monitor", str(work / "all"),
            "--on-alarm", "log", "--decisions", "--videos", "0", "--jobs", str(asked.jobs), "--out", str(out),
        )  # fmt: skip
        outcomes = load_outcomes(out)
        seen.append([load_decisions(out / outcome.decisions) for outcome in outcomes if outcome.decisions])
        rates.append(np.mean([outcome.success for outcome in outcomes]))
    for scores in MONITORS:
        cells = [alarms(work / "-".join(scores), episodes) for episodes in seen]
        print(f"{' + '.join(scores):40}" + "".join(cell.rjust(28) for cell in cells), flush=True)
    print(f"{'success':40}" + "".join(f"{rate:.0%}".rjust(28) for rate in rates))


if __name__ == "__main__":
    main()

"""Failure monitors on our tasks: python tests/benchmarks/bench_monitor_tasks.py --work DIR [--tasks lift,stack,peg]

Records, trains and rolls out whatever DIR does not hold yet.
"""

import argparse
import time
from pathlib import Path

from monitor_tasks import TASKS, TUNING, collect, make_policy, outcomes_of

from robopolicy.evaluation.statistics import success_rate

AXES = ("pose", "size", "mass", "friction", "action_delay", "action_noise", "dropout", "push", "slip")


def tune(work: Path, task: str, axes: list[str], severities: list[float], episodes: int, jobs: int) -> None:
    """Print how often each severity of each axis makes the policy fail."""
    for axis in axes:
        for severity in severities:
            start = time.perf_counter()
            folder = collect(work, task, (f"{axis}:{severity:g}",), TUNING, episodes, jobs=jobs, keep=False)
            outcomes = outcomes_of(folder, TUNING, episodes)
            failed = sum(not o.success for o in outcomes)
            causes: dict[str, int] = {}
            for outcome in outcomes:
                if not outcome.success:
                    causes[outcome.failure] = causes.get(outcome.failure, 0) + 1
            rate = success_rate(failed, len(outcomes))
            print(
                f"{task} {axis}:{severity:g} {failed}/{len(outcomes)} failed [{rate.low:.0%}, {rate.high:.0%}] {causes}, "
                f"{time.perf_counter() - start:.0f} s",
                flush=True,
            )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="of data, checkpoints, rollouts")
    parser.add_argument("--tasks", default="lift,stack,peg", help=f"of {','.join(TASKS)}")
    parser.add_argument("--episodes", type=int, default=40, help="of each perturbation")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--tune", nargs="*", type=float, metavar="SEVERITY", help="only count failures at these")
    parser.add_argument("--axes", nargs="*", default=list(AXES), help="of --tune")
    args = parser.parse_args()
    for task in args.tasks.split(","):
        make_policy(args.work, task)
        if args.tune is not None:
            tune(args.work, task, args.axes, args.tune, args.episodes, args.jobs)


if __name__ == "__main__":
    main()

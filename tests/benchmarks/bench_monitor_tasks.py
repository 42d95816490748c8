"""Failure monitors on our tasks: python tests/benchmarks/bench_monitor_tasks.py --work DIR [--tasks lift,stack,peg]

Records, trains and rolls out whatever DIR does not hold yet.
"""

import argparse
import time
from pathlib import Path

from monitor_tasks import CHOOSING, NOMINAL, PERTURBED, TASKS, collect, make_policy

from robopolicy.evaluation.failures import taxonomy
from robopolicy.evaluation.outcomes import load_outcomes
from robopolicy.evaluation.statistics import success_rate


def tune(work: Path, task: str, perturbation: str, episodes: int, jobs: int) -> None:
    """Print how often a perturbation makes the policy fail, on the episodes for choosing."""
    start = time.perf_counter()
    perturbations = () if perturbation == "nominal" else (perturbation,)
    seeds = range(CHOOSING, CHOOSING + episodes)
    outcomes = load_outcomes(collect(work, task, perturbations, seeds, jobs=jobs, purpose="choosing"))
    failed = sum(not outcome.success for outcome in outcomes)
    rate = success_rate(failed, len(outcomes))
    causes = ", ".join(f"{len(cause.seeds)} {cause.failure}" for cause in taxonomy(outcomes))
    print(
        f"{task} {perturbation}: {failed} of {len(outcomes)} failed [{rate.low:.0%}, {rate.high:.0%}] ({causes}), "
        f"{time.perf_counter() - start:.0f} s",
        flush=True,
    )


def collect_all(work: Path, task: str, nominal: int, episodes: int, jobs: int) -> list[Path]:
    """Run what is judged by; return the folders, the undisturbed world's first."""
    folders = [collect(work, task, (), range(NOMINAL, NOMINAL + nominal), jobs=jobs)]
    for axis, severity in TASKS[task].severities.items():
        seeds = range(PERTURBED, PERTURBED + episodes)
        folders.append(collect(work, task, (f"{axis}:{severity:g}",), seeds, jobs=jobs))
    return folders


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="of data, checkpoints, rollouts")
    parser.add_argument("--tasks", default="lift,stack,peg", help=f"of {','.join(TASKS)}")
    parser.add_argument("--episodes", type=int, default=40, help="of each perturbation")
    parser.add_argument("--nominal", type=int, default=170, help="episodes of the undisturbed world")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--tune", nargs="+", metavar="AXIS:SEVERITY", help="only count failures at these")
    args = parser.parse_args()
    for task in args.tasks.split(","):
        make_policy(args.work, task)
        if args.tune:
            for perturbation in args.tune:
                tune(args.work, task, perturbation, args.episodes, args.jobs)
            continue
        collect_all(args.work, task, args.nominal, args.episodes, args.jobs)


if __name__ == "__main__":
    main()

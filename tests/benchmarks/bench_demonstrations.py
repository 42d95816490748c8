"""Scripted demonstrations a second from one process and from several, and what the one writer costs.

python tests/benchmarks/bench_demonstrations.py [--task lift] [--episodes 40] [--jobs 1 2] [--cameras front wrist]

Each row: demonstrations a second of wall time, from the first to the last that was committed (starting the workers is
told apart), CPU seconds a demonstration of all processes together, and of the process that publishes them.
"""

import argparse
import resource
import tempfile
import time
from contextlib import closing
from functools import partial
from pathlib import Path

from robopolicy.cli.generating import Demonstrator, Scene, generate
from sim_envs.experts import make_expert


def cpu_s(who: int) -> float:
    """Return user and system seconds so far."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def measure(scene: Scene, path: Path, episodes: int, jobs: int) -> tuple[float, float, float, float]:
    """Return demonstrations a second, seconds until the first, CPU seconds a demonstration, of them the publisher's."""
    own, others = cpu_s(resource.RUSAGE_SELF), cpu_s(resource.RUSAGE_CHILDREN)
    began_s = time.perf_counter()
    with closing(Demonstrator(scene, path)) as demonstrator:
        stands = generate(demonstrator, episodes, held=0, seed=0, jobs=jobs)
        first = next(stands)
        first_s = time.perf_counter()
        *_, last = [first, *stands]
        last_s = time.perf_counter()
    own, others = cpu_s(resource.RUSAGE_SELF) - own, cpu_s(resource.RUSAGE_CHILDREN) - others
    return (last.held - first.held) / (last_s - first_s), first_s - began_s, (own + others) / episodes, own / episodes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", default="lift")
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--cameras", nargs="*", default=[])
    args = parser.parse_args()
    scene = Scene(f"twin:{args.task}", partial(make_expert, args.task), tuple(args.cameras))
    folder, alone = Path(tempfile.mkdtemp()), None
    for jobs in args.jobs:
        rate, wait_s, all_s, own_s = measure(scene, folder / f"{jobs}", args.episodes, jobs)
        alone = alone or rate / jobs
        print(
            f"{args.task}, cameras {len(args.cameras)}, jobs {jobs}: {rate:.1f} a second (efficiency "
            f"{rate / jobs / alone:.0%}), the first after {wait_s:.1f} s, {all_s:.2f} CPU s each, {own_s:.3f} of them "
            "in the publishing process",
            flush=True,
        )


if __name__ == "__main__":
    main()

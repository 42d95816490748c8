"""The same checkpoint in gym-pusht, through our adapter and through a plain loop of Gymnasium.

    python tests/benchmarks/bench_gymnasium.py --checkpoint runs/pusht [--seeds 100000:100020] [--jobs 2]

Starts and samples are paired, so beside the interval of each there is how many episodes are the same: step for step,
the score within 1e-12. Gymnasium's own score of one and the same episode differs by 1e-16 between processes: gym-pusht
takes the parts of the T from a set. Through our adapter it repeats to the bit.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from robopolicy.cli.evaluate import Subject
from robopolicy.cli.worlds import make_safety
from robopolicy.evaluation.rollouts import evaluate
from robopolicy.evaluation.statistics import parse_seeds, success_rate, summarise
from robopolicy.training.checkpoint import load_policy

sys.path.insert(0, str(Path(__file__).parents[1]))
WORLD = "gymnasium:gym_pusht/PushT-v0"


def plain(checkpoint: Path, seed: int) -> tuple[float, bool, int]:
    """Return best reward, success and steps of one episode of a plain loop."""
    import torch
    from plain_gymnasium import roll_out

    torch.set_num_threads(1)
    best, success, path = roll_out(load_policy(checkpoint), seed)
    return best, success, len(path) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--seeds", default="100000:100020")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    seeds, subject = parse_seeds(args.seeds), Subject.of(args.checkpoint, WORLD)
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        theirs = list(pool.map(partial(plain, args.checkpoint), seeds))
    print(f"plain loop of Gymnasium  success {success_rate(sum(one[1] for one in theirs), len(theirs))}", flush=True)
    for name, batch in (("--exact", {}), ("16 environments", {"envs": 16, "rows": 16})):
        outcomes = evaluate(
            subject.make_world, subject.make_agent, seeds, make_safety=make_safety, jobs=args.jobs, **batch
        )
        both = list(zip(outcomes, theirs, strict=True))
        same = sum((ours.success, ours.steps) == one[1:] and abs(ours.score - one[0]) < 1e-12 for ours, one in both)
        inside = summarise(outcomes)
        print(f"our adapter, {name:<16} success {inside.success}, mean score {inside.score}", flush=True)
        off = max(abs(ours.score - one[0]) for ours, one in both)
        print(f"  {same}/{len(both)} episodes are the plain loop's; largest difference of a score {off:.2g}")
    mean = sum(one[0] for one in theirs) / len(theirs)
    met = "yes" if (inside.score.low or mean) <= mean <= (inside.score.high or mean) else "NO"
    print(f"plain loop's mean score {mean:.3f}; bar: inside the interval through our adapter: {met}")


if __name__ == "__main__":
    main()

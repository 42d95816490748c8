"""Does leaving out demonstrations that do not fit raise success? python tests/benchmarks/bench_compatible.py.

Twenty expert demonstrations of lift are the base; each mixed set adds others. Policies of one size are trained for the
same number of gradient steps on the base, on everything, and on what `robopolicy.quality.compatibility` keeps, and
tried on the same starts.

--novices is the one test of the claim, written down before it was run. Base: 20 expert demonstrations. Candidates: 20
more of the expert and 40 of a novice, who misses, leaves the task and stops in each demonstration and succeeds at last;
demonstrations and starts none of which was used to make the score. Three policies an arm, from different seeds, 1000
steps each, 100 starts each, the same for all: everything (80); base and the candidates that fit; base and as many
candidates drawn at random, since fewer demonstrations get more steps each. The claim holds if the interval of "fit
against all" and that of "fit against random" both lie above 0. Base alone is tried too and decides nothing.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from demonstrations import STATES, record
from policies import arm, compare, compare_trainings

from robopolicy.quality.compatibility import BasePolicy, judge_all
from robopolicy_data.reader import Dataset
from robopolicy_data.windows import load_arrays

BASE = 20
SETS = {
    "two styles": [("expert", BASE), ("other style", 20)],
    "unsteady hands": [("expert", BASE), ("unsteady", 20)],
    "careless": [("expert", BASE), ("hesitant", 20), ("clumsy", 20), ("wandering", 20)],
    "a bit of everything": [
        ("expert", BASE + 10), ("other style", 6), ("unsteady", 6), ("hesitant", 6), ("clumsy", 6), ("wandering", 6),
    ],
}  # fmt: skip

NOVICES = [("expert", BASE + 20), ("novice", 40)]


def choose(data: Path, kinds: list[str]) -> list[int]:
    """Return the positions of the base and of all that fits it, and print what was kept of each kind."""
    dataset = Dataset(data)
    spec = dataset.spec.select(cameras=(), state=STATES)
    base = BasePolicy(load_arrays(dataset, cameras=(), states=STATES, episodes=range(BASE)), spec)
    rest = range(BASE, len(dataset))
    judged = judge_all(base, load_arrays(dataset, cameras=(), states=STATES, episodes=rest))
    fits = [base.fits(j) for j in judged]
    for kind in dict.fromkeys(kinds[BASE:]):
        mine = [i for i in range(len(judged)) if kinds[BASE + i] == kind]
        scores = [judged[i].score for i in mine]
        print(
            f"  {kind:12} fits {sum(fits[i] for i in mine)} of {len(mine)}, "
            f"scores {min(scores):.2f} to {max(scores):.2f}"
        )
    return [*range(BASE), *(BASE + i for i, fit in enumerate(fits) if fit)]


def novices(out: Path, *, steps: int, starts: int, trainings: int, jobs: int) -> None:
    """Run the test of the module's docstring."""
    data = out / "novices.zarr"
    kinds = record(data, NOVICES, 500_000)
    print(f"novices: {len(kinds)} demonstrations, {BASE} of them the base", flush=True)
    fits = choose(data, kinds)
    drawn = np.random.default_rng(0).choice(np.arange(BASE, len(kinds)), len(fits) - BASE, replace=False)
    arms = {"fit": fits, "all": None, "random": [*range(BASE), *sorted(drawn.tolist())], "base alone": range(BASE)}
    won = {}
    for name, episodes in arms.items():
        seeds = range(600_000, 600_000 + starts)
        how = {"steps": steps, "trainings": trainings, "jobs": jobs, "episodes": episodes}
        won[name] = arm(f"novices {name}", data, out, seeds, **how).reshape(trainings, starts)
        if name != "fit":
            print("  " + compare_trainings(f"fit against {name}", won["fit"], won[name]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--starts", type=int, default=100)
    parser.add_argument("--trainings", type=int, default=1, help="of each arm, from different seeds")
    parser.add_argument("--seed", type=int, default=0, help="of the first demonstration")
    parser.add_argument("--novices", action="store_true", help="the test of the claim alone; wants --trainings 3")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("--out", type=Path, help="keep datasets and checkpoints here")
    args = parser.parse_args()
    out = args.out or Path(tempfile.mkdtemp())
    if args.novices:
        novices(out, steps=args.steps, starts=args.starts, trainings=args.trainings, jobs=args.jobs)
        return
    seeds = range(100_000, 100_000 + args.starts)
    how = {"steps": args.steps, "trainings": args.trainings, "jobs": args.jobs}
    base: np.ndarray | None = None
    for name in args.sets:
        data = out / f"{name.replace(' ', '-')}.zarr"
        kinds = record(data, SETS[name], args.seed)
        print(f"{name}: {len(kinds)} demonstrations, {BASE} of them the base", flush=True)
        kept = choose(data, kinds)
        if base is None:
            base = arm("base alone", data, out, seeds, episodes=range(BASE), **how)
        mixed = arm(f"{name} all", data, out, seeds, **how)
        filtered = arm(f"{name} compatible", data, out, seeds, episodes=kept, **how)
        print("  " + compare("compatible against all", filtered, mixed))
        print("  " + compare("compatible against base alone", filtered, base), flush=True)


if __name__ == "__main__":
    main()

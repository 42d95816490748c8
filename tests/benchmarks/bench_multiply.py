"""Do multiplied demonstrations teach more than the few they are made of? python tests/benchmarks/bench_multiply.py.

Records a few expert demonstrations of lift, multiplies them, and trains the same policy for the same number of gradient
steps on each, several times; then plays all on the same starts. Bar: the multiplied ones win, the interval above 0.
With --fresh beside them as many fresh demonstrations of the expert, which is what multiplying would at best be worth.
"""

import argparse
import tempfile
from contextlib import closing
from functools import partial
from pathlib import Path

import torch
from demonstrations import STATES
from policies import arm, compare_trainings

from robopolicy.cli.data_actions.multiply import make_multiplied
from robopolicy.cli.generating import Demonstrator, Generated, Scene, generate
from robopolicy_data.reader import Dataset
from sim_envs.experts import make_expert
from sim_envs.multiplied import plan_of
from sim_envs.segments import Demonstration

ROBOT = "twin:lift"


def made(scene: Scene, path: Path, episodes: int, seed: int, jobs: int) -> Generated:
    """Record ``episodes``; return what it took."""
    with closing(Demonstrator(scene, path)) as demonstrator:
        *_, stands = generate(demonstrator, episodes, held=0, seed=seed, jobs=jobs)
    return stands


def multiplied(few: Path, noise_m: float) -> Scene:
    """Return who multiplies the demonstrations in ``few``."""
    plans = []
    for episode in Dataset(few):
        state = {name: episode.state(name) for name in ("tool_pos", *STATES)}
        plans.append(plan_of("lift", Demonstration(f"episode {episode.number}", episode.action(), state)))
    return Scene(ROBOT, partial(make_multiplied, plans, noise_m), ())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=10)
    parser.add_argument("--many", type=int, default=200)
    parser.add_argument("--noise", type=float, default=0.001, help="m")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--starts", type=int, default=100)
    parser.add_argument("--trainings", type=int, default=3, help="of each arm, from different seeds")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="a third arm: fresh demonstrations")
    parser.add_argument("--out", type=Path, help="keep datasets and checkpoints here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    out = args.out or Path(tempfile.mkdtemp())
    expert = Scene(ROBOT, partial(make_expert, "lift"), ())
    made(expert, out / "few", args.few, args.seed, 1)
    stands = made(multiplied(out / "few", args.noise), out / "many", args.many, args.seed + 10_000, args.jobs)
    print(f"{args.many} of {args.few}: {stands.successes} of {stands.attempts} attempts succeeded", flush=True)
    arms = {f"{args.few} alone": "few", f"{args.many} multiplied of them": "many"}
    if args.fresh:
        made(expert, out / "fresh", args.many, args.seed + 10_000, args.jobs)
        arms[f"{args.many} fresh"] = "fresh"
    seeds, how = range(100_000, 100_000 + args.starts), {"steps": args.steps, "trainings": args.trainings}
    won = [
        arm(label, out / data, out, seeds, jobs=args.jobs, **how).reshape(args.trainings, -1)
        for label, data in arms.items()
    ]
    print("  " + compare_trainings("multiplied against the few", won[1], won[0]))
    if args.fresh:
        print("  " + compare_trainings("multiplied against as many fresh", won[1], won[2]))


if __name__ == "__main__":
    main()

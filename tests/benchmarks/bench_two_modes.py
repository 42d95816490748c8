"""Both sides of a post, never through it: shares of the two modes for each process and solver.

    python tests/benchmarks/bench_two_modes.py [--steps 3000] [--nets mlp unet-small]

Each policy is trained by the trainer on the same 2000 paths, then draws 250 chunks before each of 8 new posts.
The bar: both sides are drawn 40-60 %, the post never hit. "Between" is nearer to the post than half of any path.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from two_modes import print_all, trained

from robopolicy.policies.config import PRESETS, DiffusionConfig
from robopolicy.policies.consistency import ConsistencyConfig
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.processes import EDMConfig, FlowConfig, VPConfig
from robopolicy.policies.solvers import SolverConfig

PAIRS = {
    "vp eps": (VPConfig(), [("ddpm", 100), ("ddim", 16)]),
    "vp x0": (VPConfig(prediction="x0"), [("ddpm", 100), ("ddim", 16), ("ddim", 8), ("dpm++2m", 8)]),
    "vp v": (VPConfig(prediction="v"), [("ddim", 16), ("ancestral", 16)]),
    "edm": (EDMConfig(), [("heun", 8), ("dpm++2m", 8), ("ddim", 3), ("ancestral", 16)]),
    "flow": (FlowConfig(), [("euler", 10), ("heun", 5)]),
    "consistency": (ConsistencyConfig(), [("euler", 100), ("consistency", 1), ("consistency", 2), ("consistency", 4)]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000, help="gradient steps of each training")
    parser.add_argument("--nets", nargs="*", default=["mlp"], choices=["mlp", *(n for n in PRESETS if n != "mlp")])
    parser.add_argument("--processes", nargs="*", default=list(PAIRS), choices=list(PAIRS))
    args = parser.parse_args()
    small = DiffusionConfig(MlpConfig(width=256))
    bad = 0
    for name in args.nets:
        base = small if name == "mlp" else PRESETS[name]
        for label in args.processes:
            process, solvers = PAIRS[label]
            with tempfile.TemporaryDirectory() as out:
                policy = trained(replace(base, process=process), out, steps=args.steps)
            found = print_all(f"{name} {label}", policy, [SolverConfig(*solver) for solver in solvers])
            bad += sum(not (0.4 <= f.left <= 0.6 and 0.4 <= f.right <= 0.6 and f.between < 0.05) for f in found)
    print(f"{bad} of them draw a side less than 40 % or more than 60 %, or hit the post in 5 % or more")


if __name__ == "__main__":
    main()

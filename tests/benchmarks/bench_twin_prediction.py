"""Does an identified twin rank policies as a world does that it has only seen recordings of? The bar's row.

A hidden MuJoCo world with another friction, mass, centre of mass, servo and delay; 12 scripted policies of known
quality; the nominal twin beside the identified one. Both worlds are MuJoCo: they differ in numbers, not in the way
contacts are computed, so what stands here is more than a real robot will give.

python tests/benchmarks/bench_twin_prediction.py [--seeds 50] [--jobs 1] [--plot FILE.png] [--world N] [--from SEED]

World 0 is the one that the policies and the search were made with; the others are drawn by their number, and nobody has
looked at them: `--world 1 --from 1000` is the honest row.
"""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from pushing_worlds import HIDDEN, NOMINAL, Physics, Policy, World, identify

from robopolicy.evaluation.agreement import Agreement, agreement

BARS = 0.98, 0.02  # Pearson r at least, MMRV at most
POLICIES = (
    Policy(0.5),
    Policy(0.15),
    Policy(0.15, lag=1),
    Policy(0.3, noise=0.0008),
    Policy(0.15, noise=0.0012),
    Policy(0.05),
    Policy(0.3, bias=0.006, lag=2),
    Policy(0.15, noise=0.0016),
    Policy(0.05, bias=0.012),
    Policy(0.05, lag=4),
    Policy(0.15, noise=0.003),
    Policy(0.15, noise=0.006),
)
RECORDED = ((0.15, 0.0), (0.4, 0.0), (0.08, 0.01), (0.25, -0.01), (0.5, 0.005), (0.15, 0.015))  # speed, bias


def drawn(number: int) -> Physics:
    """Return hidden world ``number``; half to nearly twice of what is nominal, and what a real servo adds."""
    if number == 0:
        return HIDDEN
    rng = np.random.default_rng(number)
    far = {name: getattr(NOMINAL, name) * rng.uniform(0.5, 1.2) for name in ("table_friction", "pusher_friction", "kv")}
    return replace(
        NOMINAL, **far, mass=NOMINAL.mass * rng.uniform(0.7, 1.7), kp=NOMINAL.kp * rng.uniform(0.5, 1.2),
        com_x=rng.uniform(-0.007, 0.007), com_y=rng.uniform(-0.007, 0.007), delay=rng.uniform(0.01, 0.04),
        joint_friction=rng.uniform(0.2, 1.5), armature=rng.uniform(0.1, 0.5),
    )  # fmt: skip


def outcomes(physics: Physics, policy: Policy, seeds: range) -> list[float]:
    world = World(physics)
    return [float(policy.run(world, seed)) for seed in seeds]


def recordings(hidden: Physics, rng: np.random.Generator, seconds: float = 12.0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ordinary task motion in the hidden world, seen with noise."""
    world = World(hidden)
    return [Policy(speed, bias, noise=0.001).record(world, rng, seconds) for speed, bias in RECORDED]


def table(physics: Physics, seeds: range, jobs: int) -> np.ndarray:
    """Return outcomes (policies, seeds)."""
    if jobs == 1:
        return np.array([outcomes(physics, policy, seeds) for policy in POLICIES])
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        return np.array(list(pool.map(outcomes, [physics] * 12, POLICIES, [seeds] * 12)))


def scatter(path: Path, real: np.ndarray, twins: dict[str, np.ndarray], told: dict[str, Agreement]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 4.5), sharex=True, sharey=True)
    for axis, (name, sim) in zip(axes, twins.items(), strict=True):
        axis.plot([0, 1], [0, 1], color="0.8")
        axis.scatter(sim.mean(axis=1), real.mean(axis=1))
        axis.set(title=f"{name}: r {told[name].pearson.value:.3f}, MMRV {told[name].mmrv.value:.3f}", xlabel="twin")
    axes[0].set_ylabel("hidden world, success")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=50, help="paired starts of each policy")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--world", type=int, default=0, help="number of the hidden world")
    parser.add_argument("--from", dest="first", type=int, default=0, metavar="SEED", help="the first start")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    args = parser.parse_args()
    started, cpu = time.monotonic(), time.process_time()
    hidden, seeds = drawn(args.world), range(args.first, args.first + args.seeds)
    identified, fits = identify(recordings(hidden, rng := np.random.default_rng(1 + args.world)), rng)
    print(f"identified from 6 x 12 s of task motion in {time.monotonic() - started:.0f} s", end="")
    print(f" ({time.process_time() - cpu:.0f} s of CPU)")
    for fit, what in zip(fits, ("the servo, where nothing touches", "the T, where it is pushed"), strict=True):
        print(
            f"{what}: residual {fit.rms_before:.2f} -> {fit.rms_after:.2f} of the noise, condition {fit.condition:.2g}"
        )
        for e in fit.estimates:
            error = "" if e.std_err is None else f"+- {e.std_err:.2g}"
            true = getattr(hidden, e.name, float("nan"))
            line = f"  {e.name:16} nominal {e.nominal:7.3g}  hidden {true:7.3g}  found {e.value:7.3g} "
            print(f"{line}{error:10} {e.status}{': ' + e.note if e.note else ''}")
    started = time.monotonic()
    real, nominal, found = (table(physics, seeds, args.jobs) for physics in (hidden, NOMINAL, identified))
    print(f"{3 * real.size} episodes in {time.monotonic() - started:.0f} s; success of each policy:")
    for policy, *rates in zip(POLICIES, *(t.mean(axis=1) for t in (real, nominal, found)), strict=True):
        told = ", ".join(f"{name} {value:g}" for name, value in vars(policy).items() if value)
        print("  hidden {:.2f}  nominal {:.2f}  identified {:.2f}  ".format(*rates) + told)
    twins = {"nominal": nominal, "identified": found}
    results = {name: agreement(sim=sim, real=real, rng=np.random.default_rng(0)) for name, sim in twins.items()}
    for name, result in results.items():
        print(f"{name:10} {result.headline()}")
    if args.plot is not None:
        scatter(args.plot, real, twins, results)
    told = results["identified"]
    met = told.pearson.value >= BARS[0] and told.mmrv.value <= BARS[1]
    print(
        f"prediction of the hidden world: r {told.pearson.value:.3f}, MMRV {told.mmrv.value:.3f} (nominal "
        f"{results['nominal'].pearson.value:.3f}, {results['nominal'].mmrv.value:.3f})   "
        f"r >= {BARS[0]}, MMRV <= {BARS[1]}   {'yes' if met else 'NO'}"
    )


if __name__ == "__main__":
    main()

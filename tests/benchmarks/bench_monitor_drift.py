"""How often a drift watch warns in vain over a life, and how many episodes it takes to see a drift.

python tests/benchmarks/bench_monitor_drift.py [--lives 1000] [--life 200] [--jobs 2]

A life is a fresh calibration set and the episodes that follow. `against the calibration alone` is the same watch whose
new episodes do not join the ranking: its p-values share the gaps of one calibration set, and a long life finds them.
Shifts are of the largest statistic of an episode, in standard deviations of it; `frozen` is a statistic that stands
still below all of calibration, as of a camera that gives the same picture for ever.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from robopolicy.evaluation.statistics import success_rate
from robopolicy.monitor.drift import DriftWatch

DELTA = 0.01
MOST = 150  # episodes of a drift
KINDS = {"normal": "normal", "heavy-tailed (Cauchy)": "standard_cauchy", "five distinct values": "integers"}


class AgainstCalibration(DriftWatch):
    """What would be wrong: each episode ranked among the calibrating ones alone."""

    def update(self, statistic):
        kept = list(self._ranked)
        drift = super().update(statistic)
        self._ranked = kept
        return drift


def draw(kind: str, rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(5, size=n) if kind == "integers" else getattr(rng, kind)(size=n)


def quiet(seed: int, *, kind: str, n: int, life: int, watch: type[DriftWatch]) -> bool:
    """Whether a life without drift has a warning."""
    rng = np.random.default_rng((seed, n))
    one = watch(draw(kind, rng, n), delta=DELTA, seed=seed)
    return any(one.update(float(value)).warned for value in draw(kind, rng, life))


def shifted(seed: int, *, shift: float | str, n: int, start: int, most: int) -> float:
    """How many episodes after ``start`` quiet ones a shift is warned of; infinity if it is not within ``most``."""
    rng = np.random.default_rng((seed, n, start))
    one = DriftWatch(rng.normal(size=n), delta=DELTA, seed=seed)
    for value in rng.normal(size=start):
        one.update(value)
    side = "low" if shift == "frozen" or float(shift) < 0 else "high"
    for k in range(1, most + 1):
        if one.update(-5.0 if shift == "frozen" else rng.normal() + float(shift)).warned:
            return k if one.warned == side else float("inf")
    return float("inf")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lives", type=int, default=1000)
    parser.add_argument("--life", type=int, default=200, metavar="EPISODES")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    with ProcessPoolExecutor(args.jobs) as pool:
        print(f"warnings in {args.lives} lives of {args.life} episodes without drift, delta {DELTA:.0%}")
        print(f"{'largest statistics':<24}{'n':>5}{'warned':>9}   95 % interval       against the calibration alone")
        for name, kind in KINDS.items():
            for n in (20, 50, 200):
                rates = []
                for watch in (DriftWatch, AgainstCalibration):
                    life = partial(quiet, kind=kind, n=n, life=args.life, watch=watch)
                    rates.append(success_rate(sum(pool.map(life, range(args.lives), chunksize=25)), args.lives))
                ours, peer = rates
                met = "yes" if ours.low <= DELTA else "NO"
                print(f"{name:<24}{n:>5}{ours.value:>9.2%}   {ours.low:.2%} to {ours.high:.2%}  {met:<4}"
                      f"{peer.value:>9.2%}", flush=True)  # fmt: skip
        print(f"\nepisodes from a drift's begin to the warning, median and 9th decile; {MOST} at most, 100 lives")
        print(f"{'shift':<8}{'n':>5}" + "".join(f"{f'after {start} quiet ones':>26}" for start in (0, 50, 200)))
        for shift in (1, 2, 4, -1, -2, -4, "frozen"):
            for n in (10, 20, 50, 200):
                cells = []
                for start in (0, 50, 200):
                    life = partial(shifted, shift=shift, n=n, start=start, most=MOST)
                    after = np.sort(list(pool.map(life, range(100), chunksize=10)))
                    cells.append(f"{after[49]:>16g}{after[89]:>10g}")
                print(f"{shift:<8}{n:>5}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()

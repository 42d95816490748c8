"""How often a calibrated monitor alarms at a success, against what it promised; nothing is assumed of the scores.

python tests/benchmarks/bench_monitor_validity.py [--recalibrations 2000] [--jobs 1]

Exchangeable episodes: three correlated AR(1) scores, normal or heavy-tailed, each episode at a level of its own, of 4
to 25 decisions. Each recalibration draws afresh the episodes that fit scales, bands and weights, those that calibrate
(200 of them: ten disjoint sets of 19, four of 50, one of 200) and 100 on which alarms are counted. `Statistic` and the
threshold by rank are the product's own. The rate must lie in [alpha - 1/(n+1) - .005, alpha + .005]. Beside it stands
`np.quantile` in place of the rank, which is what others do. A few minutes on one core.
"""

import argparse
import itertools
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import exchangeable

from robopolicy.monitor.calibration import Calibration
from robopolicy.monitor.conformal import conformal_rank, conformal_threshold
from robopolicy.monitor.statistic import COMBINATIONS, LOWEST, SHAPES, Combination, Statistic

NS, ALPHAS = (19, 50, 200), (0.05, 0.1, 0.2)
FIT, TESTED, FAILURES = 20, 100, 12
SLACK = 0.005
SMOOTHINGS = ((4, 0), (1, 2), (3, 1))  # window, patience
NAMES = tuple(f"score {i}" for i in range(exchangeable.SCORES))


def combinations() -> list[Combination]:
    """Every one that is tried."""
    words: Any = [*itertools.product(COMBINATIONS, SHAPES, [(1, 0)]), *itertools.product(["sum"], SHAPES, SMOOTHINGS)]
    return [Combination(combine, window, patience, shape) for combine, shape, (window, patience) in words]


def recalibration(law: int, seed: int, hows: list[Combination]) -> np.ndarray:
    """Return the share of fresh successes that alarm (combinations, n, alpha, 2): by the rank and by `np.quantile`."""
    rng, one = np.random.default_rng((seed, law)), exchangeable.LAWS[law]
    fit, calibrate, tested = (exchangeable.episodes(one, rng, n) for n in (FIT, max(NS), TESTED))
    failures = exchangeable.episodes(one, rng, FAILURES, failed=True)
    lengths = np.array([len(scores) for scores in calibrate])
    rates = np.zeros((len(hows), len(NS), len(ALPHAS), 2))
    for i, how in enumerate(hows):
        statistic = Statistic.fit(NAMES, fit, how, failures if how.combine == "logistic" else ())
        so_far = largest_so_far(statistic, [*calibrate, *tested])
        z, fresh = so_far[: max(NS), -1], so_far[max(NS) :]
        calibration = Calibration(tuple(statistic.trace(scores) for scores in calibrate[: min(NS)]), min(ALPHAS))
        assert calibration.threshold == conformal_threshold(z[: min(NS)], min(ALPHAS))
        for j, n in enumerate(NS):
            sets = max(NS) // n
            sorted_z = np.sort(z[: sets * n].reshape(sets, n), axis=1)
            longest = lengths[: sets * n].reshape(sets, n).max(axis=1)
            now = fresh[:, longest - 1]  # (TESTED, sets): beyond the longest one the scores are not asked
            for k, alpha in enumerate(ALPHAS):
                ranked = sorted_z[:, conformal_rank(n, alpha) - 1]
                quantile = np.quantile(sorted_z, 1 - alpha, axis=1)
                rates[i, j, k] = (now > ranked).mean(), (now > quantile).mean()
    return rates


def largest_so_far(statistic: Statistic, episodes: list[np.ndarray]) -> np.ndarray:
    """Return the largest statistic up to each decision (N, longest); of `Statistic.trace`, but of all episodes at once.

    That it is the same, to the bit, is asserted of a few.
    """
    how, band = statistic.how, statistic.arrays()["band"]
    lengths = np.array([len(scores) for scores in episodes])
    steps = np.arange(exchangeable.LENGTHS[1])
    inside = steps < lengths[:, None]
    combined = np.zeros(inside.shape)
    combined[inside] = statistic._combine(np.concatenate(episodes))
    total = np.zeros(inside.shape)
    for lag in range(how.window):
        total[:, lag:] += combined[:, : len(steps) - lag]
    centre, spread = band[np.minimum(steps, len(band) - 1)].T
    shaped = (total / np.minimum(steps + 1, how.window) - centre) / spread
    patient = shaped.copy()
    for lag in range(1, how.patience + 1):
        patient[:, lag:] = np.minimum(patient[:, lag:], shaped[:, : len(steps) - lag])
    patient[:, : how.patience] = LOWEST
    for i in range(0, len(episodes), 100):
        assert np.array_equal(statistic.trace(episodes[i]), patient[i, : lengths[i]])
    patient[~inside] = -np.inf
    return np.maximum.accumulate(patient, axis=1)


def measure(law: int, hows: list[Combination], recalibrations: int, pool: ProcessPoolExecutor) -> np.ndarray:
    """Return the mean rate (combinations, n, alpha, 2) over fresh recalibrations."""
    each = pool.map(recalibration, itertools.repeat(law), range(recalibrations), itertools.repeat(hows), chunksize=10)
    return np.sum(list(each), axis=0) / recalibrations


def within(rate: float, n: int, alpha: float) -> bool:
    """Whether a measured rate keeps the promise, and does not keep it by never alarming."""
    return alpha - 1 / (n + 1) - SLACK <= rate <= alpha + SLACK


def main() -> int:
    """Print the table; 1 if a combination is not within."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recalibrations", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    hows, start_s, good, count = combinations(), time.monotonic(), 0, 0
    print(f"false alarms an episode, {args.recalibrations} recalibrations; np.quantile in brackets")
    with ProcessPoolExecutor(args.jobs) as pool:
        for law, one in enumerate(exchangeable.LAWS):
            rates = measure(law, hows, args.recalibrations, pool)
            print(f"\n{one.name}")
            cases = list(itertools.product(range(len(NS)), range(len(ALPHAS))))
            print(f"{'':<44}" + "".join(f"{f'n {NS[j]}, {ALPHAS[k]:g}':>16}" for j, k in cases))
            for how, row in zip(hows, rates, strict=True):
                cells = ""
                for j, k in cases:
                    rate, met = row[j, k, 0], within(row[j, k, 0], NS[j], ALPHAS[k])
                    good, count = good + met, count + 1
                    cells += f"{rate:>8.4f}{'' if met else '!'}{f'({row[j, k, 1]:.3f})':>{8 if met else 7}}"
                name = f"{how.combine}, {how.shape}, window {how.window}, patience {how.patience}"
                print(f"{name:<44}{cells}", flush=True)
            spread = [f"{rates[:, j, k, 0].min():.4f}..{rates[:, j, k, 0].max():.4f}" for j, k in cases]
            print(f"{'least and most':<44}" + "".join(f"{words:>16}" for words in spread))
    print(f"\n{good} of {count} combinations within, in {(time.monotonic() - start_s) / 60:.1f} min")
    return 0 if good == count else 1


if __name__ == "__main__":
    sys.exit(main())

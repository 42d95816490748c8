"""What the statistics of an evaluation promise, held against policies of known success and known modes.

python tests/benchmarks/bench_statistics.py [--runs 10000]

Coverage of an interval is a sum over all outcomes where that is possible, else a part of ``--runs`` evaluations. The
peers' way is what other projects print or do: a success rate with a normal interval or none, and a test of fixed size
looked at whenever there is a new result. Power is the part of evaluations in which the better policy has been found.
"""

import argparse
import sys
import time
from math import log
from pathlib import Path

import numpy as np
from scipy.stats import binom, binomtest

sys.path.insert(0, str(Path(__file__).parents[1]))
import simulated_policies as simulated

from robopolicy.evaluation.comparison import holm
from robopolicy.evaluation.entropy import behaviour_entropy
from robopolicy.evaluation.paired import difference
from robopolicy.evaluation.sequential import anytime_difference, log_wealth, pairs_needed
from robopolicy.evaluation.statistics import mean_score, median_of, success_rate

ALPHA = 0.05
RATES = np.linspace(0.005, 0.995, 199)
POLICIES = ((0.7, 0.5, 0.3), (0.7, 0.5, 0.6), (0.9, 0.5, 0.3), (0.85, 0.7, 0.3), (0.6, 0.5, 0.6))  # A, B, correlation


def row(what: str, value: str, target: str = "", met: bool | None = None, peers: str = "") -> None:
    said = "" if met is None else ("yes" if met else "NO")
    print(f"{what:<66}{value:>13}{target:>11}{said:>5}   {peers}")


def at_least(held: float, runs: int) -> bool:
    """Whether so large a part of so many simulated evaluations is consistent with a coverage of 95 %."""
    return held >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / runs)


def coverage(low: np.ndarray, high: np.ndarray, n: int) -> float:
    """The least chance, over all rates, that limits (n + 1,) by the number of successes hold the rate."""
    chance = binom.pmf(np.arange(n + 1), n, RATES[:, None])
    return float((chance * ((low <= RATES[:, None]) & (RATES[:, None] <= high))).sum(axis=1).min())


def of_one_policy(runs: int, rng: np.random.Generator) -> None:
    for n in (20, 50, 200):
        exact = [success_rate(k, n) for k in range(n + 1)]
        p = np.arange(n + 1) / n
        half = 1.96 * np.sqrt(p * (1 - p) / n)
        least = coverage(np.array([r.low for r in exact]), np.array([r.high for r in exact]), n)
        row(f"success, least coverage over all rates, {n} episodes", f"{least:.3f}", ">= .95", least >= 0.95,
            f"normal interval {coverage(p - half, p + half, n):.3f}")  # fmt: skip
    for n in (8, 40):
        times = rng.lognormal(0, 1, (runs, n))
        held = np.mean([m.low <= 1 <= m.high for m in map(median_of, times)])
        row(f"median time to success, coverage, {n} successes", f"{held:.3f}", ">= .95", at_least(held, runs))

    for best in (0.5, 0.9):  # part of the episodes with the best score; the others anything from 0 to 0.8
        scores = np.where(rng.random((runs // 5, 50)) < best, 1.0, 0.8 * rng.random((runs // 5, 50)))
        true = best + (1 - best) * 0.4
        means = [mean_score(one) for one in scores]
        held = np.mean([m.low is not None and m.low <= true <= m.high for m in means])
        row(f"mean score (Student's t), 50 episodes, {best:.0%} with the best score", f"{held:.3f}", "about .95", None,
            "the same interval")  # fmt: skip


def of_two_policies(runs: int, rng: np.random.Generator) -> None:
    for n in (8, 16):
        a_only, b_only = simulated.tables(n)
        limits = [difference(int(a), int(b), n) for a, b in zip(a_only, b_only, strict=True)]
        low, high = (np.array([getattr(d, name) for d in limits]) for name in ("low", "high"))
        least = 1.0
        for p in np.linspace(0.003, 0.97, 40):
            for q in np.linspace(0.0017, 0.97, 40):
                if p + q < 0.99:
                    held = (low <= p - q + 1e-9) & (p - q - 1e-9 <= high)
                    least = min(least, simulated.chances(a_only, b_only, n, p, q)[held].sum())
        row(f"paired difference, least coverage over all rates, {n} pairs", f"{least:.4f}", ">= .95", least >= 0.9499)
    for p, q in ((0.05, 0.01), (0.3, 0.1)):
        drawn = rng.multinomial(100, [p, q, 1 - p - q], runs)
        kinds, counts = np.unique(drawn[:, :2], axis=0, return_counts=True)
        limits = [difference(int(a), int(b), 100) for a, b in kinds]
        held = np.array([d.low <= p - q <= d.high for d in limits])
        half = 1.96 * np.sqrt((drawn[:, 0] + drawn[:, 1] - (drawn[:, 0] - drawn[:, 1]) ** 2 / 100) / 1e4)
        wald = (np.abs((drawn[:, 0] - drawn[:, 1]) / 100 - (p - q)) <= half).mean()
        value = (held * counts).sum() / runs
        row(f"paired difference, coverage, 100 pairs, only A {p:.0%}, only B {q:.0%}", f"{value:.4f}", ">= .95",
            at_least(value, runs), f"normal interval {wald:.3f}")  # fmt: skip


def sequential(runs: int, rng: np.random.Generator) -> None:
    p_values = np.ones((301, 301))
    for n in range(1, 301):
        for k in range(n + 1):
            p_values[k, n - k] = min(1.0, 2 * binom.cdf(min(k, n - k), n, 0.5))
    assert np.isclose(p_values[18, 4], binomtest(18, 22).pvalue)
    for success, discordant in ((0.5, 0.5), (0.7, 0.2), (0.95, 0.06)):
        differences = simulated.pairs(success, success, discordant, (runs, 300), rng)
        false = (simulated.log_e(differences).max(axis=1) >= log(1 / ALPHA)).mean()
        looked = p_values[(differences > 0).cumsum(axis=1), (differences < 0).cumsum(axis=1)].min(axis=1) <= ALPHA
        row(f"false verdicts of {runs:,}, asked after each of 300 pairs, {success:.0%} both", f"{false:.4f}",
            f"<= {ALPHA}", false <= ALPHA, f"McNemar after each pair {looked.mean():.3f}")  # fmt: skip
    three = simulated.pairs(0.6, 0.6, 0.3, (runs // 5, 3, 200), rng)  # three comparisons, independent: the worst
    largest = simulated.log_e(three).max(axis=2)
    family = np.mean([any(holm(np.exp(-row_), ALPHA)) for row_ in largest])
    row("false verdicts in a family of three comparisons (Holm)", f"{family:.4f}", f"<= {ALPHA}", family <= ALPHA)
    seen = 0
    for differences in simulated.pairs(0.7, 0.5, 0.4, (runs // 20, 100), rng):
        counts = [(differences[:n] == k).sum() for n in range(1, 101) for k in (-1, 0, 1)]
        each = np.reshape(counts, (100, 3))
        seen += any(log_wealth(np.array([-1.0, 0, 1]), c, 0.2) >= log(1 / ALPHA) for c in each)
    held = 1 - seen / (runs // 20)
    met = at_least(held, runs // 20)
    row("interval at any time, coverage at all of 100 times at once", f"{held:.4f}", ">= .95", met)


def power(runs: int, rng: np.random.Generator) -> None:
    print("\npower: the better policy found" + " " * 37 + "50 pairs  100 pairs  200 pairs    80 % after    as said")
    for a, b, phi in POLICIES:
        rate = simulated.discordance(a, b, phi)
        trace = np.maximum.accumulate(simulated.log_e(simulated.pairs(a, b, rate, (runs // 2, 1500), rng)), axis=1)
        found = trace >= log(1 / ALPHA)
        after = int(np.argmax(found.mean(axis=0) >= 0.8)) + 1
        said = pairs_needed(a - b, rate)
        at = "".join(f"{found[:, n - 1].mean():>10.2f} " for n in (50, 100, 200))
        print(f"  {a:.0%} against {b:.0%} success, outcomes that correlate by {phi}"
              f"{'':>9}{at}{after:>9} pairs{said:>11}")  # fmt: skip


def modes(rng: np.random.Generator) -> None:
    print()
    for size in (2, 24):
        names = [f"mode {i}" for i in range(size)]
        for what, chances, good in (
            ("every mode", np.full(size, 1 / size), lambda v: v > 0.95),
            ("one mode", np.eye(size)[0], lambda v: v < 0.05),
        ):
            drawn = dict(zip(names, rng.multinomial(200, chances).tolist(), strict=True))
            found = behaviour_entropy(drawn, rng=rng)
            row(f"behaviour entropy of {what} of {size}, 200 successes", f"{found.value:.3f}",
                "~ 1" if what == "every mode" else "~ 0", good(found.value), str(found))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000, help="evaluations simulated a row")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, start_s = np.random.default_rng(options.seed), time.process_time()
    anytime_difference([1.0, -1.0])
    row("", "measured", "bar", None, "the peers' way")
    of_one_policy(options.runs, rng)
    of_two_policies(options.runs, rng)
    sequential(options.runs, rng)
    power(options.runs, rng)
    modes(rng)
    print(f"\n{time.process_time() - start_s:.0f} s of CPU")


if __name__ == "__main__":
    main()

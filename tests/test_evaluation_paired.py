"""The exact interval of a paired difference, and the exact tests: against tables, scipy and every possible outcome."""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).parent))
import simulated_policies as simulated

from robopolicy.errors import ContractError
from robopolicy.evaluation import paired
from robopolicy.evaluation.paired import difference, mcnemar, score_statistic


@cache
def interval(a_only, b_only, n):
    found = difference(a_only, b_only, n)
    return found.low, found.high


def test_score_interval_is_where_the_score_test_just_rejects(monkeypatch):
    monkeypatch.setattr(paired, "EXACT_PAIRS", 0)
    found = difference(12, 2, 50)
    assert found.method == "score"
    for limit in (found.low, found.high):  # the rate of "only B" by numbers, not by the root of an equation
        lowest, highest = max(0.0, -limit) + 1e-12, (1 - limit) / 2 - 1e-12
        only_b = minimize_scalar(
            lambda q, d=limit: -(12 * np.log(q + d) + 2 * np.log(q) + 36 * np.log(1 - 2 * q - d)),
            bounds=(lowest, highest), method="bounded", options={"xatol": 1e-12},
        ).x  # fmt: skip
        score = (12 - 2 - 50 * limit) / np.sqrt(50 * (2 * only_b + limit * (1 - limit)))
        assert abs(score) == pytest.approx(1.959964, abs=1e-3)
    assert (found.low, found.high) == pytest.approx((0.0611, 0.3447), abs=1e-4)


def test_the_nuisance_is_the_likeliest_one():
    for a_only, b_only, n, d in ((18, 4, 100, 0.05), (3, 9, 40, 0.3), (0, 0, 30, 0.1), (5, 0, 20, -0.2)):
        q = np.linspace(max(0, -d), (1 - d) / 2, 200_001)[1:-1]
        likelihood = a_only * np.log(q + d) + b_only * np.log(q) + (n - a_only - b_only) * np.log(1 - 2 * q - d)
        found = float(paired._nuisance(np.array(float(a_only)), np.array(float(b_only)), n, d))
        assert found == pytest.approx(q[likelihood.argmax()], abs=1e-4)


def test_the_tail_by_columns_is_the_sum_over_all_tables():
    n, d = 12, 0.1
    states = np.arange(n + 1)
    better = (states[:, None] + states[None] <= n) & (score_statistic(states[:, None], states[None], n, d) >= 0.7)
    a_only, b_only = np.nonzero(better)
    lowest, highest = max(0.0, -d), (1 - d) / 2
    grid = lowest + (highest - lowest) * np.linspace(0, 1, paired.NUISANCE) ** 2
    by_hand = max(simulated.chances(a_only, b_only, n, q + d, q).sum() for q in grid)
    assert paired._largest_chance(better, n, d) == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize("n", [5, 10])
def test_the_exact_interval_covers_at_least_what_it_says_for_every_pair_of_rates(n):
    a_only, b_only = simulated.tables(n)
    limits = np.array([interval(int(a), int(b), n) for a, b in zip(a_only, b_only, strict=True)])
    worst = 1.0
    for p in np.linspace(0.003, 0.93, 24):
        for q in np.linspace(0.0017, 0.97 - p, 12):
            if q < 0:
                continue
            held = (limits[:, 0] <= p - q + 1e-9) & (p - q - 1e-9 <= limits[:, 1])
            worst = min(worst, simulated.chances(a_only, b_only, n, p, q)[held].sum())
    assert worst >= 0.95 - 1e-4
    assert worst < 0.99, "not by being far too wide"


@pytest.mark.slow
def test_it_covers_at_a_hundred_pairs_where_the_approximation_does_not(monkeypatch):
    p, q, n = 0.05, 0.01, 100
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(n, [p, q, 1 - p - q], 1500)
    held = [interval(int(a), int(b), n)[0] <= p - q <= interval(int(a), int(b), n)[1] for a, b, _ in drawn]
    assert np.mean(held) >= 0.95
    a_only, b_only = simulated.tables(n)
    chance = simulated.chances(a_only, b_only, n, p, q)
    likely = chance > 1e-6
    monkeypatch.setattr(paired, "EXACT_PAIRS", 0)
    limits = [difference(int(a), int(b), n) for a, b in zip(a_only[likely], b_only[likely], strict=True)]
    covered = sum(c for c, d in zip(chance[likely], limits, strict=True) if d.low <= p - q <= d.high)
    assert covered < 0.94


def test_sides_are_each_others_mirror_and_ends_are_ends():
    first, second = difference(18, 4, 100), difference(4, 18, 100)
    assert (first.low, first.high) == pytest.approx((-second.high, -second.low), abs=1e-6)
    assert first.low > 0
    none = difference(0, 0, 100)
    assert none.low == pytest.approx(-none.high, abs=1e-6)
    assert 0.03 < none.high < 0.04
    assert difference(10, 0, 10).high == 1.0
    assert difference(1, 0, 1).low < -0.9
    assert str(first) == "+14.0% [+4.7%, +24.0%]"


@pytest.mark.parametrize("counts", [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(ContractError, match="discordant"):
        difference(*counts)


def test_mcnemar_is_the_exact_binomial_one():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(18, 4) == binomtest(18, 22).pvalue
    assert mcnemar(10, 2) == pytest.approx(0.0386, abs=1e-4)  # of any textbook

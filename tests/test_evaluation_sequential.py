"""The sequential test, its interval and the order of its pairs: against formulas, and over simulated policies."""

import sys
from math import inf, log
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import beta

sys.path.insert(0, str(Path(__file__).parent))
import simulated_policies as simulated

from robopolicy.errors import ContractError
from robopolicy.evaluation.sequential import (
    InSeedOrder,
    Sequential,
    anytime_difference,
    log_e,
    log_wealth,
    pairs_needed,
)

RUNS = 10_000


def fed(differences, alpha=0.05):
    test = Sequential(alpha)
    for d in differences:
        test.add(d > 0, d < 0)
    return test


def test_e_is_the_published_mixture():
    for b, c in ((0, 0), (1, 0), (18, 4), (3, 9), (40, 41)):
        assert log_e(b, c) == pytest.approx(log(beta(b + 1, c + 1)) + (b + c) * log(2), abs=1e-9)
    assert log_e(18, 4) == pytest.approx(log(24.93), abs=1e-3)


def test_betting_on_any_mean_is_a_mean_over_stakes():
    x, d = np.array([0.3, -0.7, 1.0]), 0.2
    values, counts = np.unique(x, return_counts=True)
    low, high = -1 / (1 - d), 1 / (1 + d)
    by_hand, _ = quad(lambda stake: float(np.prod(1 + stake * (x - d))) / (high - low), low, high)
    assert log_wealth(values, counts, d) == pytest.approx(log(by_hand), abs=1e-9)


def test_success_is_the_case_of_scores_of_0_and_1(monkeypatch):
    differences = simulated.pairs(0.7, 0.5, 0.4, (60,), np.random.default_rng(0))
    plain, graded = fed(differences), Sequential()
    graded._graded = True
    for d in differences:
        graded.add(float(d > 0), float(d < 0))
    np.testing.assert_allclose(plain.log_e, graded.log_e, atol=1e-9)


def test_a_verdict_comes_when_e_is_large_enough_and_stays():
    test = Sequential(0.05)
    said = [test.add(True, False) for _ in range(8)]
    assert said == [False] * 7 + [True], "2 ** n / (n + 1) is 16 for n = 7, and 28 for n = 8"
    assert (test.decided_after, test.better, test.a_better, test.b_better) == (8, "a", 8, 0)
    assert test.e_value == pytest.approx(2**8 / 9)
    for _ in range(30):
        test.add(False, True)
    assert (test.decided, test.better, test.decided_after) == (True, "a", 8)
    assert test.largest_e == pytest.approx(max(2**8 / 9, test.e_value))
    assert test.p_value == pytest.approx(1 / test.largest_e)
    assert fed([-1] * 8).better == "b"


def test_pairs_that_come_out_alike_tell_nothing():
    assert fed([0] * 50).log_e == [0.0] * 50
    assert fed([1, 0, 0, 1]).log_e[-1] == fed([1, 1]).log_e[-1]


def test_what_is_no_outcome_is_refused():
    with pytest.raises(ContractError, match="between 0 and 1"):
        Sequential().add(1.2, 0.0)
    with pytest.raises(ContractError, match="between 0 and 1"):
        Sequential().add(float("nan"), 0.0)
    for alpha in (0.0, 1.0, -1):
        with pytest.raises(ContractError, match="alpha"):
            Sequential(alpha)
    for wrong in ([], [1.5], [float("nan")]):
        with pytest.raises(ContractError, match="between -1 and 1"):
            anytime_difference(wrong)


@pytest.mark.parametrize(("p", "discordant"), [(0.5, 0.5), (0.9, 0.18), (0.7, 0.1)])
def test_false_verdicts_are_rarer_than_alpha_though_asked_after_every_pair(p, discordant):
    rng = np.random.default_rng(1)
    differences = simulated.pairs(p, p, discordant, (RUNS, 300), rng)
    trace = simulated.log_e(differences)
    np.testing.assert_allclose(trace[0], fed(differences[0]).log_e, atol=1e-9)
    false = (trace.max(axis=1) >= log(20)).mean()
    assert 0.001 < false <= 0.05, "never is no test either"


def test_scores_that_are_as_good_get_no_verdict_either():
    rng = np.random.default_rng(2)
    false = 0
    for _ in range(400):
        test = Sequential()
        start = rng.random(60)
        noise = rng.normal(0, 0.3, (2, 60))
        for a, b in np.clip(start + noise, 0, 1).T:
            test.add(a, b)
        false += test.decided
    assert false / 400 <= 0.05


def test_a_better_policy_is_found_in_as_many_pairs_as_was_said():
    for a, b, phi in ((0.7, 0.5, 0.6), (0.9, 0.6, 0.3)):
        rate = simulated.discordance(a, b, phi)
        needed = pairs_needed(a - b, rate)
        differences = simulated.pairs(a, b, rate, (4000, 2 * needed), np.random.default_rng(3))
        first = (simulated.log_e(differences) >= log(20)).argmax(axis=1)
        never = simulated.log_e(differences).max(axis=1) < log(20)
        pairs = np.where(never, inf, first + 1)
        assert (pairs <= needed).mean() == pytest.approx(0.8, abs=0.06)


def test_impossible_plans_are_refused():
    with pytest.raises(ContractError, match="not 0"):
        pairs_needed(0.0, 0.2)
    with pytest.raises(ContractError, match="power"):
        pairs_needed(0.1, 0.2, power=1.0)
    assert pairs_needed(0.1, 0.0) == pairs_needed(-0.1, 0.1), "as many as differ at least"


def test_the_interval_leaves_out_nothing_exactly_when_the_test_has_decided():
    rng = np.random.default_rng(4)
    for _ in range(60):
        differences = simulated.pairs(0.75, 0.5, 0.45, (int(rng.integers(5, 80)),), rng)
        test, interval = fed(differences), anytime_difference(differences)
        assert (test.log_e[-1] >= log(20)) == (not interval.low <= 0 <= interval.high)
        assert interval.low <= interval.value <= interval.high
        assert interval.value == pytest.approx(differences.mean())
    sure = anytime_difference([1.0] * 10)
    assert (sure.value, sure.high) == (1.0, 1.0)
    mirrored = anytime_difference([-1.0] * 10)
    assert (mirrored.low, mirrored.high) == pytest.approx((-1.0, -sure.low))


def test_the_interval_covers_at_every_time_at_once():
    true, missed, runs = 0.2, 0, 300
    differences = simulated.pairs(0.7, 0.5, 0.4, (runs, 100), np.random.default_rng(5))
    for row in differences:
        for n in range(5, 101, 5):
            counts = np.array([(row[:n] < 0).sum(), (row[:n] == 0).sum(), (row[:n] > 0).sum()])
            if log_wealth(np.array([-1.0, 0.0, 1.0]), counts, true) >= log(20):  # the interval leaves out the truth
                missed += 1
                break
    assert missed / runs <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)
    assert missed > 0


def test_pairs_count_in_the_order_of_their_seeds_in_whatever_order_they_come():
    rng = np.random.default_rng(6)
    seeds = list(range(100, 160))
    a, b = rng.random(60) < 0.8, rng.random(60) < 0.5
    whole = Sequential()
    for first, second in zip(a, b, strict=True):
        if whole.add(first, second):
            break
    assert whole.decided
    for _ in range(5):
        order = InSeedOrder(seeds)
        said = []
        for k in rng.permutation(120):
            side, i = ("a", "b")[k % 2], k // 2
            said.append(order.tell(side, seeds[i], (a, b)[k % 2][i]))
        assert order.test.decided_after == whole.decided_after
        assert order.counted == seeds[: whole.decided_after], "and none after the verdict"
        assert said[-1] is True


def test_an_episode_that_broke_takes_its_pair_with_it():
    order = InSeedOrder([1, 2, 3])
    assert not order.tell("a", 2, True)
    order.tell("b", 2, False)
    assert order.counted == [], "the first pair is still out"
    order.tell("a", 1, None)
    order.tell("b", 1, True)
    assert (order.missing, order.counted) == ([1], [2])
    order.tell("a", 3, True)
    order.tell("a", 3, False)  # told twice: the first counts
    order.tell("b", 3, False)
    assert order.test.a_better == 2
    with pytest.raises(ContractError, match="'a' or 'b'"):
        order.tell("c", 1, True)


def test_the_order_of_arrival_would_lie():
    """Equally good policies: A fails late, B fails early, so pairs that only A solved arrive first."""
    rng = np.random.default_rng(7)
    lied = held = 0
    for _ in range(100):
        differences = simulated.pairs(0.6, 0.6, 0.4, (100,), rng)
        arrival = np.argsort(np.where(differences > 0, 5, np.where(differences < 0, 20, 15)), kind="stable")
        lied += fed(differences[arrival]).decided
        order = InSeedOrder(range(100))
        for i in arrival:
            order.tell("a", int(i), bool(differences[i] > 0))
            order.tell("b", int(i), bool(differences[i] < 0))
        held += order.test.decided
    assert lied > 90
    assert held <= 12

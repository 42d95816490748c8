"""Policies on different starts: the exact test, the interval and the words."""

import numpy as np
import pytest
from scipy.stats import binom

from robopolicy.errors import ContractError, EvaluationError
from robopolicy.evaluation.outcomes import Outcome
from robopolicy.evaluation.statistics import success_rate
from robopolicy.evaluation.unpaired import boschloo, compare_unpaired, unpaired_difference


def episodes(successes, n, first=0):
    return [Outcome(first + i, i < successes) for i in range(n)]


def test_boschloo_of_the_paper_and_of_equal_rates():
    assert boschloo(7, 15, 12, 15) == pytest.approx(2 * 0.0342, abs=2e-3)  # scipy's own example, one-sided .0342
    assert boschloo(5, 10, 5, 10) > 0.9
    assert boschloo(0, 10, 0, 12) == boschloo(10, 10, 12, 12) == 1.0
    with pytest.raises(ContractError, match="11 of 10"):
        boschloo(11, 10, 0, 10)


def test_the_interval_covers_about_what_it_says():
    n, m = 20, 30
    k, l = np.meshgrid(np.arange(n + 1), np.arange(m + 1), indexing="ij")
    found = [[unpaired_difference(success_rate(i, n), success_rate(j, m)) for j in range(m + 1)] for i in range(n + 1)]
    low, high = (np.array([[getattr(d, name) for d in row] for row in found]) for name in ("low", "high"))
    covered = []
    for p in np.linspace(0.05, 0.95, 10):
        for q in np.linspace(0.05, 0.95, 10):
            chance = binom.pmf(k, n, p) * binom.pmf(l, m, q)
            covered.append(chance[(low <= p - q) & (p - q <= high)].sum())
    assert min(covered) > 0.92
    assert np.mean(covered) >= 0.95
    assert found[20][0].value == 1.0
    assert found[20][0].high == 1.0


def test_verdicts_on_different_starts():
    found = {
        (one.a, one.b): one
        for one in compare_unpaired({"a": episodes(45, 50), "b": episodes(10, 40, 500), "c": episodes(12, 40, 900)})
    }
    assert (found["a", "b"].better, found["a", "c"].better, found["b", "c"].better) == ("a", "a", "")
    assert sorted(one.threshold for one in found.values()) == pytest.approx([0.05 / 3, 0.05 / 2, 0.05])
    assert (
        found["a", "b"].verdict().startswith("a is better than b: a 45 of 50 against 10 of 40, different starts, Bosch")
    )
    assert "(Holm, 3 comparisons)" in found["a", "b"].verdict()
    assert found["b", "c"].verdict().startswith("not decided between b and c: 10 of 40 against 12 of 40")
    turned = compare_unpaired({"b": episodes(10, 40), "a": episodes(45, 50)})[0]
    assert turned.verdict().startswith("a is better than b: b 10 of 40 against 45 of 50")
    strict = compare_unpaired({"b": episodes(10, 40), "a": episodes(45, 50)}, alpha=0.01)[0].difference
    assert strict.confidence == 0.99
    assert strict.low < turned.difference.low
    with pytest.raises(EvaluationError, match="none of 1 episodes has an outcome"):
        compare_unpaired({"a": episodes(3, 4), "b": [Outcome(1, error="broke")]})

"""Behaviour entropy: D3IL's definition, what is known of its bias, and simulated policies of known modes."""

import numpy as np
import pytest
from scipy.stats import binom
from scipy.stats import entropy as shannon

from robopolicy.errors import ContractError
from robopolicy.evaluation.entropy import behaviour_entropy, conditional_entropy, entropy_of
from robopolicy.evaluation.outcomes import Outcome


def of(counts, seed=0, **options):
    named = {f"mode {i}": int(count) for i, count in enumerate(counts)}
    return behaviour_entropy(named, rng=np.random.default_rng(seed), **options)


@pytest.mark.parametrize("modes", [2, 4, 24])
def test_a_policy_that_takes_every_mode_scores_1_and_one_that_takes_one_0(modes):
    rng = np.random.default_rng(0)
    every = of(rng.multinomial(40 * modes, np.full(modes, 1 / modes)))
    assert every.value > 0.97
    assert every.high == 1.0
    single = of([40 * modes, *[0] * (modes - 1)])
    assert single.value == 0.0
    assert str(single.value) == "0.0", "no -0.0"
    assert single.low == 0.0
    assert 0 < single.high < 0.3, "a mode that was never seen is not one that is never taken"
    half = of([40] * (modes // 2) + [0] * (modes - modes // 2))
    assert half.value == pytest.approx(np.log(modes // 2) / np.log(modes))


def test_the_value_is_shannons_to_the_base_of_the_number_of_modes():
    counts = [12, 5, 0, 3]
    found = of(counts)
    assert found.value == pytest.approx(shannon(counts, base=4))
    assert found.corrected == pytest.approx(found.value + 2 / (2 * 20 * np.log(4)))
    assert of([5, 5]).corrected == 1.0
    assert found.counts == {"mode 0": 12, "mode 1": 5, "mode 2": 0, "mode 3": 3}


def test_few_successes_score_low_and_that_is_said():
    few = of([1] * 10 + [0] * 14)
    p = binom.pmf(np.arange(11), 10, 1 / 24)
    shares = np.arange(1, 11) / 10
    exact = 24 * (p[1:] * -shares * np.log(shares)).sum() / np.log(24)
    assert few.ceiling == pytest.approx(exact, abs=0.01)
    assert few.scarce
    assert "few: all modes equally often would score 0.65" in str(few)
    assert "10 of 24 modes in 10 successes" in str(few)
    assert "few" not in str(of([60, 50]))


@pytest.mark.parametrize("chances", [(0.5, 0.5), (0.7, 0.3), (1.0, 0.0), (0.25,) * 4, (0.5, 0.3, 0.15, 0.05)])
@pytest.mark.parametrize("n", [10, 40])
def test_the_interval_covers_the_entropy_of_a_simulated_policy(chances, n):
    rng, true = np.random.default_rng(1), float(shannon(chances, base=len(chances)))
    found = [of(rng.multinomial(n, chances), seed, resamples=300) for seed in range(150)]
    covered = np.mean([entropy.low - 1e-9 <= true <= entropy.high + 1e-9 for entropy in found])
    assert covered >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / 150)


def test_the_bootstrap_is_moved_by_what_resampling_loses_once_more():
    counts = np.array([40, 12, 5, 3])
    found = of(counts, resamples=20_000)
    drawn = np.random.default_rng(9).multinomial(60, counts / 60, 20_000)
    again = np.array([shannon(row, base=4) for row in drawn[:4000]])
    low, high = np.quantile(again, [0.025, 0.975])
    moved = found.corrected - again.mean()
    assert moved > 0.02
    assert (found.low, found.high) == pytest.approx((low + moved, high + moved), abs=0.015)


def test_the_entropy_from_each_start_by_itself():
    starts = {
        "left of it": {"left": 20, "right": 0},
        "right of it": {"left": 0, "right": 20},
        "before it": {"left": 10, "right": 10},
        "never": {"left": 0, "right": 0},
    }
    found = conditional_entropy(starts, rng=np.random.default_rng(0))
    assert found.value == pytest.approx(1 / 3)
    assert (found.contexts, found.n) == (3, 60)
    assert found.low <= found.value <= found.high
    whole = {mode: sum(counts[mode] for counts in starts.values()) for mode in ("left", "right")}
    assert behaviour_entropy(whole, rng=np.random.default_rng(0)).value == 1.0, "both ways, but not from one start"
    for wrong in ({}, {"never": {"left": 0, "right": 0}}, {"a": {"x": 1, "y": 1}, "b": {"y": 1, "x": 1}}):
        with pytest.raises(ContractError, match="starts"):
            conditional_entropy(wrong, rng=np.random.default_rng(0))


def test_only_successes_with_a_mode_count():
    outcomes = [
        Outcome(1, True, mode="left"),
        Outcome(2, True, mode="right"),
        Outcome(3, False, mode="right"),
        Outcome(4, error="broke"),
        Outcome(5, True),
    ]
    found = entropy_of(outcomes, ("left", "right"), rng=np.random.default_rng(0))
    assert (found.value, found.n, found.undecided) == (1.0, 2, 1)
    assert entropy_of(outcomes, (), rng=np.random.default_rng(0)) is None
    assert entropy_of(outcomes[2:], ("left", "right"), rng=np.random.default_rng(0)) is None
    for counts in ({"only": 3}, {"a": 0, "b": 0}):
        with pytest.raises(ContractError, match="two modes"):
            behaviour_entropy(counts, rng=np.random.default_rng(0))

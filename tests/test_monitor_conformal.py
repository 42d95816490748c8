import numpy as np
import pytest

from robopolicy.errors import ContractError, NotEnoughCalibration
from robopolicy.monitor.conformal import (
    conformal_rank,
    conformal_threshold,
    false_alarm_interval,
    min_calibration,
    p_value,
)


@pytest.mark.parametrize(("alpha", "n"), [(0.10, 9), (0.05, 19), (0.01, 99), (0.2, 4), (0.3, 3), (0.001, 999)])
def test_fewest_calibration_episodes(alpha, n):
    assert min_calibration(alpha) == n
    z = np.arange(n, dtype=float)
    assert conformal_threshold(z, alpha) == z.max(), "the largest score is the only valid threshold here"
    with pytest.raises(NotEnoughCalibration, match=rf"{n - 1} successful .* at least {n}:"):
        conformal_threshold(z[1:], alpha)


def test_threshold_is_the_kth_smallest_in_any_order():
    z = np.random.default_rng(0).permutation(100).astype(float)
    assert conformal_rank(100, 0.1) == 91  # ceil(101 * 0.9)
    assert conformal_threshold(z, 0.1) == 90.0
    assert conformal_rank(9, 0.1) == 9, "in floating point (9 + 1)(1 - .1) could round up to rank 10"


def test_alarm_and_p_value_agree():
    rng = np.random.default_rng(1)
    z = np.round(rng.normal(size=60), 1)  # with ties
    for alpha in (0.05, 0.1, 0.25):
        threshold = conformal_threshold(z, alpha)
        for score in np.concatenate([z, rng.normal(size=40)]):
            assert (score > threshold) <= (p_value(z, score) <= alpha), "an alarm implies p <= alpha"


def test_p_value_counts_a_tie_as_at_least_as_bad():
    assert p_value(np.array([1.0, 2.0, 2.0, 3.0]), 2.0) == 4 / 5
    assert p_value(np.array([1.0, 2.0, 2.0, 3.0]), 2.5) == 2 / 5


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("n", [19, 30, 50])
def test_realised_false_alarm_rate_over_recalibrations(alpha, n):
    rng = np.random.default_rng(n)
    runs, fresh = 2000, 200
    rates = np.empty(runs)
    for i in range(runs):
        z = rng.exponential(size=n) ** 3
        rates[i] = np.mean(rng.exponential(size=fresh) ** 3 > conformal_threshold(z, alpha))
    error = 4 * rates.std() / np.sqrt(runs)
    assert alpha - 1 / (n + 1) - error < rates.mean() <= alpha + error
    low, high = false_alarm_interval(n, alpha, 0.95)
    noise = 2 * np.sqrt(alpha / fresh)  # each rate is itself measured on a few episodes only
    assert np.mean((rates >= low - noise) & (rates <= high + noise)) > 0.95, "Beta law of the rate given z"


def test_ties_and_saturation_keep_the_promise():
    rng = np.random.default_rng(3)
    scores = np.minimum(rng.exponential(size=(3000, 21)), 1.0)  # 37 % of all episodes saturate at exactly 1
    alarms = [row[-1] > conformal_threshold(row[:-1], 0.1) for row in scores]
    assert np.mean(alarms) < 0.01, "a saturated score cannot be exceeded: silent, but never invalid"


def test_interval_of_the_false_alarm_rate():
    low, high = false_alarm_interval(19, 0.05)
    assert (low, high) == pytest.approx((0.0, 1 - 0.05 ** (1 / 19)), abs=1e-6)
    assert high == pytest.approx(0.146, abs=5e-4)
    from scipy.stats import beta

    for n, alpha in ((50, 0.05), (200, 0.1), (19, 0.2)):
        low, high = false_alarm_interval(n, alpha)
        law = beta(n + 1 - conformal_rank(n, alpha), conformal_rank(n, alpha))
        assert law.cdf(high) - law.cdf(low) == pytest.approx(0.95)
        assert high - low <= law.ppf(0.975) - law.ppf(0.025)
        assert law.pdf(low) == pytest.approx(law.pdf(high), rel=2e-3), "the shortest: its ends are equally likely"
    wide, narrow = false_alarm_interval(19, 0.1), false_alarm_interval(999, 0.1)
    assert wide[0] < narrow[0] < 0.1 < narrow[1] < wide[1]


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 5])
def test_nonsense_alpha(alpha):
    with pytest.raises(ContractError, match="between 0 and 1"):
        conformal_threshold(np.zeros(10), alpha)


@pytest.mark.parametrize("z", [[1.0, np.nan] * 10, [np.inf] * 20, np.zeros((20, 2))])
def test_nonsense_scores(z):
    with pytest.raises(ContractError, match="finite"):
        conformal_threshold(np.asarray(z), 0.1)

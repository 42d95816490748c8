from itertools import product

import numpy as np
import pytest

from robopolicy.errors import MonitorError
from robopolicy.monitor.statistic import COMBINATIONS, FLOOR, LOWEST, SHAPES, Combination, Statistic


def scores(rng, n=30, m=3, shift=0.0):
    """Ragged episodes (T_i, m) of scores that drift in time, each on a scale of its own."""
    lengths = rng.integers(4, 15, n)
    return [
        (rng.normal(size=(t, m)) + 0.3 * np.arange(t)[:, None] + shift) * [1.0, 40.0, 0.01][:m] + 5.0 for t in lengths
    ]


@pytest.fixture(scope="module")
def fit():
    return scores(np.random.default_rng(0))


@pytest.fixture(scope="module")
def failures():
    return scores(np.random.default_rng(1), n=20, shift=2.0)


EVERY = [Combination(c, w, p, s) for c, w, p, s in product(COMBINATIONS, (1, 3, 20), (0, 2), SHAPES)]


@pytest.mark.parametrize("how", EVERY, ids=str)
def test_streaming_equals_batch_to_the_bit_and_the_past_never_changes(fit, failures, how):
    statistic = Statistic.fit("abc", fit, how, failures)
    for episode in scores(np.random.default_rng(2), n=6):
        statistic.reset()
        streamed = [statistic.push(row) for row in episode]
        assert streamed == statistic.trace(episode).tolist()
        cut = episode.copy()
        cut[3:] = 1e6
        assert statistic.trace(cut)[:3].tolist() == streamed[:3]
        assert statistic.trace(episode[:2]).tolist() == streamed[:2]


@pytest.mark.parametrize("how", EVERY, ids=str)
def test_what_was_learnt_comes_back_from_its_arrays(fit, failures, how):
    statistic = Statistic.fit("abc", fit, how, failures)
    again = Statistic("abc", how, statistic.arrays())
    assert all(again.trace(e).tolist() == statistic.trace(e).tolist() for e in failures)


def test_the_formulas(fit):
    pooled = np.concatenate(fit)
    z = [(episode - pooled.mean(0)) / pooled.std(0) for episode in fit]
    for combine, by in (("sum", np.sum), ("max", np.max), ("min", np.min)):
        statistic = Statistic.fit("abc", fit, Combination(combine))
        np.testing.assert_allclose(statistic.trace(fit[0]), by(z[0], axis=1), rtol=1e-12)
    mean = Statistic.fit("abc", fit, Combination("sum", window=3)).trace(fit[0])
    total = z[0].sum(axis=1)
    np.testing.assert_allclose(mean, [total[max(0, t - 2) : t + 1].mean() for t in range(len(total))])
    patient = Statistic.fit("abc", fit, Combination("sum", patience=2)).trace(fit[0])
    assert patient[:2].tolist() == [LOWEST, LOWEST]
    np.testing.assert_allclose(patient[2:], [total[t - 2 : t + 1].min() for t in range(2, len(total))])


def test_the_band_is_around_what_is_usual_then_and_goes_over_into_the_constant(fit):
    statistic = Statistic.fit("a", [e[:, :1] for e in fit], Combination("sum", shape="band"))
    pooled = np.concatenate([e[:, 0] for e in fit])
    z = [(e[:, 0] - pooled.mean()) / pooled.std() for e in fit]
    every = np.concatenate(z)
    t = 10
    alive = np.array([e[t] for e in z if len(e) > t])
    share = len(alive) / len(z)
    assert 0 < share < 1
    centre = share * alive.mean() + (1 - share) * every.mean()
    spread = share * max(alive.std(), FLOOR * every.std()) + (1 - share) * every.std()
    band = statistic.arrays()["band"]
    np.testing.assert_allclose(band[t], [centre, spread])
    np.testing.assert_allclose(band[-1], [every.mean(), every.std()], atol=1e-12)
    assert len(band) == max(map(len, z)) + 1
    long = np.full((60, 1), 5.0)
    np.testing.assert_allclose(
        statistic.trace(long)[30:], ((5.0 - pooled.mean()) / pooled.std() - band[-1, 0]) / band[-1, 1]
    )


def test_an_upper_band_takes_what_is_above(fit):
    """The published code takes the deviation below; put back, a high score would lower the statistic."""
    statistic = Statistic.fit("abc", fit, Combination("sum", shape="band"))
    assert np.all(statistic.trace(fit[0] + 10.0) > statistic.trace(fit[0]))


def test_logistic_weighs_what_tells_failures_and_nothing_counts_against_itself():
    rng = np.random.default_rng(3)
    good = [rng.normal(size=(8, 3)) for _ in range(40)]
    bad = [rng.normal([3.0, 0.0, -1.0], size=(8, 3)) for _ in range(40)]
    weights = Statistic.fit("abc", good, Combination("logistic"), bad).arrays()["weights"]
    assert weights.argmax() == 0
    assert weights[0] == 1.0
    assert 0 <= weights[1] < 0.3
    assert weights[2] == 0.0
    with pytest.raises(MonitorError, match=r"9 failed episodes; .*10 or more"):
        Statistic.fit("abc", good, Combination("logistic"), bad[:9])
    with pytest.raises(MonitorError, match="no score is larger"):
        Statistic.fit("abc", good, Combination("logistic"), [g - 5.0 for g in good])


def test_a_score_without_a_scale_is_refused(fit):
    dull = [np.column_stack([e[:, 0], np.full(len(e), 7.0)]) for e in fit]
    with pytest.raises(MonitorError, match="score b is the same at every decision"):
        Statistic.fit("ab", dull, Combination())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"combine": "mean"}, "valid: sum, max"), ({"shape": "line"}, "valid: const, band"), ({"window": 0}, "window 0"),
     ({"patience": -1}, "patience -1")],
)  # fmt: skip
def test_nonsense(wrong, says):
    with pytest.raises(MonitorError, match=says):
        Combination(**wrong)
    statistic = Statistic.fit("ab", [np.random.default_rng(0).normal(size=(5, 2))], Combination())
    with pytest.raises(MonitorError, match=r"want \(T, 2\)"):
        statistic.push(np.zeros(3))

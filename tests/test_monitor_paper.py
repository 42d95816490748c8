"""FIPER as published: each formula against a plain reading of it, its false alarms, and the version that holds."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from monitor_validity import Law, alarmed, false_alarms

from robopolicy.errors import ContractError, MonitorError, NotEnoughCalibration
from robopolicy.interfaces import Monitor
from robopolicy.monitor.paper import EPSILON, FiperFixed, FiperPaper, fiper_paper, windowed
from robopolicy.monitor.paper_thresholds import THRESHOLDS, thresholds
from robopolicy.monitor.roles import Roles

TINY = {"rnd": {"target": (16, 8), "predictor": (16, 16, 8), "epochs": 3, "folds": 2}, "ace": {"cell": 0.3}}
LAW = Law(longest=12)


def traces(n=9, seed=0):
    rng = np.random.default_rng(seed)
    return [LAW.scores(rng)[:, 0] for _ in range(n)]


@pytest.fixture(scope="module")
def rollouts():
    return LAW.episodes(np.random.default_rng(1), 24, candidates=6)


@pytest.fixture(scope="module")
def paper(rollouts):
    return fiper_paper(alpha=0.1, windows=(3, None), settings=TINY).fit(rollouts[:20], rollouts[20:])


@pytest.mark.parametrize("window", [1, 2, 5, None])
def test_a_window_is_the_sum_of_the_last_scores(window):
    (one,) = traces(1)
    plain = [sum(one[max(0, t - window + 1) if window else 0 : t + 1]) for t in range(len(one))]
    assert np.allclose(windowed(one, window), plain, rtol=1e-12)


def test_quantiles_are_numpys_of_episodes_or_of_each_decision():
    made = traces()
    longest = max(map(len, made))
    assert np.array_equal(
        thresholds("ct_quantile", made, 0.9), np.full(longest, np.quantile([t.max() for t in made], 0.9))
    )
    by_time = thresholds("tvt_quantile", made, 0.9)
    for t in range(longest):
        assert by_time[t] == pytest.approx(np.quantile([one[t] for one in made if len(one) > t], 0.9))


@pytest.mark.parametrize("mend", [False, True])
@pytest.mark.parametrize("quantile", [0.6, 0.95])
def test_the_band_is_the_published_one_with_its_sign(mend, quantile):
    made = traces(11, seed=4)
    found = thresholds("tvt_cp_band", made, quantile, seed=7, mend_sign=mend)
    longest = int(np.argmax([len(one) for one in made]))
    order = [longest, *(i for i in np.random.default_rng(7).permutation(11) if i != longest)]
    first, second = [made[i] for i in order[:6]], [made[i] for i in order[6:]]
    mu = [np.mean([one[t] for one in first if len(one) > t]) for t in range(len(made[longest]))]
    sup = [max(abs(one[t] - mu[t]) for t in range(len(one))) for one in first]
    kept = (
        first if 7 * quantile > 6 else [o for o, s in zip(first, sup, strict=True) if s <= np.quantile(sup, quantile)]
    )
    assert (len(kept) < 6) == (quantile == 0.6)
    width = [max([abs(one[t] - mu[t]) for one in kept if len(one) > t], default=0) for t in range(len(mu))]
    width = [w if w > 1e-12 else 1 / len(mu) for w in width]
    sign = -1 if mend else 1
    away = [max(sign * (mu[t] - one[t]) / width[t] for t in range(len(one))) for one in second]
    plain = [m + np.quantile(away, quantile) * w for m, w in zip(mu, width, strict=True)]
    assert np.allclose(found, plain, rtol=1e-12)


def test_it_alarms_where_both_legs_are_over_their_thresholds_at_once(paper, rollouts):
    """Scores that the test chooses: the legs' peaks apart do not alarm, together they do."""
    assert isinstance(paper, Monitor)
    told = {}
    for score in paper.scores:
        score.update = lambda decision, name=score.name: told[name][decision.index]
    paper._levels = (np.array([3.0, 3.0, 5.0]), np.array([2.0, 2.0, 8.0]))
    try:
        first = rollouts[0]
        for rnd, ace, expected in [
            ([9, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]),
            ([4, 0, 0, 0], [3, 0, 0, 0], [1, 1, 1, 1]),
            ([0, 4, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]),  # ace sums up to 1
            ([0, 4, 0, 0], [2, 1, 0, 0], [0, 1, 1, 1]),
            ([4, 0, 0, 0], [0, 0, 0, 9], [0, 0, 0, 0]),  # rnd has left its window of 3
            ([0, 0, 0, 4], [0, 0, 0, 5], [0, 0, 0, 1]),  # beyond the longest: means, 3.67 and 4
            ([0, 0, 0, 3.6], [0, 0, 0, 5], [0, 0, 0, 0]),
            ([0, 0, 0, 4], [0, 0, 0, 3.9], [0, 0, 0, 0]),
            ([0, 0, 0, np.nan], [0, 0, 0, 9], [0, 0, 0, 0]),
        ]:
            told.update(rnd=rnd, ace=ace)
            paper.reset()
            verdicts = [paper.step(decision) for decision in first[:4]]
            assert [v.state == "alarm" for v in verdicts] == [bool(e) for e in expected], (rnd, ace)
            assert all((v.statistic > v.threshold) == (v.state == "alarm") for v in verdicts)
    finally:
        for score in paper.scores:
            del score.update


def test_scores_learn_from_all_rollouts_and_thresholds_from_the_successes(paper, rollouts):
    again = fiper_paper(alpha=0.1, windows=(3, None), threshold="ct_quantile", settings=TINY)
    again.fit(rollouts[:20], rollouts[20:])
    assert len(again._levels[0]) == max(len(one) for one in rollouts[:20])
    tops = []
    for one in rollouts[:20]:
        again.reset()
        sums = [sum(again.scores[0].update(d) + EPSILON for d in one[max(0, t - 2) : t + 1]) for t in range(len(one))]
        tops.append(max(sums))
    assert again._levels[0][0] == pytest.approx(np.quantile(tops, 0.9))
    fewer = fiper_paper(alpha=0.1, settings=TINY).fit(rollouts[:20])
    assert not np.array_equal(fewer.scores[0].arrays()["predictor.0.weight"],
                              again.scores[0].arrays()["predictor.0.weight"])  # fmt: skip


def test_what_it_says_depends_on_the_past_alone(paper, rollouts):
    def said(episode):
        paper.reset()
        return [(v.statistic, v.state) for v in map(paper.step, episode)]

    assert said(rollouts[3])[:5] == said(rollouts[3][:5])
    assert paper.candidates == 6


@pytest.mark.parametrize("kind", THRESHOLDS)
def test_every_threshold_makes_a_monitor(kind, rollouts):
    monitor = FiperPaper(threshold=kind, settings=TINY).fit(rollouts)
    monitor.reset()
    assert monitor.step(rollouts[0][0]).state == "nominal"


def test_what_makes_no_sense_is_refused(rollouts):
    for options in ({"threshold": "median"}, {"alpha": 1.0}, {"windows": (0, 3)}):
        with pytest.raises(MonitorError):
            fiper_paper(**options)
    for fixed in (False, True):
        with pytest.raises(ContractError, match="never fitted"):
            fiper_paper(fixed, settings=TINY).step(rollouts[0][0])
    with pytest.raises(NotEnoughCalibration):
        fiper_paper(True, alpha=0.05, settings=TINY).fit(rollouts[:15])
    for bad in ([], [np.zeros(0)]):
        with pytest.raises(MonitorError):
            thresholds("ct_quantile", bad, 0.9)
    with pytest.raises(MonitorError, match="2 or more"):
        thresholds("tvt_cp_band", traces(1), 0.9)
    with pytest.raises(MonitorError, match="tvt_quantile"):
        thresholds("median", traces(), 0.9)


def test_the_fixed_one_splits_by_episode_and_keeps_its_promise(rollouts):
    def make(episodes, seed):
        return fiper_paper(True, alpha=0.1, seed=seed, settings=TINY).fit(episodes)

    found = false_alarms(
        make, alpha=0.1, n=12, episodes=24, recalibrations=8, fresh=15, law=Law(longest=10), candidates=6
    )
    assert not found.too_many, found
    roles = Roles(tuple(range(8)), tuple(range(8, 20)))
    fixed = FiperFixed(alpha=0.1, settings=TINY).fit(rollouts[:20], rollouts[20:], roles=roles)
    assert fixed.monitor.provenance.calibration_seeds == roles.calibrate
    assert fixed.monitor.provenance.failed == 4
    assert fixed.candidates == 6
    apart = np.linspace(-40, 40, 6, dtype=np.float32)[:, None, None]  # of the candidates
    far = [replace(d, embedding=d.embedding + np.float32(30), chunks=d.chunks + apart) for d in rollouts[0]]
    assert alarmed(fixed, far)

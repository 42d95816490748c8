"""Faults of published monitors, put back into ours one at a time: the check that ours passes has to find each."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from monitor_validity import Found, Law, Level, false_alarms

from robopolicy.errors import MonitorError, NotEnoughCalibration
from robopolicy.monitor import calibration as calibration_module
from robopolicy.monitor import monitor as monitor_module
from robopolicy.monitor import roles as roles_module
from robopolicy.monitor.monitor import MonitorConfig, fit_monitor
from robopolicy.monitor.roles import Roles
from robopolicy.monitor.statistic import Combination, Statistic

FIT = 15


def learnt_before(shape="const", alpha=0.05, window=1):
    """A score that learns nothing: the threshold alone is on trial."""
    config = MonitorConfig((), Combination("sum", window, 0, shape), alpha)

    def make(episodes, seed):
        roles = Roles(tuple(range(FIT)), tuple(range(FIT, len(episodes))))
        return fit_monitor(episodes, config, scores=[Level()], roles=roles)

    return make


def learnt_here(score="kernel_density", alpha=0.1, **settings):
    """A score that learns from the rollouts: what may learn from what is on trial."""
    config = MonitorConfig((score,), Combination(), alpha, settings={score: settings})

    def make(episodes, seed):
        return fit_monitor(episodes, replace(config, seed=seed))

    return make


def rule(shape="const", n=19, alpha=0.05, recalibrations=80) -> Found:
    make = learnt_before(shape, alpha)
    return false_alarms(make, alpha=alpha, n=n, episodes=FIT + n, recalibrations=recalibrations)


def learning(make=None, **options) -> Found:
    options = {"recalibrations": 12, "law": Law(longest=14)} | options
    return false_alarms(make or learnt_here(), alpha=0.1, n=12, episodes=24, **options)


@pytest.mark.parametrize("shape", ["const", "band"])
@pytest.mark.parametrize(("n", "alpha"), [(19, 0.05), (39, 0.1)])
def test_ours_keeps_its_promise(shape, n, alpha):
    found = rule(shape, n, alpha)
    assert found.valid, found


def test_ours_keeps_it_with_a_score_that_learns_from_the_rollouts():
    found = learning()
    assert found.valid, found


def test_a_quantile_in_place_of_the_rank_is_found(monkeypatch):
    monkeypatch.setattr(calibration_module, "conformal_threshold", lambda z, alpha: float(np.quantile(z, 1 - alpha)))
    found = rule()
    assert found.too_many, found


def test_the_band_with_the_published_sign_is_found(monkeypatch):
    """The calibration episodes measured by (mu - s) / S, the robot's by (s - mu) / S."""
    real = monitor_module.Calibration
    monkeypatch.setattr(
        monitor_module, "Calibration", lambda traces, *rest: real(tuple(-trace for trace in traces), *rest)
    )
    found = rule("band")
    assert found.too_many, found
    assert found.mean > 0.2, "35 to 59 % of what is nominally 5 %, in what was published"


def same_for_both(episodes, *, alpha, seed=0, test=0):
    return Roles(tuple(episodes), tuple(episodes))


def test_a_threshold_from_the_episodes_that_fitted_the_score_is_found(monkeypatch):
    monkeypatch.setattr(roles_module.Roles, "__post_init__", lambda self: None)  # which refuses them
    monkeypatch.setattr(monitor_module.Roles, "split", same_for_both)
    found = learning()
    assert found.too_many, found


def test_episodes_of_two_roles_are_refused():
    with pytest.raises(MonitorError, match="has two roles"):
        same_for_both(range(20), alpha=0.1)


def test_an_rnd_thresholded_on_its_own_episodes_is_found(monkeypatch):
    """The published one, in small: enough epochs to know its rollouts by heart."""
    tiny = {"target": (32, 16), "predictor": (64, 64, 16), "epochs": 40, "patience": 40, "lr": 3e-3, "batch": 32}
    options = {"recalibrations": 5, "fresh": 12, "law": Law(dim=16, longest=12)}
    make = learnt_here("rnd", **tiny, folds=2)
    honest = learning(make, **options)
    assert honest.valid, honest
    monkeypatch.setattr(roles_module.Roles, "__post_init__", lambda self: None)
    monkeypatch.setattr(monitor_module.Roles, "split", same_for_both)
    found = learning(make, **options)
    assert found.too_many, found


def test_a_split_by_decision_in_place_of_episode_is_found(monkeypatch):
    """Even decisions fit, odd ones calibrate: each has its neighbours among what the score has learnt."""
    make = learnt_here()
    whole = learning(make)
    assert whole.valid, whole

    def halves(episodes, *, alpha, seed=0, test=0):
        n = len(episodes) // 2
        return Roles(tuple(episodes[:n]), tuple(episodes[n:]))

    monkeypatch.setattr(monitor_module.Roles, "split", halves)
    found = learning(lambda episodes, seed: make([e[::2] for e in episodes] + [e[1::2] for e in episodes], seed))
    assert found.too_many, found


WINDOWS = (1, 2, 3, 5, 8, 12, 20)


def fixed_beforehand(monitors, test):
    """What our protocol does: the window is part of the configuration."""
    return monitors[5]


def best_on_test(monitors, test):
    """What was published: the window whose figure on the test episodes is best."""
    return max(monitors.values(), key=lambda monitor: accuracy(monitor, test))


def accuracy(monitor, episodes):
    """Balanced accuracy over episodes of which the first half succeeded and the others failed."""
    half = len(episodes) // 2
    scores = [np.array([[decision.chunks[0, 0, 0]] for decision in episode]) for episode in episodes]
    alarms = [monitor.statistic.trace(one).max() > monitor.threshold for one in scores]
    return (np.mean(alarms[half:]) + 1 - np.mean(alarms[:half])) / 2


def claimed_less_true(choose, recalibrations=60):
    """By how much the figure told of the test episodes is above the true one, in standard errors.

    Failures are like successes here: the truth is that half of the verdicts are right, whatever the monitor.
    """
    rng, law, claimed = np.random.default_rng(3), Law(rho=0.3, between=0.3), []
    for seed in range(recalibrations):
        episodes, test = law.episodes(rng, FIT + 19), law.episodes(rng, 12)
        monitors = {w: learnt_before("const", 0.3, w)(episodes, seed) for w in WINDOWS}
        claimed.append(accuracy(choose(monitors, test), test))
    return (np.mean(claimed) - 0.5) / (np.std(claimed, ddof=1) / np.sqrt(len(claimed)))


def test_a_window_chosen_on_the_test_episodes_is_found():
    assert abs(claimed_less_true(fixed_beforehand)) < 3
    assert claimed_less_true(best_on_test) > 3


def test_a_window_beside_the_calibrated_statistic_is_found(monkeypatch):
    """Calibrated on means of five decisions, asked at each alone: a smooth episode's peaks are higher than that."""
    options = {"alpha": 0.1, "n": 19, "episodes": FIT + 19, "recalibrations": 25, "law": Law(rho=0.3)}
    make = learnt_before("const", 0.1, window=5)
    honest = false_alarms(make, **options)
    assert honest.valid, honest
    push = Statistic.push

    def newest_alone(self, scores):
        self._recent.clear()
        return push(self, scores)

    monkeypatch.setattr(Statistic, "push", newest_alone)
    found = false_alarms(make, **options)
    assert found.too_many, found


def test_too_few_episodes_are_refused_where_a_quantile_would_go_on():
    rng = np.random.default_rng(0)
    with pytest.raises(NotEnoughCalibration, match="at least 19"):
        learnt_before()(Law().episodes(rng, FIT + 18), 0)


def test_two_calibrated_legs_at_once_see_less_than_one_calibration_of_both():
    """Each leg at alpha, both to be over: hardly a false alarm, and hardly a true one."""
    rng, alpha, law = np.random.default_rng(1), 0.1, Law()

    def traces(n, shift=0.0):
        made = []
        for _ in range(n):
            x = law.wander(rng, 3)
            legs = np.sqrt(0.7) * x[:, :2] + np.sqrt(0.3) * x[:, 2:]  # correlation 0.3
            legs[len(legs) // 2 :] += shift
            made.append(legs)
        return made

    fit, calibrate, good, bad = traces(50), traces(50), traces(400), traces(400, 2.5)

    def rates(names, how, columns):
        statistic = Statistic.fit(names, [one[:, columns] for one in fit], how)
        level = calibration_module.Calibration(
            tuple(statistic.trace(one[:, columns]) for one in calibrate), alpha
        ).threshold
        return [np.array([(statistic.trace(one[:, columns]) > level) for one in part], dtype=object)
                for part in (good, bad)]  # fmt: skip

    def any_alarm(parts):
        return [np.mean([np.any(one) for one in part]) for part in parts]

    a, b = (rates([name], Combination(), [i]) for i, name in enumerate(("a", "b")))
    both = any_alarm([[x & y for x, y in zip(p, q, strict=True)] for p, q in zip(a, b, strict=True)])
    joint = any_alarm(rates(["a", "b"], Combination("min"), [0, 1]))
    assert both[0] < 0.06, both
    assert joint[0] < 0.2, joint
    assert joint[1] > both[1] + 0.1, (both, joint)

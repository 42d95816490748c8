"""Measures of a monitor against cases worked out by hand and against their definitions, written plainly."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from judged_episodes import judged, labelled

from robopolicy.errors import ContractError, EvaluationError, MonitorError, NotEnoughCalibration
from robopolicy.evaluation.outcomes import Outcome, OutcomeLog
from robopolicy.evaluation.statistics import success_rate
from robopolicy.interfaces import Monitor
from robopolicy.monitor import measures as m
from robopolicy.monitor.baselines import Hazard, RandomTrigger, Stopwatch, clock_at
from robopolicy.monitor.decisions import save_decisions
from robopolicy.monitor.judged import judge, read_labelled
from robopolicy.monitor.measures import MEASURES, Panel, point, rank_area, roc
from robopolicy.monitor.resampled import Draws, difference, estimate, summary
from robopolicy.types import Verdict


def four():
    """T_max 11; two successes, one of them alarmed, and two failures, one of them alarmed at decision 4."""
    return [
        judged("a", True, [0.1, 0.2, 0.3, 0.2]),
        judged("b", True, [0.1, 1.5, 0.1, 0.1, 0.1, 0.1], stratum="camera:0.5"),
        judged("c", False, [0.0, 0.0, 0.0, 0.9, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0], onset=7.5, dt_s=0.4),
        judged("d", False, [0.0, 0.0, 0.3], onset=1.0),
    ]


def test_by_hand():
    panel = Panel.of(four())
    assert (panel.task_time, panel.longest) == (4, 11)
    want = {
        "tpr": 1 / 2,
        "tnr": 1 / 2,
        "balanced_accuracy": 1 / 2,
        "detection_time": 4 / 10,
        "twa": ((1 - 0.4) / 2 + 1 / 2) / 2,
        "auroc": (2 + 0.5) / 4,  # c above both, d as high as a (a tie) and below b
        "auroc_25": (0 + 0) / 4,  # first decision: .1, .1 against 0, 0
        "auroc_50": (0 + 0) / 4,  # two decisions: .2, 1.5 against 0, 0
        "caught_in_time": 0.0,  # decision 4 is the fifth
        "nominal_false_alarms": 0.0,
        "ood_false_alarms": 1.0,
        "median_lead_s": 3.5 * 0.4,
        "median_lead_of_all_s": -np.inf,  # of 1.4 and never, the middle is never
        "median_left_s": 7 * 0.4,
    }
    assert {name: point(panel, measure) for name, measure in MEASURES.items()} == pytest.approx(want)


def test_detection_time_is_of_the_longest_episode_even_where_it_is_a_success():
    episodes = [judged("a", True, np.zeros(21)), judged("b", False, [0, 2.0, 0])]
    assert point(Panel.of(episodes), m.detection_time) == 1 / 20
    assert point(Panel.of(episodes), m.twa) == ((1 - 1 / 20) + 1) / 2
    assert point(Panel.of(episodes, longest=41), m.detection_time) == 1 / 40
    assert point(Panel.of([judged("b", False, [2.0])]), m.detection_time) == 0, "one decision is no division by zero"


def test_overruns_count_as_alarms_and_the_first_of_both_counts():
    late = judged("c", False, np.zeros(9), overrun=6)
    both = judged("d", False, [0, 0, 2.0, 2.0], overrun=3)
    assert (late.first, both.first, late.without_overrun().first, both.without_overrun().first) == (6, 2, None, 2)
    assert point(Panel.of([late, both]), m.tpr) == 1
    assert point(Panel.of([late.without_overrun(), both.without_overrun()]), m.tpr) == 0.5


def test_what_ended_early_keeps_its_last_value_at_matched_time():
    """A stopwatch: it knows nothing before the first success ends, all of it once all have ended."""
    episodes = [judged(f"s{i}", True, np.arange(10.0), 99) for i in range(5)]
    episodes += [judged(f"f{i}", False, np.arange(30.0), 99) for i in range(5)]
    panel = Panel.of(episodes)
    assert panel.task_time == 10
    assert [point(panel, m.partial(m.auroc, share=share)) for share in (0.25, 0.5, 1.0, 1.01, None)] == [
        0.5, 0.5, 0.5, 1.0, 1.0
    ]  # fmt: skip
    assert m.budget(panel, 0.25) == 3
    assert m.budget(replace(panel, task_time=1.0), 0.25) == 1
    np.testing.assert_array_equal(panel.peak(12), [9.0] * 5 + [11.0] * 5)


def plain_auroc(values, positive):
    pairs = [(p > n) + 0.5 * (p == n) for p in values[positive] for n in values[~positive]]
    return np.mean(pairs)


@pytest.mark.parametrize("seed", range(5))
def test_area_under_the_roc_is_the_chance_to_rank_right(seed):
    rng = np.random.default_rng(seed)
    values, positive = rng.integers(0, 6, 40).astype(float), rng.random(40) < 0.4
    values[:3] = np.inf
    assert rank_area(values, positive, np.ones((1, 40)))[0] == pytest.approx(plain_auroc(values, positive))
    times = rng.integers(0, 3, 40)
    weighted = rank_area(values, positive, times[None].astype(float))[0]
    assert weighted == pytest.approx(plain_auroc(np.repeat(values, times), np.repeat(positive, times)))
    panel = Panel.of([judged(str(i), not p, [v], 99) for i, (v, p) in enumerate(zip(values, positive, strict=True))])
    false, true = roc(panel)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(true, false) == pytest.approx(plain_auroc(values, positive))


@pytest.mark.parametrize("name", list(MEASURES))
def test_weights_are_how_often_an_episode_is_there(name):
    rng = np.random.default_rng(3)
    episodes = [
        judged(f"{i}", i % 3 > 0, rng.random(rng.integers(4, 12)), 0.8, onset=None if i % 3 else float(rng.integers(9)),
               stratum="nominal" if i % 2 else "x:1")
        for i in range(30)
    ]  # fmt: skip
    panel = Panel.of(episodes)
    times = rng.integers(0, 3, 30)
    repeated = [replace(e, name=f"{e.name}-{k}") for e, n in zip(episodes, times, strict=True) for k in range(n)]
    got = MEASURES[name](panel, np.stack([times, np.ones(30)]).astype(float))
    assert got.shape == (2,)
    assert got[0] == pytest.approx(point(Panel(tuple(repeated), panel.task_time, panel.longest), MEASURES[name]))


def test_median_lead_is_the_median_and_alarms_before_the_onset_are_ahead_of_it():
    onsets = [5.0, 5.0, 9.5, 3.0, 8.0]
    alarms = [7, 1, 4, None, 8]
    episodes = [
        judged(f"{i}", False, np.zeros(12), alarm=alarm, onset=onset, dt_s=0.5)
        for i, (onset, alarm) in enumerate(zip(onsets, alarms, strict=True))
    ]
    panel = Panel.of([*episodes, judged("no onset", False, np.zeros(3), alarm=0)])
    assert panel.lead_s.tolist()[:5] == [-1.0, 2.0, 2.75, -np.inf, 0.0]
    assert np.isnan(panel.lead_s[5])
    assert point(panel, m.median_lead) == np.median([-1.0, 2.0, 2.75, 0.0])
    assert point(panel, m.median_lead_of_all) == 0.0


def test_nothing_to_measure_is_not_a_number():
    calm = Panel.of([judged("a", True, [0.0, 0.0])])
    for name in ("tpr", "balanced_accuracy", "detection_time", "twa", "auroc", "ood_false_alarms", "median_lead_s"):
        assert np.isnan(point(calm, MEASURES[name])), name
    draws = Draws([calm], np.random.default_rng(0), 50)
    found = summary([calm], MEASURES, draws)
    assert (found["tpr"].value, found["tpr"].low, found["auroc"].low) == (None, None, None)
    assert found["tnr"].counts == (1, 1)


def test_panels_refuse_what_cannot_be_measured():
    with pytest.raises(ContractError, match="0 judged episodes"):
        Panel.of([])
    with pytest.raises(ContractError, match="2 judged episodes of 1 names"):
        Panel.of([judged("a", True, [0.0]), judged("a", True, [0.0])])
    with pytest.raises(ContractError, match="task time"):
        m.task_time_of([])
    with pytest.raises(MonitorError, match="episode a: 0 statistics"):
        judged("a", True, [])


def noisy(seed, n=60, shift=1.0, names=""):
    rng = np.random.default_rng(seed)
    return [
        judged(f"{names}{i}", i >= n // 2, rng.normal(shift * (i < n // 2), 1, rng.integers(5, 15)), 2.0)
        for i in range(n)
    ]


def test_shares_have_exact_intervals_and_several_splits_make_no_more_of_the_episodes():
    panel = Panel.of(noisy(1))
    draws = Draws([panel], np.random.default_rng(0), 200)
    k, n = m.tpr.counts(panel)
    one, five = (estimate([panel] * splits, m.tpr, draws) for splits in (1, 5))
    rate = success_rate(k, n)
    assert (one.value, one.low, one.high, one.counts) == (rate.value, rate.low, rate.high, (k, n))
    assert (five.low, five.high, five.splits) == (one.low, one.high, (k / n,) * 5)
    other = Panel.of([replace(e, alarm=0) if e.name == "0" or not e.success else e for e in noisy(1)])
    mixed = estimate([panel, other], m.tpr, Draws([panel, other], np.random.default_rng(0), 200))
    assert mixed.value == pytest.approx((k / n + 1) / 2)
    half = (k + n) / 2
    assert mixed.low == success_rate(int(np.floor(half)), n).low
    assert mixed.high == success_rate(int(np.ceil(half)), n).high


def test_balanced_accuracy_has_limits_that_cover():
    panel = Panel.of(noisy(1))
    found = estimate([panel], m.balanced_accuracy, Draws([panel], np.random.default_rng(0), 200))
    caught = success_rate(*m.tpr.counts(panel), confidence=0.975)
    calm = success_rate(*m.tnr.counts(panel), confidence=0.975)
    assert (found.low, found.high) == (pytest.approx((caught.low + calm.low) / 2), (caught.high + calm.high) / 2)
    assert found.low < found.value < found.high


def test_the_bootstrap_has_the_spread_of_fresh_episodes():
    """The width of the interval is that of AUROC over many test sets; drawing by decision would be far narrower."""
    fresh = [point(Panel.of(noisy(seed)), m.auroc) for seed in range(300)]
    widths = []
    for seed in range(10):
        panel = Panel.of(noisy(1000 + seed))
        found = estimate([panel], m.auroc, Draws([panel], np.random.default_rng(seed), 500))
        assert found.low <= found.value <= found.high
        widths.append(found.high - found.low)
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(fresh), rel=0.25)


def test_paired_differences_see_what_unpaired_ones_do_not():
    """B is A but for two failures that it misses: the same episodes are drawn for both, so chance cancels."""
    a = noisy(5, shift=3.0)
    b = [replace(e, alarm=None) if e.name in ("1", "2", "3", "4", "5", "6") else e for e in a]
    panels = Panel.of(a), Panel.of(b)
    draws = Draws(panels, np.random.default_rng(0), 1000)
    found = difference([panels[0]], [panels[1]], m.tpr, draws)
    assert found.value == pytest.approx(6 / 30)
    assert found.low > 0.06
    assert found.apart_from_zero
    unpaired = Draws([Panel.of(noisy(5, names="other"))], np.random.default_rng(1), 1000)
    alone = m.tpr(panels[0], draws.weights(panels[0])) - m.tpr(
        Panel.of([replace(e, name=f"other{e.name}") for e in b]),
        unpaired.weights(Panel.of([replace(e, name=f"other{e.name}") for e in b])),
    )
    assert np.ptp(np.quantile(alone, [0.025, 0.975])) > 1.0 * (found.high - found.low)
    assert difference([panels[0]], [panels[0]], m.twa, draws).high == 0.0


def test_an_episode_of_several_splits_is_one_episode():
    """Five splits that judge alike are no more sure than one; drawn apart, the interval would be 1/sqrt(5) of it."""
    panel = Panel.of(noisy(4))
    draws = Draws([panel] * 5, np.random.default_rng(0), 1000)
    one, five = (estimate([panel] * splits, m.auroc, draws) for splits in (1, 5))
    assert (five.low, five.high) == (pytest.approx(one.low), pytest.approx(one.high))


def test_resamples_have_as_many_failures_as_there_are():
    """Or a test set with few of them would now and then have none, and nothing to measure."""
    panel = Panel.of(noisy(2)[25:])  # 5 failures, 30 successes
    weights = Draws([panel], np.random.default_rng(0), 400).weights(panel)
    assert set(weights[:, ~panel.success].sum(axis=1)) == {5}
    assert set(weights[:, panel.success].sum(axis=1)) == {30}
    assert weights.mean(axis=0) == pytest.approx(np.ones(35), abs=0.25)


def test_a_stratum_is_timed_by_all_episodes():
    part = Panel.of(four()).only("camera:0.5")
    assert (part.names, part.longest, part.task_time) == (("b",), 11, 4)
    assert Panel.of(four()).only("push:1") is None


def test_pairs_must_be_pairs():
    a, b = Panel.of(noisy(1)), Panel.of(noisy(1)[:-1])
    draws = Draws([a, b], np.random.default_rng(0), 10)
    with pytest.raises(ContractError, match="same episodes of both"):
        difference([a], [b], m.tpr, draws)
    with pytest.raises(ContractError, match="same splits"):
        difference([a, a], [a], m.tpr, draws)
    swapped = Panel.of([replace(e, success=not e.success) for e in noisy(1)])
    with pytest.raises(ContractError, match="both succeeded and failed"):
        Draws([a, swapped], np.random.default_rng(0))


class Level:
    """A monitor whose statistic is the first element of the embedding; 9 is an overrun, NaN a fault."""

    def reset(self):
        self.state = "nominal"

    def step(self, decision):
        value = float(decision.embedding[0])
        if self.state == "nominal":
            self.state = (
                "overrun" if value == 9 else "fault" if np.isnan(value) else "alarm" if value > 1 else "nominal"
            )
        return Verdict(decision.stamp_ns, {}, value, 1.0, 0.5, self.state, 0.001)


def test_judging_replays_each_episode_by_itself():
    monitor = Level()
    assert isinstance(monitor, Monitor)
    found = judge(
        monitor,
        [
            labelled("a", True, [0, 0.5, 0.2]),
            labelled("b", False, [0, 2.0, 0.0], onset=2.0, stratum="push:1"),
            labelled("c", False, [0, np.nan, 0]),
            labelled("d", False, [0, 0, 0, 9.0]),
        ],
    )
    assert [(e.alarm, e.overrun, e.first) for e in found] == [
        (None, None, None), (1, None, 1), (1, None, 1), (None, 3, 3)
    ]  # fmt: skip
    assert found[1].states == ("nominal", "alarm", "alarm")
    assert (found[1].onset, found[1].ood, found[0].ood, found[0].dt_s) == (2.0, True, False, 0.2)
    assert found[2].statistic[1] == np.inf, "what is no number is the worst"
    assert found[0].statistic.tolist() == pytest.approx([0, 0.5, 0.2])
    assert found[0].latency_s.tolist() == [0.001] * 3


def test_severity_is_above_a_threshold_that_changes():
    constant = judged("a", True, [1.0, 3.0], 2.0)
    assert constant.severity.tolist() == [1.0, 3.0]
    moving = replace(constant, threshold=np.array([np.inf, 2.5]), statistic=np.array([np.inf, 3.0]))
    assert moving.severity.tolist() == [-np.inf, 0.5]


def test_episodes_of_an_evaluation_are_read_with_their_onset(tmp_path):
    log = OutcomeLog(tmp_path, "x")
    log.begin({}, [1, 2, 3, 4])
    outcomes = [
        Outcome(1, True),
        Outcome(2, failure="dropped", onset_step=14, perturbations=("camera:0.5", "friction:1")),
        Outcome(3, failure="stalled", onset_step=6, disturb_step=3),
        Outcome(4, failure="timeout"),
    ]
    for outcome in outcomes:
        path = save_decisions(tmp_path / "decisions" / f"{outcome.seed}.npz", labelled("", True, [0, 0, 0]).decisions)
        log.append(replace(outcome, decisions=str(path.relative_to(tmp_path))))
    found = read_labelled(tmp_path, name="r")
    assert [e.name for e in found] == ["r/1", "r/2", "r/3", "r/4"]
    assert [e.stratum for e in found] == ["nominal", "camera:0.5 friction:1", "disturbed", "nominal"]
    assert [(e.onset, e.stalled) for e in found] == [(None, None), (3.5, None), (None, 1.5), (None, None)]
    assert found[1].dt_s == pytest.approx(0.2)
    log.append(Outcome(2, True))
    with pytest.raises(EvaluationError, match="1 of 4 episodes without decisions; make it with: robopolicy eval"):
        read_labelled(tmp_path)


def test_a_random_trigger_alarms_as_often_as_it_is_told():
    lengths = [5, 10, 20, 40]
    hazard = Hazard.fitted(lengths, 0.2)
    assert hazard.rate(lengths) == pytest.approx(0.2, abs=1e-12)
    assert Hazard.fitted([10], 0.5).per_decision == pytest.approx(1 - 0.5**0.1)
    assert (Hazard.fitted([3], 0).per_decision, Hazard.fitted([3], 1).per_decision) == (0.0, 1.0)
    for bad in ([], [0]):
        with pytest.raises(ContractError, match="want 0 to 1, and lengths of 1 or more"):
            Hazard.fitted(bad, 0.1)
    trigger = RandomTrigger.like(lengths, 0.2, seed=1)
    assert isinstance(trigger, Monitor)
    found = judge(trigger, [labelled(f"{i}", True, np.zeros(lengths[i % 4]), seed=i) for i in range(2000)])
    assert np.mean([e.alarm is not None for e in found]) == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / 2000))
    assert all(set(e.states[e.alarm :]) == {"alarm"} for e in found if e.alarm is not None), "it stays"
    assert all((e.statistic > e.threshold).any() == (e.alarm is not None) for e in found)


def test_a_random_trigger_repeats_in_any_order_and_differs_by_seed():
    episodes = [labelled(f"{i}", True, np.zeros(20), seed=i) for i in range(40)]
    trigger = RandomTrigger(Hazard(0.1), 3)
    there = [e.alarm for e in judge(trigger, episodes)]
    back = [e.alarm for e in judge(RandomTrigger(Hazard(0.1), 3), episodes[::-1])]
    assert there == back[::-1]
    assert there != [e.alarm for e in judge(RandomTrigger(Hazard(0.1), 4), episodes)]
    never, always = (judge(RandomTrigger(Hazard(h)), episodes) for h in (0.0, 1.0))
    assert {e.alarm for e in never} == {None}
    assert {e.alarm for e in always} == {0}


def test_a_stopwatch_is_calibrated_by_rank_on_lengths():
    lengths = list(range(10, 29))  # 19 episodes: the threshold of .1 is the 18th, that of .05 the longest
    watch = Stopwatch(lengths, 0.1)
    assert isinstance(watch, Monitor)
    found = judge(watch, [labelled(f"{n}", True, np.zeros(n)) for n in (27, 28, 60)])
    assert [e.alarm for e in found] == [None, 27, 27]
    assert found[2].statistic[-1] == 59, "it goes on counting"
    assert Stopwatch(lengths, 0.05).threshold == 27
    with pytest.raises(NotEnoughCalibration, match="at least 19"):
        Stopwatch(lengths[1:], 0.05)


def test_a_clock_at_the_same_false_alarm_rate():
    episodes = [judged(f"s{n}", True, np.zeros(n), alarm=0 if n == 6 else None) for n in (4, 6, 8, 10)]
    episodes += [judged("f", False, np.zeros(20), onset=15.0), judged("g", False, np.zeros(5))]
    found = clock_at(episodes)
    assert [e.alarm for e in found] == [None, None, None, 8, 8, None], "one of four may outlast it: the longest"
    assert [e.onset for e in found][4] == 15.0
    assert point(Panel.of(found), m.tnr) == point(Panel.of(episodes), m.tnr)
    calm = clock_at([replace(e, alarm=None) for e in episodes])
    assert [e.alarm for e in calm] == [None] * 4 + [10, None], "and with none allowed none does"
    panel = Panel.of(found)
    assert ((panel.peak() > found[0].threshold[0]) == np.isfinite(panel.first)).all()
    assert [e.alarm for e in clock_at([replace(e, alarm=0) for e in episodes])] == [0] * 6

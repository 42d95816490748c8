import numpy as np
import pytest

from robopolicy.errors import ContractError, EvaluationError, UsageError
from robopolicy.evaluation.outcomes import Mark, Outcome
from robopolicy.evaluation.statistics import mean_score, parse_seeds, seed_words, success_rate, summarise


@pytest.mark.parametrize(
    ("k", "n", "wilson", "exact"),
    [  # reference values
        (16, 20, (0.584, 0.919), (0.563, 0.943)),
        (40, 50, (0.670, 0.888), (0.663, 0.900)),
        (80, 100, (0.711, 0.867), (0.708, 0.873)),
        (0, 50, (0.0, 0.071), (0.0, 0.071)),
        (50, 50, (0.929, 1.0), (0.929, 1.0)),
    ],
)
def test_intervals_of_a_rate(k, n, wilson, exact):
    for method, want in (("wilson", wilson), ("clopper-pearson", exact)):
        rate = success_rate(k, n, method=method)
        assert (rate.low, rate.high) == pytest.approx(want, abs=1e-3)
        assert rate.value == k / n
    assert str(success_rate(40, 50)) == "40/50 = 80% [66.3%, 90.0%]"


def test_exact_interval_covers_at_least_what_it_says():
    rng = np.random.default_rng(0)
    intervals = [success_rate(k, 20) for k in range(21)]
    for p in (0.05, 0.3, 0.5, 0.93):
        hits = [intervals[k].low <= p <= intervals[k].high for k in rng.binomial(20, p, size=4000)]
        assert np.mean(hits) >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / 4000)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_impossible_counts(k, n):
    with pytest.raises(ContractError, match="successes of"):
        success_rate(k, n)


def test_mean_score():
    mean = mean_score([0.2, 0.4, 0.6, 0.8])
    assert mean.value == pytest.approx(0.5)
    assert (mean.low, mean.high) == pytest.approx((0.5 - 0.41081, 0.5 + 0.41081), abs=1e-4)  # t(3) = 3.1824, s = .2582
    assert mean_score([0.0, 1.0]).low == 0.0, "cut to where scores can lie"
    assert mean_score([-5.0, 7.0]).low < -5.0
    assert mean_score([1.0, 1.0, 1.0]).low is None, "no spread seen is not no spread"
    assert str(mean_score([0.5])) == "0.500"
    with pytest.raises(ContractError, match="finite"):
        mean_score([0.5, np.nan])
    with pytest.raises(ContractError, match="at least one"):
        mean_score([])


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("100000:100003", [100000, 100001, 100002]), ("0,3,7", [0, 3, 7]), (" 0:2 , 9 ", [0, 1, 9]), ("5", [5])],
)
def test_seeds(text, seeds):
    assert parse_seeds(text) == seeds
    assert parse_seeds(seed_words(seeds)) == seeds


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "''"),
        ("a:b", "'a:b'"),
        ("3,", "''"),
        ("1:2:3", "'1:2:3'"),
        ("-3", "'-3'"),
        ("1.5", "such as 0:50 or 0,3,7"),
        ("9:9", "'9:9' is empty"),
        ("9:3", "is empty"),
        ("0:5,3", "twice"),
        (f"{2**63}", "is too much; want seeds up to 9223372036854775807"),
        (f"0:{10**30}", "is too much"),
        ("0:100000000", "10000000 at most"),
    ],
)
def test_seeds_that_make_no_sense(text, says):
    with pytest.raises(UsageError, match=says):
        parse_seeds(text)


def mark(state="nominal"):
    return (Mark(0, 0.5, 1.0, 0.4, state),)


def test_summary_counts_alarms_among_successes_and_failures():
    outcomes = [
        Outcome(1, True, 1.0, 10, marks=mark()),
        Outcome(2, True, 1.0, 10, alarm_step=4, marks=mark("alarm")),
        Outcome(3, False, 0.2, 40, alarm_step=9, marks=mark("alarm")),
        Outcome(4, error="it broke"),
    ]
    summary = summarise(outcomes)
    assert (summary.success.successes, summary.success.n, summary.errors) == (2, 3, 1)
    assert (summary.false_alarms.successes, summary.false_alarms.n) == (1, 2)
    assert (summary.caught.successes, summary.caught.n) == (1, 1)
    assert summary.score.value == pytest.approx(2.2 / 3)
    headline = summary.headline()
    assert headline.startswith("success 2/3 = 67% [")
    assert "false alarms in 1 of 2 successes" in headline
    assert "1 episodes ended in an error" in headline
    calm = summarise([Outcome(1, True, 1.0, 10)])
    assert calm.false_alarms is None
    assert calm.caught is None
    with pytest.raises(EvaluationError, match="none of 1 episodes has an outcome; seed 4: it broke"):
        summarise(outcomes[3:])


def test_disturbed_episodes_are_counted_apart_and_an_alarm_before_the_disturbance_is_no_notice():
    disturbed = {"disturb_step": 5, "disturbance": "pushed"}
    outcomes = [
        Outcome(1, True, 1.0, 10, alarm_step=7, marks=mark("alarm"), **disturbed),
        Outcome(2, False, 0.2, 40, alarm_step=4, marks=mark("alarm"), **disturbed),
        Outcome(3, False, 0.2, 40, marks=mark(), **disturbed),
        Outcome(4, True, 1.0, 10, marks=mark()),
    ]
    summary = summarise(outcomes)
    assert (summary.noticed.successes, summary.noticed.n) == (1, 3)
    assert (summary.false_alarms.successes, summary.false_alarms.n) == (0, 1)
    assert summary.caught is None
    assert "alarms after the disturbance in 1 of 3 episodes" in summary.headline()


def test_seeds_in_words():
    assert seed_words(range(3, 9)) == "3:9"
    assert seed_words([7]) == "7:8"
    assert seed_words([1, 3]) == "1, 3"
    assert seed_words([]) == ""

"""A drift watch keeps its chance of a false warning, sees shifts both ways, and outlives the process."""

import json
from itertools import pairwise
from math import exp, inf, nan

import numpy as np
import pytest

from robopolicy.errors import ContractError, MonitorError
from robopolicy.monitor.drift import APART, DOUBT, POWERS, DriftWatch
from robopolicy.monitor.drift_journal import JOURNAL, STATE, DriftJournal

E = np.array(POWERS)


def warned(draw, *, n=50, lives=40, most=100, delta=0.01, seed=0):
    """Return the side that each life warned of, and after how many episodes (inf: never)."""
    rng = np.random.default_rng(seed)
    sides, after = [], []
    for life in range(lives):
        watch = DriftWatch(rng.normal(size=n), delta=delta, seed=life)
        for k in range(most):
            watch.update(draw(rng, k))
            if watch.warned:
                break
        sides.append(watch.warned)
        after.append(watch.warned_after or inf)
    return sides, after


def test_a_life_without_drift_warns_no_more_often_than_delta():
    sides, _ = warned(lambda rng, k: rng.normal(), n=20, lives=150, most=150, delta=0.1)
    assert np.mean([bool(side) for side in sides]) <= 0.1 + 2 * np.sqrt(0.1 * 0.9 / 150)


def test_p_values_are_uniform_and_independent_even_given_few_calibration_episodes():
    rng = np.random.default_rng(1)
    lives = [[watch.update(rng.normal()).p_value for _ in range(30)]
             for watch in (DriftWatch(rng.normal(size=5), seed=i) for i in range(300))]  # fmt: skip
    p = np.array(lives)
    assert abs(p.mean() - 0.5) < 3 / np.sqrt(12 * p.size)
    # Ranked among the calibration alone, those of one life would share its gaps: their mean would vary with the life.
    assert p.mean(axis=1).var() == pytest.approx(1 / 12 / 30, rel=0.25)
    assert abs(np.corrcoef(p[:, :-1].ravel(), p[:, 1:].ravel())[0, 1]) < 3 / np.sqrt(p.size)


def test_ties_are_broken_evenly_so_that_a_constant_statistic_is_no_drift():
    watch = DriftWatch(np.ones(50))
    p = [watch.update(1.0).p_value for _ in range(400)]
    assert abs(np.mean(p) - 0.5) < 3 / np.sqrt(12 * 400)
    assert not watch.warned


def test_scores_that_are_too_high_warn_as_high():
    sides, after = warned(lambda rng, k: rng.normal() + 4)
    assert set(sides) == {"high"}
    assert np.median(after) <= 8


def test_a_frozen_camera_warns_as_low():
    sides, after = warned(lambda rng, k: -5.0)
    assert set(sides) == {"low"}
    assert np.median(after) <= 8


def test_few_calibration_episodes_are_enough_to_see_what_lies_beyond_all_of_them():
    sides, after = warned(lambda rng, k: rng.normal() + 8, n=10, lives=30, most=30)
    assert set(sides) == {"high"}
    assert np.median(after) <= 6


def test_a_drift_that_begins_late_is_found_nearly_as_soon():
    sides, after = warned(lambda rng, k: rng.normal() if k < 100 else 5.0, lives=20, most=120)
    assert set(sides) <= {"high", "low"}
    assert np.median(after) <= 100 + 12


def test_the_first_bets_are_those_of_the_formula():
    watch = DriftWatch([1.0, 2.0, 3.0], seed=4)
    first, second = watch.update(2.5), watch.update(-1.0)
    assert 1 / 4 < first.p_value < 2 / 4, "one of three is higher"
    held = APART * DOUBT / (1 - 1 / 4)  # it is not beyond all three
    assert first.wealth_high == pytest.approx(
        held + (1 - APART) * (1 / 2 + 1 / 2 * np.mean(E * first.p_value ** (E - 1)))
    )
    odds = [E * (1 - d.p_value) ** (E - 1) for d in (first, second)]
    low = 1 / 3 + 1 / 6 * odds[1].mean() + 1 / 2 * (odds[0] * odds[1]).mean()
    paid = [(1 - DOUBT) / q if 1 - d.p_value < q else DOUBT / (1 - q) for d, q in ((first, 1 / 4), (second, 2 / 5))]
    assert second.wealth_low == pytest.approx((1 - APART) * low + APART * paid[0] * paid[1])
    assert second.wealth == (second.wealth_high + second.wealth_low) / 2


def test_a_warning_stays_names_its_side_and_what_to_do():
    rng = np.random.default_rng(0)
    watch = DriftWatch(rng.normal(size=50))
    drifts = [watch.update(9.0 if k < 20 else rng.normal()) for k in range(60)]
    first = next(d for d in drifts if d.warned)
    assert first.wealth >= 100
    assert all(before.wealth < 100 for before in drifts[: drifts.index(first)])
    assert drifts[-1].warned == "high"
    assert f"after {first.episodes} episodes" in drifts[-1].words
    assert "recalibrate" in drifts[-1].words
    assert "no drift" in drifts[0].words


def test_the_warning_comes_when_the_mean_of_both_sides_has_reached_one_over_delta():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        watch = DriftWatch(rng.normal(size=100), delta=0.02, seed=seed)
        drifts = [watch.update(rng.normal() + 1.0) for _ in range(60)]
        assert [bool(d.warned) for d in drifts] == list(np.maximum.accumulate([d.wealth for d in drifts]) >= 50)


def test_capital_beyond_all_numbers_stays_a_number():
    watch = DriftWatch(np.random.default_rng(0).normal(size=1000))
    drift = [watch.update(inf) for _ in range(600)][-1]
    assert 1e30 < drift.wealth_high < inf
    assert 0 < drift.wealth_low < 1


def test_what_is_no_number_is_refused():
    with pytest.raises(ContractError, match="NaN"):
        DriftWatch([1.0]).update(nan)
    with pytest.raises(ContractError, match="0 calibration statistics"):
        DriftWatch([])
    with pytest.raises(ContractError, match="delta is 0"):
        DriftWatch([1.0], delta=0)


Z = np.random.default_rng(7).normal(size=30)


def test_a_journal_goes_on_where_another_process_stopped(tmp_path):
    values = np.random.default_rng(8).normal(size=12)
    watch = DriftWatch(Z)
    together = [watch.update(value) for value in values]
    apart = [DriftJournal(tmp_path, Z).record(value, success=None, episode=f"{i}") for i, value in enumerate(values)]
    assert apart == together
    entries = DriftJournal(tmp_path, Z).entries()
    assert [(one.statistic, one.drift) for one in entries] == list(zip(values, together, strict=True))
    state = json.loads((tmp_path / STATE).read_text())
    assert (state["episodes"], state["wealth_low"], state["warned"]) == (12, together[-1].wealth_low, "")
    assert DriftJournal(tmp_path, Z).describe() == state
    assert DriftJournal(tmp_path / "new", Z).describe()["words"] == "no finished episode has been taken yet"


def test_failures_are_kept_and_not_bet_on(tmp_path):
    journal = DriftJournal(tmp_path, Z)
    assert journal.record(50.0, success=False) is None
    first = journal.record(0.5, success=True)
    assert first == DriftWatch(Z).update(0.5), "as if the failure had not been"
    assert journal.record(inf, success=False) is None
    assert [one.label for one in journal.entries()] == ["failure", "success", "failure"]
    state = json.loads((tmp_path / STATE).read_text())
    assert (state["failures_set_aside"], state["episodes"]) == (2, 1)


@pytest.mark.parametrize("torn", [b'{"statist', b'{"statistic": 3.0, "label": "unlabelled"}'])
def test_a_line_that_a_kill_tore_is_dropped(tmp_path, torn):
    DriftJournal(tmp_path, Z).record(0.1, success=None)
    with open(tmp_path / JOURNAL, "ab") as file:
        file.write(torn)
    assert len(DriftJournal(tmp_path, Z).entries()) == 1
    after = DriftJournal(tmp_path, Z).record(0.2, success=None)
    watch = DriftWatch(Z)
    assert [watch.update(0.1), watch.update(0.2)][-1] == after
    assert [one.statistic for one in DriftJournal(tmp_path, Z).entries()] == [0.1, 0.2]


def test_killed_within_the_first_write_it_begins_with_what_is_whole(tmp_path):
    DriftJournal(tmp_path, Z, delta=0.2).record(0.1, success=None)
    whole = (tmp_path / JOURNAL).read_bytes()
    for cut in (4, whole.index(b"\n") + 1):
        (tmp_path / JOURNAL).write_bytes(whole[:cut])
        DriftJournal(tmp_path, Z, delta=0.2).record(0.1, success=None)
        assert len(DriftJournal(tmp_path, Z).entries()) == 1
        assert [path.name for path in sorted(tmp_path.iterdir())] == [STATE, JOURNAL]
    assert DriftJournal(tmp_path, Z).delta == 0.2, "a journal's own counts"


def test_a_line_that_is_none_in_the_middle_is_said(tmp_path):
    for value in (0.1, 0.2):
        DriftJournal(tmp_path, Z).record(value, success=None)
    lines = (tmp_path / JOURNAL).read_text().splitlines()
    for damage in ("{", '{"label": "success"}', "[]"):
        (tmp_path / JOURNAL).write_text("\n".join([lines[0], damage, lines[2]]) + "\n")
        with pytest.raises(MonitorError, match="line 2"):
            DriftJournal(tmp_path, Z).record(0.3, success=None)


def test_a_journal_of_another_calibration_is_kept_under_its_own_name(tmp_path):
    for z in (Z, Z + 1, Z, Z + 1):
        DriftJournal(tmp_path, z).record(0.1, success=None)
    assert len(DriftJournal(tmp_path, Z + 1).entries()) == 1
    assert DriftJournal(tmp_path, Z).entries() == []
    assert len(list(tmp_path.glob("drift-*.jsonl"))) == 3


def test_infinity_goes_through_the_journal_as_json(tmp_path):
    drifts = [DriftJournal(tmp_path, Z).record(inf, success=None) for _ in range(3)]
    text = (tmp_path / JOURNAL).read_text()
    assert all(json.loads(line, parse_constant=pytest.fail) for line in text.splitlines())
    assert [one.statistic for one in DriftJournal(tmp_path, Z).entries()] == [inf] * 3
    assert all(b.wealth_high > a.wealth_high for a, b in pairwise(drifts))
    assert drifts[-1].wealth_high < exp(20)

"""A monitor against clock, chance and others on synthetic decisions: roles, table, verdicts, page."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from browser_chromium import Tab, chromium
from judged_episodes import judged, labelled
from test_evaluation_report import Page

from robopolicy.errors import ContractError, MonitorError, NotEnoughCalibration
from robopolicy.monitor import comparison as c
from robopolicy.monitor.comparison import CLOCK, MATCHED, RANDOM, Method, compare, fitted
from robopolicy.monitor.comparison_page import number, write_results
from robopolicy.monitor.comparison_plots import histogram_plot, traces_plot
from robopolicy.monitor.comparison_verdicts import verdicts
from robopolicy.monitor.conformal import conformal_threshold
from robopolicy.monitor.measures import Panel
from robopolicy.monitor.monitor import MonitorConfig
from robopolicy.monitor.protocol import freeze, split
from robopolicy.monitor.resampled import Estimate
from robopolicy.monitor.roles import Roles
from robopolicy.types import Verdict

CONFIG = MonitorConfig(("kernel_density",), alpha=0.1)


def episode(name, seed, success, values, **rest):
    return replace(labelled(name, success, values, seed=seed, **rest), seed=seed)


def nominal(n=40, failures=0, first=0):
    rng = np.random.default_rng(first)
    good = [episode(f"r/{i}", first + i, True, rng.normal(0, 1, rng.integers(8, 13))) for i in range(n)]
    bad = [episode(f"r/{n + i}", first + n + i, False, rng.normal(0, 1, 20)) for i in range(failures)]
    return [*good, *bad]


def perturbed(n=40, jump=8.0, stratum="push:1"):
    """Half fail: the first element of the embedding jumps by ``jump`` at decision 5, the onset is at 8."""
    rng = np.random.default_rng(99)
    found = []
    for i in range(n):
        values = rng.normal(0, 1, rng.integers(8, 13) if i % 2 else 20)
        if not i % 2:
            values[5:] += jump
        rest = {} if i % 2 else {"onset": 8.0, "failure": "dropped_<it>"}
        found.append(episode(f"p/{i}", 1000 + i, bool(i % 2), values, stratum=stratum, **rest))
    return found


class Level:
    """Alarms when the largest first element of the embedding is above that of all but a few calibration episodes."""

    def __init__(self, one, alpha):
        self.threshold = conformal_threshold(
            np.array([max(d.embedding[0] for d in e.decisions) for e in one.calibrate]), alpha
        )
        self.reset()

    def reset(self):
        self.largest = -np.inf

    def step(self, decision):
        self.largest = max(self.largest, float(decision.embedding[0]))
        state = "alarm" if self.largest > self.threshold else "nominal"
        return Verdict(decision.stamp_ns, {}, self.largest, self.threshold, 0.5, state, 0.002)

    def guarantee(self):
        return "a promise <in words>"


LEVEL = Method("level", "monitor", lambda one: Level(one, 0.1), "first element")


def splits(test, n=3, rollouts=None, **rest):
    return [split(rollouts or nominal(), test, alpha=0.1, seed=s, **rest) for s in range(n)]


@pytest.fixture(scope="module")
def compared():
    blind = Method("blind", "score", lambda one: Still(0.0))
    broken = Method("broken", "published", lambda one: raising("needs what is not there"))
    return compare(splits(perturbed()), LEVEL, [blind, broken], alpha=0.1, resamples=300)


class Still:
    """Says the same of every decision."""

    def __init__(self, value):
        self.value = value

    def reset(self):
        pass

    def step(self, decision):
        return Verdict(decision.stamp_ns, {}, self.value, 1.0, 1.0, "nominal")


def raising(text):
    raise MonitorError(text)


def test_a_perfect_score_is_perfect_and_chance_is_not(compared):
    ours = compared.ours
    assert ours.measures["tpr"].value == 1
    assert ours.measures["auroc"].value == 1
    assert ours.measures["balanced_accuracy"].value > 0.9
    assert ours.measures["median_lead_s"].value == pytest.approx(3 * 0.2)
    assert ours.leads == {"before": 20, "after": 0, "never": 0, "no_onset": 0}
    blind = compared.row("blind").measures
    assert (blind["tpr"].value, blind["tnr"].value, blind["auroc"].value) == (0, 1, 0.5)
    assert compared.row(RANDOM).measures["balanced_accuracy"].value == pytest.approx(0.5, abs=0.15)


def test_clock_and_chance_are_always_there_and_at_the_same_rate(compared):
    names = [row.name for row in compared.rows]
    assert names == ["level", "blind", CLOCK, MATCHED, RANDOM]
    ours, matched = compared.ours, compared.row(MATCHED)
    assert matched.measures["tnr"].value >= ours.measures["tnr"].value, "never more false alarms than ours"
    assert matched.measures["tpr"].value == 1, "failures last 20 decisions, successes 12 at most: it sees them all"
    assert matched.measures["auroc_50"].value == 0.5, "but not before a success could have ended"
    assert matched.measures["caught_in_time"].value == 0 < ours.measures["caught_in_time"].value
    found = ours.measures["twa"].value - matched.measures["twa"].value
    assert matched.behind["twa"].value == pytest.approx(found)
    assert matched.behind["twa"].low > 0.1
    assert ours.behind == {}
    clock = compared.row(CLOCK)
    assert clock.measures["nominal_false_alarms"].value <= 0.2
    assert clock.measures["auroc_25"].value == 0.5


def test_what_cannot_be_made_is_said(compared):
    assert compared.notes == ("broken is not in the table: needs what is not there",)
    with pytest.raises(MonitorError, match="no method 'broken' in this table; it has level, blind, clock"):
        compared.row("broken")
    with pytest.raises(MonitorError, match="needs what"):
        compare(splits(perturbed(), 1), replace(LEVEL, make=lambda one: raising("needs what")), alpha=0.1)
    with pytest.raises(ContractError, match="no split"):
        compare([], LEVEL, alpha=0.1)


def test_verdicts_in_words(compared):
    said = verdicts(compared)
    assert any("within the promised 10.0%" in s for s in said)
    assert any(s.startswith("By TWA the monitor beats a stopwatch that alarms falsely as often: +0.") for s in said)
    assert any("half the nominal task time" in s and "by the clock 0.50" in s for s in said)
    assert any(
        "Of 20 failures with an onset 20 were alarmed before it, 0 at it or after it, 0 never" in s for s in said
    )


def test_verdicts_say_what_is_bad():
    """A monitor that alarms at every first decision breaks its promise and is no better than chance."""
    always = Method("always", "monitor", lambda one: Always())
    said = verdicts(compare(splits(perturbed(20), 2), always, alpha=0.1, resamples=200))
    assert "False alarms of the scores at 100.0% of nominal successes" in said[0]
    assert "ABOVE the promised" in said[0]
    blind = Method("blind", "monitor", lambda one: Still(0.0))
    said = verdicts(compare(splits(perturbed(20), 2), blind, alpha=0.1, resamples=200))
    assert any("LOSES TO a stopwatch" in s for s in said)
    assert any("0 were alarmed before it, 0 at it or after it, 10 never" in s for s in said)


class Always(Still):
    def __init__(self):
        super().__init__(2.0)

    def step(self, decision):
        return Verdict(decision.stamp_ns, {}, 2.0, 1.0, 0.0, "alarm")


class Late(Still):
    """No alarm of its scores; an overrun from decision 14 on."""

    def step(self, decision):
        return replace(super().step(decision), state="overrun" if decision.index >= 14 else "nominal")


def test_overruns_are_told_apart():
    late = Method("late", "monitor", lambda one: Late(0.0))
    score = Method("score", "score", lambda one: Late(0.0))
    found = compare(splits(perturbed(20), 2), late, [score], alpha=0.1, resamples=50)
    assert [row.name for row in found.rows][:2] == ["late", "late, without overrun"]
    assert found.ours.measures["tpr"].value == 1
    assert found.rows[1].measures["tpr"].value == 0
    assert found.row("score").measures["tpr"].value == 0, "of a single score its own alarms count"
    said = verdicts(found)
    assert "False alarms of the scores at 0.0%" in said[0]
    assert said[-2].startswith("Of 10 failures with an onset 0 were alarmed before it, 10 at it or after it")
    assert said[-1].startswith("Without overruns: Of 10 failures with an onset 0 were alarmed before it, 0 at it")


def test_a_fitted_monitor_sees_the_jump_and_keeps_its_promise():
    found = compare(
        splits(perturbed(30, jump=12.0), 2, nominal(60)),
        fitted("monitor", CONFIG),
        [fitted("clock again", MonitorConfig(("clock",), alpha=0.1), "baseline")],
        alpha=0.1,
        resamples=100,
    )
    assert found.ours.measures["tpr"].value == 1
    assert found.ours.measures["median_lead_s"].value == pytest.approx(0.6)
    again, clock = found.row("clock again"), found.row(CLOCK)
    assert again.measures["twa"].value == clock.measures["twa"].value
    assert again.measures["auroc"].value <= clock.measures["auroc"].value == 1, "it goes on counting"
    assert "at most 0.1" in found.guarantee
    assert "successful calibration episodes" in found.guarantee


def test_roles_are_by_episode_and_nobody_has_two():
    rollouts = nominal(50, failures=4)
    one = split(rollouts, perturbed(10), alpha=0.1, seed=1)
    names = [[e.name for e in part] for part in (one.fit, one.calibrate, one.test)]
    assert sum(map(len, names)) == len({name for part in names for name in part}) == 64
    assert sum(e.success and not e.ood for e in one.test) == 12
    assert {e.name for e in rollouts if not e.success} <= set(names[2])
    assert all(e.success for e in (*one.fit, *one.calibrate))
    assert one.task_time == np.median([len(e.decisions) for e in (*one.fit, *one.calibrate)])
    other = split(rollouts, perturbed(10), alpha=0.1, seed=2)
    assert other.roles != one.roles
    assert split(rollouts, perturbed(10), alpha=0.1, seed=1).roles == one.roles
    learning = split(rollouts, perturbed(10), alpha=0.1, seed=1, learn_failures=True)
    assert len(learning.failed) == 4
    assert not {e.name for e in learning.failed} & {e.name for e in learning.test}


def test_of_few_rollouts_none_are_held_out_that_calibration_needs():
    assert len(split(nominal(11), perturbed(4), alpha=0.1, seed=0).test) == 4
    assert len(split(nominal(13), perturbed(4), alpha=0.1, seed=0).test) == 6
    with pytest.raises(NotEnoughCalibration, match="at least 11"):
        split(nominal(10), perturbed(4), alpha=0.1, seed=0)


def test_what_must_not_be_mixed_is_refused():
    with pytest.raises(MonitorError, match=r"r/3 is of a perturbed world \(camera:1\)"):
        split([*nominal(3), episode("r/3", 3, True, [0.0], stratum="camera:1")], [], alpha=0.1, seed=0)
    again = episode("t/5", 5, True, [0.0, 1.0])
    with pytest.raises(MonitorError, match="1 nominal test episodes have starts of the calibration rollouts, seed 5"):
        split(nominal(), [again], alpha=0.1, seed=0)
    split(nominal(), [replace(again, stratum="camera:1")], alpha=0.1, seed=0)


def test_the_protocol_is_frozen_before_anything_is_scored(tmp_path):
    two = splits(perturbed(6), 2)
    sha = freeze(tmp_path, two, {"alpha": 0.1, "scores": ("a", "b")})
    assert freeze(tmp_path, two, {"alpha": 0.1, "scores": ("a", "b")}) == sha, "again is no change"
    assert Roles.load(tmp_path / "roles-1.json") == two[1].roles
    said = json.loads((tmp_path / "protocol.json").read_text())
    assert said["splits"][0]["calibrate"] == [e.name for e in two[0].calibrate]
    with pytest.raises(MonitorError, match=r"frozen and has other alpha 0\.1, asked for 0\.2; name another folder"):
        freeze(tmp_path, two, {"alpha": 0.2, "scores": ("a", "b")})
    with pytest.raises(MonitorError, match="other episodes"):
        freeze(tmp_path, splits(perturbed(8), 2), {"alpha": 0.1, "scores": ("a", "b")})
    (tmp_path / "protocol.json").write_text("[]")
    with pytest.raises(MonitorError, match="holds no protocol"):
        freeze(tmp_path, two, {"alpha": 0.1})


def test_no_outcome_reaches_a_monitor():
    """What became of the test episodes changes no verdict and no role."""
    test = perturbed(20)
    swapped = [replace(e, success=not e.success, onset=None) for e in test]
    one, other = (compare(splits(t, 1), LEVEL, alpha=0.1, resamples=20) for t in (test, swapped))
    alarms = [{e.name: e.alarm for e in found.ours.panels[0].episodes} for found in (one, other)]
    assert alarms[0] == alarms[1]


def test_the_page_and_its_numbers(compared, tmp_path):
    facts = {"env": "x", "command": "robopolicy <x>"}
    page = Page(write_results(tmp_path, compared, title="A <title>", facts=facts, protocol="abc").read_text())
    for words in ("A <title>", "What the numbers say", "Every monitor on the same episodes", CLOCK, MATCHED, RANDOM,
                  "a promise <in words>", "By perturbation", "push:1", "dropped <it>", "onset at 1.60 s", "threshold",
                  "broken is not in the table", "Nominal task time", "Differences, paired", "abc"):  # fmt: skip
        assert words in page.words, words
    assert not page.links, "nothing is fetched"
    results = json.loads((tmp_path / "results.json").read_text(), parse_constant=raising)
    assert list(results["methods"]) == ["level", "blind", CLOCK, MATCHED, RANDOM]
    level = results["methods"]["level"]
    assert level["measures"]["tpr"]["value"] == 1
    assert level["measures"]["tpr"]["counts"] == {"k": 20.0, "n": 20}
    assert level["latency_ms"] == {"p50": 2.0, "p99": 2.0}
    assert len(level["measures"]["twa"]["splits"]) == 3
    assert results["methods"][MATCHED]["behind"]["twa"]["low"] > 0
    assert results["strata"] == ["nominal", "push:1"]
    assert level["strata"]["push:1"]["tpr"]["value"] == 1
    assert level["strata"]["nominal"]["tpr"]["value"] is None, "no nominal failure"


def test_a_page_of_little_is_a_page_too(tmp_path):
    """No failure at all, and nothing but failures without onset or alarm."""
    calm = compare(splits([e for e in perturbed(12) if e.success], 1), LEVEL, alpha=0.1, resamples=20)
    Page(write_results(tmp_path / "a", calm, title="t", facts={}).read_text())
    assert verdicts(calm)[-1].startswith("No failure was tested")
    bad = [replace(e, onset=None) for e in perturbed(12) if not e.success]
    blind = Method("blind", "monitor", lambda one: Still(0.0))
    found = compare(splits(bad, 1, nominal(11)), blind, alpha=0.1, resamples=20)
    Page(write_results(tmp_path / "b", found, title="t", facts={}).read_text())
    assert "No nominal success was tested" in verdicts(found)[0]
    assert verdicts(found)[-1].startswith("No failure has an onset")


@pytest.fixture(scope="module")
def tab():
    with chromium() as running:
        yield Tab(running)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 380])
def test_a_browser_shows_it_whole(tab, compared, tmp_path, scheme, width):
    path = write_results(tmp_path, compared, title="t", facts={"command": "robopolicy x"})
    tab.page.emulate_media(color_scheme=scheme)
    tab.size(width, 900)
    tab.open(path.as_uri())
    assert tab.eval("document.documentElement.scrollWidth <= innerWidth")
    assert tab.eval("document.querySelectorAll('svg.plot').length") > 20
    if width == 1200:
        wide = "[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth <= e.clientWidth)"
        assert all(tab.eval(wide)), "no table is wider than the page"
    boxes = tab.eval(
        "[...document.querySelectorAll('svg.plot')].map(s => [s.viewBox.baseVal.width, "
        "...[...s.querySelectorAll('text')].map(t => t.getBBox()).map(b => [b.x, b.x + b.width])])"
    )
    assert all(left >= -1 and right <= wide + 1 for wide, *texts in boxes for left, right in texts), "no word is cut"
    assert tab.errors == []


def test_numbers_in_digits():
    assert number(Estimate(None, None, None)) == ""
    assert number(Estimate(-np.inf, None, None)) == "never"
    assert number(Estimate(0.5, 0.4, 0.6, method="clopper-pearson")) == "50%"
    assert number(Estimate(0.5, 0.4, 0.6)) == "0.50"


def test_drawings_of_what_is_no_number():
    strange = [
        judged("a", True, [-np.inf, 0.0, np.inf], np.inf),
        judged("b", False, [np.finfo(float).min, 0.0, 5.0], onset=1.0),
    ]
    drawn = traces_plot(strange)
    assert "nan" not in drawn
    assert "inf" not in drawn.replace("inf</title>", "")
    Page(drawn)
    assert traces_plot([judged("c", False, [-np.inf])]) == ""
    assert histogram_plot([], what="s") == ""
    counts = Page(histogram_plot([-1.0, 0.5, 0.6, 3.0], what="s", never=2))
    assert "never 2" in counts.words
    assert Panel.of(strange).peak().tolist() == [np.inf, 5.0]
    assert c.PAIRED[0] == "balanced_accuracy"

"""The report of how episodes went: modes, causes of failure, times; nothing of what is not known; in a browser."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from browser_chromium import Tab, chromium
from test_evaluation_report import Page

from robopolicy.evaluation.outcomes import Outcome
from robopolicy.evaluation.page_measures import note
from robopolicy.evaluation.plots import count_plot
from robopolicy.evaluation.report import write_report
from robopolicy.evaluation.statistics import median_of, summarise

MODES = ("left", "right", "<over>", "a way with a very long name indeed")


def episodes():
    good = [
        Outcome(seed, True, 1.0, 40 + seed, success_s=4.0 + seed / 10, smoothness=-2.0, mode=MODES[seed % 3])
        for seed in range(12)
    ]
    return [
        *good,
        Outcome(12, failure="dropped_<twice>", onset_step=17, steps=90),
        Outcome(13, failure="dropped_<twice>", onset_step=30, steps=90),
        Outcome(14, failure="timeout", steps=90),
        Outcome(15, error="RuntimeError: broke"),
        Outcome(16, True, 1.0, 40, success_s=4.0, mode=None),
    ]


def written(folder, outcomes, **options):
    return write_report(folder, outcomes, summarise(outcomes, **options), {}, title="t", facts={})


def test_the_page_tells_times_modes_and_causes(tmp_path):
    page = Page(written(tmp_path, episodes(), modes=MODES).read_text())
    for words in ("Time to success, median", "4.5 s", "95% interval 4.1 to 4.9 s, 13 successes", "Smoothness", "-2.00",
                  "Behaviour entropy", "12 successes are few for 4 modes", "1 successes had no mode", "<over>",
                  "dropped_<twice>", "dropped <twice> from step 17 on", "23.5", "12, 13", "timeout",
                  "still making progress", "a way with a very long na…"):  # fmt: skip
        assert words in page.words, words
    assert "twice>212%23.512, 13" in page.words, "2 of 17 episodes, from step 23.5 on"
    assert "Steps to success" not in page.words


def test_what_is_not_known_is_not_there(tmp_path):
    old = [Outcome(seed, seed > 0, 0.5, 30) for seed in range(4)]
    page = Page(written(tmp_path, old).read_text())
    assert "Steps to success, median" in page.words
    for words in ("Time to success", "Smoothness", "entropy", "Modes"):
        assert words not in page.words
    assert "not known" in page.words, "why it failed"
    good = Page(written(tmp_path, old[1:]).read_text())
    assert "Why episodes failed" not in good.words


def test_a_summary_says_time_and_entropy_and_repeats():
    first, second = (summarise(episodes(), modes=MODES) for _ in range(2))
    assert first == second
    assert "median time to success 4.5 [4.1, 4.9] s" in first.headline()
    assert "behaviour entropy 0.79 [" in first.headline()
    assert [cause.failure for cause in first.causes] == ["dropped_<twice>", "error", "timeout"]


def test_medians():
    assert median_of([]) is None
    few = median_of([3.0, 1.0, 2.0, 5.0, 4.0])
    assert (few.value, few.low, few.high) == (3.0, None, None)
    six = median_of([1, 2, 3, 4, 5, 6])
    assert (six.value, six.low, six.high) == (3.5, 1, 6)  # 1 - 2 / 2 ** 6 = .969
    hundred = median_of(list(range(1, 101)))
    assert (hundred.low, hundred.high) == (40, 61)  # the published ranks for n = 100 at 95 %
    assert str(six) == "3.5 [1, 6]"


def test_notes_are_short():
    assert note(Outcome(1, True, mode="left")) == "left"
    assert (
        note(Outcome(1, failure="off_table", onset_step=3, disturbance="tossed")) == "off table from step 3 on; tossed"
    )
    assert note(Outcome(1, failure="stopped", onset_step=3, stopped="too old")) == "too old"
    assert note(Outcome(1)) == ""


def test_counts_of_nothing_are_a_drawing_too():
    for counts in ({}, {"a": 0, "b": 0}):
        Page(count_plot(counts))


@pytest.fixture(scope="module")
def tab():
    with chromium() as running:
        yield Tab(running)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 380])
def test_a_browser_shows_it_whole(tab, tmp_path, scheme, width):
    path = written(tmp_path, episodes(), modes=MODES)
    tab.page.emulate_media(color_scheme=scheme)
    tab.size(width, 900)
    tab.open(path.as_uri())
    assert tab.eval("document.documentElement.scrollWidth <= innerWidth")
    assert tab.eval("document.querySelectorAll('svg.counts rect').length") == 4
    boxes = tab.eval(
        "[...document.querySelectorAll('svg.counts text')].map(t => t.getBBox()).map(b => [b.x, b.x + b.width])"
    )
    wide = tab.eval("document.querySelector('svg.counts').viewBox.baseVal.width")
    assert all(left >= 0 and right <= wide for left, right in boxes), "no name is cut"
    ink = tab.eval("getComputedStyle(document.querySelector('.number')).color")
    assert ink != tab.eval("getComputedStyle(document.querySelector('.card')).backgroundColor")
    assert tab.errors == []

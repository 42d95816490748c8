import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from robopolicy.evaluation.comparison import compare
from robopolicy.evaluation.outcomes import Outcome
from robopolicy.evaluation.statistics import success_rate
from robopolicy.evaluation.suite import Cell, Suite
from robopolicy.evaluation.sweep import Processes, sweep
from robopolicy.evaluation.sweep_cells import cells_of, compare_cells, summarise_cells
from robopolicy.evaluation.sweep_films import chosen, film_failures
from robopolicy.evaluation.sweep_page import films as films_section
from robopolicy.evaluation.sweep_plots import curves_plot
from robopolicy.evaluation.sweep_report import write_sweep_report

sys.path.insert(0, str(Path(__file__).parent))  # inherited by spawned processes, which import what they run
import browser_chromium
import sweep_rows
import tiny_sweep
import tiny_worlds as tiny

FACTS = {"command": "robopolicy sweep night.yaml", "suite": "seeds: <all>", "seeds": "100000:100040"}
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags nest, and keeps the words and where links go."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.links = [], "", []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag != "script"
        self.links += [value for name, value in attrs if name in ("src", "href", "data", "poster")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def written(out, suite=sweep_rows.SUITE, rows=None, films=None):
    rows = sweep_rows.rows(suite) if rows is None else rows
    write_sweep_report(out, suite, rows, films or {}, title="night", facts=FACTS, modes=sweep_rows.MODES)
    return (out / "report.html").read_text()


@pytest.fixture(scope="module")
def rows():
    return sweep_rows.rows()


def test_the_page_says_what_the_rows_say(tmp_path, rows):
    text = written(tmp_path, rows=rows)
    page = Page(text)
    assert "http" not in text
    assert page.links == []
    cells = cells_of(rows)
    for cell in (Cell("ours", "twin:lift"), Cell("baseline", "twin:stack", ("camera:0.5", "friction:0.5"))):
        valid = [outcome for outcome in cells[cell] if outcome.error is None]
        rate = success_rate(sum(outcome.success for outcome in valid), len(valid))
        told = f"{rate.value:.0%} [{100 * rate.low:.0f}, {100 * rate.high:.0f}] {rate.successes}/{rate.n}"
        assert told in page.words, cell
    broken = [row for row in rows if row["error"] is not None]
    assert broken
    for row in broken:
        assert f"{row['seed']}crashed: the process died" in page.words
    for words in ("1,680", "all of the suite", "3 checkpoints", "camera:0.5 + friction:0.5", "seeds: <all>", "4f2c4f2c",
                  "robopolicy sweep night.yaml", "node7", "llvmpipe", "torch 2.13", "off table", "36 perturbed",
                  "ours is better than few demos", "2 of 2 modes"):  # fmt: skip
        assert words in page.words, words
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["cells"]) == len(sweep_rows.SUITE.cells())
    assert sum(cell["errors"] for cell in results["cells"]) == len(broken)
    by_name = {(cell["checkpoint"], cell["world"], tuple(cell["perturbations"])): cell for cell in results["cells"]}
    entropy = {name: by_name[name, "twin:stack", ()]["summary"]["entropy"]["value"] for name in ("ours", "baseline")}
    assert entropy["ours"] > 0.9
    assert entropy["baseline"] < 0.3
    assert by_name["ours", "twin:lift", ()]["summary"]["entropy"] is None


def test_verdicts_are_of_paired_starts_and_of_two_families(rows):
    results = summarise_cells(sweep_rows.SUITE, rows, sweep_rows.MODES)
    compared = compare_cells(results, sweep_rows.SUITE.seeds)
    calm = [one for one in compared if not one.perturbations]
    assert (len(calm), len(compared)) == (3 * 2, 3 * 2 * 7)
    assert {one.comparison.family for one in calm} == {6}
    assert {one.comparison.family for one in compared if one.perturbations} == {36}
    cells = cells_of(rows)
    one = next(one for one in calm if (one.world, one.comparison.b) == ("twin:lift", "few demos"))
    alone = compare(one.comparison.a, cells[Cell(one.comparison.a, "twin:lift")], "few demos",
                    cells[Cell("few demos", "twin:lift")])  # fmt: skip
    assert (one.comparison.a_only, one.comparison.b_only) == (alone.a_only, alone.b_only)
    assert one.comparison.better == one.comparison.a
    scored = compare_cells(results, sweep_rows.SUITE.seeds, of="score")
    assert {c.comparison.of for c in scored} == {"score"}
    assert len(scored) == len(compared)


def test_successes_that_end_early_decide_nothing_while_failures_are_under_way(tmp_path):
    suite = Suite({"a": None, "b": None}, ("twin:lift",), tuple(range(39, -1, -1)))
    made = sweep_rows.rows(replace(sweep_rows.SUITE, seeds=suite.seeds))
    ours = {row["seed"]: row for row in made if row["world"] == "twin:lift" and not row["perturbations"]}
    rows = [
        {**ours[seed], "checkpoint": name, "success": good, "error": None}
        for name, rest in (("a", 0), ("b", 1)) for seed in suite.seeds
        for good in [seed % 2 == rest] if name == "a" or good or seed == 38
    ]  # fmt: skip
    results = summarise_cells(suite, rows, {})
    [one] = compare_cells(results, suite.seeds)
    assert one.comparison.seeds == (37, 38, 39), "in the order of the suite"
    assert not one.comparison.better
    [early] = compare_cells(results, [seed for seed in suite.seeds if seed % 2 or seed == 38])
    assert early.comparison.better == "b", "what would have been said of b's quick successes"
    page = Page(written(tmp_path, suite, rows))
    assert "not decided after 3 pairs" in page.words
    assert "the rates of a cell that is under way flatter it" in page.words
    assert "20 of 40 undisturbed; 95 % interval" in page.words, "a's"
    assert "20 of 21 undisturbed, under way to 40; 95 % interval" in page.words, "b's"
    assert page.words.count("under way to 40") == 2, "on its tile and in its cell"


def test_an_unfinished_sweep_with_one_checkpoint_and_a_cell_without_outcomes(tmp_path):
    suite = Suite({"a": None}, ("twin:lift", "twin:stack"), (1, 2), ((), ("camera:1",)))
    made = sweep_rows.rows(replace(sweep_rows.SUITE, seeds=(1, 2)))
    rows = [{**row, "checkpoint": "a"} for row in made if row["checkpoint"] == "ours" and row["world"] == "twin:lift"
            and row["perturbations"] in ([], ["camera:1"])]  # fmt: skip
    for row in rows:
        if row["perturbations"]:
            row |= {"error": "hung: <script>", "success": False}
    page = Page(written(tmp_path, suite, rows))
    for words in ("4of 8 in the suite: the sweep is not complete", "no outcome", "2 errors", "hung: <script>"):
        assert words in page.words, words
    assert "Which is better" not in page.words
    assert "flatter" in page.words
    assert "flatter" not in Page(written(tmp_path)).words


@pytest.mark.parametrize("width", [1, 7])
def test_curves_hold_their_numbers_and_their_labels_stay_apart(width):
    curves = {f"p{i}": [(s, success_rate(20 - 10 * round(s), 20)) for s in (0.0, 0.25, 1.0)] for i in range(width)}
    curves["empty"] = []
    svg = curves_plot(curves, "camera", labels=5)
    Page(svg)
    for box in re.findall(r'viewBox="0 0 (\d+) (\d+)"', svg):
        right, bottom = map(int, box)
    xs = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', svg)]
    assert xs[1] - xs[0] == pytest.approx((xs[2] - xs[0]) / 4, abs=0.1), "to scale"
    ys = [float(y) for y in re.findall(r'cy="([\d.]+)"', svg)]
    assert (ys[2] - ys[0]) * 2 == pytest.approx(bottom - 36 - 12, abs=0.2), "from 100 % to 50 % is half the height"
    labels = [(float(x), float(y)) for x, y in re.findall(r'<text x="([\d.]+)" y="([\d.]+)" class="label', svg)]
    assert len(labels) == width
    heights = sorted(y for _, y in labels)
    assert all(b - a >= 13.9 for a, b in pairwise(heights))
    assert all(x + 5 * 7 <= right for x, _ in labels)


def test_failures_to_film_are_the_first_of_every_cell_then_the_second():
    items, _ = tiny_sweep.parts(tiny_sweep.suite(4))
    rows = [{"success": item.seed == 20, "error": "x" if item.seed == 21 else None} for item in items]
    picked = chosen(items, rows, 2)
    assert {item.seed for item in picked} == {22, 23}
    cells = len({item.cell for item in items})
    assert [item.seed for item in picked] == [22] * cells + [23] * cells
    assert not any(item.cell.perturbations for item in picked[: cells // 2])
    assert chosen(items, rows, 2, most=3) == picked[:3]
    assert chosen(items, rows, 0) == []


def test_failures_are_filmed_once_and_shown(tmp_path):
    suite = replace(tiny_sweep.suite(3, ((),)), max_steps=2, worlds=("point",))
    items, recipes = tiny_sweep.parts(suite)
    rows = sweep(items, recipes, tmp_path, facts=tiny_sweep.FACTS, executor=Processes(1))
    shown = chosen(items, rows, 1)
    films = film_failures(shown, recipes, tmp_path / "videos", Processes(1))
    assert [(cell.checkpoint, [film.seed for film in found]) for cell, found in films.items()] == [
        ("a", [20]), ("b", [20]),
    ]  # fmt: skip
    paths = {Path(film.video) for found in films.values() for film in found}
    assert len(paths) == 2
    before = {path: path.stat().st_mtime_ns for path in paths}
    again = film_failures(shown, recipes, tmp_path / "videos", Processes(1))
    assert again == films
    assert {path: path.stat().st_mtime_ns for path in paths} == before
    text = written(tmp_path, suite, rows, films)
    page = Page(text)
    assert text.count("<video") == 2
    assert "2 of 6" in page.words
    assert "the filmed run differs" not in page.words
    results = summarise_cells(suite, rows, {})
    films[items[0].cell] = [replace(films[items[0].cell][0], steps=1)]
    assert "the filmed run differs: failure in 1 steps" in films_section(results, films)
    films[items[0].cell] = [Outcome(20, error="no GL")]
    assert "not filmed: no GL" in films_section(results, films)


def test_in_a_real_browser_nothing_is_cut_off_or_asked_for(tmp_path, rows):
    written(tmp_path, rows=rows)
    luminance = "(c => .3*c[0]+.6*c[1]+.1*c[2])(getComputedStyle(document.body).{}.match(/[\\d.]+/g).map(Number))"
    colours = "new Set([...document.querySelectorAll('{}')].map(e => getComputedStyle(e).{})).size"
    cut = (
        "[...document.querySelectorAll('svg text')].filter(t => {"
        "const b = t.getBoundingClientRect(), s = t.ownerSVGElement.getBoundingClientRect();"
        "return b.left < s.left - 1 || b.right > s.right + 1 || b.bottom > s.bottom + 1;"
        "}).map(t => t.textContent)"
    )
    with browser_chromium.chromium() as browser:
        tab = browser_chromium.Tab(browser)
        tab.open((tmp_path / "report.html").as_uri())
        for scheme in ("light", "dark"):
            tab.page.emulate_media(color_scheme=scheme)
            paper, ink = tab.eval(luminance.format("backgroundColor")), tab.eval(luminance.format("color"))
            assert (ink < paper) is (scheme == "light")
            assert abs(ink - paper) > 120
            for selector, part in (("polyline.curve", "stroke"), ("circle.point", "fill"), (".cell .span", "stroke")):
                assert tab.eval(colours.format(selector, part)) == 3, "one colour a checkpoint"
        for width in (1280, 390):
            tab.size(width, 800)
            assert tab.eval("document.documentElement.scrollWidth") <= width
            assert tab.eval(cut) == []
        tab.click("details > summary")
        assert tab.eval("document.querySelector('details').open")
        assert tab.errors == []
        assert tab.requests == [(tmp_path / "report.html").as_uri()]


def test_rows_of_tiny_worlds_have_measures(tmp_path):
    items, recipes = tiny_sweep.parts(tiny_sweep.suite(2, ((),)))
    rows = sweep(items, recipes, tmp_path, facts=tiny_sweep.FACTS, executor=Processes(1))
    assert tiny.EasyWorld.max_steps
    page = Page(written(tmp_path, tiny_sweep.suite(2, ((),)), rows))
    assert "a in point" in page.words
    assert "a is better" not in page.words

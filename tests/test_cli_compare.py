"""`robopolicy compare` and `eval --against`: what they say, refuse, write, and that a browser shows it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # inherited by spawned processes, which import what they run
from browser_chromium import Tab, chromium
from test_cli_running import checkpoint

from robopolicy.cli.main import main
from robopolicy.errors import UsageError
from robopolicy.evaluation.outcomes import Outcome, OutcomeLog, load_outcomes
from robopolicy.evaluation.runs import read_runs, short_names

WORLD = "tiny_worlds:EasyWorld"
ABOUT = {"env": "twin:lift", "software": "robopolicy 1", "policy_sha": "aa"}


def evaluation(folder, successes, first=0, about=ABOUT, **fields):
    """A folder as an evaluation leaves it."""
    log = OutcomeLog(folder, "identity")
    log.begin(about, range(first, first + len(successes)))
    for i, success in enumerate(successes):
        time = {"success_s": 2.0 + i % 5} if success else {"failure": "dropped", "onset_step": 7}
        log.append(Outcome(first + i, bool(success), 0.25 + 0.75 * bool(success), 40, **time, **fields))
    return folder


@pytest.fixture
def two(tmp_path):
    start = np.random.default_rng(0).random(100)
    new = evaluation(tmp_path / "runs" / "new" / "eval", start < 0.85)
    return new, evaluation(tmp_path / "runs" / "old" / "eval", start < 0.6, about={**ABOUT, "policy_sha": "bb"})


def compare(capsys, *words):
    code = main(["compare", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out, said.err.strip()


def test_two_evaluations_become_a_table_and_a_verdict(two, capsys):
    code, out, err = compare(capsys, *two)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("new   success 77/100 = 77% [67.5%, 84.8%]")
    assert lines[1].startswith("old   success ")
    assert "median" not in lines[0]
    assert "4 [" in lines[0], "time to success"
    assert lines[2].startswith("better: new is better than old: ")
    assert "against 0 discordant of 100 seeds, e = " in lines[2]
    assert len(lines) == 3


def test_a_fixed_number_of_seeds_scores_and_names(two, capsys):
    _, out, _ = compare(capsys, *two, "--fixed")
    assert "McNemar p = " in out
    _, out, _ = compare(capsys, f"after={two[0]}", f"before={two[1]}", "--score", "--alpha", "0.01")
    assert "after is better than before in score: scores of 100 seeds, e = " in out
    assert ">= 100;" in out
    code, _, err = compare(capsys, *two, "--score", "--fixed")
    assert (code, "take one" in err) == (1, True)


def test_what_was_not_evaluated_alike_is_refused_with_both_sides(two, tmp_path, capsys):
    new = two[0]
    for about, fields, says in (
        ({**ABOUT, "env": "twin:stack"}, {}, "env is 'twin:lift' in the first, 'twin:stack' in the second"),
        ({**ABOUT, "options": "disturbed at step 3"}, {}, "options is 'plain' in the first, 'disturbed at step 3'"),
        (ABOUT, {"perturbations": ("camera:0.5",)}, "seed 0 is 'plain' in the first, 'camera:0.5' in the second"),
        (
            ABOUT,
            {"disturb_step": 9, "disturbance": "pushed"},
            "the disturbance is 'plain' in the first, 'at step 9' in the second",
        ),
    ):
        other = evaluation(tmp_path / says[:20], [1, 0, 1], about=about, **fields)
        code, out, err = compare(capsys, new, other)
        assert (code, out) == (1, "")
        assert says in err
        assert str(new) in err
        assert str(other) in err
        assert len(err.splitlines()) == 1


def test_an_episode_that_was_over_before_its_disturbance_is_compared_all_the_same(tmp_path, capsys):
    about, folders = {**ABOUT, "options": "disturbed at step 20"}, []
    for name in ("quick", "slow"):
        log = OutcomeLog(tmp_path / name, "identity")
        log.begin({**about, "policy_sha": name}, range(6))
        for seed in range(6):
            early = name == "quick" and seed < 3
            log.append(Outcome(seed, early, 1.0, 12 if early else 40, disturb_step=None if early else 20,
                               disturbance="" if early else "pushed"))  # fmt: skip
        folders.append(tmp_path / name)
    code, out, _ = compare(capsys, *folders)
    assert code == 0
    assert "3 against 0 discordant of 6 seeds" in out


def test_other_mistakes_are_one_line(two, tmp_path, capsys):
    far = evaluation(tmp_path / "far", [1, 1], first=500)
    for words, says in (
        ((two[0],), "1 evaluation to compare; want two or more"),
        ((two[0], tmp_path / "none"), "is not the folder of an evaluation"),
        ((two[0], far), "no seed in common: runs/new/eval has 100 seeds from 0 to 99, far has 2 seeds from 500 to 501"),
        ((f"a={two[0]}", f"a={two[1]}"), "would both be called 'a'; name them, as in old="),
    ):
        code, out, err = compare(capsys, *words)
        assert (code, out) == (1, "")
        assert says in err
        assert len(err.splitlines()) == 1
    with pytest.raises(SystemExit, match="2"):
        main(["compare", str(two[0]), str(two[1]), "--alpha", "1.5"])
    assert "1.5 is no chance" in capsys.readouterr().err


def under_way(folder, asked, ended, about=ABOUT):
    """A folder of an evaluation that was asked for seeds, of which some have come to an end: successes by seed."""
    log = OutcomeLog(folder, "identity")
    log.begin(about, asked)
    for seed, success in ended.items():
        log.append(
            Outcome(seed, bool(success), float(success or 0), 40, error=None if success is not None else "crashed")
        )
    return folder


def test_successes_that_end_early_decide_nothing_while_failures_are_under_way(two, tmp_path, capsys):
    """Both do equally well on other seeds; of the second one only successes have come to their end yet."""
    first = under_way(tmp_path / "first", range(40), {seed: seed % 2 == 0 for seed in range(40)})
    ended = {0: True, 1: True, 2: False} | dict.fromkeys(range(5, 40, 2), True)
    second = under_way(tmp_path / "second", range(40), ended, {**ABOUT, "policy_sha": "bb"})
    code, out, err = compare(capsys, first, second)
    assert (code, err) == (0, "")
    assert "second   success 2/3" in out
    assert "not decided after 3 pairs" in out
    note = "second is not complete, 19 episodes to go; of those that ended 18 do not count yet"
    assert note in " ".join(out.split())
    code, out, _ = compare(capsys, first, second, "--unpaired")
    assert "second   success 2/3" in out
    assert note in " ".join(out.split())
    log = OutcomeLog(second, "identity")
    for seed in sorted(set(range(40)) - ended.keys()):
        log.append(Outcome(seed, False, 0.0, 40))
    code, out, _ = compare(capsys, first, second)
    assert "not decided after 40 pairs" in out
    assert "complete" not in out

    gap = under_way(tmp_path / "gap", range(40), dict.fromkeys(range(1, 40), True))
    code, out, err = compare(capsys, first, gap)
    assert (code, out) == (1, "")
    assert "gap has no outcome yet that counts; gap is not complete, 1 episode to go; of those that ended 39" in err


def test_seeds_asked_for_later_count_by_themselves_and_errors_have_ended(tmp_path):
    log = OutcomeLog(tmp_path, "identity")
    for asked, ended in ((range(10), {0: True, 1: None, 2: True, 9: True}), (range(20, 23), {20: False, 21: True}),
                         (range(8, 10), {8: False})):  # fmt: skip
        under_way(tmp_path, asked, ended)
    outcomes, unfinished = log.counted()
    assert sorted(outcomes) == [0, 2, 8, 9, 20, 21]
    assert (unfinished.waiting, unfinished.aside) == (6, 0)
    OutcomeLog(tmp_path, "another").begin(ABOUT, range(3))
    assert log.counted() == (outcomes, unfinished), "another evaluation in the same folder changes nothing"
    log.begin(ABOUT, range(10))
    assert log.counted()[1] == unfinished, "asked for again"
    assert sorted(log.counted()[0]) == [0, 2, 8, 9, 20, 21]
    log.begin(ABOUT, [9, 0])
    assert sorted(log.counted()[0]) == [0, 2, 8, 9, 20, 21], "in the order in which they were asked for"


def test_different_starts_are_compared_when_asked_to(two, tmp_path, capsys):
    far = evaluation(tmp_path / "far", [1] * 5 + [0] * 45, first=500)
    code, out, err = compare(capsys, two[0], far, "--unpaired")
    assert (code, err) == (0, "")
    assert "runs/new/eval is better than far: runs/new/eval 77 of 100 against 5 of 50, different starts" in out
    code, _, err = compare(capsys, two[0], far, "--unpaired", "--fixed")
    assert (code, "take it without" in err) == (1, True)


def test_what_may_matter_is_said(two, tmp_path, capsys):
    about = {**ABOUT, "software": "robopolicy 2"}
    short = evaluation(tmp_path / "short", [1, 0] * 10, about=about)
    _, out, _ = compare(capsys, two[0], short)
    assert "software differs (runs/new/eval: robopolicy 1; short: robopolicy 2)" in out
    assert "are the same policy" in out
    assert "80 seeds left out, which only one of them has" in out


def test_where_there_are_modes_their_entropy_is_told(tmp_path, capsys):
    about, folders = {**ABOUT, "modes": "left, right"}, []
    for name, modes in (("one", ("left", "left")), ("both", ("left", "right"))):
        log = OutcomeLog(tmp_path / name, "identity")
        log.begin({**about, "policy_sha": name}, range(40))
        for seed in range(40):
            log.append(Outcome(seed, True, 1.0, 9, success_s=1.0, mode=modes[seed % 2]))
        folders.append(tmp_path / name)
    code, out, _ = compare(capsys, *folders, "--html", tmp_path / "c.html")
    one, both = out.splitlines()[:2]
    assert code == 0
    assert "entropy 0.00 [0.00, " in one
    assert "1 of 2 modes in 40 successes" in one
    assert "entropy 1.00 [" in both
    page = (tmp_path / "c.html").read_text()
    assert page.count("<th>Behaviour entropy</th>") == 1
    assert "2 of 2 modes in 40 successes" in page


def test_names_are_what_sets_folders_apart():
    assert short_names([Path("runs/a/eval"), Path("runs/b/eval")]) == ["a", "b"]
    assert short_names([Path("runs/a/eval"), Path("runs/a/eval-2")]) == ["eval", "eval-2"]
    assert short_names([Path("x"), Path("y/z")]) == ["x", "y/z"]
    assert short_names([Path("a/b"), Path("b")]) == ["a/b", "b"]
    assert short_names([Path("a/x/b"), Path("a/b")]) == ["x/b", "b"]
    with pytest.raises(UsageError, match="would both be called"):
        read_runs(["runs/a", "runs/a"])


@pytest.fixture(scope="module")
def tab():
    with chromium() as running:
        yield Tab(running)


def test_the_page_shows_verdicts_in_light_and_dark_and_narrow(tab, two, tmp_path, capsys):
    third = evaluation(tmp_path / "runs" / "<b>third</b>" / "eval", [1, 0] * 50)
    page = tmp_path / "page" / "compare.html"
    assert compare(capsys, *two, "--html", page, "--alpha", "0.01")[0] == 0
    assert "intervals, of 99 % each, hold" in page.read_text().replace("&#x27;", "'")
    code, _, err = compare(capsys, *two, third, "--html", page)
    assert (code, err) == (0, "")
    for scheme in ("light", "dark"):
        tab.page.emulate_media(color_scheme=scheme)
        for width in (1100, 390):
            tab.size(width, 900)
            tab.open(page.as_uri())
            assert tab.eval("document.documentElement.scrollWidth <= innerWidth"), f"{scheme}, {width} px"
            assert tab.eval("document.querySelectorAll('.wide .card').length") == 3
            texts = tab.eval("[...document.querySelectorAll('.wide .card')].map(c => c.innerText)")
            assert any("new is better than old" in text for text in texts)
            assert all("<b>third</b>" in text for text in texts[1:])
            assert tab.eval("getComputedStyle(document.querySelector('.badge.good')).color") != tab.eval(
                "getComputedStyle(document.querySelector('.wide .card')).backgroundColor"
            )
    assert tab.errors == []
    assert all(address.startswith("file:") for address in tab.requests)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("policy"))


def evaluate(policy, out, *words, seeds="0:40"):
    words = ["--checkpoint", policy, "--env", WORLD, "--seeds", seeds, "--videos", "0", "--out", out, *words]
    return main(["eval", *map(str, words)])


def test_an_evaluation_ends_as_soon_as_it_is_decided(policy, tmp_path, capsys):
    hopeless = evaluation(tmp_path / "hopeless", [0] * 40, about={"env": WORLD})
    assert evaluate(policy, tmp_path / "mine", "--against", hopeless, "--stop-early", "--jobs", "1", "--envs", "1") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "success 8/8 = 100%" in said
    assert "mine is better than hopeless: 8 against 0 discordant of 8 seeds, e = 28.4 >= 20; decided after 8" in said
    run = load_outcomes(tmp_path / "mine")
    assert [outcome.seed for outcome in run] == list(range(8)), "the others were not run"
    assert "ended there, where rates flatter the winner" in said
    results = json.loads((tmp_path / "mine" / "results.json").read_text())
    assert [o["seed"] for o in results["outcomes"]] == list(range(8))
    assert results["facts"]["against"].startswith("mine is better than hopeless")
    assert evaluate(policy, tmp_path / "mine", "--against", hopeless, "--stop-early", "--envs", "1") == 0
    assert load_outcomes(tmp_path / "mine") == run, "decided by what was there: nothing more was run"


def test_without_an_early_end_all_seeds_are_run(policy, tmp_path, capsys):
    even = evaluation(tmp_path / "even", [1] * 5 + [0] * 7, about={"env": WORLD})
    assert evaluate(policy, tmp_path / "mine", "--against", even, "--jobs", "1", seeds="0:10") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "success 10/10" in said
    assert "not decided after 10 pairs: 5 against 0 discordant of 10 seeds" in said


def test_an_early_end_runs_no_seed_that_has_no_pair(policy, tmp_path, capsys):
    few = evaluation(tmp_path / "few", [1, 0, 1], about={"env": WORLD})
    assert evaluate(policy, tmp_path / "mine", "--against", few, "--stop-early", "--jobs", "1", seeds="0:1000") == 0
    assert [outcome.seed for outcome in load_outcomes(tmp_path / "mine")] == [0, 1, 2]
    said = " ".join(capsys.readouterr().out.split())
    assert "not decided after 3 pairs" in said
    assert "flatter" not in said


def test_against_one_that_is_under_way_its_quick_successes_do_not_count(policy, tmp_path, capsys):
    other = under_way(tmp_path / "other", range(40), {0: True, 1: False, 3: True}, {"env": WORLD})
    assert evaluate(policy, tmp_path / "mine", "--against", other, "--jobs", "1", seeds="0:6") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "not decided after 2 pairs: 1 against 0 discordant of 2 seeds" in said
    assert "other is not complete, 37 episodes to go; of those that ended 1 do not count yet" in said


def test_against_what_cannot_be_compared_nothing_is_run(policy, tmp_path, capsys):
    elsewhere = evaluation(tmp_path / "elsewhere", [1, 1], about={"env": "twin:lift"})
    other_seeds = evaluation(tmp_path / "seeds", [1, 1], first=500, about={"env": WORLD})
    for words, says in (
        (("--against", elsewhere), "env is 'tiny_worlds:EasyWorld' in the first, 'twin:lift' in the second"),
        (("--against", other_seeds), "has none of the seeds 0:40; it has 500 to 501"),
        (("--against", tmp_path), "is not the folder of an evaluation"),
        (("--stop-early",), "name --against RUN too"),
    ):
        assert evaluate(policy, tmp_path / "mine", *words) == 1
        assert says in capsys.readouterr().err
    assert not (tmp_path / "mine" / "outcomes.jsonl").exists()

"""Verdicts in words, families of comparisons, and evaluations that may not be compared."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import simulated_policies as simulated

from robopolicy.errors import ContractError, EvaluationError
from robopolicy.evaluation.comparison import compare, compare_all, decide, e_bh, holm
from robopolicy.evaluation.outcomes import Outcome


def episodes(successes, first=0, scores=None):
    return [
        Outcome(first + i, bool(s), float(s) if scores is None else float(scores[i])) for i, s in enumerate(successes)
    ]


def sides(a_only, b_only, both, neither):
    a = [1] * a_only + [0] * b_only + [1] * both + [0] * neither
    b = [0] * a_only + [1] * b_only + [1] * both + [0] * neither
    order = np.random.default_rng(0).permutation(len(a))
    return episodes(np.array(a)[order]), episodes(np.array(b)[order])


def test_the_verdict_says_all_that_it_rests_on():
    found = compare("new", (ab := sides(18, 4, 60, 18))[0], "old", ab[1])
    assert (found.pairs, found.both, found.a_only, found.b_only, found.neither) == (100, 60, 18, 4, 18)
    assert found.better == "new"
    assert found.verdict() == (
        f"new is better than old: 18 against 4 discordant of 100 seeds, e = {found.largest_e:.3g} >= 20; decided after "
        f"{found.decided_after} pairs; difference {found.anytime}"
    )
    assert found.largest_e >= np.exp(found.log_e[found.decided_after - 1]) >= 20
    assert found.decided_after == 1 or np.exp(max(found.log_e[: found.decided_after - 1])) < 20
    turned = compare("old", ab[1], "new", ab[0])
    assert turned.verdict().startswith("new is better than old: 18 against 4 discordant")
    assert turned.anytime.value == -found.anytime.value


def test_what_is_not_decided_says_how_many_more_pairs_it_takes():
    found = compare("a", (ab := sides(9, 6, 50, 35))[0], "b", ab[1])
    assert found.better == ""
    told = "a against b: not decided after 100 pairs: 9 against 6 discordant of 100 seeds, e = "
    assert found.verdict().startswith(told)
    assert "to see a difference of 10% four times in five, about " in found.verdict()
    more = int(found.verdict().rpartition("about ")[2].split()[0])
    assert 50 < more < 400
    same = compare("a", ab[0], "b", ab[0])
    assert "a against b: not decided after 100 pairs: they came out alike on every seed" in same.verdict()
    long = compare("a", (ab := sides(9, 9, 900, 82))[0], "b", ab[1])
    assert "a difference of 10% would by now have been seen" in long.verdict()


def test_a_fixed_number_of_seeds_is_decided_by_mcnemar():
    a, b = sides(10, 2, 10, 8)
    asked_any_time, fixed = compare_all({"a": a, "b": b})[0], compare_all({"a": a, "b": b}, fixed=True)[0]
    assert asked_any_time.better == "", "e = 5"
    assert fixed.better == "a"
    assert "McNemar p = 0.039 <= 0.05; difference " + str(fixed.exact) in fixed.verdict()
    with pytest.raises(ContractError, match="scores"):
        compare_all({"a": a, "b": b}, fixed=True, of="score")


def test_pairs_are_those_seeds_that_both_have_in_the_order_of_the_seeds():
    a = [Outcome(5, True), Outcome(3, True), Outcome(4, error="broke"), Outcome(9, True)]
    b = [Outcome(3, False), Outcome(4, True), Outcome(5, True), Outcome(7, True)]
    found = compare("a", a, "b", b)
    assert (found.seeds, found.left_out) == ((3, 5), 3)
    assert found.lead == (1.0, 1.0)
    with pytest.raises(EvaluationError, match="a has 3 seeds from 3 to 9, b has 1 seeds from 7 to 7"):
        compare("a", a, "b", b[3:])
    with pytest.raises(EvaluationError, match="b has no outcome at all"):
        compare("a", a, "b", [Outcome(3, error="broke")])


def test_scores_tell_policies_apart_that_never_succeed():
    rng = np.random.default_rng(1)
    start = rng.random(120) * 0.5
    better, worse = np.clip(start + 0.35, 0, 1), np.clip(start + rng.normal(0, 0.05, 120), 0, 1)
    a, b = episodes([0] * 120, scores=better), episodes([0] * 120, scores=worse)
    assert compare("a", a, "b", b).better == ""
    found = compare("a", a, "b", b, of="score")
    assert found.better == "a"
    assert "a is better than b in score: scores of 120 seeds, e = " in found.verdict()
    assert found.score.low > 0.1
    assert "%" not in found.verdict().rpartition("difference")[2]
    assert "came out alike" in compare("a", a, "c", a, of="score").verdict()


def test_holm_is_the_published_procedure():
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == [True, False, False, True]  # .005 <= .05/4, .01 <= .05/3, .03 > .05/2
    assert holm([0.04, 0.04]) == [False, False], "one that stays keeps all above it"
    assert holm([0.024, 0.05]) == [True, True]
    assert holm([]) == []


def test_e_bh_is_the_published_procedure():
    assert e_bh([100, 1, 41, 27]) == [True, False, True, True]  # 4 * .. >= 80: 100, 41 * 2, 27 * 3
    assert e_bh([79, 39, 26, 19]) == [False] * 4
    assert e_bh([1, 0.5]) == [False, False]


def test_of_several_policies_each_pair_has_its_own_bar():
    rng = np.random.default_rng(2)
    start = rng.random(150)
    runs = {
        name: episodes(start * 0.5 + rng.random(150) * 0.5 < p) for name, p in (("a", 0.85), ("b", 0.5), ("c", 0.5))
    }
    found = {(c.a, c.b): c for c in compare_all(runs)}
    assert list(found) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert (found["a", "b"].better, found["a", "c"].better, found["b", "c"].better) == ("a", "a", "")
    assert sorted(c.threshold for c in found.values()) == [20.0, 40.0, 60.0]
    for c in found.values():
        assert "(Holm, 3 comparisons)" in c.verdict()
        if c.better:
            assert np.exp(c.log_e[c.decided_after - 1]) >= c.threshold * (1 - 1e-9)
    alone = compare("b", runs["b"], "c", runs["c"]).verdict()
    more, less = (int(said.rpartition("about ")[2].split()[0]) for said in (found["b", "c"].verdict(), alone))
    assert more > less, "each of three takes more"
    assert decide([]) == []


def test_among_equal_policies_any_verdict_is_rarer_than_alpha():
    rng, wrong, runs = np.random.default_rng(3), 0, 60
    for _ in range(runs):
        start = rng.random(80)
        policies = {name: episodes(start * 0.6 + rng.random(80) * 0.4 < 0.6) for name in "abc"}
        wrong += any(c.better for c in decide([_light(policies, *names) for names in ("ab", "ac", "bc")]))
    assert wrong / runs <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)


def _light(policies, a, b):
    """A comparison without its intervals, which take long."""
    differences = np.array([x.success - y.success for x, y in zip(policies[a], policies[b], strict=True)], int)
    base = compare(a, policies[a][:2], b, policies[b][:2])
    trace = tuple(simulated.log_e(differences[None])[0].tolist())
    return replace(base, seeds=tuple(range(80)), log_e=trace, lead=tuple(np.cumsum(differences).tolist()))

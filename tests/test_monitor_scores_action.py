"""Scores of the candidate chunks, and of what a policy says of its own plan."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from robopolicy.errors import ContractError, MonitorError
from robopolicy.interfaces import Score
from robopolicy.monitor.episodes import score_episode
from robopolicy.monitor.layout import ActionLayout
from robopolicy.monitor.scores import make_score, score_from_arrays
from robopolicy.types import Decision

DT_S = 0.1
N, H, K = 8, 6, 2  # candidates, rows, executed rows
TOOL = ActionLayout(5, (0, 1, 2), (3,), (4,), "absolute", DT_S)
ACTION = ("ace", "stac", "chunk_overlap")
TOLD = {
    "denoise_variance": "denoise_variance",
    "ensemble": "ensemble_disagreement",
    "view_gap": "view_gap",
    "misfit": "misfit",
}


def decision(index, chunks, aux=None, n_execute=K):
    stamp_ns = round(index * n_execute * DT_S * 1e9)
    return Decision(index, stamp_ns, np.zeros(3, np.float32), np.float32(chunks), n_execute, aux or {})


def episode(seed, length=7, dim=5, n=N):
    """Candidates about a wandering line, each decision's own; variances of each row."""
    rng = np.random.default_rng(seed)
    line = np.cumsum(rng.normal(size=(length * K + H, dim)), axis=0)
    return [
        decision(
            t,
            line[t * K : t * K + H] + 0.3 * rng.normal(size=(n, H, dim)),
            {source: rng.lognormal(size=H).astype(np.float32) for source in TOLD.values()},
        )
        for t in range(length)
    ]


@pytest.fixture(scope="module")
def episodes():
    return [episode(seed, length=5 + seed) for seed in range(4)]


def fitted(name, episodes, layout=TOOL, **settings):
    score = make_score(name, layout=layout, **settings)
    score.fit(episodes)
    return score


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, {}) for name in (*ACTION, *TOLD)),
        ("ace", {"cell": 0.06}),
        ("stac", {"width": "fit"}),
        ("chunk_overlap", {"gripper": False}),
        ("denoise_variance", {"log": False}),
    ],
)
def test_a_score_is_what_its_arrays_say(name, settings, episodes):
    score = fitted(name, episodes, **settings)
    assert isinstance(score, Score)
    assert score.name == name
    arrays = score.arrays()
    assert all(values.dtype.kind in "fib" for values in arrays.values()), "no pickle, and no strings"
    again = score_from_arrays(name, {key: values.copy() for key, values in arrays.items()})
    for one in episodes:
        values = score_episode(score, one)
        assert np.isfinite(values).all()
        assert np.ptp(values) > 0
        np.testing.assert_array_equal(score_episode(again, one), values)
    assert [len(values) for values in score.held_out(episodes)] == [len(one) for one in episodes]


@pytest.mark.parametrize("name", ACTION)
def test_the_order_of_candidates_that_are_not_executed_changes_nothing(name, episodes):
    score = fitted(name, episodes)
    rng = np.random.default_rng(5)
    for one in episodes:
        mixed = [replace(d, chunks=d.chunks[[0, *(1 + rng.permutation(N - 1))]]) for d in one]
        np.testing.assert_array_equal(score_episode(score, mixed), score_episode(score, one))


@pytest.mark.parametrize("name", ACTION)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_chunk_that_is_not_finite_scores_nothing_finite(name, bad, episodes):
    score = fitted(name, episodes)
    for at in (0, 2):
        broken = [replace(d, chunks=d.chunks.copy()) for d in episodes[0]]
        broken[at].chunks[0, 1, 2] = bad
        assert not np.isfinite(score_episode(score, broken)[at])
    with pytest.raises(ContractError, match="not finite"):
        make_score(name).fit([broken])


# ACE


def entropy_by_hand(decision, episodes, share=0.03, elements=(0, 1, 2), along=lambda x: x):
    """The definition, with dictionaries of cells."""
    everything = np.concatenate([along(d.chunks[..., elements].astype(float)) for e in episodes for d in e])
    extent = np.ptp(everything.reshape(-1, len(elements)), axis=0)
    cell = share * np.where(extent == 0, extent.max(), extent)
    x, bits = along(decision.chunks[..., elements].astype(float)), []
    for h in range(x.shape[1]):
        low, spread = x[:, h].min(axis=0), np.ptp(x[:, h], axis=0)
        cells = [tuple(np.floor((point - (low - 0.01 * spread)) / cell)) for point in x[:, h]]
        shares = [cells.count(one) / len(cells) for one in set(cells)]
        bits.append(-sum(share * np.log2(share) for share in shares))
    return np.mean(bits)


@pytest.mark.parametrize("share", [0.03, 0.06])
def test_ace_is_the_entropy_of_the_cells_that_positions_are_in(share, episodes):
    score = fitted("ace", episodes, cell=share)
    found = [score.update(d) for one in episodes for d in one]
    wanted = [entropy_by_hand(d, episodes, share) for one in episodes for d in one]
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    assert 0 < np.mean(wanted) <= 3
    assert share < 0.05 or np.ptp(wanted) > 0.3, "cells that hold several"


@pytest.mark.parametrize(
    ("kind", "along"),
    [("delta", lambda x: np.cumsum(x, axis=1)), ("velocity", lambda x: np.cumsum(x, axis=1) * DT_S)],
)
def test_ace_sums_up_steps_and_velocities(kind, along, episodes):
    score = fitted("ace", episodes, replace(TOOL, kind=kind), cell=0.02)
    again = score_from_arrays("ace", score.arrays())
    for d in episodes[0]:
        assert score.update(d) == pytest.approx(entropy_by_hand(d, episodes, 0.02, along=along), abs=1e-12)
        assert again.update(d) == score.update(d) > 0
    everything = np.concatenate([along(d.chunks[..., :3].astype(float)) for e in episodes for d in e])
    np.testing.assert_allclose(score.arrays()["cell"], 0.02 * np.ptp(everything.reshape(-1, 3), axis=0), rtol=1e-12)


def test_ace_looks_at_positions_only(episodes):
    score = fitted("ace", episodes)
    d = episodes[0][0]
    turned = d.chunks.copy()
    turned[..., 3:] *= 100.0
    assert score.update(replace(d, chunks=turned)) == score.update(d)
    assert fitted("ace", episodes, None).arrays()["elements"].tolist() == [0, 1, 2, 3, 4]
    joints = ActionLayout(5, (), (), (4,))
    assert fitted("ace", episodes, joints).arrays()["elements"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("n", [2, 8, 32])
def test_candidates_that_agree_have_no_entropy(n, episodes):
    score = fitted("ace", episodes)
    same = np.repeat(episodes[1][2].chunks[:1], n, axis=0)
    assert score.update(decision(0, same)) == 0.0


def test_candidates_spread_evenly_over_eight_cells_have_three_bits(episodes):
    score = fitted("ace", episodes)
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    chunks = np.zeros((32, H, 5))
    chunks[..., :3] = np.repeat(corners, 4, axis=0)[:, None]
    assert score.update(decision(0, chunks)) == 3.0
    halved = np.where(np.arange(H)[None, :, None] < H // 2, chunks, 0.0)
    assert score.update(decision(0, halved)) == 1.5, "the mean over rows"


def test_a_position_without_range_takes_the_largest():
    rng = np.random.default_rng(3)
    chunks = rng.normal(size=(N, H, 5)) * [1.0, 3.0, 0.0, 1.0, 1.0]
    score = fitted("ace", [[decision(0, chunks)]])
    extent = np.ptp(chunks.astype(np.float32).reshape(-1, 5), axis=0)
    np.testing.assert_allclose(score.arrays()["cell"], 0.03 * extent[[0, 1, 1]], rtol=1e-6)
    lifted = np.zeros((N, H, 5))
    lifted[: N // 2, :, 2] = 0.06 * extent[1]  # two cells up, where nothing ever moved
    assert score.update(decision(0, lifted)) == 1.0
    with pytest.raises(ContractError, match="never change"):
        fitted("ace", [[decision(t, np.ones((N, H, 5))) for t in range(3)]])


def test_ace_far_out_of_range_is_finite_and_whole(episodes):
    score = fitted("ace", episodes)
    far = np.zeros((N, H, 5))
    far[..., :3] = (10.0 ** np.arange(N))[:, None, None]
    assert score.update(decision(0, far)) == 3.0


def test_ace_held_out_takes_its_cells_of_the_others(episodes):
    wild = [[replace(d, chunks=d.chunks * 10) for d in episodes[0]], *episodes[1:]]
    score = fitted("ace", wild)
    held_out = score.held_out(wild)
    others = fitted("ace", wild[1:])
    np.testing.assert_array_equal(held_out[0], score_episode(others, wild[0]))
    assert held_out[0].mean() > score_episode(score, wild[0]).mean()
    np.testing.assert_array_equal(fitted("ace", wild).arrays()["cell"], score.arrays()["cell"])


@pytest.mark.parametrize("name", ["ace", "stac"])
def test_one_candidate_is_refused(name):
    assert make_score(name).min_candidates == 2
    with pytest.raises(MonitorError, match=rf"{name} compares 2 or more candidates a decision; these have 1"):
        fitted(name, [episode(0, n=1)])
    with pytest.raises(MonitorError, match="no decisions"):
        fitted(name, [[]])


# STAC and overlap


def discrepancy_by_hand(before, now, episodes, elements, median=None):
    """Double loops over all pairs."""
    std = np.concatenate([d.chunks[0] for e in episodes for d in e]).astype(float).std(axis=0)
    x = [(chunk[K:] / std)[:, elements].ravel() for chunk in before.chunks.astype(float)]
    y = [(chunk[: H - K] / std)[:, elements].ravel() for chunk in now.chunks.astype(float)]
    pooled = [*x, *y]
    pairs = [((a - b) ** 2).sum() for i, a in enumerate(pooled) for b in pooled[:i]]
    gamma = 1 / (2 * (np.median(pairs) if median is None else median))

    def mean_kernel(some, others):
        return np.mean([np.exp(-gamma * ((a - b) ** 2).sum()) for a in some for b in others])

    return mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y), np.median(pairs)


def test_stac_is_the_discrepancy_of_overlapping_batches_without_grippers(episodes):
    score = fitted("stac", episodes)
    wanted = [[0.0, *(discrepancy_by_hand(a, b, episodes, [0, 1, 2, 3])[0] for a, b in pairwise(e))] for e in episodes]
    for one, values in zip(episodes, wanted, strict=True):
        np.testing.assert_allclose(score_episode(score, one), values, atol=1e-9)
    assert np.ptp(np.concatenate(wanted)) > 0.1


def test_stac_of_the_fits_width_knows_how_far_minds_changed(episodes):
    score = fitted("stac", episodes, width="fit")
    pairs = [(a, b) for e in episodes for a, b in pairwise(e)]
    median = np.median([discrepancy_by_hand(a, b, episodes, [0, 1, 2, 3])[1] for a, b in pairs])
    score.update(pairs[0][0])
    wanted, _ = discrepancy_by_hand(*pairs[0], episodes, [0, 1, 2, 3], median)
    assert score.update(pairs[0][1]) == pytest.approx(wanted, abs=1e-9)
    with pytest.raises(MonitorError, match="no width 'wide'; valid: decision, fit"):
        make_score("stac", width="wide")


@pytest.mark.parametrize("name", ["stac", "chunk_overlap"])
def test_a_replan_equal_to_the_shifted_chunk_before_is_exactly_nothing(name, episodes):
    score = fitted(name, episodes)
    rng = np.random.default_rng(8)
    long = rng.normal(size=(N, H + 3 * K, 5))
    plans = [decision(t, long[:, t * K : t * K + H]) for t in range(4)]
    assert score_episode(score, plans).tolist() == [0.0] * 4
    other = replace(plans[2], chunks=plans[2].chunks + np.float32(0.5))
    assert score_episode(score, [*plans[:2], other])[2] > 0.01
    if name == "stac":  # the same set, whoever comes first
        mixed = [replace(plans[1], chunks=plans[1].chunks[rng.permutation(N)]), plans[2]]
        assert score_episode(score, mixed).tolist() == [0.0] * 2


@pytest.mark.parametrize("name", ["stac", "chunk_overlap"])
def test_a_plan_that_came_late_is_compared_at_its_own_time(name, episodes):
    long = np.random.default_rng(8).normal(size=(N, 3 * H, 5))
    first = decision(0, long[:, :H])
    late = replace(decision(1, long[:, K + 1 : K + 1 + H]), stamp_ns=round((K + 1) * DT_S * 1e9) + 4_000_000)
    assert score_episode(fitted(name, episodes), [first, late]).tolist() == [0.0, 0.0]
    assert score_episode(fitted(name, episodes, None), [first, late])[1] > 0, "nothing says how long a row lasts"
    again = score_from_arrays(name, fitted(name, episodes).arrays())
    assert score_episode(again, [first, late]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", ["stac", "chunk_overlap"])
def test_the_first_decision_and_plans_without_overlap_score_nothing(name, episodes):
    score = fitted(name, episodes)
    a, b = episodes[0][:2]
    whole = [replace(d, n_execute=H) for d in (a, b)]
    assert score_episode(score, whole).tolist() == [0.0, 0.0]
    score.update(a)
    assert score.update(b) > 0
    score.reset()
    assert score.update(b) == 0.0


def test_stac_of_candidates_that_are_all_the_same(episodes):
    score = fitted("stac", episodes)
    still = [decision(t, np.ones((N, H, 5))) for t in range(3)]
    assert score_episode(score, still).tolist() == [0.0] * 3
    moved = replace(still[1], chunks=still[1].chunks + np.float32(0.1))  # no two candidates of a batch differ
    assert score_episode(score, [still[0], moved])[1] == pytest.approx(2 - 2 * np.exp(-0.5))


def test_overlap_is_the_mean_squared_difference_in_spreads(episodes):
    score, calm = fitted("chunk_overlap", episodes), fitted("chunk_overlap", episodes, gripper=False)
    std = np.concatenate([d.chunks[0] for e in episodes for d in e]).astype(float).std(axis=0)
    one = episodes[2]
    gaps = [(b.chunks[0, : H - K] - a.chunks[0, K:]) / std for a, b in pairwise(one)]
    np.testing.assert_allclose(score_episode(score, one), [0, *((gap**2).mean() for gap in gaps)], rtol=1e-5)
    without = [0, *((gap[:, :4] ** 2).mean() * 4 / 5 for gap in gaps)]
    np.testing.assert_allclose(score_episode(calm, one), without, rtol=1e-5)


# what the policy says


@pytest.mark.parametrize("name", sorted(TOLD))
def test_what_the_policy_says_of_the_rows_to_be_executed(name, episodes):
    source, score, plain = TOLD[name], fitted(name, episodes), fitted(name, episodes, log=False)
    assert score.requires == {source}
    means = np.array([d.aux[source][:K].astype(float).mean() for e in episodes for d in e])
    found = [score.update(d) for e in episodes for d in e]
    np.testing.assert_allclose(found, np.log(means + 1e-3 * np.median(means)), rtol=1e-12)
    d = episodes[0][0]
    assert plain.update(d) == pytest.approx(means[0], rel=1e-12)
    alone = replace(d, aux={source: np.float32(0.25)})
    assert plain.update(alone) == 0.25, "one number for all rows"
    assert np.isfinite(score.update(replace(d, aux={source: np.zeros(H)}))), "rows that were given"
    for bad in (np.nan, -1.0):
        assert not np.isfinite(score.update(replace(d, aux={source: np.full(H, bad)})))
    most = {"view_gap": 1000.0, "misfit": 0.1}.get(name, np.inf)  # steps of no pose are bad, and no fault
    lost = replace(d, aux={source: np.full(H, np.inf)})
    assert score.update(lost) == score.update(replace(d, aux={source: np.full(H, most)}))
    assert np.isfinite(score.update(lost)) == (name in ("view_gap", "misfit"))


@pytest.mark.parametrize("name", sorted(TOLD))
def test_a_policy_that_does_not_say_is_told_what_would(name, episodes):
    silent = [[replace(d, aux={"past_error": np.float32(1)}) for d in e] for e in episodes]
    with pytest.raises(MonitorError, match=rf"{name} needs the policy to give aux '{TOLD[name]}'; it gives past_error"):
        make_score(name).fit(silent)
    with pytest.raises(MonitorError, match=r"--solver\.steps|--companion|--policy motion-track"):
        fitted(name, episodes).update(silent[0][0])
    dull = [[replace(d, aux={TOLD[name]: np.zeros(H)}) for d in e] for e in episodes]
    with pytest.raises(ContractError, match="never changes"):
        make_score(name).fit(dull)


@pytest.mark.parametrize("name", [*ACTION, *TOLD])
def test_an_unfitted_score_says_so(name, episodes):
    with pytest.raises(ContractError, match="never fitted"):
        score_episode(make_score(name), episodes[0])


@pytest.mark.parametrize("name", ["stac", "chunk_overlap"])
def test_chunks_are_compared_as_far_as_one_goes_on_from_the_other(name, episodes):
    score, long = fitted(name, episodes), np.random.default_rng(8).normal(size=(N, 3 * H, 5))
    first = decision(0, long[:, :H])
    slow = replace(decision(1, long[:, K : K + H]), stamp_ns=round(2 * K * DT_S * 1e9))
    assert score_episode(score, [first, slow])[1] > 0.01, "by its stamp it is late"
    assert score_episode(score, [first, replace(slow, after=K)]).tolist() == [0.0, 0.0]
    anew = replace(decision(1, long[:, H : 2 * H]), stamp_ns=first.stamp_ns + 1)
    assert score_episode(score, [first, anew])[1] > 0.01
    assert score_episode(score, [first, replace(anew, after=0)]).tolist() == [0.0, 0.0], "somebody drove in between"

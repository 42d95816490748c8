from dataclasses import replace

import numpy as np
import pytest

from robopolicy.errors import ContractError
from robopolicy.interfaces import Score
from robopolicy.monitor.episodes import score_episode
from robopolicy.monitor.scores import SCORES, make_score
from robopolicy.monitor.scores.chunk_overlap import ChunkOverlap
from robopolicy.monitor.scores.clock import Clock
from robopolicy.monitor.scores.kernel_density import KernelDensity
from robopolicy.types import Decision


def decision(index, embedding, rows=None, n_execute=2):
    chunk = np.zeros((4, 2)) if rows is None else rows
    return Decision(index, index * 100, np.float32(embedding), np.float32(chunk)[None], n_execute)


def walk(rng, length=12, dim=5, start=0.0):
    """An episode: the embedding wanders, the actions follow."""
    at = start + np.cumsum(rng.normal(size=(length, dim)), axis=0)
    return [decision(t, at[t], at[t, :2] + np.arange(4)[:, None]) for t in range(length)]


SAID = ("denoise_variance", "ensemble_disagreement", "view_gap", "misfit")


def talkative(d):
    """The decision with three candidates, and all that a policy may say of its plan."""
    chunks = d.chunks + np.float32([0.0, 0.1, 0.3])[:, None, None] * (1 + d.index)
    told = {
        name: np.full(4, 1.0 + d.index) for name in ("denoise_variance", "ensemble_disagreement", "view_gap", "misfit")
    }
    told |= {"features": np.stack([d.embedding, 2 * d.embedding]), "points": np.full((2, 5, 2), d.embedding[0])}
    return replace(d, chunks=chunks, aux=told)


@pytest.fixture
def episodes():
    rng = np.random.default_rng(0)
    return [walk(rng, length=8 + i) for i in range(6)]


@pytest.mark.parametrize("name", sorted(SCORES))
def test_every_score_is_finite_repeats_and_survives_its_arrays(name, episodes):
    score = make_score(name, **({"small": True, "epochs": 3} if name in ("rnd", "logpzo") else {}))
    episodes = [[talkative(d) for d in episode] for episode in episodes]
    assert isinstance(score, Score)
    assert score.name == name
    score.fit(episodes, **({"failures": 5 * episodes} if getattr(score, "learns_failures", False) else {}))
    scores = [score_episode(score, episode) for episode in episodes]
    again = type(score).from_arrays(score.arrays())
    for episode, values in zip(episodes, scores, strict=True):
        assert values.shape == (len(episode),)
        assert np.isfinite(values).all()
        np.testing.assert_array_equal(score_episode(again, episode), values)
    assert [len(values) for values in score.held_out(episodes)] == [len(episode) for episode in episodes]


def gp_variance(points, query, width, lam):
    """The formula as it stands in the book, as -log(1 - s)."""

    def k(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / (2 * width**2))

    k_x = k(points, query[None])[:, 0]
    s = 1 - k_x @ np.linalg.solve(k(points, points) + len(points) * lam * np.eye(len(points)), k_x)
    return -np.log(1 - s)


def test_kernel_density_is_the_posterior_variance(episodes):
    score = KernelDensity(lam=1e-3)
    score.fit(episodes)
    x = np.stack([d.embedding for episode in episodes for d in episode]).astype(float)
    points = (x - x.mean(axis=0)) / x.std(axis=0)
    i, j = np.triu_indices(len(points), k=1)
    width = np.median(np.linalg.norm(points[i] - points[j], axis=1))
    for embedding in (x[3], np.zeros(5), np.full(5, 10.0)):
        query = (np.float32(embedding) - x.mean(axis=0)) / x.std(axis=0)
        assert score.update(decision(0, embedding)) == pytest.approx(gp_variance(points, query, width, 1e-3), abs=1e-6)


def test_held_out_leaves_whole_episodes_out(episodes):
    score = KernelDensity(lam=1e-3)
    score.fit(episodes)
    arrays = score.arrays()
    width, lam = arrays["settings"]
    held_out = score.held_out(episodes)
    for i, values in enumerate(held_out):
        mine, others = arrays["points"][arrays["owner"] == i], arrays["points"][arrays["owner"] != i]
        np.testing.assert_allclose(values, [gp_variance(others, x, width, lam) for x in mine], atol=1e-6)
        assert values.mean() > score_episode(score, episodes[i]).mean(), "its own points made it look familiar"
    with pytest.raises(ContractError, match="fitted on 6"):
        score.held_out(episodes[:2])


def test_far_away_it_keeps_growing(episodes):
    score = KernelDensity()
    score.fit(episodes)
    scores = [score.update(decision(0, np.full(5, 10.0**i))) for i in range(1, 6)]
    assert np.all(np.diff(scores) > 0)
    assert np.isfinite(scores).all()


def test_dead_elements_are_ignored(episodes):
    dull = [[decision(d.index, [*d.embedding, 7.0]) for d in episode] for episode in episodes]
    score = KernelDensity()
    score.fit(dull)
    at = dull[0][0].embedding
    moved = at.copy()
    moved[-1] = -4.0  # never moved in the fit: there is no scale to judge it by
    assert score.update(decision(0, moved)) == score.update(decision(0, at)) < 0.3


def test_a_nearly_constant_element_does_not_explode():
    rng = np.random.default_rng(1)
    episodes = [[decision(t, [*rng.normal(size=6), 1 + 2e-6 * rng.normal()]) for t in range(30)] for _ in range(5)]
    score = KernelDensity()
    score.fit(episodes)
    nudged = episodes[0][3].embedding + np.float32([0, 0, 0, 0, 0, 0, 1e-3])
    assert score.update(decision(0, nudged)) < 0.1, "1e-3 is 500 of its own spreads, and nothing to a robot"


def test_thinning_keeps_every_episode():
    rng = np.random.default_rng(2)
    score = KernelDensity(max_points=50)
    score.fit([walk(rng, length=40, start=5.0 * i) for i in range(10)])
    _, counts = np.unique(score.arrays()["owner"], return_counts=True)
    assert counts.tolist() == [5] * 10
    assert score.held_out([walk(rng, length=40, start=5.0 * i) for i in range(10)])[0].shape == (40,)


@pytest.mark.parametrize(
    ("embeddings", "says"), [([[1.0, np.nan], [0, 0]], "not finite"), ([[1.0, 2.0]] * 2, "never change")]
)
def test_nothing_to_learn_from(embeddings, says):
    with pytest.raises(ContractError, match=says):
        KernelDensity().fit([[decision(t, e) for t, e in enumerate(embeddings)]])


def test_chunk_overlap_is_zero_for_a_policy_that_keeps_its_plan_and_counts_spreads():
    line = np.arange(20.0)[:, None] * [1.0, 0.0]  # the second element never moves
    episode = [decision(t, np.zeros(3), line[2 * t : 2 * t + 4]) for t in range(6)]
    score = ChunkOverlap()
    score.fit([episode])
    np.testing.assert_array_equal(score_episode(score, episode), 0.0)
    spread = np.concatenate([d.chunks[0] for d in episode])[:, 0].std()
    changed = decision(6, np.zeros(3), np.add(line[12:16], [3.0 * spread, 5.0]))
    score.update(episode[-1])
    assert score.update(changed) == pytest.approx(9.0 / 2), "mean over two elements, one of which has no spread"
    score.reset()
    assert score.update(changed) == 0.0, "there is nothing to compare the first decision with"


def test_clock_counts_decisions():
    assert score_episode(Clock(), [decision(t, [0.0]) for t in range(4)]).tolist() == [0, 1, 2, 3]

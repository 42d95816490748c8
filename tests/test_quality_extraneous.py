"""Segments that do not belong: found where they were put, and hardly where there are none."""

import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from reaching import SPEC, detour, join, reach

from robopolicy.errors import ContractError
from robopolicy.quality.embedding import EmbeddingConfig, cycle_loss, fit_embedding
from robopolicy.quality.extraneous import find_extraneous, grown
from robopolicy.quality.voting import align, smoothed


@pytest.fixture(scope="module")
def wandering():
    """Twenty reaches, every second with a detour of 18 steps, and where."""
    rng = np.random.default_rng(0)
    episodes, truth = [], []
    for i in range(20):
        episode, at = reach(rng), int(rng.integers(5, 20))
        episodes.append(detour(episode, at, 18, rng) if i % 2 else episode)
        rows = np.zeros(len(episodes[-1].action), bool)
        rows[at : at + 18] = bool(i % 2)
        truth.append(rows)
    return join(episodes), truth


def test_detours_are_found(wandering):
    arrays, truth = wandering
    found = find_extraneous(arrays, SPEC)
    assert found.score == pytest.approx(found.far + found.unknown, abs=1e-5)
    marks = np.concatenate([marked for _, marked in found.episodes()])
    true = np.concatenate(truth)
    assert (marks & true).sum() / true.sum() > 0.8
    assert (marks & true).sum() / marks.sum() > 0.5  # the way there and back is odd too
    right = [marked.any() == rows.any() for (_, marked), rows in zip(found.episodes(), truth, strict=True)]
    assert sum(right) >= 18  # of 20 episodes


def test_clean_demonstrations_stay_unmarked():
    rng = np.random.default_rng(1)
    assert find_extraneous(join([reach(rng) for _ in range(20)]), SPEC).marked.mean() < 0.05


def test_it_repeats_and_leaves_the_global_generator_alone(wandering):
    arrays, _ = wandering
    before = torch.get_rng_state()
    first, second = (find_extraneous(arrays, SPEC, seed=2) for _ in range(2))
    assert np.array_equal(first.score, second.score)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_cycle_loss_rewards_sequences_that_run_alike():
    """Two sequences along one curve cycle back exactly; against a shuffled one they do not."""
    t = torch.linspace(0, 1, 24)
    curve = torch.stack([t, t**2], 1)[None]
    aligned = cycle_loss(curve, curve + 0.001, 0.001, 1e-3)
    shuffled = cycle_loss(curve, curve.flip(1) * 0 + 0.5, 0.001, 1e-3)
    assert float(aligned) < 0.2 * float(shuffled)


def test_the_embedding_aligns_what_actions_tell_apart():
    """All episodes stand in one place and differ in what they do over time: only the action can say when it is."""
    generator = torch.Generator().manual_seed(0)
    ends = np.arange(30, 181, 30)
    seen = torch.zeros(180, 2)
    when = torch.arange(30).repeat(6)[:, None] / 30
    done = torch.cat([when, 1 - when], 1) * 4 + 0.01 * torch.randn(180, 2, generator=generator)
    embedded = fit_embedding(seen, done, ends, EmbeddingConfig()).numpy()
    nearest = np.argmin(((embedded[:30, None] - embedded[None, 30:60]) ** 2).sum(-1), 1)
    assert np.abs(nearest - np.arange(30)).mean() < 3


def test_votes_are_for_what_others_have_too():
    """Three equal lines, one with a loop in the middle: nobody recognises the loop, everybody the rest."""
    line = np.stack([np.arange(20.0), np.zeros(20)], 1)
    loop = np.stack([np.full(8, 10.0), np.array([1, 2, 3, 4, 4, 3, 2, 1.0])], 1)
    steps = np.concatenate([line, line + np.array([0, 0.01]), np.insert(line, 10, loop, axis=0)])
    asked = align(steps, steps, np.array([20, 40, 68]), np.random.default_rng(0))
    assert asked.votes[40:50].min() == asked.votes[58:].min() == 1.0
    assert asked.votes[53:55].max() == 0.0
    assert asked.distance[52:56].min() > 2
    assert asked.distance[:10].max() < 0.02


def test_segments_grow_from_where_it_is_sure_to_where_it_is_not():
    score = np.array([0, 2, 2, 5, 2, 0, 2, 2, 0, 5, 0, 3, 5.0])
    assert grown(score, 4, 1, [13], 2).tolist() == [False, *[True] * 4, *[False] * 6, True, True]
    assert grown(score, 4, 1, [4, 13], 3).tolist() == [False, *[True] * 3, *[False] * 9]  # no run crosses an end
    assert smoothed(np.array([0, 9, 0, 0, 0.0]), np.array([5]), 3).tolist() == [0.0] * 5


def test_one_demonstration_has_nobody_to_ask():
    with pytest.raises(ContractError, match="1 demonstration; alignment takes at least 2"):
        find_extraneous(join([reach(np.random.default_rng(0))]), SPEC)


def test_long_demonstrations_are_compared_part_by_part(monkeypatch):
    """All pairs of two demonstrations of ten minutes at 100 Hz would be 29 GB."""
    rng = np.random.default_rng(0)
    ends = np.cumsum([40, 70, 55])
    points = rng.normal(size=(ends[-1], 4))
    whole = align(points, points[:, ::-1], ends, np.random.default_rng(1))
    monkeypatch.setattr("robopolicy.quality.voting.PAIRS", 500)
    parts = align(points, points[:, ::-1], ends, np.random.default_rng(1))
    assert np.array_equal(parts.votes, whole.votes)
    assert parts.distance == pytest.approx(whole.distance)
    tracemalloc.start()
    try:
        align(np.tile(points, (10, 1)), np.tile(points, (10, 1)), np.array([800, 1650]), rng)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 800 * 850 * 8 / 4

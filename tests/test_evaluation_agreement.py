"""Correlation and rank violation against published numbers, a definition written out, and intervals that cover."""

import numpy as np
import pytest

from robopolicy.errors import ContractError
from robopolicy.evaluation.agreement import agreement, mean_gap, mean_max_rank_violation, pearson

# SIMPLER (Li et al. 2024), table 1 and the project's metrics: RT-2-X, RT-1 converged, RT-1 15 %, RT-1-X, RT-1 begin,
# Octo-base; visual matching. Columns: simulated and real success, published Pearson r and MMRV.
SIMPLER = {
    "pick coke can": (
        (0.787, 0.857, 0.710, 0.567, 0.027, 0.170),
        (0.907, 0.853, 0.920, 0.760, 0.133, 0.293),
        0.9754,
        0.0313,
    ),
    "open drawer": (
        (0.157, 0.601, 0.463, 0.296, 0.000, 0.009),
        (0.333, 0.815, 0.704, 0.519, 0.000, 0.148),
        0.9832,
        0.0,
    ),
    "close drawer": (
        (0.343, 0.861, 0.667, 0.891, 0.278, 0.444),
        (0.630, 0.926, 0.889, 0.741, 0.000, 0.519),
        0.7712,
        0.1233,
    ),
}
MOVE_NEAR = (0.779, 0.442, 0.354, 0.317, 0.050, 0.042), (0.733, 0.633, 0.583, 0.450, 0.017, 0.350)


@pytest.mark.parametrize("task", SIMPLER)
def test_the_published_table(task):
    sim, real, r, mmrv = SIMPLER[task]
    assert pearson(sim=sim, real=real) == pytest.approx(r, abs=5e-5)
    assert mean_max_rank_violation(sim=sim, real=real) == pytest.approx(mmrv, abs=6e-5)


def test_the_order_matters_and_cannot_be_left_to_chance():
    sim, real = MOVE_NEAR
    assert mean_max_rank_violation(sim=sim, real=real) == pytest.approx(0.1110, abs=6e-5)
    assert mean_max_rank_violation(sim=real, real=sim) == pytest.approx(0.0027, abs=6e-5)
    for function in (pearson, mean_max_rank_violation, mean_gap):
        with pytest.raises(TypeError, match="positional"):
            function(sim, real)


def test_rank_violation_is_its_definition():
    rng = np.random.default_rng(3)
    for _ in range(30):
        sim, real = rng.integers(0, 5, (2, 7)) / 4  # with ties
        worst = [
            max(abs(real[i] - real[j]) * (np.sign(sim[i] - sim[j]) != np.sign(real[i] - real[j])) for j in range(7))
            for i in range(7)
        ]
        assert mean_max_rank_violation(sim=sim, real=real) == pytest.approx(np.mean(worst))
    assert mean_max_rank_violation(sim=[0.1, 0.2, 0.3], real=[0.2, 0.5, 0.9]) == 0
    assert mean_max_rank_violation(sim=[0.5, 0.5], real=[0.2, 0.6]) == pytest.approx(0.4), "a tie hides a difference"


def test_pearson_is_numpys():
    sim, real = np.random.default_rng(0).normal(size=(2, 9))
    assert pearson(sim=sim, real=real) == pytest.approx(np.corrcoef(sim, real)[0, 1])
    assert pearson(sim=real, real=-3 * real + 2) == pytest.approx(-1)
    assert mean_gap(sim=[0.1, 0.5], real=[0.3, 0.4]) == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("sim", "real", "says"),
    [
        ([0.5], [0.5], "at least two policies"),
        ([0.5, 0.1], [0.5, 0.1, 0.2], r"shape \(2,\) and \(3,\)"),
        ([0.5, np.nan], [0.5, 0.1], "not finite"),
    ],
)
def test_what_is_no_pair_of_results(sim, real, says):
    for function in (pearson, mean_max_rank_violation, mean_gap):
        with pytest.raises(ContractError, match=says):
            function(sim=sim, real=real)


def test_no_correlation_without_differences():
    with pytest.raises(ContractError, match="all results of one world are the same"):
        pearson(sim=[0.4, 0.4, 0.4], real=[0.1, 0.2, 0.3])


def two_worlds(rng: np.random.Generator, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes (6, seeds) in two worlds that share how hard a start is, and judge some policies differently."""
    hard = rng.normal(size=seeds)
    skills = np.array([[-1.2, -0.7, -0.2, 0.2, 0.7, 1.2], [-0.3, -0.9, 0.3, -0.4, 1.0, 0.5]])
    sim, real = (((skill[:, None] - hard + 0.3 * rng.normal(size=(6, seeds))) > 0).astype(float) for skill in skills)
    return sim, real


def test_intervals_hold_the_truth():
    """The interval over seeds covers what very many seeds would give, in most of 60 small trials."""
    sim, real = two_worlds(np.random.default_rng(1), 200_000)
    truth = pearson(sim=sim.mean(axis=1), real=real.mean(axis=1))
    gap = mean_gap(sim=sim.mean(axis=1), real=real.mean(axis=1))
    same = (sim == real).mean()
    assert 0.6 < truth < 0.9
    covered = np.zeros(3)
    for trial in range(60):
        rng = np.random.default_rng(100 + trial)
        sim, real = two_worlds(rng, 50)
        found = agreement(sim=sim, real=real, rng=rng, resamples=200)
        intervals = (found.pearson, truth), (found.gap, gap), (found.episodes, same)
        covered += [interval.low <= true <= interval.high for interval, true in intervals]
    assert (covered >= 51).all(), covered
    assert covered.sum() < 180, "intervals that hold everything tell nothing"


def test_agreement_names_what_it_counted():
    rng = np.random.default_rng(0)
    sim, real = two_worlds(rng, 50)
    found = agreement(sim=sim, real=real, rng=np.random.default_rng(5))
    assert (found.policies, found.seeds) == (6, 50)
    assert found.episodes.value == pytest.approx((sim == real).mean())
    assert found.gap.value == pytest.approx(np.abs(sim.mean(1) - real.mean(1)).mean())
    assert found.gap.low < found.gap.value < found.gap.high
    assert "50 paired seeds" in found.headline()
    assert found == agreement(sim=sim, real=real, rng=np.random.default_rng(5)), "the same generator, the same interval"
    scores = agreement(sim=sim * 0.5, real=real * 0.7, rng=rng, resamples=50)
    assert scores.episodes is None, "a score is not an outcome of yes or no"
    apart = agreement(sim=sim[:, :20], real=real, rng=rng, paired=False, resamples=50)
    assert apart.episodes is None
    with pytest.raises(ContractError, match=r"\(6, 20\) and \(6, 50\)"):
        agreement(sim=sim[:, :20], real=real, rng=rng)


def test_a_world_that_tells_nothing_has_no_interval():
    alike = np.tile(np.arange(20) % 2, (4, 1)).astype(float)
    with pytest.raises(ContractError, match="the same"):
        agreement(sim=alike, real=alike, rng=np.random.default_rng(0))

"""Identification: what least squares on known systems has to find, refuse and admit."""

import numpy as np
import pytest

from robopolicy.errors import ContractError, MissingExtra
from sim_envs.sysid import Unknown, fit

TIMES = np.linspace(0, 1, 400)
BLOCKS = np.arange(400) // 20


def unknown(name: str, nominal: float = 1.0, **other) -> Unknown:
    return Unknown(name, "N", nominal, **{"low": 0.0, "high": 10.0, "scale": 1.0, **other})


def system(columns: np.ndarray, truth: list[float], noise: np.ndarray):
    """Residuals of a measured response that is linear in its parameters; ``columns`` (R, P)."""
    measured = columns @ np.asarray(truth) + noise
    return lambda points: columns @ points - measured[:, None]


def test_it_finds_what_is_there_within_its_errors():
    columns = np.stack([np.ones(400), TIMES, np.sin(9 * TIMES)], axis=1)
    names = [unknown("offset"), unknown("slope"), unknown("wave")]
    covered, zs = 0, []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = fit(names, system(columns, [2.0, 3.5, 0.5], 0.1 * rng.normal(size=400)), blocks=BLOCKS)
        z = (found.values - [2.0, 3.5, 0.5]) / [e.std_err for e in found.estimates]
        zs.append(z)
        covered += int((np.abs(z) < 2).sum())
        assert all(e.status == "identified" and e.moved for e in found.estimates)
    assert covered >= 0.85 * 60, "two standard errors hold the truth nineteen times of twenty"
    assert np.std(zs) > 0.5, "errors that are far too large are no errors either"
    assert found.rms_after == pytest.approx(0.1, rel=0.15)
    assert found.rms_before > 1


def test_of_two_that_do_the_same_one_stays_nominal_and_says_so():
    columns = np.stack([TIMES, TIMES, np.ones(400)], axis=1)
    names = [unknown("damping", keep=0), unknown("gain", keep=3), unknown("offset")]
    noise = 0.01 * np.random.default_rng(0).normal(size=400)
    found = fit(names, system(columns, [2.0, 2.0, 0.5], noise), blocks=BLOCKS)
    damping, gain, offset = found.estimates
    assert (damping.status, damping.value, damping.std_err) == ("kept nominal", 1.0, None)
    assert damping.note == "it cannot be told apart from gain (correlation -1.000)"
    assert gain.value == pytest.approx(3.0, abs=0.02), "their sum is what was measured"
    assert gain.note == "only together with damping at its nominal value"
    assert offset.note == ""
    assert found.condition > 1e6 > 100 > found.condition_kept


def test_what_shows_nowhere_stays_nominal():
    columns = np.stack([TIMES, np.zeros(400)], axis=1)
    found = fit([unknown("seen"), unknown("mass")], system(columns, [2.0, 5.0], np.zeros(400)), blocks=BLOCKS)
    assert found.estimates[1].note == "it changes nothing that was measured"
    assert found.values.tolist() == [pytest.approx(2.0, abs=1e-4), 1.0]


def test_what_the_noise_hides_stays_nominal():
    rng = np.random.default_rng(2)
    columns = np.stack([TIMES, 0.003 * np.sin(7 * TIMES)], axis=1)
    found = fit(
        [unknown("seen"), unknown("faint")], system(columns, [2.0, 5.0], 0.1 * rng.normal(size=400)), blocks=BLOCKS
    )
    seen, faint = found.estimates
    assert seen.status == "identified"
    assert faint.status == "kept nominal"
    assert faint.note.startswith("its standard error would be ")
    assert not faint.moved


def test_a_bound_is_reported():
    found = fit([unknown("slope", high=3.0)], system(TIMES[:, None], [5.0], np.zeros(400)), blocks=BLOCKS)
    (slope,) = found.estimates
    assert slope.status == "at a bound"
    assert slope.value == pytest.approx(3.0, abs=1e-3)
    assert slope.note == "the bounds are 0 to 3"


def test_friction_of_nothing_can_grow():
    """A nominal value at its bound does not hold the search there."""
    found = fit([unknown("friction", 0.0)], system(TIMES[:, None], [0.7], np.zeros(400)), blocks=BLOCKS)
    assert found.values == pytest.approx([0.7], abs=1e-3)


def test_a_wrong_model_has_larger_errors():
    """The textbook's formula believes in 400 independent residuals; what hangs together is fewer."""
    names, rng = [unknown("offset")], np.random.default_rng(1)
    drift = np.repeat(0.3 * rng.normal(size=20), 20)
    alone = fit(names, system(np.ones((400, 1)), [2.0], rng.permutation(drift)), blocks=np.arange(400))
    together = fit(names, system(np.ones((400, 1)), [2.0], drift), blocks=BLOCKS)
    assert together.estimates[0].std_err > 3 * alone.estimates[0].std_err


def test_slopes_that_are_only_jagged_prove_nothing():
    """A residual that wiggles with a parameter has a steep slope anywhere, and no value of it fits best."""
    rng = np.random.default_rng(0)
    phases, noise = rng.uniform(0, 6.28, 400), 0.1 * rng.normal(size=400)
    measured = 2.0 * TIMES + noise

    def residuals(points: np.ndarray) -> np.ndarray:
        wiggles = 0.3 * np.sin(1000 * points[1] + phases[:, None])
        return np.outer(TIMES, points[0]) + wiggles - measured[:, None]

    seen, jagged = fit([unknown("seen"), unknown("jagged")], residuals, blocks=BLOCKS, step=1e-3).estimates
    assert seen.status == "identified"
    assert seen.value == pytest.approx(2.0, abs=0.1)
    assert jagged.status == "kept nominal"
    assert jagged.note == "moved by 0.9 N it fits no worse"


def test_estimates_that_go_together_are_listed():
    columns = np.stack([np.ones(400), 1 + 0.2 * TIMES], axis=1)
    noise = 1e-3 * np.random.default_rng(0).normal(size=400)
    found = fit([unknown("a"), unknown("b")], system(columns, [2.0, 1.5], noise), blocks=BLOCKS)
    ((first, second, r),) = found.pairs
    assert {first, second} == {"a", "b"}
    assert r < -0.98


def test_it_is_not_linear():
    measured = np.exp(-2.5 * TIMES)
    found = fit([unknown("rate")], lambda p: np.exp(-np.outer(TIMES, p[0])) - measured[:, None], blocks=BLOCKS)
    assert found.values == pytest.approx([2.5], abs=1e-4)


def test_what_cannot_be_fitted():
    with pytest.raises(ContractError, match=r"mass: nominal 3 within 0 to 1\?"):
        Unknown("mass", "kg", 3.0, 0.0, 1.0, 1.0)
    broken = lambda points: np.full((400, points.shape[1]), np.nan)  # noqa: E731
    with pytest.raises(ContractError, match="simulation of the nominal parameters is not finite"):
        fit([unknown("a")], broken, blocks=BLOCKS)
    with pytest.raises(ContractError, match="1 measurements of 1 in blocks, for 1 unknowns"):
        fit([unknown("a")], lambda points: points, blocks=np.zeros(1, int))


def test_without_the_extra_it_names_it(monkeypatch):
    from mujoco import sysid

    monkeypatch.delattr(sysid, "optimize")
    with pytest.raises(MissingExtra, match=r"robopolicy\[sysid\]"):
        fit([unknown("a")], system(TIMES[:, None], [2.0], np.zeros(400)), blocks=BLOCKS)

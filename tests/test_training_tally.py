"""What a run counts and tells of itself."""

from itertools import pairwise

import pytest

from robopolicy.training.config import TrainConfig
from robopolicy.training.tally import LOSSES, Tally


def tally(**budget) -> Tally:
    made = Tally(TrainConfig(batch_size=8, **budget), 8)
    made.begin()
    return made


@pytest.mark.parametrize("count", [0, 1, LOSSES - 1, LOSSES, 2 * LOSSES + 2, 10 * LOSSES + 7])
def test_losses_are_thinned_evenly_and_the_last_one_is_told(count):
    run = tally(steps=10**6)
    run.losses = [(step, 1 / step) for step in range(1, count + 1)]
    some = run.some_losses()
    assert len(some) <= LOSSES
    assert some[-1:] == run.losses[-1:]
    assert len({b[0] - a[0] for a, b in pairwise(some)}) <= 1
    assert len(some) > min(count, LOSSES) / 2 or count == 0
    assert count > LOSSES or some == run.losses


def test_whichever_budget_is_nearer_its_end_decides():
    run = tally(steps=10, max_minutes=60.0)
    for _ in range(5):
        run.count(0.1, 0.3)
    assert run.used == pytest.approx(0.5)
    resumed = tally(steps=10, max_minutes=60.0)
    resumed.restore({**run.cursor(), "elapsed_s": 54 * 60.0})
    assert resumed.used == pytest.approx(0.9, abs=0.01)
    assert (resumed.step, resumed.first_step, resumed.speed) == (5, 5, 0.0)


def test_progress_expects_as_many_steps_as_the_budget_allows():
    run = tally(steps=40)
    for _ in range(10):
        run.count(0.1, 0.3)
    now = run.progress(0.5, 1e-3, 2.0, {})
    assert (now.step, now.steps) == (10, 40)
    assert now.data_share == pytest.approx(0.25)
    assert 0 < now.eta_s <= 3 * run.elapsed_s
    assert not run.told()["finished"]
    for _ in range(30):
        run.count(0.1, 0.3)
    assert run.progress(0.5, 1e-3, 2.0, {}).eta_s == 0
    assert run.told()["finished"]

"""What a run takes from the demonstrations unless it is told otherwise."""

import pytest

from robopolicy.errors import ContractError
from robopolicy.training.defaults import (
    Horizons,
    budget_words,
    describe,
    suggest_batch,
    suggest_horizons,
    suggest_steps,
)

PUSHT = [122] * 206  # at 10 Hz: median of the published human demonstrations
LIFT = [49] * 100  # at 20 Hz: the demo


def test_the_published_settings_come_out_for_push_t():
    assert suggest_horizons(10, PUSHT) == Horizons(2, 16, 8)
    assert suggest_batch(25_650, pictures=False) == 256
    assert suggest_steps(25_650, 256) == 20_000


def test_a_short_episode_is_planned_a_third_ahead():
    assert suggest_horizons(20, LIFT) == Horizons(2, 16, 8)
    assert suggest_horizons(20, [1000]) == Horizons(2, 32, 16)


@pytest.mark.parametrize(("rate_hz", "horizon"), [(10, 16), (15, 24), (20, 32), (30, 48), (50, 80), (100, 80), (2, 8)])
def test_a_chunk_lasts_1_6_s_at_usual_rates(rate_hz, horizon):
    found = suggest_horizons(rate_hz, [10_000])
    assert (found.horizon, found.n_execute) == (horizon, horizon // 2)


def test_what_is_given_stays():
    assert suggest_horizons(10, PUSHT, n_obs=3, horizon=5, n_execute=5) == Horizons(3, 5, 5)
    assert suggest_horizons(10, PUSHT, horizon=1) == Horizons(2, 1, 1)


@pytest.mark.parametrize(
    ("lengths", "asked", "told"),
    [
        ([1, 3, 2], {"multiple": 4}, "the longest of 3 episodes has 3 steps, too short for one window"),
        ([46], {"horizon": 64}, "the only episode has 46 steps, too short for one window: a chunk takes 64 at 10 Hz"),
        ([2], {"past": 1, "multiple": 4}, "has 2 steps, too short for one window: a chunk takes 3 at 10 Hz"),
    ],
)
def test_episodes_too_short_for_one_window_are_refused(lengths, asked, told):
    with pytest.raises(ContractError, match=told):
        suggest_horizons(10, lengths, **asked)


def test_one_episode_that_a_chunk_fits_in_is_enough():
    assert suggest_horizons(10, [3, 8, 2]).horizon == 8
    assert suggest_horizons(10, [3, 5], horizon=5).horizon == 5
    assert suggest_horizons(10, [3, 5]) == Horizons(2, 5, 2)
    assert suggest_horizons(10, [3, 9], multiple=4, past=1).horizon == 7
    assert suggest_horizons(10, [1]) == Horizons(2, 1, 1)


def test_past_rows_want_as_many_observations_and_rows_that_the_network_can_halve():
    found = suggest_horizons(10, PUSHT, past=7, multiple=4)
    assert found.n_obs == 8
    assert (7 + found.horizon) % 4 == 0
    assert found.horizon >= 16


@pytest.mark.parametrize(("windows", "batch"), [(10, 16), (300, 32), (2000, 128), (2048, 256), (10**7, 256)])
def test_an_epoch_has_eight_batches_where_it_can(windows, batch):
    assert suggest_batch(windows, pictures=False) == batch
    assert suggest_batch(windows, pictures=True) == min(batch, 64)


def test_the_budget_has_bounds():
    assert suggest_steps(10, 16) == 5_000
    assert suggest_steps(10**8, 256) == 100_000
    assert suggest_steps(1000, 0) == 100_000  # the batch size itself is refused elsewhere


def test_it_is_said_in_one_line():
    line = describe(10, PUSHT, suggest_horizons(10, PUSHT), budget_words(20_000, None, 256, 25_650))
    assert line == (
        "10 Hz, 206 episodes of 12 s: horizon 16 (1.6 s), n_execute 8 (0.8 s), n_obs 2; "
        "20,000 steps of 256 windows (200 epochs)"
    )
    assert budget_words(None, 5.0, 64, 1000) == "5 min, batches of 64 windows"
    assert budget_words(100, 5.0, 64, 6400) == "100 steps of 64 windows (1 epochs) or 5 min"

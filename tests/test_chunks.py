"""The chunk player: what is left of the running chunk."""

import numpy as np
import pytest

from robopolicy.chunks import ChunkPlayer
from robopolicy.types import ActionChunk

PERIOD = 50_000_000  # ns


@pytest.fixture
def player():
    player = ChunkPlayer(PERIOD)
    values = np.arange(8, dtype=np.float32).reshape(4, 2)
    player.put(ActionChunk(1_000 + PERIOD * np.arange(4, dtype=np.int64), values, 0))
    return player


def test_nothing_is_left_where_nothing_runs():
    assert ChunkPlayer(PERIOD).remaining(0, 4) is None


@pytest.mark.parametrize("now", [-5 * PERIOD, 0, 999, 1_000, 1_001, 1_000 + PERIOD, 1_500 + 3 * PERIOD, 10**12])
def test_what_is_left_is_what_would_be_played(player, now):
    left = player.remaining(now, 6)
    assert left.dtype == np.float32
    np.testing.assert_array_equal(left, [player.at(now + k * PERIOD) for k in range(6)])


def test_the_last_row_is_repeated(player):
    left = player.remaining(1_000 + 2 * PERIOD, 4)
    np.testing.assert_array_equal(left, [[4, 5], [6, 7], [6, 7], [6, 7]])


def test_what_is_left_is_a_copy(player):
    player.remaining(1_000, 4)[:] = -1
    np.testing.assert_array_equal(player.at(1_000), [0, 1])

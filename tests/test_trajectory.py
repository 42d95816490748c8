import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator

from robopolicy.errors import ContractError
from robopolicy.trajectory import Curve, Motion
from robopolicy.types import ActionChunk

MS = 1_000_000


def chunk(seed=0, rows=10, start_ns=10**9, scale=1.0):
    rng = np.random.default_rng(seed)
    stamps = start_ns + np.cumsum(rng.integers(30 * MS, 80 * MS, rows)).astype(np.int64)
    return ActionChunk(stamps, (scale * rng.normal(size=(rows, 3))).astype(np.float32), start_ns)


def along(curve, first_ns, last_ns, step_ns=MS):
    times = np.arange(first_ns, last_ns, step_ns)
    return times, *(np.array(part) for part in zip(*(curve.at(int(t)) for t in times), strict=True))


def test_it_goes_through_every_row_and_rests_at_both_ends():
    given = chunk()
    curve = Curve(given)
    for stamp, row in zip(given.stamps_ns, given.values, strict=True):
        np.testing.assert_allclose(curve.at(int(stamp))[0], row, atol=1e-6)
    for stamp, row in ((given.stamps_ns[0] - 10**9, given.values[0]), (given.stamps_ns[-1] + 10**9, given.values[-1])):
        value, speed = curve.at(int(stamp))
        np.testing.assert_array_equal(value, row)
        np.testing.assert_array_equal(speed, 0)
    assert curve.end_ns == given.stamps_ns[-1]


def test_between_the_ends_it_is_what_scipy_says():
    given = chunk(1)
    times, values, speeds = along(Curve(given), given.stamps_ns[0], given.stamps_ns[-2])
    oracle = PchipInterpolator(given.stamps_ns * 1e-9, given.values.astype(np.float64))
    np.testing.assert_allclose(values, oracle(times * 1e-9), atol=1e-9)
    np.testing.assert_allclose(speeds, oracle(times * 1e-9, 1), atol=1e-5)


def test_it_never_leaves_what_the_rows_span():
    given = chunk(2, rows=20)
    for k in range(19):
        _, values, _ = along(Curve(given), given.stamps_ns[k], given.stamps_ns[k + 1])
        pair = given.values[k : k + 2]
        assert (values >= pair.min(0) - 1e-6).all()
        assert (values <= pair.max(0) + 1e-6).all()


@pytest.mark.parametrize("rows", [1, 2])
def test_short_chunks(rows):
    given = chunk(rows=rows)
    curve = Curve(given)
    np.testing.assert_array_equal(curve.at(int(given.stamps_ns[-1]))[0], given.values[-1])
    np.testing.assert_array_equal(curve.at(0)[1], 0)


@pytest.mark.parametrize("seed", range(20))
def test_a_new_plan_is_taken_up_with_the_position_and_the_velocity_of_the_old_one(seed):
    rng = np.random.default_rng(seed)
    motion = Motion(fade_s=0.3)
    motion.put(chunk(seed), 10**9)
    for k in range(5):
        now_ns = 10**9 + (k + 1) * 170 * MS + int(rng.integers(50 * MS))
        before = motion.at(now_ns)
        motion.put(chunk(100 + seed + k, start_ns=now_ns - int(rng.integers(200 * MS))), now_ns)
        after = motion.at(now_ns)
        np.testing.assert_allclose(after[0], before[0], atol=1e-9)
        np.testing.assert_allclose(after[1], before[1], atol=1e-7)
        step_ns = 10_000
        ahead = motion.at(now_ns + step_ns)
        np.testing.assert_allclose((ahead[0] - after[0]) / (step_ns * 1e-9), after[1], atol=0.2)


def test_the_offset_is_gone_after_the_fade():
    motion = Motion(fade_s=0.2)
    motion.put(chunk(0), 10**9)
    new = chunk(1, start_ns=10**9 + 200 * MS)
    motion.put(new, 10**9 + 250 * MS)
    late_ns = 10**9 + 450 * MS
    np.testing.assert_array_equal(motion.at(late_ns)[0], Curve(new).at(late_ns)[0])
    assert not np.allclose(motion.at(late_ns - 100 * MS)[0], Curve(new).at(late_ns - 100 * MS)[0], atol=1e-3)


def test_the_first_plan_begins_where_the_robot_is():
    motion = Motion(fade_s=0.2)
    assert (motion.started, motion.end_ns) == (False, 0)
    start = np.array([5.0, 0.0, -5.0])
    motion.put(chunk(), 10**9, start)
    assert motion.started
    np.testing.assert_array_equal(motion.at(10**9)[0], start)
    np.testing.assert_array_equal(motion.at(10**9)[1], 0)


def test_nothing_to_play_is_an_error():
    with pytest.raises(ContractError, match="nothing to play; call put first"):
        Motion(0.1).at(0)
    with pytest.raises(ContractError, match="a fade of nan s; want a finite time, 0 or more"):
        Motion(float("nan"))
    with pytest.raises(ContractError, match="a chunk without rows"):
        Curve(ActionChunk(np.zeros(0, np.int64), np.zeros((0, 2), np.float32), 0))

"""twin:align: red side to red side, from inside or outside, wherever the outline lies."""

import numpy as np
import pytest

from robopolicy.behaviour import failure_of, mode_of
from robopolicy.clock import SimClock
from robopolicy.errors import ContractError
from sim_envs.align import INNER, NEAR, OUTER, SIDES, START, TARGET, TURNED, Align
from sim_envs.align_expert import AlignExpert
from sim_envs.arm import STICK_RADIUS, STICK_REACH
from sim_envs.planar import place
from sim_envs.push_planner import PushPlanner
from sim_envs.twin import Twin

DOWN = [1.0, 0, 0, 0, -1, 0, 0]


@pytest.fixture(scope="module")
def twin():
    return Twin(Align(), SimClock(), cameras=())


def put(twin, frame, target=(0.5, 0.15, 0.3)):
    """Begin an episode with the frame and the outline at these poses."""
    twin.reset(0)
    state = twin.read().state
    twin.reset_to(state | {"frame": np.array(frame), "target": np.array(target)})


def play(twin, expert, seed, disturb_at=None):
    clock = twin._clock
    twin.reset(seed)
    expert.reset(seed)
    for k in range(twin.max_steps):
        if k == disturb_at:
            twin.disturb(np.random.default_rng(seed))
        observation = twin.read()
        if twin.success():
            return k
        twin.command(expert.act(observation).values, clock.now_ns())
        clock.sleep_until(clock.now_ns() + twin.spec.period_ns)
    return None


def test_starts_lie_on_either_side_and_anywhere(twin):
    seen = []
    for seed in range(30):
        twin.reset(seed)
        state = twin.read().state
        assert (state["frame"][:2] >= START[0] - 1e-6).all()
        assert (state["frame"][:2] <= START[1] + 1e-6).all()
        assert (state["target"][:2] >= TARGET[0] - 1e-6).all()
        assert (state["target"][:2] <= TARGET[1] + 1e-6).all()
        assert not twin.success()
        assert mode_of(twin) is None
        seen.append(np.concatenate([state["frame"], state["target"]]))
    assert (np.ptp(seen, axis=0) > 0.08).all()
    assert np.ptp(np.array(seen)[:, [2, 5]], axis=0).min() > 2.0


@pytest.mark.parametrize(
    ("gap", "done"),
    [
        ((0, 0, 0), True),
        ((0.9 * NEAR, 0, 0), True),
        ((1.1 * NEAR, 0, 0), False),
        ((0, -1.1 * NEAR, 0), False),
        ((0, 0, 0.9 * TURNED), True),
        ((0, 0, -1.1 * TURNED), False),
        ((0, 0, np.pi / 2), False),  # the wrong side is red
        ((0, 0, np.pi), False),
        ((0, 0, 2 * np.pi), True),
    ],
)
def test_success_is_close_and_the_right_way_round(twin, gap, done):
    target = np.array([0.5, 0.15, 3.1])  # its yaw near the seam at pi
    put(twin, target + gap, target)
    twin.read()
    assert twin.success() == done
    assert (twin.score() == 1.0) == done


@pytest.mark.parametrize(
    ("frame", "failure"),
    [
        ((0.5, 0.0, 0.0), ""),
        ((STICK_REACH[1] - 0.02, 0.0, 0.0), ""),
        ((STICK_REACH[1] + 0.02, 0.0, 0.0), "out_of_reach"),
        ((0.20, 0.15, 0.0), "out_of_reach"),
        ((0.5, 0.70, 0.0), "off_table"),
    ],
)
def test_failures_are_named(twin, frame, failure):
    put(twin, frame)
    for _ in range(8):
        twin._clock.sleep_until(twin._clock.now_ns() + twin.spec.period_ns)
        twin.read()
    assert failure_of(twin) == failure


def test_the_frame_can_be_brought_back_into_reach(twin):
    put(twin, (STICK_REACH[1] + 0.02, 0.0, 0.0))
    twin.read()
    assert failure_of(twin) == "out_of_reach"
    put(twin, (0.5, 0.0, 0.0))
    twin.read()
    assert failure_of(twin) == ""


def test_a_recorded_state_has_its_outline_back_and_a_reset_draws_it_anew(twin):
    twin.reset(5)
    want = twin.read().state
    twin.reset(6)
    other = twin.read().state["target"]
    twin.reset_to(want)
    np.testing.assert_allclose(twin.read().state["target"], want["target"], atol=1e-6)
    np.testing.assert_allclose(twin.read().state["frame"], want["frame"], atol=1e-5)
    twin.reset(6)
    np.testing.assert_array_equal(twin.read().state["target"], other)


def test_a_state_without_the_outline_is_refused(twin):
    state = dict(twin.read().state)
    del state["target"]
    with pytest.raises(ContractError, match="state has no target"):
        twin.reset_to(state)


def test_a_goal_that_is_moved_is_seen_and_counts(twin):
    put(twin, (0.5, 0.15, 0.3), (0.5, 0.15, 0.3))
    twin._task.move_goal(np.array([0.03, 0.0, 0.5]))
    np.testing.assert_allclose(twin.read().state["target"], [0.53, 0.15, 0.8], atol=1e-6)
    assert not twin.success()


@pytest.mark.parametrize("side", SIDES)
def test_the_side_from_which_it_is_pushed_is_the_mode(twin, side):
    clock, sign = twin._clock, 1.0 if side == "inside" else -1.0
    put(twin, (0.5, -0.12, 0.0), (0.5, 0.15, 0.0))
    wall = -0.12 + (INNER - STICK_RADIUS if side == "inside" else -(OUTER + STICK_RADIUS))
    for k in range(90):
        y = wall - 0.01 + 0.0015 * max(k - 45, 0)
        height = 0.06 if k < 25 else 0.008
        twin.command(np.array([0.5, y, height, *DOWN]), clock.now_ns())
        clock.sleep_until(clock.now_ns() + twin.spec.period_ns)
        twin.read()
        if mode_of(twin) is not None:
            assert mode_of(twin) == side
    assert mode_of(twin) == side
    frame = twin.read().state["frame"]
    assert frame[1] > -0.09
    assert sign * (twin.data.site("tool").xpos[1] - frame[1]) > 0


@pytest.mark.parametrize("side", SIDES)
def test_contacts_are_on_that_side_and_the_stick_fits(side):
    planner = PushPlanner(np.zeros(3), SIDES[side])
    reach = np.abs(planner.points).max(axis=1)
    want = INNER - STICK_RADIUS if side == "inside" else OUTER + STICK_RADIUS
    np.testing.assert_allclose(reach, want, atol=1e-9)
    assert len(planner.points) >= 30
    away = (planner.points * planner.inward).sum(axis=1)
    assert (away > 0).all() == (side == "inside")  # pushed outwards from within, inwards from without


@pytest.mark.parametrize("side", SIDES)
def test_the_model_predicts_the_simulated_push(twin, side):
    clock, planner = twin._clock, PushPlanner(np.zeros(3), SIDES[side])
    for contact in (2, len(planner.points) // 2, len(planner.points) - 4):
        start = np.array([0.5, 0.0, 0.3])
        put(twin, start)
        point, inward = planner.points[contact], planner.inward[contact]
        for k in range(90):
            gap = 0.008 - 0.038 * min(max(k - 45, 0) / 40, 1.0)  # first beside the wall, then 3 cm into it
            at = place((point - gap * inward)[None], start)[0]
            twin.command(np.array([*at, 0.06 if k < 25 else 0.008, *DOWN]), clock.now_ns())
            clock.sleep_until(clock.now_ns() + twin.spec.period_ns)
            observation = twin.read()
        moved = observation.state["frame"] - start
        want = planner.moves[contact, 1, 6]  # 3 cm straight in
        assert np.linalg.norm(moved[:2]) > 0.01
        assert moved[2] == pytest.approx(want[2], abs=0.01 + 0.15 * abs(want[2]))


def test_the_expert_pushes_from_the_side_it_drew(twin):
    expert = AlignExpert()
    for seed in (0, 1):
        assert play(twin, expert, seed) is not None
        assert mode_of(twin) == expert.mode
        assert failure_of(twin) == ""


@pytest.mark.slow
def test_the_expert_mostly_recovers_a_frame_that_was_taken_away(twin):
    expert = AlignExpert()
    assert sum(play(twin, expert, seed, disturb_at=60) is not None for seed in range(20)) >= 19


def test_what_moved_without_the_stick_is_no_push(twin):
    clock = twin._clock
    put(twin, (0.5, -0.15, 0.4))
    for k in range(10):
        clock.sleep_until(clock.now_ns() + twin.spec.period_ns)
        twin.read()
        if k == 3:
            twin.data.joint("frame").qvel[:2] = [0.0, 0.5]
        if k == 7:
            assert twin.observed_state()["frame"][1] > -0.13  # it slid
            twin.disturb(np.random.default_rng(0))
    assert mode_of(twin) is None


def test_what_was_taken_away_while_the_stick_is_down_is_no_push(twin):
    clock = twin._clock
    put(twin, (0.5, -0.15, 0.4))
    down = np.array([0.6, 0.1, 0.01, *DOWN], np.float32)
    for k in range(60):
        twin.command(down, clock.now_ns())
        clock.sleep_until(clock.now_ns() + twin.spec.period_ns)
        twin.read()
        if k == 50:
            assert twin.observed_state()["tool_pos"][2] < 0.02
            twin.disturb(np.random.default_rng(0))
    assert mode_of(twin) is None

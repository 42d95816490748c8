import numpy as np
import pytest

from robopolicy.clock import SimClock
from sim_envs.arm import STICK_RADIUS
from sim_envs.planar import AREA, OUTLINE, PARTS, PX, clip_area, coverage, distance, place
from sim_envs.push_planner import PushPlanner, error
from sim_envs.pusht import GOAL, SPREAD, PushT
from sim_envs.twin import Twin

SQUARE = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])


def random_pose(rng, spread=0.05):
    return np.array([*rng.uniform(-spread, spread, 2), rng.uniform(-np.pi, np.pi)])


@pytest.mark.parametrize(
    ("moved", "area"), [((0, 0), 1.0), ((0.5, 0), 0.5), ((0.5, 0.5), 0.25), ((1.0, 0), 0.0), ((2, 2), 0.0)]
)
def test_area_of_two_squares(moved, area):
    assert clip_area(SQUARE + np.array(moved), SQUARE) == pytest.approx(area, abs=1e-12)


def test_area_of_a_square_turned_by_45_degrees():
    turned = place(SQUARE - 0.5, np.array([0.5, 0.5, np.pi / 4]))
    assert clip_area(turned, SQUARE) == pytest.approx(2 * (np.sqrt(2) - 1))


def test_the_t_is_the_published_one():
    assert sum(clip_area(part, part) for part in PARTS) == pytest.approx(AREA)
    assert np.ptp(OUTLINE, axis=0) == pytest.approx([120 * PX, 120 * PX])
    assert np.ptp(OUTLINE[:4, 1]) == pytest.approx(30 * PX)


def test_coverage_is_exact():
    shapely = pytest.importorskip("shapely", reason="comes with gym-pusht")
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b = random_pose(rng), random_pose(rng)
        polygons = [shapely.Polygon(place(OUTLINE, pose)) for pose in (a, b)]
        want = polygons[0].intersection(polygons[1]).area / polygons[1].area
        assert coverage(a, b) == pytest.approx(want, abs=1e-9)


def test_coverage_is_one_at_the_goal_whatever_the_turns():
    assert coverage(GOAL, GOAL) == pytest.approx(1.0)
    assert coverage(GOAL + np.array([0, 0, 2 * np.pi]), GOAL) == pytest.approx(1.0)


def test_distance_to_the_t():
    tip = OUTLINE[:, 1].max()
    points = np.array([[0, 0], [0, tip + 0.01], [0.1, tip + 0.01]])
    inside, above, beside = distance(points)
    assert inside < 0
    assert above == pytest.approx(0.01)
    assert beside > 0.05


def test_contacts_touch_and_do_not_overlap():
    planner = PushPlanner(GOAL)
    np.testing.assert_allclose(distance(planner.points), STICK_RADIUS, atol=1e-6)
    assert len(planner.points) > 40


def test_a_plan_promises_less_error_and_none_is_made_at_the_goal():
    planner = PushPlanner(GOAL)
    everything = np.ones(len(planner.points), bool)
    rng = np.random.default_rng(1)
    for _ in range(10):
        pose = GOAL + random_pose(rng, 0.1)
        push = planner.plan(pose, everything)
        assert push is not None
        assert np.linalg.norm(push.along) == pytest.approx(1.0)
        assert push.along @ push.inward > 0.3
    assert planner.plan(GOAL, everything) is None
    assert planner.plan(GOAL + 0.05, ~everything) is None
    assert error(GOAL, GOAL) == 0


def test_the_model_predicts_the_simulated_push():
    """Push off-centre in the twin and compare the T's turn with the limit surface."""
    clock = SimClock()
    twin = Twin(PushT(), clock, cameras=())
    planner = PushPlanner(GOAL)
    down = np.array([1.0, 0, 0, 0, -1, 0, 0])
    for contact in (5, 12, 30):
        pose = np.array([0.45, 0.0, 0.3])
        twin.reset(0)
        half = pose[2] / 2
        twin.data.joint("block").qpos = [*pose[:2], 0.015, np.cos(half), 0, 0, np.sin(half)]
        point, inward = planner.points[contact], planner.inward[contact]
        start_ns = clock.now_ns()
        for k in range(100):
            clock.sleep_until(start_ns + k * 50_000_000)
            twin.read()
            way = 0.01 - 0.045 * min(max(k - 50, 0) / 45, 1.0)  # first beside the T, then into it
            height = 0.06 if k < 25 else 0.008
            at = place((point - way * inward)[None], pose)[0]
            twin.command(np.concatenate([at, [height], down]), start_ns + k * 50_000_000)
        moved = twin.read().state["block"] - pose
        want = planner.moves[contact, 1, 6]  # 3 cm
        assert np.linalg.norm(moved) > 0.01
        assert np.sign(moved[2]) == np.sign(want[2]) or abs(want[2]) < 0.1
        assert moved[2] == pytest.approx(want[2], abs=0.2 + 0.35 * abs(want[2]))


def test_starts_are_not_half_done():
    twin = Twin(PushT(), SimClock(), cameras=())
    for seed in range(20):
        twin.reset(seed)
        block = twin.read().state["block"]
        assert coverage(block, GOAL) <= 0.41
        assert np.abs(block[:2] - GOAL[:2]).max() <= SPREAD + 1e-4
        assert not twin.success()

"""Segments about objects: exact in the object's frame, cut where the tasks say, played from new starts."""

import numpy as np
import pytest

from robopolicy.clock import SimClock
from robopolicy.errors import ContractError, UnknownTask
from robopolicy.loop import run_episode
from robopolicy.rotations import matrix_to_quat, matrix_to_rot6d, matrix_to_rotvec, rot6d_to_matrix, rotvec_to_matrix
from robopolicy.types import EpisodeMeta, Observation
from sim_envs.demonstrators import Clumsy, DownThenAcross, Hesitant, Unsteady
from sim_envs.experts import make_expert
from sim_envs.lift_expert import LiftExpert
from sim_envs.multiplied import CUTS, Multiplied, plan_of
from sim_envs.segments import Demonstration, Frame, Segment, bridge, cut, inverse, moved
from sim_envs.worlds import make_world

CUBE = Frame("cube", ("cube_pos", "cube_quat"), turns=4)
CHEST = Frame("chest", ("chest",))


class NoSafety:
    def limit(self, action, observation, now_ns):
        return action

    def reset(self):
        pass


class Keep:
    def __init__(self):
        self.steps = []

    def on_start(self, meta, spec):
        self.steps = []

    def on_step(self, step):
        self.steps.append(step)

    def on_end(self, meta):
        pass


def random_poses(rng, count):
    rotations = np.stack([rotvec_to_matrix(rng.uniform(-2, 2, 3)) for _ in range(count)])
    return np.concatenate([rng.normal(size=(count, 3)), matrix_to_rot6d(rotations), rng.random((count, 1))], axis=1)


def matrices(commands):
    poses = np.tile(np.eye(4), (len(commands), 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = rot6d_to_matrix(commands[:, 3:9]), commands[:, :3]
    return poses


def rigid(rng):
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotvec_to_matrix(rng.uniform(-3, 3, 3)), rng.normal(size=3)
    return pose


def test_a_moved_path_is_the_same_seen_from_the_moved_object():
    rng = np.random.default_rng(0)
    for _ in range(20):
        before, after, path = rigid(rng), rigid(rng), random_poses(rng, 7)
        there = moved(path, after @ inverse(before))
        np.testing.assert_allclose(inverse(after) @ matrices(there), inverse(before) @ matrices(path), atol=1e-12)
        np.testing.assert_array_equal(there[:, 9], path[:, 9])


def chest_state(x, y, yaw):
    return {"chest": np.array([x, y, yaw])}


def cube_state(position, yaw, side=(0.0, 0.0, 0.0)):
    rotation = rotvec_to_matrix(np.array([0, 0, yaw])) @ rotvec_to_matrix(np.array(side))
    return {"cube_pos": np.asarray(position), "cube_quat": matrix_to_quat(rotation)}


def test_a_carried_segment_is_the_same_seen_from_the_object_and_turns_with_it():
    rng = np.random.default_rng(1)
    pose = CHEST.at(chest_state(0.6, 0.1, 0.4))
    segment = Segment(CHEST, pose, random_poses(rng, 5), "a")
    state = chest_state(0.5, -0.1, -2.9)
    rows = segment.carried(state, np.eye(3))
    seen = inverse(CHEST.at(state)) @ matrices(rows)
    np.testing.assert_allclose(seen, inverse(pose) @ matrices(segment.commands), atol=1e-12)


def test_of_the_turns_of_a_cube_that_with_the_least_turn_of_the_tool_is_taken():
    rng = np.random.default_rng(2)
    start = cube_state([0.5, 0.0, 0.02], 0.3)
    segment = Segment(CUBE, CUBE.at(start), random_poses(rng, 4), "a")
    first = rot6d_to_matrix(segment.commands[0, 3:9])
    for yaw in np.linspace(-3, 3, 13):
        state = cube_state([0.4, 0.1, 0.02], yaw)
        rows = segment.carried(state, first)
        seen = inverse(CUBE.at(state)) @ matrices(rows)
        told = inverse(segment.pose) @ matrices(segment.commands)
        turn = seen[0, :3, :3] @ told[0, :3, :3].T  # about the cube's vertical by a whole number of quarters
        quarters = np.arctan2(turn[1, 0], turn[0, 0]) / (np.pi / 2)
        assert quarters == pytest.approx(round(quarters), abs=1e-9)
        np.testing.assert_allclose(seen[:, :3, 3], told[:, :3, 3] @ turn.T, atol=1e-12)
        asked = np.linalg.norm(matrix_to_rotvec(first.T @ rot6d_to_matrix(rows[0, 3:9])))
        assert asked <= np.pi / 4 + 1e-9, "more than an eighth of a turn is never needed"


@pytest.mark.parametrize("side", [(0, 0, 0), (np.pi / 2, 0, 0), (0, np.pi / 2, 0), (np.pi, 0, 0)])
def test_a_cube_on_any_side_has_an_upright_frame_along_its_sides(side):
    pose = CUBE.at(cube_state([0.5, 0.1, 0.02], 0.2, side))
    np.testing.assert_allclose(pose[2, :3], [0, 0, 1], atol=1e-12)
    yaw = np.arctan2(pose[1, 0], pose[0, 0])
    quarters = (yaw - 0.2) / (np.pi / 2)
    assert quarters == pytest.approx(round(quarters), abs=1e-6)


def test_what_the_state_lacks_is_named():
    with pytest.raises(ContractError, match="cube: the state has no cube_quat; it has cube_pos"):
        CUBE.at({"cube_pos": np.zeros(3)})


def test_a_bridge_is_straight_even_and_no_faster_than_told():
    rng = np.random.default_rng(3)
    for _ in range(20):
        start, end = random_poses(rng, 2)
        rows = bridge(start, end, step_m=0.01, step_rad=0.05)
        path = np.stack([start, *rows, end])
        steps = np.diff(path[:, :3], axis=0)
        np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=1e-12)
        turns = [
            np.linalg.norm(matrix_to_rotvec(a.T @ b))
            for a, b in zip(rot6d_to_matrix(path[:-1, 3:9]), rot6d_to_matrix(path[1:, 3:9]), strict=True)
        ]
        np.testing.assert_allclose(turns, turns[0], atol=1e-6)
        assert np.linalg.norm(steps[0]) <= 0.01 + 1e-12
        assert turns[0] <= 0.05 + 1e-9
        assert max(np.linalg.norm(steps[0]) / 0.01, turns[0] / 0.05) > 0.9, "no slower than need be"
        np.testing.assert_array_equal(rows[:, 9], start[9])
    assert len(bridge(start, start, step_m=0.01, step_rad=0.05)) == 0


def demonstration(tool, cube=(0.5, 0.0, 0.02)):
    tool = np.asarray(tool, float)
    state = {
        "tool_pos": tool,
        "cube_pos": np.tile(np.asarray(cube, float), (len(tool), 1)) if np.ndim(cube) == 1 else np.asarray(cube),
        "cube_quat": np.tile([1.0, 0, 0, 0], (len(tool), 1)),
    }
    commands = np.concatenate([tool, np.tile([1.0, 0, 0, 0, -1, 0, 1], (len(tool), 1))], axis=1)
    return Demonstration("a", commands.astype(np.float32), state)


def test_a_segment_begins_where_the_tool_came_near_for_the_last_time():
    x = [0.2, 0.45, 0.3, 0.35, 0.45, 0.48, 0.5, 0.5]
    made = cut(demonstration([[v, 0.0, 0.02] for v in x]), [CUBE], [8], reach_m=0.1)
    assert [len(one.commands) for one in made] == [4]
    np.testing.assert_allclose(made[0].commands[:, 0], x[4:], atol=1e-7)
    never = cut(demonstration([[0.1, 0, 0.02]] * 3), [CUBE], [3], reach_m=0.1)
    assert len(never[0].commands) == 1


@pytest.mark.parametrize("ends", [[3, 3], [5, 3], [4, 99], [8]])
def test_segments_that_make_no_sense_are_refused(ends):
    with pytest.raises(ContractError, match="segments of 8 steps end at"):
        cut(demonstration([[0.5, 0, 0.02]] * 8), [CUBE, CUBE], ends, reach_m=0.1)


def test_a_lift_that_lifted_nothing_cannot_be_cut():
    with pytest.raises(ContractError, match="the cube is never raised"):
        plan_of("lift", demonstration([[0.5, 0, 0.02]] * 8))


def test_tasks_without_objects_to_go_by_are_refused():
    with pytest.raises(UnknownTask, match="valid: drawer, lift, peg, stack"):
        plan_of("pusht", demonstration([[0.5, 0, 0.02]] * 8))


def test_a_dropped_cube_is_cut_at_the_last_time_it_was_raised():
    heights = [0.02, 0.02, 0.06, 0.02, 0.02, 0.02, 0.05, 0.08]
    cube = np.array([[0.5, 0.0, z] for z in heights])
    grasp, lift = plan_of("lift", demonstration(np.array([[0.5, 0.0, z] for z in heights]), cube))
    assert (len(grasp.commands), len(lift.commands)) == (6, 2)
    assert lift.pose[2, 3] == pytest.approx(0.05)


def demonstrate(task, seeds, agent=None):
    """Play the expert, or ``agent``; return the demonstrations that succeeded, and how many there were."""
    clock, keep = SimClock(), Keep()
    world = make_world(f"twin:{task}", clock, cameras=())
    agent, made = agent or make_expert(task, world.spec), []
    for seed in seeds:
        world.reset(seed)
        run_episode(
            world, agent, clock, NoSafety(), EpisodeMeta(task, "twin", seed=seed), max_steps=world.max_steps,
            watchers=[keep], done=lambda _: world.success(),
        )  # fmt: skip
        if world.success():
            state = {name: np.stack([s.observation.state[name] for s in keep.steps]) for name in world.spec.state}
            made.append(Demonstration(f"seed {seed}", np.stack([s.sent for s in keep.steps]), state))
    return made


@pytest.mark.parametrize(
    ("task", "new"), [("lift", 5), ("stack", 2), ("drawer", 3), pytest.param("peg", 2, marks=pytest.mark.slow)]
)
def test_a_few_demonstrations_succeed_from_new_starts(task, new):
    few = demonstrate(task, range(2))
    agent = Multiplied([plan_of(task, one) for one in few], 20.0)
    made = demonstrate(task, range(100, 100 + new), agent)
    assert len(made) >= new - 1
    parts = agent.about()["multiplied"]["segments"]
    assert {part["from"] for part in parts} <= {one.name for one in few}
    assert set(CUTS) == {"lift", "stack", "drawer", "peg"}


@pytest.mark.parametrize(
    "style",
    [
        Clumsy(LiftExpert()),
        pytest.param(DownThenAcross(), marks=pytest.mark.slow),
        pytest.param(Unsteady(Hesitant(LiftExpert()), 0.003), marks=pytest.mark.slow),
    ],
)
def test_so_do_those_of_other_styles_and_of_unsteady_hands(style):
    few = demonstrate("lift", range(3), style)
    made = demonstrate("lift", range(100, 104), Multiplied([plan_of("lift", one) for one in few], 20.0))
    assert len(made) >= 3


def test_the_seed_chooses_what_is_played():
    rising = np.array([[0.5, 0, 0.02 + 0.01 * k] for k in range(8)])
    one = demonstration(rising, rising)
    few = [Demonstration(f"d{i}", one.commands, one.state) for i in range(4)]
    agent = Multiplied([plan_of("lift", one) for one in few], 20.0)
    chosen = []
    for seed in (0, 1, 2, 3, 0):
        agent.reset(seed)
        chosen.append([segment.source for segment in agent.chosen])
    assert chosen[0] == chosen[4]
    assert len({tuple(one) for one in chosen}) > 1
    with pytest.raises(ContractError, match="no segments"):
        Multiplied([], 20.0)


def test_the_noise_has_its_size_and_is_the_seeds():
    rising = np.array([[0.5, 0, 0.02 + 0.0005 * k] for k in range(400)])
    one = demonstration(rising, rising)
    start = Observation(0, {**one.at(0), "tool_quat": np.array([0.0, 1, 0, 0]), "gripper": np.ones(1)})

    def played(noise_m, seed):
        agent = Multiplied([plan_of("lift", one)], 20.0, noise_m=noise_m)
        agent.reset(seed)
        return np.array([agent.act(start).values for _ in range(300)], np.float64)

    off = played(0.002, 3) - played(0.0, 3)
    assert off[20:, :3].std(axis=0) == pytest.approx(0.002, rel=0.3)
    np.testing.assert_array_equal(off[:, 3:], 0)
    np.testing.assert_array_equal(played(0.002, 3), played(0.002, 3))
    assert not np.array_equal(played(0.002, 3), played(0.002, 4))

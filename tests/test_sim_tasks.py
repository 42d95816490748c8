"""One walk over every task there is."""

import re

import mujoco
import numpy as np
import pytest

from robopolicy.behaviour import failure_of, mode_of, modes_of
from robopolicy.clock import SimClock
from robopolicy.errors import SpecMismatch, UnknownTask, UsageError
from robopolicy.interfaces import Environment, Robot, Task
from robopolicy.loop import run_episode
from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta
from sim_envs.experts import make_expert
from sim_envs.tasks import TASKS, make_task
from sim_envs.twin import Twin
from sim_envs.worlds import make_world

DRAWERS = ("drawer", "turned_drawer", "left_drawer", "right_drawer")
# What stands still in an expert's episode: fingers that hold a stick, and a goal.
STILL = {
    **{name: {"chest"} for name in DRAWERS},
    "peg": {"hole"},
    "pusht": {"gripper"},
    "avoid": {"gripper"},
    "align": {"gripper", "target"},
    "memory": {"gripper"},
}
ALIKE = {
    "memory": {"cue", "go"},
    **{name: {"left_open", "right_open"} for name in DRAWERS},
}  # may be the same at two starts
SEEDS = {
    "lift": 6, "stack": 4, "drawer": 4, "turned_drawer": 4, "left_drawer": 2, "right_drawer": 2, "peg": 3, "pusht": 2,
    "avoid": 4, "align": 2, "memory": 4,
}  # fmt: skip
HIDDEN = {"lamp"}  # memory's, while it is off
DEAF = {"avoid", "memory"}  # disturbed by what is commanded being lost for a while
STARTS = 20  # seeds whose starts are looked at
SLUG = re.compile(r"[a-z][a-z_]*")


class Watch:
    def __init__(self):
        self.steps = []

    def on_start(self, meta, spec):
        pass

    def on_step(self, step):
        self.steps.append(step)

    def on_end(self, meta):
        pass


class NoSafety:
    def limit(self, action, observation, now_ns):
        return action

    def reset(self):
        pass


def play(name, seed, max_steps=None):
    clock = SimClock()
    world = make_world(f"twin:{name}", clock, cameras=())
    world.reset(seed)
    watch, expert = Watch(), make_expert(name, world.spec)
    run_episode(
        world,
        expert,
        clock,
        NoSafety(),
        EpisodeMeta(name, "twin", seed=seed),
        max_steps=max_steps or world.max_steps,
        watchers=[watch],
        done=lambda observation: world.success(),
    )
    return world, watch.steps


@pytest.mark.parametrize("name", TASKS)
def test_task_and_world_keep_the_interfaces(name):
    world = make_world(f"twin:{name}", SimClock(), cameras=())
    assert isinstance(make_task(name), Task)
    assert isinstance(world, Robot)
    assert isinstance(world, Environment)
    observation = world.read()
    assert {k: v.dim for k, v in world.spec.state.items()} == {k: len(v) for k, v in observation.state.items()}
    assert all(v.dtype == np.float32 for v in observation.state.values())
    assert not world.success()
    assert world.score() < 0.5


@pytest.mark.parametrize("name", TASKS)
def test_no_start_is_a_success_or_a_failure_already(name):
    world = make_world(f"twin:{name}", SimClock(), cameras=())
    for seed in range(STARTS):
        world.reset(seed)
        world.read()
        assert not world.success()
        assert failure_of(world) == ""
        assert mode_of(world) is None
        assert world.score() < 0.5


@pytest.mark.parametrize("name", TASKS)
def test_every_part_has_a_name_of_its_own(name):
    model = make_world(f"twin:{name}", SimClock(), cameras=()).model
    kinds = mujoco.mjtObj
    for kind, count in (
        (kinds.mjOBJ_BODY, model.nbody),
        (kinds.mjOBJ_JOINT, model.njnt),
        (kinds.mjOBJ_GEOM, model.ngeom),
        (kinds.mjOBJ_SITE, model.nsite),
        (kinds.mjOBJ_CAMERA, model.ncam),
        (kinds.mjOBJ_LIGHT, model.nlight),
        (kinds.mjOBJ_ACTUATOR, model.nu),
        (kinds.mjOBJ_MATERIAL, model.nmat),
    ):
        assert all(mujoco.mj_id2name(model, kind.value, i) for i in range(count)), kind


@pytest.mark.parametrize("name", TASKS)
def test_the_front_camera_sees_every_object_and_the_calibration_says_where(name):
    world = make_world(f"twin:{name}", SimClock(), cameras=("front", "wrist"))  # nothing is drawn
    model, arm = world.model, world.model.body("base").id
    moves = np.isin(np.arange(model.nbody), model.jnt_bodyid) | (model.body_mocapid >= 0)
    moves &= model.body_rootid != arm
    objects = [int(geom) for geom in np.flatnonzero(moves[model.geom_bodyid]) if model.geom(geom).name not in HIDDEN]
    for seed in range(STARTS):
        world.reset(seed)
        calibration = world.camera_calibration()
        assert set(calibration) == {"front", "wrist"}
        front, (height, width) = calibration["front"], (96, 96)
        for geom in objects:
            u, v, w = np.array(front["K"]) @ (np.linalg.inv(front["T_base_cam"]) @ [*world.data.geom_xpos[geom], 1])[:3]
            assert w > 0
            assert 0 < u / w < width - 1, (seed, model.geom(geom).name)
            assert 0 < v / w < height - 1, (seed, model.geom(geom).name)


@pytest.mark.parametrize("name", TASKS)
def test_a_world_put_where_another_was_seen_is_there(name):
    there, _ = play(name, 6, 30)
    world = make_world(f"twin:{name}", SimClock(), cameras=())
    world.reset(1)
    world.reset_to(there.read().state)
    for key, value in there.read().state.items():
        np.testing.assert_allclose(world.read().state[key], value, atol=2e-4, err_msg=key)


@pytest.mark.parametrize("name", TASKS)
def test_same_seed_same_episode_to_the_bit(name):
    first, second, other = (play(name, seed, 25)[1] for seed in (3, 3, 4))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.sent, b.sent)
        for key in a.observation.state:
            np.testing.assert_array_equal(a.observation.state[key], b.observation.state[key])
    same = [
        key
        for key, value in first[0].observation.state.items()
        if np.array_equal(value, other[0].observation.state[key])
    ]
    assert set(same) <= {"gripper", "dq"} | ALIKE.get(name, set())


@pytest.mark.parametrize("name", TASKS)
def test_a_used_world_resets_as_a_new_one(name):
    world, _ = play(name, 1, 30)
    world.disturb(np.random.default_rng(0))
    world.command(world.stop(), 0)
    world._clock.sleep_until(world._clock.now_ns() + 500_000_000)
    world.read()
    world.reset(9)
    used = world.read().state
    assert failure_of(world) == ""
    assert mode_of(world) is None
    fresh = make_world(f"twin:{name}", SimClock(), cameras=())
    fresh.reset(9)
    for key, value in fresh.read().state.items():
        np.testing.assert_array_equal(value, used[key])


@pytest.mark.parametrize("name", TASKS)
def test_expert_succeeds_and_everything_it_sees_moves(name):
    won, still = 0, None
    for seed in range(SEEDS[name]):
        world, steps = play(name, seed)
        won += world.success()
        constant = {
            key for key in world.spec.state if (np.ptp([s.observation.state[key] for s in steps], axis=0) == 0).any()
        }
        still = constant if still is None else still & constant
        sent = np.array([s.sent for s in steps])
        assert np.linalg.norm(np.diff(sent[:, :3], axis=0), axis=1).max() <= 0.5 * 0.05  # m a step
        assert world.score() <= 1.0
        if world.success():
            assert failure_of(world) == ""
            assert bool(modes_of(world)) == (mode_of(world) is not None)
    assert won == SEEDS[name]
    assert still <= STILL.get(name, set())


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_expert_over_many_seeds(name):
    count, least = {"lift": (100, 0.98), "pusht": (20, 0.8)}.get(name, (100, 0.95))
    won = sum(play(name, seed)[0].success() for seed in range(1000, 1000 + count))
    assert won / count >= least


@pytest.mark.parametrize("name", TASKS)
def test_observations_are_fresh_arrays(name):
    clock = SimClock()
    world = make_world(f"twin:{name}", clock, cameras=())
    first = world.read()
    kept = {key: value.copy() for key, value in first.state.items()}
    for value in world.read().state.values():
        value[:] = np.nan
    play_on = world.stop()
    play_on[:3] += 0.02
    sent = world.command(play_on, clock.now_ns())
    sent[:] = np.nan
    play_on[:] = np.nan
    clock.sleep_until(200_000_000)
    assert np.isfinite(np.concatenate(list(world.read().state.values()))).all()
    for key, value in kept.items():
        np.testing.assert_array_equal(first.state[key], value)


@pytest.mark.parametrize("name", sorted(set(TASKS) - DEAF))
def test_disturb_moves_what_the_task_is_about(name):
    world, _ = play(name, 2, 20)
    before = world.read().state
    assert "m" in world.disturb(np.random.default_rng(0))
    after = world.read().state
    np.testing.assert_array_equal(before["tool_pos"], after["tool_pos"])
    moved = [key for key in after if not np.array_equal(before[key], after[key])]
    assert moved
    assert all(key not in ("q", "dq", "tool_pos", "tool_quat", "gripper") for key in moved)
    assert not world.success()


@pytest.mark.parametrize("name", sorted(DEAF))
@pytest.mark.parametrize("at", [30, 55])
def test_disturbed_it_hears_no_command_for_a_second_and_the_expert_goes_on(name, at):
    for seed in range(3):
        clock = SimClock()
        world = make_world(f"twin:{name}", clock, cameras=())
        expert = make_expert(name, world.spec)
        world.reset(seed)
        expert.reset(seed)
        places = []
        for k in range(world.max_steps):
            if k == at:
                assert "1 s" in world.disturb(np.random.default_rng(0))
            observation = world.read()
            places.append(observation.state["tool_pos"])
            if world.success():
                break
            world.command(expert.act(observation).values, clock.now_ns())
            clock.sleep_until(clock.now_ns() + world.spec.period_ns)
        assert np.ptp(places[at + 4 : at + 20], axis=0).max() < 5e-4
        assert world.success(), seed
        assert len(places) > at + 20
        assert failure_of(world) == ""


def test_a_task_without_a_disturbance_says_so():
    class Calm(TASKS["lift"]):
        disturb = None

    with pytest.raises(UsageError, match="task Calm has no disturbance"):
        Twin(Calm(), SimClock(), cameras=()).disturb(np.random.default_rng(0))


@pytest.mark.parametrize("name", TASKS)
def test_modes_and_failures_are_slugs_and_each_mode_is_listed_once(name):
    world, _ = play(name, 0, 5)
    assert len(set(modes_of(world))) == len(modes_of(world)) != 1
    assert failure_of(world) == "" or SLUG.fullmatch(failure_of(world))


def test_push_t_goes_by_both_names():
    assert type(make_task("push_t")) is type(make_task("pusht"))
    world = make_world("twin:push_t", SimClock(), cameras=())
    assert type(make_expert("push_t", world.spec)) is type(make_expert("pusht", world.spec))


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(UnknownTask, match="lift"):
        make_task("lfit")
    with pytest.raises(UnknownTask, match="lift"):
        make_expert("lfit", PolicySpec())
    with pytest.raises(LookupError, match="twin:TASK"):
        make_world("lift", SimClock())
    with pytest.raises(SpecMismatch, match="cube_pos"):
        make_expert("lift", PolicySpec())


def test_lift_expert_recovers_a_cube_that_was_taken_away():
    clock = SimClock()
    world = make_world("twin:lift", clock, cameras=())
    world.reset(5)
    expert = make_expert("lift", world.spec)
    expert.reset(5)
    for k in range(160):
        clock.sleep_until(k * world.spec.period_ns)
        observation = world.read()
        if k == 35:
            world.disturb(np.random.default_rng(1))
        world.command(expert.act(observation).values, k * world.spec.period_ns)
    assert world.success()

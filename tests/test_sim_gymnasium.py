import sys
from importlib.metadata import version

import numpy as np
import pytest

from robopolicy.behaviour import failure_of
from robopolicy.cli.worlds import packages_of
from robopolicy.clock import SimClock
from robopolicy.errors import MissingExtra, UnknownCamera, UnknownTask, UnsafeCommand, UsageError
from robopolicy.evaluation.report import versions
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from sim_envs.worlds import make_world

PUSHT = "gymnasium:gym_pusht/PushT-v0"
PERIOD_NS = 100_000_000


@pytest.fixture
def gymnasium():
    pytest.importorskip("gym_pusht", reason="pip install 'robopolicy[pusht]'")
    return pytest.importorskip("gymnasium")


@pytest.fixture
def world(gymnasium):
    clock = SimClock(5_000_000_000)
    world = make_world(PUSHT, clock)
    yield world, clock
    world.close()


def test_spec_is_the_published_one(world):
    assert world[0].spec == PolicySpec(
        state={"state": StateSpec(5, ("px", "px", "px", "px", "rad_wrapped"))},
        action=ActionSpec("vector", ("x", "y"), ("px",)),
        rate_hz=10.0,
    )
    assert world[0].max_steps == 300


def test_published_seeds_start_as_in_gym_pusht(world, gymnasium):
    reference = gymnasium.make("gym_pusht/PushT-v0", disable_env_checker=True)
    for seed in (100_000, 100_001, 100_049):
        world[0].reset(seed)
        want, _ = reference.reset(seed=seed)
        np.testing.assert_array_equal(world[0].read().state["state"], want.astype(np.float32))
    world[0].reset(100_000)
    np.testing.assert_allclose(world[0].read().state["state"], [113, 100, 219.698495, 329.994579, 3.1260699], rtol=1e-6)


def test_one_step_a_period_with_the_command_that_was_due(world, gymnasium):
    world, clock = world
    reference = gymnasium.make("gym_pusht/PushT-v0", disable_env_checker=True)
    want, _ = reference.reset(seed=7)
    world.reset(7)
    rng, best = np.random.default_rng(0), 0.0
    for k in range(40):
        due = 5_000_000_000 + k * PERIOD_NS
        clock.sleep_until(due)
        np.testing.assert_array_equal(world.read().state["state"], want.astype(np.float32))
        sent = world.command(rng.uniform(0, 512, 2), due)
        want, reward, *_ = reference.step(sent)
        best = max(best, reward)
    clock.sleep_until(due + PERIOD_NS)
    world.read()
    assert world.score() == pytest.approx(best)
    assert not world.success()


def test_the_score_is_the_published_one_and_repeats_to_the_bit(world, monkeypatch):
    """gym-pusht takes the T's parts from a set, ordered by addresses, and a sum's last bit is by its order."""
    import pymunk

    world, _ = world
    env, seen, theirs = world._env.unwrapped, [], []
    shapes = pymunk.Body.shapes.fget
    for turn in (1, -1):
        monkeypatch.setattr(pymunk.Body, "shapes", property(lambda body, turn=turn: by_place(shapes(body))[::turn]))
        rng = np.random.default_rng(0)
        seen.append([])
        theirs.append([])
        for _ in range(300):
            pose = np.concatenate([[50, 50], 256 + rng.normal(0, 20, 2), [np.pi / 4 + rng.normal(0, 0.2)]])
            env.reset(seed=0, options={"reset_to_state": pose})
            seen[-1].append(env._get_coverage())
            theirs[-1].append(type(env)._get_coverage(env))
    assert seen[0] == seen[1]
    assert theirs[0] != theirs[1], "what is mended"
    np.testing.assert_allclose(seen[0], theirs[0], rtol=1e-12)


def test_the_simulators_own_packages_are_part_of_what_an_episode_is_named_by(gymnasium):
    told = versions(packages_of(PUSHT))
    for package in ("gymnasium", "gym_pusht", "pymunk", "shapely"):
        assert f"{package} {version(package)}" in told
    assert packages_of("gymnasium:Pendulum-v1") == ("gymnasium",)
    assert packages_of("twin:lift") == ()
    assert packages_of("robosuite:Lift") == ("robosuite",)


def by_place(shapes):
    return sorted(shapes, key=lambda shape: tuple(map(tuple, shape.get_vertices())))


def test_nothing_moves_before_the_first_command(world):
    world, clock = world
    world.reset(3)
    before = world.read().state["state"]
    clock.sleep_until(clock.now_ns() + 50 * PERIOD_NS)
    np.testing.assert_array_equal(world.read().state["state"], before)


def test_late_reads_catch_up_and_observations_do_not_alias(world):
    world, clock = world
    world.reset(3)
    first = world.read().state["state"]
    kept = first.copy()
    start = clock.now_ns()
    world.command([256, 256], start)
    world.command([100, 400], start + 20 * PERIOD_NS)
    clock.sleep_until(start + 20 * PERIOD_NS)
    np.testing.assert_allclose(world.read().state["state"][:2], [256, 256], atol=40)
    clock.sleep_until(start + 45 * PERIOD_NS)
    np.testing.assert_allclose(world.read().state["state"][:2], [100, 400], atol=40)
    np.testing.assert_array_equal(first, kept)


def test_stop_holds_where_the_agent_is(world):
    world, clock = world
    world.reset(3)
    world.read()
    start = clock.now_ns()
    world.command([400, 100], start)
    clock.sleep_until(start + 5 * PERIOD_NS)
    here = world.read().state["state"][:2]
    np.testing.assert_allclose(world.stop("test"), here)
    clock.sleep_until(start + 25 * PERIOD_NS)
    assert np.linalg.norm(world.read().state["state"][:2] - here) < 40  # px; it had speed


@pytest.mark.parametrize("action", [[1.0], [1.0, np.nan], [[1.0, 2.0]]])
def test_bad_commands_are_refused(world, action):
    with pytest.raises(UnsafeCommand, match="2 finite numbers"):
        world[0].command(action, 0)


def test_commands_are_clipped_to_the_action_space(world):
    np.testing.assert_array_equal(world[0].command([-5, 600], 0), np.float32([0, 512]))


def test_disturb_moves_the_block(world):
    world, _ = world
    world.reset(3)
    before = world.read().state["state"]
    assert "corner" in world.disturb(np.random.default_rng(0))
    after = world.read().state["state"]
    assert np.linalg.norm(after[2:4] - before[2:4]) > 50
    np.testing.assert_array_equal(after[:2], before[:2])


def test_image_camera_only_when_asked(gymnasium):
    world = make_world(PUSHT, SimClock(), cameras=("image",))
    assert world.spec.cameras == {"image": CameraSpec(96, 96)}
    picture = world.read().images["image"]
    assert picture.shape == (96, 96, 3)
    assert picture.dtype == np.uint8
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3
    assert world.picture().shape == (384, 384, 3)
    with pytest.raises(UnknownCamera, match="valid: image"):
        make_world(PUSHT, SimClock(), cameras=("front",))


def test_an_environment_nobody_described(gymnasium):
    clock = SimClock()
    world = make_world("gymnasium:Pendulum-v1", clock)
    assert world.spec.action == ActionSpec("vector", ("a0",), ("1",))
    assert world.spec.state == {"state": StateSpec(3, ("1",))}
    np.testing.assert_array_equal(world.stop(), [0.0])
    world.command([1.0], 0)
    before = world.read().state["state"]
    clock.sleep_until(world.spec.period_ns)
    assert not np.array_equal(world.read().state["state"], before)
    with pytest.raises(UsageError, match="no disturbance"):
        world.disturb(np.random.default_rng(0))


@pytest.mark.parametrize(("env_id", "rate_hz"), [("Pendulum-v1", None), ("MountainCarContinuous-v0", 20.0)])
def test_ordinary_environments_play_as_in_a_plain_loop(gymnasium, env_id, rate_hz):
    clock, rng = SimClock(), np.random.default_rng(0)
    world = make_world(f"gymnasium:{env_id}", clock, rate_hz=rate_hz)
    reference = gymnasium.make(env_id, disable_env_checker=True)
    world.reset(11)
    seen, _ = reference.reset(seed=11)
    for k in range(30):
        clock.sleep_until(k * world.spec.period_ns)
        np.testing.assert_array_equal(world.read().state["state"], np.float32(seen))
        action = rng.uniform(reference.action_space.low, reference.action_space.high).astype(np.float32)
        np.testing.assert_array_equal(world.command(action, k * world.spec.period_ns), action)
        seen, *_ = reference.step(action)
    assert not world.success()


def test_success_is_the_end_where_nothing_else_says_so(gymnasium):
    clock = SimClock()
    world = make_world("gymnasium:MountainCarContinuous-v0", clock)
    world.reset(0)
    for k in range(400):
        clock.sleep_until(k * world.spec.period_ns)
        speed = world.read().state["state"][1]
        if world.success():
            break
        world.command([np.sign(speed) or 1.0], k * world.spec.period_ns)  # rocks itself up the hill
    assert world.success()
    assert world.read().state["state"][0] >= 0.45
    assert world.score() == 1.0


def test_parts_within_parts_and_actions_of_two_dimensions(gymnasium):
    taken = []

    class Nested(gymnasium.Env):
        metadata = {"render_fps": 5, "render_modes": []}  # noqa: RUF012
        observation_space = gymnasium.spaces.Dict(
            arm=gymnasium.spaces.Dict(q=gymnasium.spaces.Box(-1, 1, (2,)), on=gymnasium.spaces.Discrete(2)),
            pair=gymnasium.spaces.Tuple((gymnasium.spaces.Box(-1, 1, (3,)), gymnasium.spaces.MultiBinary(2))),
        )
        action_space = gymnasium.spaces.Box(-1, 1, (2, 2), np.float64)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.observation_space.sample(), {}

        def step(self, action):
            taken.append(action)
            return self.observation_space.sample(), 0.0, False, False, {}

    gymnasium.register("robopolicy_tests/Nested-v0", entry_point=Nested)
    clock = SimClock()
    world = make_world("gymnasium:robopolicy_tests/Nested-v0", clock)
    assert {name: part.dim for name, part in world.spec.state.items()} == {
        "arm.q": 2, "arm.on": 1, "pair.0": 3, "pair.1": 2,
    }  # fmt: skip
    world.command([0.1, 0.2, 0.3, 2.0], 0)
    clock.sleep_until(world.spec.period_ns)
    seen = world.read().state
    assert all(value.dtype == np.float32 and value.ndim == 1 for value in seen.values())
    np.testing.assert_allclose(taken[0], [[0.1, 0.2], [0.3, 1.0]], atol=1e-7)
    assert taken[0].dtype == np.float64


def test_dictionaries_become_streams_and_cameras(gymnasium):
    class Both(gymnasium.Env):
        metadata = {"render_fps": 5, "render_modes": []}  # noqa: RUF012
        observation_space = gymnasium.spaces.Dict(
            eye=gymnasium.spaces.Box(0, 255, (6, 8, 3), np.uint8), arm=gymnasium.spaces.Box(-1, 1, (2, 2), np.float32)
        )
        action_space = gymnasium.spaces.Box(0.5, 1.0, (2,), np.float32)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return {"eye": np.full((6, 8, 3), 7, np.uint8), "arm": np.ones((2, 2), np.float32)}, {}

        def step(self, action):
            return self.reset()[0], 3.0, True, False, {}

    gymnasium.register("robopolicy_tests/Both-v0", entry_point=Both)
    clock = SimClock()
    world = make_world("gymnasium:robopolicy_tests/Both-v0", clock, cameras=("eye",))
    assert world.spec.cameras == {"eye": CameraSpec(6, 8)}
    assert world.spec.state == {"arm": StateSpec(4, ("1",))}
    assert world.spec.rate_hz == 5
    np.testing.assert_array_equal(world.stop(), np.float32([0.5, 0.5]))  # as near to zero as it may
    world.command([1, 1], 0)
    clock.sleep_until(world.spec.period_ns)
    assert world.read().images["eye"].max() == 7
    assert world.success()
    assert world.score() == 1.0
    with pytest.raises(UsageError, match="no pictures"):
        world.picture()


@pytest.mark.parametrize(("last", "info", "says"), [
    ((True, False), {"is_success": False}, (False, "terminated")),
    ((True, False), {"is_success": True}, (True, "")),
    ((True, False), {}, (True, "")),
    ((False, True), {"is_success": False}, (False, "")),
])  # fmt: skip
def test_an_environment_that_ends_without_success_failed_there(gymnasium, last, info, says):
    class Ends(gymnasium.Env):
        metadata = {"render_fps": 5, "render_modes": []}  # noqa: RUF012
        observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

        def reset(self, *, seed=None, options=None):
            return np.zeros(2, np.float32), {}

        def step(self, action):
            return np.ones(2, np.float32), 0.1, *last, info

    gymnasium.register("robopolicy_tests/Ends-v0", entry_point=Ends)
    clock = SimClock()
    world = make_world("gymnasium:robopolicy_tests/Ends-v0", clock)
    del gymnasium.registry["robopolicy_tests/Ends-v0"]
    assert failure_of(world) == ""
    world.command([0, 0], 0)
    clock.sleep_until(2 * world.spec.period_ns)
    world.read()
    assert (world.success(), failure_of(world)) == says
    world.reset(1)
    assert failure_of(world) == ""


def test_unknown_environments_name_the_near_ones(gymnasium):
    with pytest.raises(UnknownTask, match="valid: gym_pusht/PushT-v0"):
        make_world("gymnasium:gym_pusht/PushT-v9", SimClock())
    with pytest.raises(UnknownTask, match="Pendulum-v1"):
        make_world("gymnasium:Pendulun-v1", SimClock())


def test_discrete_actions_are_refused(gymnasium):
    with pytest.raises(UsageError, match="Discrete"):
        make_world("gymnasium:CartPole-v1", SimClock())


def test_missing_packages_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(MissingExtra, match=r"robopolicy\[pusht\]"):
        make_world(PUSHT, SimClock())

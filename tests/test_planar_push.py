"""planar:pusht against gym-pusht: the same task, starts and score exactly, the same physics within stated errors."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from robopolicy.clock import SimClock, WallClock
from robopolicy.errors import ContractError, UnknownCamera, UnknownTask, UnsafeCommand, UsageError
from robopolicy.testing import EnvironmentContract
from sim_envs.planar_push import GOAL, PlanarPushT, covered, start
from sim_envs.planar_push_identify import (
    Recording,
    identify,
    open_loop_error,
    record,
    windows,
)
from sim_envs.planar_push_physics import IDENTIFIED, NOMINAL, PlanarPush, turned
from sim_envs.worlds import make_world

PUSHT = "gymnasium:gym_pusht/PushT-v0"
PERIOD_NS = 100_000_000


class TestPlanarPushT(EnvironmentContract):
    def make(self, clock):
        return make_world("planar:pusht", clock)


class TestPlanarPushTWithCamera(EnvironmentContract):
    def make(self, clock):
        return make_world("planar:pusht", clock, cameras=("image",))


@pytest.fixture
def gym():
    """gym-pusht itself, without a wrapper."""
    pytest.importorskip("gym_pusht", reason="pip install 'robopolicy[pusht]'")
    gymnasium = pytest.importorskip("gymnasium")
    env = gymnasium.make("gym_pusht/PushT-v0", disable_env_checker=True).unwrapped
    yield env
    env.close()


@pytest.fixture(scope="module")
def pushes():
    """Recordings of scripted pushes in gym-pusht: to identify from, and held out."""
    pytest.importorskip("gym_pusht", reason="pip install 'robopolicy[pusht]'")
    clock = SimClock()
    world = make_world(PUSHT, clock)
    yield [[record(world, clock, seed, 60) for seed in seeds] for seeds in (range(10), range(500, 512))]
    world.close()


def apart(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """How far apart the T is in two states, px and rad."""
    angle = (a[4] - b[4] + np.pi) % (2 * np.pi) - np.pi
    return float(np.linalg.norm(a[2:4] - b[2:4])), abs(float(angle))


def test_the_published_seeds_start_as_in_gym_pusht(gym):
    for seed in [*range(100_000, 100_050), *range(20)]:
        want, _ = gym.reset(seed=seed)
        state = start(seed)
        np.testing.assert_allclose(state[:4], want[:4], atol=1e-9)
        assert state[4] % (2 * np.pi) == pytest.approx(want[4])


def test_a_free_pusher_moves_as_in_gym_pusht(gym):
    seen, _ = gym.reset(options={"reset_to_state": [100.0, 100.0, 400.0, 350.0, 0.0]})
    world = PlanarPush(IDENTIFIED)
    world.put(seen)
    rng, travelled = np.random.default_rng(0), 0.0
    for _ in range(60):
        target = rng.uniform(20, 250, 2)
        before, seen = seen, gym.step(target)[0]
        world.step(target)
        travelled += np.linalg.norm(seen[:2] - before[:2])
        np.testing.assert_allclose(world.state()[:2], seen[:2], atol=1e-6)
        assert apart(world.state(), seen) == pytest.approx((0, 0), abs=1e-9)
    assert travelled > 1000


@pytest.mark.parametrize("across", [0.0, 25.0, 45.0])
def test_a_push_across_the_table_moves_the_t_as_in_gym_pusht(gym, across):
    """The pusher comes from above and pushes the T's top edge 150 px down, at its middle or off it, in two seconds."""
    seen, _ = gym.reset(options={"reset_to_state": [250.0 + across, 100.0, 250.0, 150.0, 0.0]})
    world = PlanarPush(IDENTIFIED)
    world.put(seen)
    begun = seen
    for k in range(20):
        target = np.array([250.0 + across, 100.0 + 10 * k])
        seen = gym.step(target)[0]
        world.step(target)
        np.testing.assert_allclose(world.state()[:2], seen[:2], atol=1e-6)  # nothing pushes the pusher back
    moved, _ = apart(seen, begun)
    far, turned_by = apart(world.state(), seen)
    assert moved > 50
    assert far < 1.0  # px
    assert turned_by < np.radians(1.0)


def test_a_t_that_starts_within_the_pusher_comes_out_of_it_as_slowly_as_in_gym_pusht(gym):
    seen, _ = gym.reset(options={"reset_to_state": [250.0, 140.0, 250.0, 145.0, 0.0]})  # 10 px deep
    world = PlanarPush(IDENTIFIED)
    world.put(seen)
    for _ in range(4):
        begun, seen = seen, gym.step(np.array([250.0, 140.0]))[0]
        world.step(np.array([250.0, 140.0]))
        assert apart(begun, seen)[0] > 0.5
        assert apart(world.state(), seen)[0] < 1.5


def test_the_pushers_speed_is_reconstructed_from_its_targets(gym):
    pieces = {}
    for steps in (3, 5):
        clock = SimClock()
        taken = record(make_world(PUSHT, clock), clock, 4, 60)
        pieces |= {tuple(piece.state): piece.velocity for piece in windows([taken], steps)}
    gym.reset(seed=4)
    compared = 0
    for k, target in enumerate(taken.targets):
        if (velocity := pieces.get(tuple(taken.states[k]))) is not None:
            np.testing.assert_allclose(velocity, gym.agent.velocity, atol=0.01)
            compared += np.linalg.norm(velocity) > 20
        gym.step(target)
    assert compared >= 2


def test_a_second_of_scripted_pushes_is_predicted_within_a_quarter_of_a_pixel(pushes):
    nominal, found = (open_loop_error(physics, pushes[1]) for physics in (NOMINAL, IDENTIFIED))
    assert found.windows >= 15
    assert found.median_px < 0.25
    assert found.median_rad < np.radians(0.3)
    assert found.rms_px < 5.0  # a corner caught or missed goes elsewhere
    assert nominal.median_px > 10 * found.median_px  # otherwise there was nothing to identify


def test_what_it_did_not_know_is_identified_from_pushes(pushes):
    """gym-pusht's T turns about 45 px, has a moment of 3000 px^2 a mass and no friction, whatever its source says."""
    found = identify(pushes[0], evaluations=8)
    assert found.windows >= 20
    assert found.physics.friction < 0.05
    assert found.physics.centre_px == pytest.approx(45, abs=1.0)
    assert found.physics.gyration_px == pytest.approx(np.sqrt(3000), abs=1.5)
    assert open_loop_error(found.physics, pushes[1]).median_px < 0.5
    assert 0 < found.spread["centre_px"] < 1.0


def test_it_is_not_what_it_was_told_that_it_finds():
    """Another hidden world, of our own: friction and centre are found where they are, not where gym-pusht has them."""
    hidden = replace(IDENTIFIED, friction=0.3, centre_px=36.0, gyration_px=45.0)
    clock = SimClock()
    world = PlanarPushT(clock, physics=hidden)
    found = identify([record(world, clock, seed, 60) for seed in range(6)], IDENTIFIED, evaluations=6).physics
    assert found.friction == pytest.approx(0.3, abs=0.05)
    assert found.centre_px == pytest.approx(36, abs=1.0)
    assert found.gyration_px == pytest.approx(45, abs=1.5)


def test_coverage_is_gym_pushts(gym):
    gym.reset(seed=0)
    rng, seen = np.random.default_rng(1), []
    for _ in range(50):
        pose = GOAL + rng.normal(0, 1, 3) * [20, 20, 0.3]
        gym.block.angle = pose[2]
        gym.block.position = tuple(pose[:2])
        state = np.array([0, 0, *gym.block.position, gym.block.angle])
        seen.append(covered(state))
        assert seen[-1] == pytest.approx(gym._get_coverage(), abs=1e-9)
    assert min(seen) < 0.5 < max(seen)
    assert covered(np.array([0, 0, *GOAL])) == pytest.approx(1.0)


def test_spec_length_and_words_are_those_of_the_published_world(gym):
    for cameras in ((), ("image",)):
        twin, real = (make_world(name, SimClock(), cameras=cameras) for name in ("planar:pusht", PUSHT))
        assert twin.spec == real.spec
        assert twin.max_steps == real.max_steps
        assert twin.instruction == real.instruction


def test_pictures_are_those_of_the_published_world(gym):
    twin, real = (make_world(name, SimClock(), cameras=("image",)) for name in ("planar:pusht", PUSHT))
    for seed in range(5):
        twin.reset(seed)
        real.reset(seed)
        seen = real.read()
        a, b = twin.read().images["image"].astype(int), seen.images["image"].astype(int)
        assert np.abs(a - b).mean() < 1.5  # of 255
        assert b.std() > 20
        column, row = (seen.state["state"][:2] * 96 / 512).astype(int)  # the pusher
        np.testing.assert_allclose(a[row, column], b[row, column], atol=8)
    picture = twin.picture()
    assert (picture.shape, picture.dtype) == ((384, 384, 3), np.uint8)
    assert (np.abs(picture.astype(int) - real.picture()).max(axis=2) > 60).mean() < 0.01


def pushed_alike(seed: int) -> tuple[float, list[float]]:
    """Send the same targets to both worlds, never told of each other: T's distance after 4 s in px, and the scores."""
    clocks = SimClock(), SimClock()
    worlds = [make_world(name, clock) for name, clock in zip(("planar:pusht", PUSHT), clocks, strict=True)]
    for world in worlds:
        world.reset(seed)
    rng = np.random.default_rng(seed)
    for k in range(41):
        states = [world.read().state["state"].astype(float) for world in worlds]
        if k % 8 == 0:
            target = states[1][2:4] + turned(states[1][4], 40.0) + rng.normal(0, 40, 2)
        for world, clock in zip(worlds, clocks, strict=True):
            world.command(target, clock.now_ns())
            clock.sleep_until(clock.now_ns() + PERIOD_NS)
    return apart(*states)[0], [world.score() for world in worlds]


def test_pushed_alike_for_four_seconds_both_worlds_end_and_score_alike(gym):
    """Through the robot interface, from published starts, walls and corners included: not all, but most."""
    done = [pushed_alike(seed) for seed in range(12)]
    assert sum(far < 3.0 for far, _ in done) >= 9
    assert max(real for _, (_, real) in done) > 0.3
    assert sum(abs(twin - real) < 0.02 for _, (twin, real) in done) >= 11


@pytest.fixture
def running():
    clock = SimClock(5_000_000_000)
    return PlanarPushT(clock), clock


def test_one_step_a_period_with_the_command_that_was_due(running):
    world, clock = running
    reference = PlanarPush(IDENTIFIED)
    world.reset(7)
    reference.put(start(7))
    rng, best = np.random.default_rng(0), 0.0
    for k in range(40):
        due_ns = 5_000_000_000 + k * PERIOD_NS
        clock.sleep_until(due_ns)
        want = reference.state()
        np.testing.assert_allclose(world.read().state["state"][:4], want[:4], atol=1e-4)
        sent = world.command(rng.uniform(0, 512, 2), due_ns)
        reference.step(sent)
        best = max(best, covered(reference.state()) / 0.95)
    clock.sleep_until(due_ns + PERIOD_NS)
    world.read()
    assert world.score() == pytest.approx(min(best, 1.0))


def test_nothing_moves_before_the_first_command_and_late_reads_catch_up(running):
    world, clock = running
    world.reset(3)
    before = world.read().state["state"]
    clock.sleep_until(clock.now_ns() + 50 * PERIOD_NS)
    np.testing.assert_array_equal(world.read().state["state"], before)
    begun = clock.now_ns()
    world.command([256, 256], begun)
    world.command([100, 400], begun + 20 * PERIOD_NS)
    clock.sleep_until(begun + 20 * PERIOD_NS)
    np.testing.assert_allclose(world.read().state["state"][:2], [256, 256], atol=1)
    clock.sleep_until(begun + 45 * PERIOD_NS)
    np.testing.assert_allclose(world.read().state["state"][:2], [100, 400], atol=1)


def test_angles_are_wrapped_as_in_gym_pusht(running):
    world, _ = running
    world.put(np.array([50, 50, 300, 300, -1.0]))
    assert world.read().state["state"][4] == pytest.approx(2 * np.pi - 1)


def test_stop_holds_where_the_pusher_is(running):
    world, clock = running
    world.reset(3)
    begun = clock.now_ns()
    world.command([400, 100], begun)
    clock.sleep_until(begun + 5 * PERIOD_NS)
    here = world.read().state["state"][:2]
    world.command([50, 50], begun + 10 * PERIOD_NS)  # not due yet
    np.testing.assert_allclose(world.stop("test"), here)
    clock.sleep_until(begun + 25 * PERIOD_NS)
    np.testing.assert_allclose(world.read().state["state"][:2], here, atol=0.5)


def test_home_is_success_and_then_it_stands_still(running):
    world, clock = running
    world.put(np.array([100, 100, *GOAL]))
    assert (world.success(), world.score()) == (False, 0.0)  # as in gym-pusht, a start is not looked at
    begun = clock.now_ns()
    world.command([200, 100], begun)
    clock.sleep_until(begun + PERIOD_NS)
    after = world.read().state["state"]
    assert world.success()
    assert world.score() == 1.0
    clock.sleep_until(begun + 10 * PERIOD_NS)
    np.testing.assert_array_equal(world.read().state["state"], after)


def test_nearly_home_is_none_and_it_ends_after_300_steps(running):
    world, clock = running
    near = np.array([100, 100, *(GOAL + np.array([3.0, 0, 0]))])
    assert 0.9 < covered(near) < 0.95
    world.put(near)
    begun = clock.now_ns()
    world.command([100, 100], begun)
    world.command([300, 60], begun + 299 * PERIOD_NS)
    clock.sleep_until(begun + 299 * PERIOD_NS)
    assert world.read().state["state"][0] == pytest.approx(100)
    assert not world.success()
    assert world.score() == pytest.approx(covered(near) / 0.95)
    clock.sleep_until(begun + 300 * PERIOD_NS)
    last = world.read().state["state"]
    assert last[0] > 120
    clock.sleep_until(begun + 320 * PERIOD_NS)
    np.testing.assert_array_equal(world.read().state["state"], last)


def test_it_begins_from_recorded_states_and_refuses_others(running):
    world, _ = running
    state = np.array([50.0, 60.0, 200.0, 220.0, 1.25])
    world.put(state)
    np.testing.assert_allclose(world.read().state["state"], state, atol=1e-4)
    for bad in (state[:4], [*state[:4], np.nan]):
        with pytest.raises(ContractError, match="5 finite numbers"):
            world.put(bad)


def test_disturb_takes_the_t_to_the_far_corner(running):
    world, _ = running
    world.put(np.array([50.0, 60.0, 200.0, 220.0, 1.25]))
    assert "corner" in world.disturb(np.random.default_rng(0))
    np.testing.assert_allclose(world.read().state["state"][:4], [50, 60, 437, 437], atol=15.1)


@pytest.mark.parametrize("action", [[1.0], [1.0, np.nan], [[1.0, 2.0]]])
def test_bad_commands_are_refused(running, action):
    with pytest.raises(UnsafeCommand, match="2 finite numbers"):
        running[0].command(action, 0)


def test_commands_are_clipped_to_the_world(running):
    np.testing.assert_array_equal(running[0].command([-5, 600], 0), np.float32([0, 512]))


def test_the_t_stays_within_the_walls_when_pushed_against_one():
    world = PlanarPush(IDENTIFIED)
    world.put(np.array([250.0, 250.0, 250.0, 350.0, 0.0]))
    for _ in range(30):
        world.step(np.array([250.0, 360.0]))  # the stem's end, 120 px below, meets the wall at 504
    state = world.state()
    assert np.isfinite(state).all()
    assert state[3] + 120 < 512


def test_no_start_and_no_push_makes_it_leave_the_numbers():
    rng, world = np.random.default_rng(0), PlanarPush(IDENTIFIED)
    for seed in range(20):
        world.put(start(seed))
        for _ in range(25):
            world.step(rng.uniform(0, 512, 2))  # as fast as it goes, into walls and corners
            assert np.isfinite(world.state()).all()
            assert np.abs(world.state()[2:4] - 256).max() < 600


def test_names_and_options_that_are_wrong_say_what_is_right():
    with pytest.raises(UnknownTask, match="pusht"):
        make_world("planar:push", SimClock())
    with pytest.raises(UnknownCamera, match="image"):
        make_world("planar:pusht", SimClock(), cameras=("front",))
    with pytest.raises(UsageError, match="10 Hz, not at 20 Hz"):
        make_world("planar:pusht", SimClock(), rate_hz=20)


@pytest.mark.parametrize("wrong", [{"damping": 0.0}, {"friction": -0.1}, {"relax_s": np.nan}])
def test_physics_that_cannot_be_is_refused(wrong):
    with pytest.raises(ContractError, match=next(iter(wrong))):
        replace(NOMINAL, **wrong)


def test_recordings_that_tell_nothing_are_refused():
    still = Recording(np.tile([50.0, 50, 300, 300, 0], (31, 1)), np.full((30, 2), 50.0))
    assert windows([still], 5) == []
    for ask in (identify, lambda recordings: open_loop_error(NOMINAL, recordings)):
        with pytest.raises(ContractError, match="record more pushes"):
            ask([still])
    with pytest.raises(ContractError, match=r"\(T \+ 1, 5\)"):
        Recording(np.zeros((4, 5)), np.zeros((4, 2)))


def test_eval_runs_a_policy_of_the_published_world_in_it_unchanged(tmp_path, capsys):
    from robopolicy.cli.main import main
    from robopolicy.cli.worlds import make_clock
    from robopolicy.policies.config import DiffusionConfig
    from robopolicy.policies.diffusion import DiffusionPolicy
    from robopolicy.policies.mlp import MlpConfig
    from robopolicy.policies.solvers import SolverConfig
    from robopolicy.training.checkpoint import save_checkpoint

    assert isinstance(make_clock("planar:pusht", realtime=False), SimClock)
    assert isinstance(make_clock("planar:pusht", realtime=True), WallClock)
    spec = replace(PlanarPushT(SimClock()).spec, n_obs=2, horizon=16, n_execute=8)
    policy = DiffusionPolicy(spec, DiffusionConfig(MlpConfig(width=16, depth=1), solver=SolverConfig(steps=1)))
    rng = np.random.default_rng(0)
    policy.fit_normaliser(
        SimpleNamespace(
            state={"state": rng.uniform(0, 512, (50, 5)).astype(np.float32)},
            action=rng.uniform(0, 512, (50, 2)).astype(np.float32),
        )
    )
    save_checkpoint(tmp_path / "policy", policy, train={"steps": 0})
    out = ["--out", str(tmp_path / "out"), "--videos", "0"]
    words = ["eval", "--checkpoint", str(tmp_path / "policy"), "--env", "planar:pusht", "--seeds", "1:3", "--jobs", "1"]
    assert main([*words, *out]) == 0
    assert "success 0/2" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").exists()

"""Perturbations of every task: what each axis changes and nothing else, its dial, its seed, and that nothing stays."""

import copy

import numpy as np
import pytest

from robopolicy.clock import SimClock
from robopolicy.errors import ConfigError, ContractError, NoGLBackend, UnknownName, UsageError
from robopolicy.interfaces import Environment, Robot
from robopolicy.testing import EnvironmentContract
from sim_envs.perturbation_axis import DERIVED, free_bodies, moving_bodies
from sim_envs.perturbations import AXES, Perturbation, axes_of, canonical, perturb, read_perturbations
from sim_envs.perturbed import Perturbed
from sim_envs.rendering import probe
from sim_envs.tasks import TASKS, make_task
from sim_envs.twin import Twin
from sim_envs.worlds import make_world

TWINS = sorted(TASKS)
SOLID = {"geom_size", "geom_pos", "geom_rbound", "geom_aabb", "bvh_aabb", "body_ipos", "site_pos"}
# All that an axis may change of a model at the start of an episode.
TOUCHES = {
    "pose": set(),
    "size": {*SOLID, "body_inertia", *DERIVED},
    "mass": {"body_mass", "body_inertia", *DERIVED},
    "friction": {"geom_friction", "pair_friction"},
    "goal": {"body_pos", "body_quat"},
    "camera": {"cam_pos", "cam_quat"},
    "lighting": {"light_diffuse", "light_ambient", "light_specular", "light_dir", "vis.headlight"},
    "texture": {"tex_data"},
    "distractors": set(),
    "action_delay": set(),
    "action_noise": set(),
    "dropout": set(),
    "push": set(),
    "slip": set(),
}
MOVES = {"pose", "size", "goal"}  # that change where things are at the start
PLACE_OF_SEED_3 = (0.533892, 0.300453)  # m
SAME_START = sorted(set(AXES) - MOVES)


def twin(task, **options):
    return make_world(f"twin:{task}", SimClock(), **{"cameras": (), **options})


def bits(model):
    """The whole model as it would be saved."""
    import mujoco  # after sim_envs, which chooses what draws

    buffer = np.zeros(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return buffer


def changed(model, nominal):
    """Names of the arrays of a model that differ from those of another."""
    names = [name for name in dir(model) if isinstance(getattr(model, name, None), np.ndarray)]
    found = {name for name in names if not np.array_equal(getattr(model, name), getattr(nominal, name))}
    lamps = [(getattr(model.vis.headlight, n), getattr(nominal.vis.headlight, n)) for n in ("ambient", "diffuse")]
    return found | ({"vis.headlight"} if any(not np.array_equal(a, b) for a, b in lamps) else set())


def drive(world, seed, steps=12):
    """Reset and move the tool down and aside; return every state, as one array a step, and every picture."""
    clock = world._clock
    world.reset(seed)
    target = world.stop()
    seen, pictures = [], []
    for _ in range(steps):
        observation = world.read()
        seen.append(np.concatenate([observation.state[name] for name in sorted(observation.state)]))
        pictures += [observation.images[name] for name in sorted(observation.images)]
        target = target + np.array([0.004, 0.002, -0.004, *[0] * (len(target) - 3)], np.float32)[: len(target)]
        world.command(target, clock.now_ns())
        clock.sleep_until(clock.now_ns() + world.spec.period_ns)
    return np.array(seen), pictures


@pytest.fixture
def gl():
    try:
        probe()
    except NoGLBackend as error:
        pytest.skip(str(error))


# -- every axis on every task


@pytest.mark.parametrize("task", TWINS)
def test_severity_0_is_the_untouched_world_bit_for_bit(task):
    bare, world = twin(task), twin(task)
    world = perturb(world, [f"{axis}:0" for axis in axes_of(world)])
    before = bits(world.model)
    np.testing.assert_array_equal(drive(world, 5)[0], drive(bare, 5)[0])
    np.testing.assert_array_equal(bits(world.model), before)
    assert world.describe() == {}


@pytest.mark.parametrize("task", TWINS)
def test_nothing_is_left_behind_at_the_next_reset(task):
    bare, world = twin(task), twin(task)
    before = bits(world.model)
    for axis in axes_of(world):
        perturbed = perturb(world, [f"{axis}:1"])
        drive(perturbed, 3, 3)
        perturbed.restore()
        np.testing.assert_array_equal(bits(world.model), before, err_msg=axis)
    perturbed = perturb(world, [f"{axis}:1" for axis in axes_of(world)])
    drive(perturbed, 4, 3)
    perturbed._active = {}
    np.testing.assert_array_equal(drive(perturbed, 5)[0], drive(bare, 5)[0])
    np.testing.assert_array_equal(bits(world.model), before)
    assert world.decorations == ()


@pytest.mark.parametrize("task", TWINS)
def test_an_axis_changes_what_it_says_and_nothing_else(task):
    world, bare = twin(task), twin(task)
    bare.reset(2)
    nominal = copy.copy(world.model)
    for axis in axes_of(world):
        perturbed = perturb(world, [f"{axis}:1"])
        perturbed.reset(2)
        differs = changed(world.model, nominal)
        assert differs <= TOUCHES[axis], axis
        if TOUCHES[axis] - {"body_pos", "body_quat"}:  # the goal of some tasks is none of the model's
            assert differs, axis
        if axis in SAME_START:
            for part in ("qpos", "qvel", "mocap_pos", "mocap_quat"):
                np.testing.assert_array_equal(getattr(world.data, part), getattr(bare.data, part), err_msg=axis)
        else:
            arm = slice(world.model.jnt_qposadr[world.model.joint("joint1").id], None)
            np.testing.assert_array_equal(world.data.qpos[arm], bare.data.qpos[arm], err_msg=axis)  # after the objects
            assert not np.array_equal(
                np.concatenate([world.data.xpos.ravel(), world.model.geom_size.ravel()]),
                np.concatenate([bare.data.xpos.ravel(), bare.model.geom_size.ravel()]),
            ), axis
        assert not world.success(), axis
        perturbed.restore()


@pytest.mark.parametrize("task", TWINS)
def test_the_seed_draws_and_each_axis_draws_alone(task):
    world = twin(task)
    axes = [axis for axis in axes_of(world) if axis != "goal"]  # moves out of the way of what else was moved
    everything = perturb(world, [f"{axis}:1" for axis in axes])
    together = {}
    for seed in (1, 2, 1):
        everything.reset(seed)
        assert set(everything.describe()) == set(axes)
        if seed in together:
            assert everything.describe() == together[seed]
        together[seed] = everything.describe()
    everything.restore()
    assert together[1] != together[2]
    for axis in axes:
        alone = perturb(world, [f"{axis}:1"])
        alone.reset(1)
        assert alone.describe()[axis] == together[1][axis]
        alone.restore()


def test_axes_draw_apart_and_alike_in_every_process():
    world = twin("lift")
    perturbed = perturb(world, ["mass:1", "friction:1"])
    nominal, same = copy.copy(world.model), []
    for seed in range(16):
        perturbed.reset(seed)
        heavy = world.model.body("cube").mass > nominal.body("cube").mass
        rough = world.model.geom_friction[0, 0] > nominal.geom_friction[0, 0]
        same.append(bool(heavy == rough))
    assert 2 <= sum(same) <= 14
    # Numbers that only a change of how axes draw may change: they tell old outcomes from new ones.
    perturbed = perturb(world, ["distractors:0.1"])
    perturbed.reset(3)
    assert world.decorations[0].position[:2] == pytest.approx(PLACE_OF_SEED_3, abs=1e-6)


@pytest.mark.parametrize("task", TWINS)
def test_a_perturbed_world_is_a_robot_and_an_environment(task):
    world = twin(task)
    perturbed = perturb(world, [f"{axis}:0.5" for axis in axes_of(world)])
    assert isinstance(perturbed, Robot)
    assert isinstance(perturbed, Environment)
    assert [one.axis for one in perturbed.perturbations] == list(axes_of(world))
    assert perturbed.modes == world.modes  # everything else is the world's own
    seen, _ = drive(perturbed, 1, 30)
    assert np.isfinite(seen).all()


@pytest.mark.parametrize("name", ["planar:pusht", "gymnasium:gym_pusht/PushT-v0"])
def test_worlds_of_steps_can_have_what_lies_between_policy_and_robot(name):
    if name.startswith("gymnasium"):
        pytest.importorskip("gym_pusht", reason="pip install 'robopolicy[pusht]'")
    world = make_world(name, SimClock())
    start = ("pose",) if name == "planar:pusht" else ()
    assert axes_of(world) == (*start, "action_delay", "action_noise", "dropout")
    bare = drive_plane(make_world(name, SimClock()), 3)
    zero = perturb(world, [f"{axis}:0" for axis in axes_of(world)])
    np.testing.assert_array_equal(drive_plane(zero, 3), bare)
    for axis in axes_of(world):
        assert not np.array_equal(drive_plane(perturb(world, [f"{axis}:1"]), 3), bare)


class TestPerturbedLift(EnvironmentContract):
    def make(self, clock):
        world = make_world("twin:lift", clock, cameras=())
        return perturb(world, [f"{axis}:0.5" for axis in axes_of(world)])


class TestPerturbedPlane(EnvironmentContract):
    def make(self, clock):
        world = make_world("planar:pusht", clock)
        return perturb(world, [f"{axis}:0.5" for axis in axes_of(world)])


# -- objects


def start(axis, severity, seed=2, task="lift"):
    world = twin(task)
    nominal = copy.copy(world.model)
    perturb(world, [f"{axis}:{severity}"]).reset(seed)
    return world, nominal


@pytest.mark.parametrize("severity", [0.25, 1.0])
def test_pose_is_moved_and_turned_by_the_dial_on_the_table(severity):
    world, _ = start("pose", severity)
    bare = twin("lift")
    bare.reset(2)
    gap = world.data.joint("cube").qpos[:3] - bare.data.joint("cube").qpos[:3]
    assert np.linalg.norm(gap[:2]) == pytest.approx(0.08 * severity)
    assert gap[2] == 0
    quats = [one.data.joint("cube").qpos[3:] for one in (world, bare)]
    angle = 2 * np.degrees(np.arccos(min(abs(float(quats[0] @ quats[1])), 1.0)))
    assert angle == pytest.approx(30 * severity, abs=1e-4)


def test_moved_objects_hit_nothing():
    world = twin("stack")
    perturbed = perturb(world, ["pose:1"])
    cubes = {world.model.body(name).id for name in ("red", "blue")}
    for seed in range(120):  # in seven of them the first direction drawn would hit the other cube
        perturbed.reset(seed)
        bodies = world.model.geom_bodyid[world.data.contact.geom]
        assert not any(cubes == set(pair) for pair in bodies.tolist()), seed


@pytest.mark.parametrize("severity", [0.5, 1.0])
@pytest.mark.parametrize("task", [task for task in TWINS if getattr(make_task(task), "resizable", ())])
def test_size_is_as_if_compiled_with_it_and_the_object_stands_where_it_stood(task, severity):
    for seed in (0, 1, 2, 3):
        world, nominal = start("size", severity, seed, task)
        factor = world.model.geom_size[:, 0] / nominal.geom_size[:, 0]
        factor = factor[factor != 1]
        assert factor == pytest.approx(factor[0])
        assert abs(factor[0] - 1) == pytest.approx(0.3 * severity)
        compiled = compile_with(task, sizes=float(factor[0]))
        for name in TOUCHES["size"]:
            np.testing.assert_allclose(getattr(world.model, name), getattr(compiled, name), rtol=1e-6, atol=1e-9,
                                       err_msg=name)  # fmt: skip
        np.testing.assert_array_equal(world.model.body_mass, nominal.body_mass)
        lowest = world.data.contact.dist.min(initial=0.0)
        assert lowest > -1e-4  # it is not in the table
        clock = world._clock
        clock.sleep_until(clock.now_ns() + 300_000_000)
        before = world.data.qpos.copy()
        world.advance()
        assert np.abs(world.data.qpos - before)[: world.model.nq - 9].max() < 2e-3  # m: nor falls onto it


@pytest.mark.parametrize("task", [task for task in TWINS if moving_bodies(twin(task).model)])
def test_mass_is_as_if_compiled_with_it(task):
    world, nominal = start("mass", 0.5, 1, task)
    objects = moving_bodies(world.model)
    factor = world.model.body_mass[objects] / nominal.body_mass[objects]
    assert factor == pytest.approx(factor[0])
    assert factor[0] == pytest.approx(5**0.5) or factor[0] == pytest.approx(0.5**0.5)
    others = np.setdiff1d(np.arange(world.model.nbody), objects)
    np.testing.assert_array_equal(world.model.body_mass[others], nominal.body_mass[others])
    compiled = compile_with(task, masses=float(factor[0]))
    for name in TOUCHES["mass"]:
        np.testing.assert_allclose(getattr(world.model, name), getattr(compiled, name), rtol=1e-6, atol=1e-9,
                                   err_msg=name)  # fmt: skip


def compile_with(task_name, *, sizes=1.0, masses=1.0):
    """The twin's model, compiled anew from a scene whose objects have other sizes and masses."""

    class Changed(TASKS[task_name]):
        def build(self):
            spec = super().build()
            for body in spec.bodies:
                for geom in body.geoms if _is_object(body) else ():
                    geom.mass *= masses
                    if body.name in getattr(self, "resizable", ()):
                        geom.size = np.asarray(geom.size) * sizes
                        geom.pos = np.asarray(geom.pos) * sizes
            return spec

    return Twin(Changed(), SimClock(), cameras=()).model


def _is_object(body):
    return body.name != "world" and len(body.joints) > 0


@pytest.mark.parametrize("seed", range(4))
def test_friction_between_any_two_geoms_changes_by_the_same_factor(seed):
    factors = {}
    for severity in (0.5, 1.0):
        world, nominal = start("friction", severity, seed)
        ratio = world.model.geom_friction[:, 0] / nominal.geom_friction[:, 0]
        assert ratio == pytest.approx(ratio[0])
        np.testing.assert_array_equal(world.model.geom_friction[:, 1:], nominal.geom_friction[:, 1:])
        contact = world.data.contact.friction[:, 0]
        bare = twin("lift")
        bare.reset(seed)
        assert contact == pytest.approx(bare.data.contact.friction[:, 0] * ratio[0])
        factors[severity] = ratio[0]
    assert max(factors[1.0], 1 / factors[1.0]) == pytest.approx(4)
    assert factors[0.5] ** 2 == pytest.approx(factors[1.0])


def test_a_quarter_of_the_friction_lets_a_pushed_cube_slide_farther():
    slid = {}
    for axis in ("friction:1", "friction:0"):
        world = perturb(twin("lift"), [axis])
        world.reset(next(seed for seed in range(20) if _factor_of(seed) < 1))
        joint, clock = world.data.joint("cube"), world._clock
        before = joint.qpos[:2].copy()
        joint.qvel[:2] = [0.5, 0.0]
        clock.sleep_until(clock.now_ns() + 1_000_000_000)
        world.read()
        slid[axis] = np.linalg.norm(joint.qpos[:2] - before)
    assert slid["friction:1"] > 2.5 * slid["friction:0"]


def _factor_of(seed):
    world, nominal = start("friction", 1, seed)
    return world.model.geom_friction[0, 0] / nominal.geom_friction[0, 0]


@pytest.mark.parametrize("task", [task for task in TWINS if hasattr(make_task(task), "move_goal")])
def test_a_moved_goal_is_where_success_is(task):
    for seed in range(4):
        bare, world = twin(task), twin(task)
        bare.reset(seed)
        perturbed = perturb(world, ["goal:0.5"])
        perturbed.reset(seed)
        assert "moved 4.0 cm" in perturbed.describe()["goal"]
        moved = np.linalg.norm(world.data.xpos - bare.data.xpos, axis=1)
        assert moved.max() == pytest.approx(0.04, abs=1e-6)
        assert not world.success()
    if task == "pusht":  # the T on the mark as it is drawn now, and on the one of before
        mark = world.model.body("mark").id
        for where, done in ((world, True), (bare, False)):
            quat = where.data.xquat[mark]
            world._task._put(np.array([*where.data.xpos[mark, :2], 2 * np.arctan2(quat[3], quat[0])]))
            world.read()
            assert world.success() is done


def test_in_the_plane_the_t_starts_elsewhere_within_the_walls_and_the_pusher_where_it_did():
    from sim_envs.planar_push import start as nominal

    world, far = perturb(make_world("planar:pusht", SimClock()), ["pose:0.5"]), 0
    for seed in range(30):
        world.reset(seed)
        seen, before = world.read().state["state"], nominal(seed)
        assert seen[:2] == pytest.approx(before[:2])
        moved = np.linalg.norm(seen[2:4] - before[2:4])
        if "no room" not in world.describe()["pose"]:
            far += 1
            assert moved == pytest.approx(40, abs=0.01)
            assert ((seen[2:4] > 75) & (seen[2:4] < 437)).all()
            turned = abs((seen[4] - before[4] + np.pi) % (2 * np.pi) - np.pi)
            assert np.degrees(turned) == pytest.approx(15, abs=0.01)
        assert not world.success()
    assert far > 25


# -- signals


def drive_plane(world, seed, steps=8):
    clock = world._clock
    world.reset(seed)
    seen = []
    for k in range(steps):
        seen.append(world.read().state["state"])
        world.command(np.array([100.0 + 30 * k, 400.0 - 30 * k], np.float32), clock.now_ns())
        clock.sleep_until(clock.now_ns() + world.spec.period_ns)
    return np.array(seen)


@pytest.mark.parametrize(("severity", "late"), [(1.0, 2), (0.5, 1), (0.2, 1)])
def test_in_a_world_of_steps_commands_come_whole_steps_late(severity, late):
    bare = drive_plane(make_world("planar:pusht", SimClock()), 3, 8)
    world = perturb(make_world("planar:pusht", SimClock()), [f"action_delay:{severity}"])
    delayed = drive_plane(world, 3, 8 + late)
    np.testing.assert_array_equal(delayed[late:], bare)
    np.testing.assert_array_equal(delayed[: late + 1], np.repeat(bare[:1], late + 1, axis=0))
    assert f"{late / 10:.3f} s late" in world.describe()["action_delay"]


@pytest.mark.parametrize("severity", [0.5, 1.0])
def test_the_arm_moves_later_by_the_delay(severity):
    def moved_after_ms(world):
        clock = world._clock
        world.reset(0)
        target = world.stop()
        target[2] -= 0.05
        begun_ns, first = clock.now_ns(), world.read().state["tool_pos"]
        np.testing.assert_array_equal(world.command(target, begun_ns), target)
        for k in range(1, 200):
            clock.sleep_until(begun_ns + k * 2_000_000)
            if np.linalg.norm(world.read().state["tool_pos"] - first) > 1e-3:
                return 2 * k
        raise AssertionError("it did not move")

    late = moved_after_ms(perturb(twin("lift"), [f"action_delay:{severity}"])) - moved_after_ms(twin("lift"))
    assert late == pytest.approx(200 * severity, abs=2)


def test_noise_of_commands_has_its_size_spares_the_grip_and_is_not_told():
    taken = []
    world = twin("lift")
    command = world.command
    world.command = lambda action, due_ns: taken.append(command(action, due_ns)) or taken[-1]
    noisy = perturb(world, ["action_noise:0.5"])
    noisy.reset(0)
    hold = noisy.stop()
    for _ in range(400):
        np.testing.assert_array_equal(noisy.command(hold, 0), hold)
    off = np.array(taken) - hold
    assert off[:, :3].std(axis=0) == pytest.approx(0.005, rel=0.13)
    assert off[:, :3].mean(axis=0) == pytest.approx(0, abs=0.0012)
    np.testing.assert_array_equal(off[:, 9], 0)
    turned = np.degrees(np.linalg.norm(off[:, 3:6], axis=1))  # of a column: two of the three axes turn it
    assert np.sqrt((turned**2).mean()) == pytest.approx(2.5 * np.sqrt(2), rel=0.13)
    assert np.linalg.norm(np.array(taken)[:, 3:6], axis=1) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="not finite"):
        noisy.command(np.full(10, np.nan), 0)


def test_noise_of_one_axis_is_the_same_beside_another():
    def sequence(*names):
        taken, world = [], make_world("planar:pusht", SimClock())
        command = world.command
        world.command = lambda action, due_ns: taken.append(np.array(action)) or command(action, due_ns)
        perturbed = perturb(world, names)
        perturbed.reset(4)
        for _ in range(5):
            perturbed.read()
            perturbed.command(np.array([100, 100], np.float32), 0)
        return np.array(taken)

    np.testing.assert_array_equal(sequence("action_noise:1"), sequence("action_noise:1", "dropout:1"))


def test_what_is_lost_repeats_with_its_old_stamp_and_is_never_too_old(gl):
    world = perturb(twin("lift", cameras=("front", "wrist")), ["dropout:1"])
    clock = world._clock
    world.reset(0)
    ages, kept = {"state": [], "front": [], "wrist": []}, {}
    for _ in range(60):
        observation, now_ns = world.read(), clock.now_ns()
        stamps = {"state": observation.stamp_ns, **observation.image_stamps_ns}
        values = {"state": observation.state["q"], **observation.images}
        for name, stamp_ns in stamps.items():
            ages[name].append((now_ns - stamp_ns) / 1e9)
            before = kept.setdefault((name, stamp_ns), values[name].copy())
            np.testing.assert_array_equal(values[name], before)
            assert values[name].any()
            values[name][:] = 0  # what is handed out is nobody else's
        hold = world.stop()
        hold[0] += 0.01
        world.command(hold, now_ns)
        clock.sleep_until(now_ns + world.spec.period_ns)
    world.close()
    for name, seen in ages.items():
        assert max(seen) == pytest.approx(0.15), name
        assert 0.3 < np.mean(np.array(seen) > 0) < 0.8, name  # three of four at most: the fourth always comes
    assert ages["front"] != ages["wrist"] != ages["state"]


def test_a_lost_picture_does_not_come_when_it_is_read_once_more(gl):
    clock = SimClock()
    slow = Twin(make_task("lift"), clock, cameras=("front",), size=(24, 24), camera_hz=10)  # each is read twice
    world = perturb(slow, ["dropout:1"])
    world.reset(0)
    seen, late = [], 0
    for _ in range(80):
        stamp_ns = world.read().image_stamps_ns["front"]
        late += stamp_ns not in seen and stamp_ns != clock.now_ns()
        seen.append(stamp_ns)
        clock.sleep_until(clock.now_ns() + world.spec.period_ns)
    world.close()
    assert late == 0
    assert 15 < len(set(seen)) < 38  # of 40


def test_as_much_is_lost_as_the_dial_says():
    def lost(severity):
        world = perturb(make_world("planar:pusht", SimClock()), [f"dropout:{severity}"])
        world.reset(0)
        clock, gone = world._clock, 0
        for _ in range(1500):
            gone += world.read().stamp_ns != clock.now_ns()
            clock.sleep_until(clock.now_ns() + world.spec.period_ns)
        return gone / 1500

    for severity in (0.25, 0.5, 1.0):
        chance = 0.7 * severity  # at 10 Hz the second in a row would be .2 s old, and always comes
        assert lost(severity) == pytest.approx(chance / (1 + chance), abs=0.04)
    assert lost(0) == 0


# -- events


def test_a_push_comes_once_at_its_time_with_its_speed():
    world = perturb(twin("lift"), ["push:0.5"])
    clock, joint = world._clock, world.data.joint("cube")
    world.reset(1)
    told = world.describe()["push"]
    at_s = float(told.split(" at ")[1].split(" s")[0])
    begun_ns, speeds = clock.now_ns(), []
    for k in range(1, 300):
        clock.sleep_until(begun_ns + k * 10_000_000)
        world.read()
        speeds.append(np.linalg.norm(joint.qvel[:2]))
    first = int(np.argmax(np.array(speeds) > 0.2))
    assert first * 0.01 == pytest.approx(at_s, abs=0.011)
    assert speeds[first] == pytest.approx(0.5, abs=0.15)  # less what friction took in the tick after it
    assert (np.array(speeds[:first]) < 0.01).all()
    assert (np.array(speeds[first + 40 :]) < 0.01).all()


@pytest.mark.parametrize("names", [("push:1",), ("push:1", "mass:1"), ("push:1", "friction:1")])
def test_no_push_opens_a_drawer(names):
    world = perturb(twin("drawer"), names)
    clock = world._clock
    for seed in range(3):  # of mass: heavy for 0 and 1
        world.reset(seed)
        clock.sleep_until(clock.now_ns() + 3_500_000_000)
        world.read()
        assert world.score() < 0.05, seed


@pytest.mark.parametrize(("opened", "first"), [((100, 250, 350), 203), ((250, 350), 250)])
def test_a_drawer_is_pushed_shut_once_then_or_when_it_is_open(opened, first):
    world = perturb(twin("drawer"), ["push:0.5"])
    clock, joint = world._clock, world.data.joint("left_drawer")
    world.reset(1)
    assert "pushed shut once 2 cm open, from 2.03 s on, 0.50 m/s" in world.describe()["push"]
    speeds, begun_ns = [], clock.now_ns()
    for k in range(1, 400):
        clock.sleep_until(begun_ns + k * 10_000_000)
        world.read()
        if k in opened:
            joint.qpos, joint.qvel = 0.05, 0.0
        speeds.append(float(joint.qvel[0]))
    hit = [k for k, speed in enumerate(speeds) if speed < -0.3]
    assert hit[0] == first
    assert hit[-1] < first + 7  # opened again, it is left
    assert speeds[first] == pytest.approx(-0.5, abs=0.1)


def grasp(world, seconds, seed=1):
    """Let the expert work for a while; return (T, 2): height of tool and cube, each 10 ms."""
    from sim_envs.experts import make_expert

    clock, expert = world._clock, make_expert("lift", world.spec)
    world.reset(seed)
    expert.reset(seed)
    begun_ns, heights = clock.now_ns(), []
    for k in range(round(seconds * 20)):
        observation = world.read()
        world.command(expert.act(observation).values, clock.now_ns())
        for j in range(1, 6):
            clock.sleep_until(begun_ns + (5 * k + j) * 10_000_000)
            world.advance()
            tool = world.data.site("tool").xpos[2]
            heights.append((tool, world.data.joint("cube").qpos[2]))
    return np.array(heights)


def test_a_slip_lets_what_is_held_fall_for_its_time_and_grips_again():
    gaps = {}
    for severity, ticks in ((0, 0), (0.2, 3), (0.6, 9)):  # of 10 ms: 0.15 s times the severity
        world = perturb(twin("lift"), [f"slip:{severity}"])
        frictions = spied(world)
        heights = grasp(world, 2.6)
        assert sum(friction < 1e-3 for friction in frictions) == ticks
        assert frictions[-1] == 1.5
        gaps[severity] = (heights[:, 0] - heights[:, 1])[-50:]  # half a second: raised, if it is held
    assert abs(gaps[0]).max() < 0.003
    assert 0.003 < gaps[0.2].max() < 0.01  # it sank in the fingers and is held again
    assert gaps[0.6].max() > 0.05  # it fell


def spied(world):
    """Return the list of frictions of a pad, one a tick from now on."""
    frictions, tick, pad = [], world._tick, world.model.geom("finger_left_pad").id

    def spy(now_ns):
        tick(now_ns)
        frictions.append(world.model.geom_friction[pad, 0])

    world._world._tick = spy
    return frictions


# -- looks


VISUAL = ("camera", "lighting", "texture", "distractors")


def picture(world, camera="front"):
    return world.draw(camera, 96, 96).astype(float)


@pytest.mark.parametrize("axis", VISUAL)
def test_the_cameras_see_it_more_at_a_higher_severity_and_no_state_tells(gl, axis):
    world = twin("lift")
    world.reset(1)
    bare, states = picture(world), world.read().state
    differences = []
    for severity in (0.2, 0.5, 1.0):
        perturbed = perturb(world, [f"{axis}:{severity}"])
        perturbed.reset(1)
        differences.append(np.abs(picture(world) - bare).mean())
        for name, value in perturbed.read().state.items():
            np.testing.assert_array_equal(value, states[name])
        perturbed.restore()
    assert 0 < differences[0] < differences[1] < differences[2]
    assert differences[2] > 1.5  # grey levels
    world.reset(1)
    np.testing.assert_array_equal(picture(world), bare)
    world.close()


def test_what_was_observed_before_a_reset_is_not_shown_after_it(gl):
    clock = SimClock()
    bare = make_world("twin:lift", clock)
    worlds = perturb(make_world("twin:lift", clock), [f"{axis}:1" for axis in VISUAL])
    worlds.reset(1)
    assert not np.array_equal(worlds.read().images["front"], bare.read().images["front"])
    worlds._active = {}
    worlds.reset(1)
    bare.reset(1)
    for name, image in bare.read().images.items():
        np.testing.assert_array_equal(worlds.read().images[name], image)
    bare.close()
    worlds.close()


@pytest.mark.parametrize("severity", [0.5, 1.0])
def test_cameras_move_by_the_dial_and_the_calibration_stays_the_nominal_one(severity):
    world = make_world("twin:lift", SimClock())
    nominal = copy.copy(world.model)
    world.reset(3)
    told = world.camera_calibration()
    perturbed = perturb(world, [f"camera:{severity}"])
    perturbed.reset(3)
    assert perturbed.camera_calibration() == told
    assert world.camera_calibration() != told
    moved = np.linalg.norm(world.model.cam_pos - nominal.cam_pos, axis=1)
    most = {"front": 0.08, "wrist": 0.02, "view": 0.0}
    for camera, metres in most.items():
        index = world.model.camera(camera).id
        assert moved[index] == pytest.approx(metres * severity)
        half = np.arccos(min(abs(float(world.model.cam_quat[index] @ nominal.cam_quat[index])), 1.0))
        assert np.degrees(2 * half) == pytest.approx(8 * severity if metres else 0, abs=1e-4)
    world.close()


def test_distractors_of_a_lower_severity_stay_at_a_higher_one():
    world = twin("stack")
    shown = {}
    for severity in (0.25, 1.0):
        perturb(world, [f"distractors:{severity}"]).reset(6)
        shown[severity] = world.decorations
    assert len(shown[0.25]) == 2
    assert len(shown[1.0]) == 8
    assert shown[1.0][:2] == shown[0.25]
    assert all(0.18 <= abs(one.position[1]) <= 0.36 for one in shown[1.0])


# -- names, numbers and files


def test_a_perturbation_reads_as_it_is_written():
    assert str(Perturbation.parse("camera:0.5")) == "camera:0.5"
    assert Perturbation.parse("push:1") == Perturbation("push", 1.0)
    third = Perturbation("mass", 1 / 3)
    assert Perturbation.parse(str(third)) == third


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("cam:1", "no perturbation 'cam'; valid: action_delay, .*camera"),
        ("camera", "'camera': want AXIS:SEVERITY, such as camera:0.5"),
        ("camera:much", "'camera:much': want AXIS:SEVERITY"),
        ("camera:1.5", "camera: severity 1.5; want 0"),
        ("camera:-1", "camera: severity -1; want 0"),
        ("camera:nan", "camera: severity nan; want 0"),
    ],
)
def test_what_is_no_perturbation_is_refused(text, why):
    with pytest.raises(UsageError, match=why):
        Perturbation.parse(text)


def test_those_of_severity_0_and_their_order_do_not_name_an_evaluation():
    asked = [Perturbation.parse(text) for text in ("push:1", "friction:0", "camera:0.5")]
    assert [str(one) for one in canonical(asked)] == ["camera:0.5", "push:1"]
    with pytest.raises(UsageError, match="push comes twice"):
        canonical([*asked, Perturbation("push", 0.0)])


@pytest.mark.parametrize(
    ("world", "axis", "why"),
    [
        ("twin:lift", "goal", "has no goal that can be moved; it can have: pose, size, mass"),
        ("twin:pusht", "slip", "has no use of the gripper: it holds a stick; it can have"),
        ("twin:avoid", "mass", "has no object that moves; it can have: .*camera"),
        (
            "planar:pusht",
            "camera",
            "has no scene that can be changed; it can have: pose, action_delay, action_noise, dropout$",
        ),
    ],
)
def test_an_axis_that_a_world_cannot_have_is_refused_with_those_it_can(world, axis, why):
    with pytest.raises(UsageError, match=why):
        perturb(make_world(world, SimClock(), cameras=()), [f"{axis}:0.5"])


def test_without_perturbations_the_world_is_itself():
    world = twin("lift")
    assert perturb(world, []) is world
    assert isinstance(perturb(world, ["friction:0"]), Perturbed)


@pytest.mark.parametrize("text", ["- camera:0.5\n- friction:0.3\n", "camera: 0.5\nfriction: 0.3\n"])
def test_a_file_holds_a_list_or_severities_by_axis(tmp_path, text):
    (tmp_path / "p.yaml").write_text(text)
    assert [str(one) for one in read_perturbations(tmp_path / "p.yaml")] == ["camera:0.5", "friction:0.3"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("camera: much", "p.yaml: camera is 'much'; want a severity"),
        ("camera: true", "p.yaml: camera is True; want a severity"),
        ("cam: 1", "p.yaml: no perturbation 'cam'"),
        ("- camera", "p.yaml: perturbation 'camera'"),
        ("7", "p.yaml: the file is int"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, text, why):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ConfigError, match=why):
        read_perturbations(tmp_path / "p.yaml")
    with pytest.raises(ConfigError, match="nowhere"):
        read_perturbations(tmp_path / "nowhere.yaml")


def test_every_axis_says_what_its_most_is():
    assert set(TOUCHES) == set(AXES)
    for name, axis in AXES.items():
        assert any(character.isdigit() for character in axis.most) or name == "texture", name
        assert len(axis.most) < 110
    with pytest.raises(UnknownName, match="valid"):
        Perturbation("colour", 0.1)
    with pytest.raises(ContractError, match="severity"):
        Perturbation("camera", 2.0)


def test_objects_are_told_from_the_arm():
    assert [twin("lift").model.body(k).name for k in free_bodies(twin("lift").model)] == ["cube"]
    drawer = twin("drawer").model
    assert [drawer.body(k).name for k in moving_bodies(drawer)] == ["left_drawer", "right_drawer"]

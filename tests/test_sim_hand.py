"""The floating hand: the arm's tasks, starts, cameras and commands with another body."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from robopolicy.behaviour import mode_of
from robopolicy.clock import SimClock
from robopolicy.errors import NoGLBackend, UnknownCamera, UnknownName, UnknownTask, UnsafeCommand, UsageError
from robopolicy.geometry.cameras import cameras_of
from robopolicy.geometry.keypoints import TWIN, hand_keypoints
from robopolicy.interfaces import Environment, Robot, Scene
from robopolicy.rotations import matrix_to_rot6d, quat_to_matrix
from robopolicy.spec import TOOL_POSE
from sim_envs.calibration import calibrate
from sim_envs.experts import make_expert
from sim_envs.hand import CREASE, HANDS, NAIL, SKIN
from sim_envs.hand_world import TASKS, HandTwin
from sim_envs.perturbations import perturb
from sim_envs.worlds import make_world

SEEDS = range(8)
VIEWS = ("front", "side")


def run(world, clock, command, steps):
    for _ in range(steps):
        world.command(command, clock.now_ns())
        clock.sleep_until(clock.now_ns() + world.spec.period_ns)
        seen = world.read()
    return seen


def play(world, clock, expert, seed):
    """Yield what is seen at each step of an expert's episode."""
    world.reset(seed)
    expert.reset(seed)
    for _ in range(world.max_steps):
        seen = world.read()
        yield seen
        if world.success():
            return
        world.command(expert.act(seen).values, clock.now_ns())
        clock.sleep_until(clock.now_ns() + world.spec.period_ns)


def in_tool_frame(world):
    state = world.observed_state()
    return (world.landmarks() - state["tool_pos"]) @ quat_to_matrix(state["tool_quat"].astype(float))


@pytest.fixture(params=HANDS)
def world(request):
    return HandTwin("lift", SimClock(), cameras=(), hand=request.param)


def test_it_is_a_robot_and_an_environment_with_the_arms_commands():
    world = make_world("hand:lift", SimClock(), cameras=())
    assert isinstance(world, Robot)
    assert isinstance(world, Environment)
    assert isinstance(world, Scene)
    assert world.spec.action == TOOL_POSE == make_world("twin:lift", SimClock(), cameras=()).spec.action
    assert world.embodiment == "human"
    assert world.hand == "right"
    assert make_world("hand:lift:left", SimClock(), cameras=()).hand == "left"


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("hand", HANDS)
def test_the_arms_expert_succeeds_with_it(task, hand):
    world = HandTwin(task, clock := SimClock(), cameras=(), hand=hand)
    expert = make_expert(task, world.spec)
    for seed in SEEDS:
        list(play(world, clock, expert, seed))
        assert world.success(), seed
        assert world.failure() == ""


@pytest.mark.parametrize("task", TASKS)
def test_a_seed_is_the_same_start_as_the_arms(task):
    hand = make_world(f"hand:{task}", SimClock(), cameras=())
    arm = make_world(f"twin:{task}", SimClock(), cameras=())
    for seed in SEEDS:
        hand.reset(seed)
        arm.reset(seed)
        one, other = hand.observed_state(), arm.observed_state()
        for name in one.keys() & other.keys():
            np.testing.assert_allclose(one[name], other[name], atol=1e-4, err_msg=name)


def test_the_same_seed_and_commands_give_the_same_bits():
    seen = []
    for used in (False, True):
        world = HandTwin("drawer", clock := SimClock(), cameras=())
        expert = make_expert("drawer", world.spec)
        if used:
            list(play(world, clock, expert, 5))
        seen.append([step.state for step in play(world, clock, expert, 1)])
    assert len(seen[0]) == len(seen[1])
    for one, other in zip(*seen, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("opening", [0.0, 0.35, 1.0])
def test_the_tool_lies_between_the_tips_and_the_roles_are_the_grippers(world, opening):
    """The first finger is on +y on either hand, as far from the tool as the gripper's."""
    world.reset(0)
    world.reset_to({**world.observed_state(), "gripper": np.array([opening])})
    points = hand_keypoints(in_tool_frame(world), world.hand)
    at = TWIN.at(opening)
    np.testing.assert_allclose(points[[2, 4]], at[[2, 4]], atol=5e-4)
    assert np.sign(points[1:, 1]).tolist() == [1, 1, -1, -1]
    assert abs(points - at).max() < 0.04  # a hand, and no gripper
    assert world.observed_state()["gripper"] == pytest.approx([opening], abs=0.01)


def test_a_gripper_that_fits_its_points_is_nearly_where_the_tool_is(world):
    """What a policy learns of a hand, read as a gripper's motion, is off by no more than this."""
    for opening in np.linspace(0, 1, 6):
        world.reset_to({**world.observed_state(), "gripper": np.array([opening])})
        points, at = hand_keypoints(in_tool_frame(world), world.hand), TWIN.at(opening)
        turn, _ = Rotation.align_vectors(points - points.mean(0), at - at.mean(0))
        assert np.linalg.norm(points.mean(0) - turn.apply(at.mean(0))) < 0.004
        assert 1 < np.degrees(turn.magnitude()) < 7


def test_hands_are_mirror_images():
    right, left = (HandTwin("lift", SimClock(), cameras=(), hand=hand) for hand in HANDS)
    np.testing.assert_allclose(in_tool_frame(right), in_tool_frame(left) * [1, -1, 1], atol=1e-4)
    thumb, index = in_tool_frame(right)[[4, 8]]
    assert thumb[1] > 0 > index[1]


def test_landmarks_are_those_of_a_hand(world):
    """Bones keep their lengths whatever the fingers do, and the other fingers hang together."""
    bones = [(a, a + 1) for finger in range(5) for a in range(1 + 4 * finger, 4 + 4 * finger)]
    lengths = []
    for opening in (0.0, 0.5, 1.0):
        world.reset_to({**world.observed_state(), "gripper": np.array([opening])})
        points = world.landmarks()
        lengths.append([np.linalg.norm(points[a] - points[b]) for a, b in bones])
    np.testing.assert_allclose(lengths[0], lengths[1], atol=1e-6)
    np.testing.assert_allclose(lengths[1], lengths[2], atol=1e-6)
    assert 0.015 < min(lengths[0]) < max(lengths[0]) < 0.07


def test_its_tips_pinch_in_parallel_and_keep_to_the_line(world):
    """Driven, not placed: the joints follow the pinch, so the tool stays between the tips on the way."""
    clock, state = world._clock, world.observed_state()
    pose = np.concatenate([state["tool_pos"], matrix_to_rot6d(quat_to_matrix(state["tool_quat"].astype(float)))])
    for grip in (0.0, 1.0, 0.3):
        run(world, clock, np.append(pose, grip), 20)
        tips = in_tool_frame(world)[[4, 8]]
        np.testing.assert_allclose(tips[:, [0, 2]], 0, atol=1.5e-3)
        np.testing.assert_allclose(np.abs(tips[:, 1]), 0.008 + 0.04 * grip, atol=1.5e-3)


def test_it_goes_where_it_is_sent_as_fast_as_the_arm(world):
    clock, state = world._clock, world.observed_state()
    turn = quat_to_matrix(np.array([0, np.cos(0.3), np.sin(0.3), 0]))
    goal = state["tool_pos"] + [0.08, -0.10, -0.06]
    command = np.concatenate([goal, matrix_to_rot6d(turn), [1.0]])
    after = run(world, clock, command, 2).state["tool_pos"] - state["tool_pos"]
    assert np.linalg.norm(after) < 2 * 0.05 * 0.8 * 1.05  # m: 0.8 m/s
    seen = run(world, clock, command, 20).state
    np.testing.assert_allclose(seen["tool_pos"], goal, atol=1e-3)
    np.testing.assert_allclose(quat_to_matrix(seen["tool_quat"].astype(float)), turn, atol=5e-3)


def test_it_lags_no_more_than_the_arm():
    """Both on a ramp of 0.15 m/s."""
    late = []
    for name in ("hand:lift", "twin:lift"):
        world = make_world(name, clock := SimClock(), cameras=())
        world.reset(3)
        state = world.observed_state()
        pose = np.concatenate([state["tool_pos"], matrix_to_rot6d(quat_to_matrix(state["tool_quat"])), [1.0]])
        for _ in range(20):
            pose[1] += 0.0075
            seen = run(world, clock, pose, 1)
        late.append((pose[1] - seen.state["tool_pos"][1]) / 0.15)
    assert late[0] == pytest.approx(late[1], abs=0.01)  # s


def test_stop_holds_it_and_what_it_holds(world):
    expert = make_expert("lift", world.spec)
    clock = world._clock
    list(play(world, clock, expert, 0))
    held = world.stop()
    np.testing.assert_array_equal(world.stop(), held)
    clock.sleep_until(clock.now_ns() + 1_000_000_000)
    seen = world.read().state
    np.testing.assert_allclose(seen["tool_pos"], held[:3], atol=2e-3)
    assert world.success()


def test_a_state_is_placed_and_goes_on_as_it_was():
    world = HandTwin("lift", clock := SimClock(), cameras=())
    seen = list(play(world, clock, make_expert("lift", world.spec), 2))
    for step in (0, len(seen) // 2):
        world.reset_to(seen[step].state)
        again = world.observed_state()
        for name in seen[step].state:
            np.testing.assert_allclose(again[name], seen[step].state[name], atol=4e-3, err_msg=name)


def test_what_it_cannot_do_is_refused_by_name():
    with pytest.raises(
        UnknownTask, match="'pusht'; valid: drawer, left_drawer, lift, right_drawer, stack, turned_drawer"
    ):
        make_world("hand:pusht", SimClock())
    with pytest.raises(UnknownName, match="'both'; valid: left, right"):
        make_world("hand:lift:both", SimClock())
    with pytest.raises(UnknownCamera, match="'wrist'; valid: front, side"):
        make_world("hand:lift", SimClock(), cameras=("wrist",))
    with pytest.raises(UnknownName, match="joint"):
        HandTwin("lift", SimClock(), cameras=(), action="joint")
    world = make_world("hand:lift", SimClock(), cameras=())
    with pytest.raises(UnsafeCommand, match="not finite"):
        world.command(np.full(10, np.nan), 0)
    with pytest.raises(UsageError, match="friction"):
        perturb(world, ["friction:0.5"])


@pytest.mark.parametrize("name", ["hand:drawer", "twin:drawer"])
@pytest.mark.parametrize("mode", ["left", "right"])
def test_the_expert_opens_the_drawer_it_is_asked_to(name, mode):
    world = make_world(name, clock := SimClock(), cameras=())
    expert = make_expert("drawer", world.spec, mode=mode)
    for seed in range(4):
        list(play(world, clock, expert, seed))
        assert mode_of(world) == mode


def test_a_mode_that_there_is_not_is_refused_by_name():
    world = make_world("twin:drawer", SimClock(), cameras=())
    with pytest.raises(UnknownName, match="valid: left, right"):
        make_expert("drawer", world.spec, mode="middle")
    world = make_world("twin:lift", SimClock(), cameras=())
    with pytest.raises(UsageError, match="stack, drawer, turned_drawer, avoid, align"):
        make_expert("lift", world.spec, mode="left")


@pytest.mark.parametrize("task", ["lift", "drawer"])
@pytest.mark.parametrize("kind", ["twin", "hand"])
def test_both_cameras_see_the_work_through_whole_episodes(task, kind):
    """Nothing is drawn: tool points, the hand's landmarks and the objects are projected."""
    world = make_world(f"{kind}:{task}", clock := SimClock(), cameras=())
    cameras = cameras_of({name: calibrate(world.model, world.data, name, 96, 96) for name in VIEWS}, VIEWS)
    expert = make_expert(task, world.spec)
    for seed in SEEDS:
        for seen in play(world, clock, expert, seed):
            state = seen.state
            points = TWIN.placed(state["tool_pos"], state["tool_quat"], state["gripper"][0])
            if kind == "hand":
                points = np.concatenate([points, hand_keypoints(world.landmarks(), world.hand)])
            things = (
                [state["cube_pos"]] if task == "lift" else [[*state[f"{s}_handle"], 0.045] for s in ("left", "right")]
            )
            for name, camera in cameras.items():
                assert camera.inside(camera.project(np.concatenate([points, things]))).all(), (name, seed)


def test_the_cameras_stand_60_to_90_degrees_apart():
    world = make_world("twin:lift", SimClock(), cameras=())
    one, other = (calibrate(world.model, world.data, name, 96, 96)["T_base_cam"] for name in VIEWS)
    middle = np.array([0.50, 0.0, 0.05])
    ways = [np.array(pose)[:3, 3] - middle for pose in (one, other)]
    angle = np.degrees(np.arccos(ways[0] @ ways[1] / np.prod([np.linalg.norm(way) for way in ways])))
    assert 60 < angle < 90


def test_pictures_show_the_hand_where_the_calibration_says():
    """Another skin changes the pixels to which the five points project, and few others."""
    size = (192, 192)
    world = HandTwin("lift", SimClock(), size=size)
    assert list(world.spec.cameras) == list(VIEWS)
    try:
        world.reset(1)
        before = world.read().images
    except NoGLBackend as error:
        pytest.skip(str(error))
    told = world.camera_calibration()
    for name in (SKIN, CREASE, NAIL):
        world.model.mat_rgba[world.model.material(name).id] = [0, 0, 1, 1]
    after = world.read().images
    for name, camera in cameras_of(told, VIEWS).items():
        assert camera.size == size == tuple(told[name]["size"])
        changed = np.abs(after[name].astype(int) - before[name]).max(-1) > 60
        assert 0.005 < changed.mean() < 0.1
        for x, y in camera.project(hand_keypoints(world.landmarks(), "right")):
            assert changed[round(y), round(x)], (name, x, y)
    world.close()


def test_a_twin_draws_the_same_side_view_without_the_hand():
    sizes = {}
    for name in ("twin:lift", "hand:lift"):
        world = make_world(name, SimClock(), cameras=VIEWS, size=(64, 80))
        try:
            sizes[name] = {k: v.shape for k, v in world.read().images.items()}
        except NoGLBackend as error:
            pytest.skip(str(error))
        told = world.camera_calibration()["side"]
        world.close()
        assert told["size"] == [64, 80]
    assert sizes["twin:lift"] == sizes["hand:lift"] == dict.fromkeys(VIEWS, (64, 80, 3))

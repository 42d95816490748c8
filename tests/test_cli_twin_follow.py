"""`twin follow` beside a served robot, over real DDS; what is wrong is one line."""

import json
import os
import re
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="cyclonedds is not installed: pip install 'robopolicy[ros]'")
pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")

sys.path.insert(0, str(Path(__file__).parent))
from fake_ros_arm import LOOPBACK
from served_twin import CONFIGS, Process, policy, serve, until

from robopolicy.cli.main import main
from robopolicy.cli.twin_seeing import Seeing
from robopolicy.cli.worlds import make_robot
from robopolicy.clock import SimClock, WallClock
from robopolicy.errors import ConfigError, RobopolicyError, SpecMismatch, UnknownTask, UsageError
from robopolicy.spec import TOOL_POSE, PolicySpec, StateSpec
from robopolicy.topics.config import load_config
from robopolicy_data.reader import Dataset
from robopolicy_hardware.ros.codec import message
from robopolicy_hardware.ros.dds import Topics
from robopolicy_hardware.ros.local import LocalTopics, Wire
from robopolicy_hardware.ros.set_points import of_gripper
from robopolicy_hardware.ros.twin_topics import TwinTopics
from robopolicy_hardware.ros.watching import RobotWatch
from sim_envs.drives import JOINT_ACTION

os.environ["CYCLONEDDS_URI"] = LOOPBACK
DOMAIN = 162 + os.getpid() % 60
LIFT = CONFIGS / "twin_lift.yaml"
POSE, NUMBER, STRING = "geometry_msgs/msg/PoseStamped", "std_msgs/msg/Float64", "std_msgs/msg/String"


def follower(*options):
    return Process("-m", "robopolicy.cli.main", "twin", "follow", "--robot", f"ros:{LIFT}", "--task", "lift",
                   "--domain", DOMAIN, *options)  # fmt: skip


@pytest.mark.slow
def test_a_twin_beside_a_served_robot_and_the_robot_dies(tmp_path):
    robot = serve(DOMAIN, "--config", LIFT, "--cameras", "--position-noise", "0.0015", "--seed", "3")
    twin = follower("--publish", "/twin", "--record", tmp_path / "d.zarr")
    topics = Topics(DOMAIN, node="bystander")
    try:
        shown, real = topics.subscribe("/twin/cube_pose", POSE), topics.subscribe("/cube_pose", POSE)
        confidence, health = topics.subscribe("/twin/confidence", NUMBER), topics.subscribe("/twin/health", STRING)
        until(lambda: (confidence.newest() or [message(NUMBER)(0.0)])[0].data > 0.9, 90)
        here, there = (one.newest()[0].pose.position for one in (shown, real))
        assert np.hypot(here.x - there.x, here.y - there.y) < 8e-3, "the real one has 1.5 mm of noise in each axis"
        assert here.z == pytest.approx(0.02, abs=4e-3)
        told = json.loads(health.newest()[0].data)
        assert set(told) == {"cube", "twin"}
        assert told["cube"]["accepted"] > 0
        assert told["twin"]["diverged"] == ""
        commands = topics.publisher("/tool_commands", POSE)
        until(lambda: commands.subscribers == 1)
        robot.kill()
        until(lambda: commands.subscribers == 0)  # the twin listens still, and is no controller
        until(lambda: "the arm was not measured for" in json.loads(health.newest()[0].data)["twin"]["diverged"])
        assert confidence.newest()[0].data == 0.0
        twin.kill(signal.SIGINT)
        assert twin.ends() == 0
        assert twin.says(r"^followed .* Hz: \d+ poses taken, .*the arm was not measured")
    finally:
        topics.close()
        twin.close()
        robot.close()
    (episode,) = Dataset(tmp_path / "d.zarr")
    assert episode.length >= 5
    assert np.diff(episode.stamps_ns("step")).min() > 0
    np.testing.assert_allclose(episode.state("cube_pos")[-1][2], 0.02, atol=4e-3)


@pytest.mark.slow
def test_the_twin_lifts_what_the_robot_lifts(tmp_path):
    text = LIFT.read_text().replace("primary: front", "primary:")
    blind = tmp_path / "blind.yaml"
    blind.write_text(text[: text.index("cameras:")] + text[text.index("state:") :])
    robot = serve(DOMAIN, "--config", LIFT, "--cameras", "--position-noise", "0.0015", "--mass", "1.2", "--friction",
                  "0.8", "--seed", "2")  # fmt: skip
    twin = follower("--publish", "/twin", "--pose-hz", "100")
    topics = Topics(DOMAIN, node="bystander")
    node = None
    try:
        shown, health = topics.subscribe("/twin/cube_pose", POSE), topics.subscribe("/twin/health", STRING)
        until(lambda: (shown.newest() or [pose(None, (0, 0, 0))])[0].pose.position.z > 0, 90)
        node = policy(blind, DOMAIN, "lift")
        until(lambda: shown.newest()[0].pose.position.z > 0.08, 90)
        told = json.loads(health.newest()[0].data)["twin"]
        assert told["recoveries"] == 0
        assert told["accepted"] > 100
    finally:
        for one in (node, twin, robot):
            if one is not None:
                one.close()
        topics.close()


class Robot:
    """What publishes as the file says, within the process: two joints of seven are enough to see."""

    def __init__(self, wire, config):
        self.topics = LocalTopics(wire)
        self.config = config
        self.joints = self.topics.publisher("/joint_states", "sensor_msgs/msg/JointState")
        self.cube = self.topics.publisher("/cube_pose", POSE)
        self.command = self.topics.publisher(config.action.topic, POSE)

    def tell(self, q, cube=None):
        from robopolicy_hardware.ros.set_points import header

        stamp = header(time.time_ns())
        names = [f"joint{i}" for i in range(1, 8)]
        zeros = np.zeros(7)
        self.joints.send(message("sensor_msgs/msg/JointState")(stamp, names, np.asarray(q, float), zeros, zeros))
        if cube is not None:
            self.cube.send(pose(stamp, cube))


def pose(stamp, position, quat=(1.0, 0.0, 0.0, 0.0)):
    point, quaternion = message("geometry_msgs/msg/Point"), message("geometry_msgs/msg/Quaternion")
    w, x, y, z = quat
    return message(POSE)(stamp, message("geometry_msgs/msg/Pose")(point(*position), quaternion(x, y, z, w)))


def test_streams_are_read_each_at_its_own_newest_and_one_that_is_silent_holds_up_nobody():
    config, wire = load_config(LIFT), Wire()
    robot = Robot(wire, config)
    groups = {"arm": ["state q", "state dq"], "cube": ["state cube_pos", "state cube_quat"]}
    watch = RobotWatch(config, LocalTopics(wire), groups)
    robot.tell(np.arange(7))
    robot.tell(np.arange(7) + 1)
    now_ns = time.monotonic_ns()
    assert watch.groups["cube"].newest(now_ns) is None
    assert "/cube_pose" in watch.groups["cube"].trouble
    seen = watch.groups["arm"].newest(now_ns)
    if seen is None:  # streams begin with the second message
        robot.tell(np.arange(7) + 1)
        seen = watch.groups["arm"].newest(time.monotonic_ns())
    np.testing.assert_array_equal(seen.state["q"], np.arange(7) + 1)
    for _ in range(3):
        robot.tell(np.arange(7), cube=(0.5, 0.1, 0.02))
        cube = watch.groups["cube"].newest(time.monotonic_ns())
    np.testing.assert_allclose(cube.state["cube_pos"], [0.5, 0.1, 0.02])
    np.testing.assert_allclose(cube.state["cube_quat"], [1, 0, 0, 0])
    assert watch.groups["cube"].trouble == ""
    watch.close()
    watch.close()


def test_pictures_have_their_own_stamp_and_markers_look_at_every_camera():
    from robopolicy.cli.twin_seeing import groups_of
    from robopolicy_hardware.ros.saying import IMAGE, of_picture
    from sim_envs.tasks import make_task

    config, wire = load_config(LIFT), Wire()
    groups, extra = groups_of(config, make_task("lift").tracked, ["cube=/elsewhere"], ["front", "wrist"])
    assert groups["camera front"] == ["camera front"]
    assert groups["cube"] == ["state cube pose"]
    watch = RobotWatch(config, LocalTopics(wire), groups, extra)
    camera = LocalTopics(wire).publisher("/front/image_raw", IMAGE)
    elsewhere = LocalTopics(wire).publisher("/elsewhere", POSE)
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    for _ in range(2):
        wall_ns = time.time_ns()
        camera.send(of_picture(IMAGE, picture, wall_ns))
        elsewhere.send(pose(of_picture(IMAGE, picture, wall_ns).header, (0.4, 0.2, 0.1)))
        seen, told = (watch.groups[name].newest(time.monotonic_ns()) for name in ("camera front", "cube"))
    np.testing.assert_array_equal(seen.images["front"], picture)
    expected_ns = wall_ns + time.monotonic_ns() - time.time_ns()
    assert abs(seen.image_stamps_ns["front"] - expected_ns) < 50_000_000
    assert seen.stamp_ns == seen.image_stamps_ns["front"]
    np.testing.assert_allclose(told.state["cube pose"], [0.4, 0.2, 0.1, 1, 0, 0, 0])
    assert watch.groups["camera wrist"].newest(time.monotonic_ns()) is None
    watch.close()


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("twin-first:lift", UsageError, "want a task and the robot, as in twin-first:lift:ros:arm.yaml"),
        ("twin-first:lfit:mock", UnknownTask, "no task 'lfit'"),
        ("twin-first:lift:mock", SpecMismatch, "a twin follows joints: want state q"),
        ("twin-first:lift:nothing", UsageError, "no robot 'nothing'"),
    ],
)
def test_what_cannot_be_twin_first_is_refused(name, error, says):
    spec = PolicySpec(state={"tool_pos": StateSpec(3, ("m",))}, action=TOOL_POSE)
    with pytest.raises(error, match=says):
        make_robot(name, SimClock(), spec)


def test_twin_first_by_name():
    clock = SimClock()
    spec = PolicySpec(action=TOOL_POSE)
    robot = make_robot("twin-first:lift:twin:lift", clock, spec, rate_hz=50.0)
    try:
        assert robot.spec.rate_hz == 50.0
        assert robot.read().state["q"].shape == (7,)
    finally:
        robot.close()


def test_twin_first_knows_the_arm_from_a_file(tmp_path):
    from sim_envs.arm import JOINTS
    from sim_envs.parameters import Parameters, read_model, save
    from sim_envs.sysid_arm import arm_spec

    nominal = read_model(arm_spec().compile(), JOINTS)
    heavy = {name: replace(joint, armature=joint.armature + 0.5) for name, joint in nominal.joints.items()}
    save(Parameters(heavy, 0.05), tmp_path / "arm.json")
    seeing = Seeing(parameters=tmp_path / "arm.json")
    clock, spec = SimClock(), PolicySpec(action=TOOL_POSE)
    first = make_robot("twin-first:lift:twin:lift", clock, spec, rate_hz=50.0, seeing=seeing)
    try:
        assert read_model(first.aligned.twin.model, JOINTS).joints["joint1"].armature == heavy["joint1"].armature
        before = first.read().state["tool_pos"]
        goal = first.stop()
        goal[2] += 0.05
        for _ in range(3):
            first.command(goal, clock.now_ns())
            clock.sleep_until(clock.now_ns() + 20_000_000)
        moved = first.read().state["tool_pos"] - before
        assert moved[2] > 2e-3, "the twin is not late: the arm is, and is sent ahead"
    finally:
        first.close()


JOINTS = "max_rate: [1, 1, 1, 1, 1, 1, 1, 9]\nwatchdogs: {tracking: [0.2, 0.2, 0.2, 0.1, 0.2, 0.2, 0.2, 9]}"


def test_a_file_of_limits_before_a_robot_is_of_the_arm_or_else_of_the_twin(tmp_path):
    from robopolicy.cli.twin_first import limits_before

    def said(text, *specs):
        (tmp_path / "limits.yaml").write_text(text)
        return limits_before(tmp_path / "limits.yaml", *specs)

    state = {"tool_pos": StateSpec(3, ("m",)), "q": StateSpec(7, ("rad",)), "gripper": StateSpec(1, ("open",))}
    tool, joint = PolicySpec(state=state, action=TOOL_POSE), PolicySpec(state=state, action=JOINT_ACTION)
    of_arm = said(JOINTS, tool, joint)
    assert (of_arm.of_arm.max_rate[0], of_arm.of_twin.max_speed_m_s) == (1.0, 0.5)
    assert (of_arm.apart, of_arm.watchdogs.tracking) == (0.1, None)
    of_twin = said("max_speed_m_s: 0.1", tool, joint)
    assert (of_twin.of_arm.max_rate[0], of_twin.of_twin.max_speed_m_s, of_twin.apart) == (1.5, 0.1, 0.35)
    both = said("max_age_s: 0.1\nwatchdogs: {silent_s: 0.3}", tool, joint)
    assert (both.of_arm.max_age_s, both.of_twin.max_age_s, both.watchdogs.silent_s) == (0.1, 0.1, 0.3)
    same = said(JOINTS, joint, joint)
    assert (same.of_arm.max_rate[0], same.of_twin.max_rate[0], same.apart) == (1.0, 1.0, 0.1)
    accelerations = [one.of_arm.max_accel[0] for one in (of_arm, of_twin, both, limits_before(None, tool, joint))]
    assert accelerations == [15.0] * 4
    assert said("max_accel: [7.5, 7.5, 7.5, 7.5, 7.5, 7.5, 7.5, 9]", tool, joint).of_arm.max_accel[0] == 7.5
    with pytest.raises(ConfigError, match="max_rate has 2 numbers; want 8"):
        said("max_rate: [1, 1]", tool, joint)


@pytest.mark.parametrize("seed", [1, 4, 7])
def test_the_limits_of_an_arm_do_not_keep_it_from_what_its_twin_does(seed):
    from robopolicy.cli.twin_first import limits_before
    from robopolicy.cli.worlds import make_safety
    from robopolicy.loop import run_episode
    from robopolicy.types import EpisodeMeta
    from sim_envs.aligned import AlignedTwin
    from sim_envs.experts import make_expert
    from sim_envs.modes import TwinFirst
    from sim_envs.tasks import make_task
    from sim_envs.twin import Twin

    clock = SimClock()
    real = Twin(make_task("lift"), clock, cameras=(), rate_hz=50.0, action="joint")
    real.reset(seed)
    twin = AlignedTwin(make_task("lift"), rate_hz=50.0)
    made = limits_before(None, twin.twin.spec, real.spec)
    first = TwinFirst(twin, real, clock, safety=make_safety(real.spec, made.of_arm), apart=made.apart)
    run_episode(first, make_expert("lift", first.spec), clock, make_safety(first.spec, made.of_twin),
                EpisodeMeta("", "", seed), max_steps=200, done=lambda _: real.success())  # fmt: skip
    assert real.success()


@pytest.mark.parametrize(
    ("robot", "seeing", "says"),
    [
        ("twin:lift", Seeing(pose=("cube=/c",)), "are of a twin before a robot, twin-first:TASK:ROBOT; --robot twin:l"),
        ("twin-first:lift:twin:lift", Seeing(pose=("cube=/c",)), "--pose cube=/c: twin:lift is not behind topics"),
        ("twin-first:lift:twin:lift", Seeing(parameters=LIFT), "twin_lift.yaml is no JSON"),
        (f"twin-first:lift:ros:{LIFT}", Seeing(pose=("ball=/b",)), "no tracked object 'ball'; valid: cube"),
        (f"twin-first:lift:ros:{LIFT}", Seeing(pose=("cube",)), "--pose 'cube': want OBJECT=TOPIC"),
    ],
)
def test_what_shows_no_twin_anything_is_refused(robot, seeing, says):
    with pytest.raises(RobopolicyError, match=says):
        make_robot(robot, WallClock(), PolicySpec(action=TOOL_POSE), domain=DOMAIN, seeing=seeing)


def test_an_object_of_a_robot_before_which_a_twin_stands_is_told_of_beside_it(monkeypatch):
    """The arm comes with its own topics, the cube on another one, and the arm goes on when the cube is hidden."""
    from robopolicy_hardware.ros import dds

    wire = Wire()
    monkeypatch.setattr(dds, "Topics", lambda domain: LocalTopics(wire))
    config, over, cube = load_config(LIFT), threading.Event(), [(0.5, 0.1, 0.02)]
    elsewhere = LocalTopics(wire).publisher("/elsewhere", POSE)
    LocalTopics(wire).subscribe(config.action.topic, POSE)
    grip = config.action.gripper
    LocalTopics(wire).subscribe(grip.topic, of_gripper(grip)[0])

    def tell():
        from robopolicy_hardware.ros.set_points import header

        fingers = LocalTopics(wire).publisher("/joint_states", "sensor_msgs/msg/JointState")
        tool = LocalTopics(wire).publisher("/tool_pose", POSE)
        names = [*(f"joint{i}" for i in range(1, 8)), "finger"]
        q = np.array([0, 0, 0, -2.2, 0, 2.2, 0.8, 0.04])
        while not over.wait(0.01):
            stamp = header(time.time_ns())
            fingers.send(message("sensor_msgs/msg/JointState")(stamp, names, q, np.zeros(8), np.zeros(8)))
            tool.send(pose(stamp, (0.5, 0.0, 0.3), (0.0, 1.0, 0.0, 0.0)))
            if cube[0] is not None:
                elsewhere.send(pose(stamp, cube[0]))

    thread = threading.Thread(target=tell)
    thread.start()
    first = None
    try:
        seeing = Seeing(pose=("cube=/elsewhere",))
        first = make_robot(f"twin-first:lift:ros:{LIFT}", WallClock(), PolicySpec(action=TOOL_POSE), rate_hz=50.0,
                           seeing=seeing)  # fmt: skip
        np.testing.assert_allclose(first.read().state["cube_pos"], cube[0], atol=4e-3)
        cube[0] = None
        time.sleep(0.4)  # longer than the arm's own streams may be silent
        np.testing.assert_allclose(first.read().state["cube_pos"], [0.5, 0.1, 0.02], atol=4e-3)
        assert first.health()["cube"].age_s > 0.2
    finally:
        over.set()
        thread.join()
        if first is not None:
            first.close()


def test_a_damaged_picture_is_said_and_ends_nothing():
    from robopolicy_hardware.ros.saying import of_picture

    kind = "sensor_msgs/msg/CompressedImage"
    config, wire = load_config(LIFT), Wire()
    camera = replace(config.cameras["front"], topic="/front/image_raw/compressed", type=kind)
    watch = RobotWatch(replace(config, cameras={"front": camera}), LocalTopics(wire), {"front": ["camera front"]})
    shown = LocalTopics(wire).publisher(camera.topic, kind)
    whole = of_picture(kind, np.full((48, 48, 3), 200, np.uint8), time.time_ns())
    for data in (whole.data, whole.data, whole.data[:9], np.zeros(0, np.uint8), whole.data):
        shown.send(replace(of_picture(kind, np.zeros((48, 48, 3), np.uint8), time.time_ns()), data=data))
        seen, trouble = watch.groups["front"].newest(time.monotonic_ns()), watch.groups["front"].trouble
        if len(data) < 10:
            assert seen is None
            assert "a compressed image cannot be decoded" in trouble
    assert seen is not None
    assert seen.images["front"].mean() == pytest.approx(200, abs=2)
    assert trouble == ""
    watch.close()


TAGS = """
markers: [{id: 7, object: OBJECT, size: 0.03}]
cameras: {CAMERA: {K: [[600, 0, 320], [0, 600, 240], [0, 0, 1]],
          T_base_cam: [[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0.6], [0, 0, 0, 1]]}}
"""


@pytest.mark.parametrize(
    ("thing", "camera", "says"),
    [
        ("cbue", "front", "no tracked object 'cbue'; valid: cube"),
        ("cube", "above", "no camera of .*tags.yaml 'above'; valid: front, wrist"),
    ],
)
def test_tags_that_no_object_or_camera_fits_are_refused_before_they_are_seen(thing, camera, says, tmp_path, capsys):
    path = tmp_path / "tags.yaml"
    path.write_text(TAGS.replace("OBJECT", thing).replace("CAMERA", camera))
    words = ["--robot", f"ros:{LIFT}", "--task", "lift", "--markers", str(path)]
    assert main(["twin", "follow", "--domain", str(DOMAIN), *words]) == 1
    assert re.search(says, capsys.readouterr().err)


def test_commands_are_heard():
    from robopolicy_hardware.ros.set_points import header

    config, wire = load_config(LIFT), Wire()
    robot, held = Robot(wire, config), np.arange(10, dtype=np.float32)
    watch = RobotWatch(config, LocalTopics(wire), {"arm": ["state q"]})
    assert watch.commanded(0, 0, held) is None
    robot.command.send(pose(header(0), (0.4, 0.1, 0.2)))
    told = watch.commanded(1, 1, held)
    np.testing.assert_allclose(told[:3], [0.4, 0.1, 0.2], atol=1e-6)
    np.testing.assert_allclose(told[3:9], [1, 0, 0, 0, 1, 0], atol=1e-6)
    assert told[9] == held[9], "nobody told the gripper anything"
    assert watch.commanded(2, 2, held) is None
    watch.close()


def test_what_the_twin_publishes_is_what_it_is_given():
    from sim_envs.observer_health import Health

    wire = Wire()
    topics, listener = TwinTopics(LocalTopics(wire), "/twin/", ["a", "b"], ["cube"]), LocalTopics(wire)
    kinds = {"joint_states": "sensor_msgs/msg/JointState", "cube_pose": POSE, "confidence": NUMBER, "health": STRING}
    heard = {name: listener.subscribe(f"/twin/{name}", kind) for name, kind in kinds.items()}
    health = Health(0.25, 1.5, np.inf, 0.5, diverged="not measured yet")
    poses = {"cube": (np.array([1.0, 2, 3]), np.array([0.0, 1, 0, 0]))}
    topics.tell(5_000_000_007, np.array([1.0, 2.0]), np.zeros(2), poses, {"cube": health, "twin": health})
    states = heard["joint_states"].newest()[0]
    assert (states.name, states.position.tolist()) == (["a", "b"], [1.0, 2.0])
    assert (states.header.stamp.sec, states.header.stamp.nanosec) == (5, 7)
    cube = heard["cube_pose"].newest()[0]
    assert (cube.pose.position.z, cube.pose.orientation.x, cube.header.frame_id) == (3.0, 1.0, "base")
    assert heard["confidence"].newest()[0].data == 0.25
    told = json.loads(heard["health"].newest()[0].data)["cube"]
    assert told["age_s"] is None, "infinity is not JSON"
    assert told["diverged"] == "not measured yet"
    topics.close()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--robot", "twin:lift", "--task", "lift"], "--robot twin:lift: a twin follows a robot on topics"),
        (["--robot", "ros:nowhere.yaml", "--task", "lift"], "nowhere.yaml: No such file or directory"),
        (
            ["--robot", f"ros:{LIFT}", "--task", "lfit"],
            "no task 'lfit'; valid: align, avoid, drawer, left_drawer, lift",
        ),
        (["--robot", f"ros:{LIFT}", "--task", "lift", "--pose", "ball=/b"], "no tracked object 'ball'; valid: cube"),
        (["--robot", f"ros:{LIFT}", "--task", "lift", "--pose", "cube"], "--pose 'cube': want OBJECT=TOPIC"),
    ],
)
def test_what_cannot_be_followed_is_one_line(words, says, capsys):
    assert main(["twin", "follow", "--domain", str(DOMAIN), *words]) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert says in told[0]


def test_a_robot_that_is_silent_is_named(capsys, monkeypatch):
    monkeypatch.setattr("robopolicy.cli.twin_follow.WAIT_S", 0.2)
    assert main(["twin", "follow", "--robot", f"ros:{LIFT}", "--task", "lift", "--domain", str(DOMAIN)]) == 1
    assert "state q: nothing comes on /joint_states" in capsys.readouterr().err

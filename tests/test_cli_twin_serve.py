"""`robopolicy twin serve`: what it serves, what it refuses in one line, how it ends."""

import itertools
import os
import re
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="cyclonedds is not installed: pip install 'robopolicy[ros]'")
pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")

sys.path.insert(0, str(Path(__file__).parent))
from fake_ros_arm import LOOPBACK
from served_twin import CONFIGS, serve, until

from robopolicy.cli.main import build_parser, main
from robopolicy.cli.twin_serve import IMPERFECT, LARGEST, imperfections_of
from robopolicy.clock import SimClock, WallClock
from robopolicy.topics.config import load_config
from robopolicy_hardware.ros.dds import Topics
from robopolicy_hardware.ros.robot import RosRobot
from robopolicy_hardware.ros.usual import usual_topics
from sim_envs.arm import JOINTS
from sim_envs.imperfections import Imperfections
from sim_envs.rendering import OFFSCREEN
from sim_envs.tasks import make_task
from sim_envs.twin import Twin

os.environ["CYCLONEDDS_URI"] = LOOPBACK  # read once, when the first participant is made
DOMAINS = itertools.count(70 + os.getpid() % 25)


@pytest.mark.parametrize(
    ("file", "action", "cube"),
    [("twin_lift", "tool_pose", True), ("twin_pose", "tool_pose", False), ("twin_joint", "joint", False)],
)
def test_the_shipped_files_say_what_is_served_without_one(file, action, cube):
    spec = Twin(make_task("lift"), SimClock(), action=action).spec
    state = {name: part for name, part in spec.state.items() if cube or not name.startswith("cube")}
    assert usual_topics(replace(spec, state=state), JOINTS) == load_config(CONFIGS / f"{file}.yaml")


def test_every_stream_of_a_served_twin_is_there_and_a_client_has_the_spec_of_the_twin_itself():
    domain = next(DOMAINS)
    server = serve(domain, "--seed", "3", "--camera-hz", "10")
    topics = Topics(domain, node="client")
    try:
        kinds = {
            "/front/camera_info": "sensor_msgs/msg/CameraInfo",
            "/front/image_raw": "sensor_msgs/msg/Image",
            "/clock": "rosgraph_msgs/msg/Clock",
            "/robopolicy_twin/success": "std_msgs/msg/Bool",
        }
        heard = {name: topics.subscribe(name, kind) for name, kind in kinds.items()}
        config = load_config(CONFIGS / "twin_lift.yaml")
        robot = RosRobot(config, WallClock(), topics, wait_s=60)
        twin = Twin(make_task("lift"), SimClock())
        twin.reset(3)
        robot.spec.require_from(twin.spec, needs="the client", offers="the twin")
        twin.spec.require_from(robot.spec, needs="the twin", offers="the client")
        seen, true = robot.read(), twin.read()
        for name in ("q", "tool_pos", "tool_quat", "gripper", "cube_pos", "cube_quat"):
            loose = 10 if name == "q" else 1  # the servo goes on towards its posture, with the tool where it is
            np.testing.assert_allclose(seen.state[name], true.state[name], atol=2e-3 * loose)
        assert np.abs(seen.images["front"].astype(int) - true.images["front"].astype(int)).mean() < 2.0
        info = until(lambda: heard["/front/camera_info"].newest())[0]
        image = until(lambda: heard["/front/image_raw"].newest())[0]
        calibration = twin.camera_calibration()["front"]
        np.testing.assert_allclose(info.k.reshape(3, 3), calibration["K"])
        np.testing.assert_allclose(info.p.reshape(3, 4)[:, :3], calibration["K"])
        assert (info.height, info.width, info.header.frame_id) == (96, 96, "front_optical_frame")
        assert image.header.frame_id == info.header.frame_id
        clock = until(lambda: heard["/clock"].newest())[0].clock
        assert abs(clock.sec + clock.nanosec / 1e9 - time.time()) < 10
        assert until(lambda: heard["/robopolicy_twin/success"].newest())[0].data is False
        robot.close()
        twin.close()
    finally:
        topics.close()
        server.kill(signal.SIGINT)
        code = server.ends()
        server.close()
    assert code == 0
    assert re.fullmatch(r"served [\d.]+ s at [\d.]+ Hz: 0 commands, 0 refused; holds: .*", server.lines[-1])
    assert not any("Traceback" in line for line in server.lines)


@pytest.mark.parametrize("word", ["96", "0x96", "481x640", "480x641", "96x-1", "9.5x9"])
def test_a_size_that_cannot_be_drawn_is_refused(word, capsys):
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(["twin", "serve", "lift", "--camera-size", word])
    assert ended.value.code == 2
    assert "want HEIGHTxWIDTH in pixels, 480x640 at most" in capsys.readouterr().err
    assert build_parser().parse_args(["twin", "serve", "lift", "--camera-size", "240x320"]).camera_size == (240, 320)
    assert LARGEST == OFFSCREEN


@pytest.mark.parametrize("option", ["--rate", "--camera-hz"])
def test_a_rate_that_no_process_keeps_is_refused(option, capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["twin", "serve", "lift", option, "1e10"])
    assert "want 1000 Hz at most" in capsys.readouterr().err


def test_options_become_imperfections_in_si_units():
    words = [word for option in IMPERFECT for word in (option, "0.5")]
    asked = imperfections_of(build_parser().parse_args(["twin", "serve", "lift", *words]))
    wanted = {name: 0.5 * scale for name, scale, _ in IMPERFECT.values()}
    assert asked == Imperfections(**wanted)
    assert set(wanted) == set(Imperfections.__dataclass_fields__)  # every one has its option
    assert (asked.command_latency_s, asked.camera_latency_s) == (0.0005, 0.0005)
    assert imperfections_of(build_parser().parse_args(["twin", "serve", "lift"])) == Imperfections()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["lfit"], "no task 'lfit'.*lift"),
        (["lift", "--cameras", "top"], "no camera 'top'.*front"),
        (["lift", "--camera-drop", "2"], "camera_drop is 2; want a probability"),
        (["lift", "--mass", "0"], "mass is 0; want a factor above 0"),
        (["lift", "--config", "{joint}", "--commands", "joint"], "--commands joint: .* says what is commanded"),
        (["lift", "--config", "{none}"], "none.yaml: No such file"),
        (["pusht", "--cameras", "--config", "{lift}"], "the robot has no state cube_pos"),
        (["lift", "--cameras", "--node", "a b"], "'a b' is no node's name"),
        (["lift", "--cameras", "--domain", "999"], "no ROS 2 domain"),
    ],
)
def test_what_cannot_be_served_is_one_line(words, says, capsys, tmp_path):
    places = {"joint": CONFIGS / "twin_joint.yaml", "lift": CONFIGS / "twin_lift.yaml", "none": tmp_path / "none.yaml"}
    assert main(["twin", "serve", *(word.format(**places) for word in words)]) == 1
    out = capsys.readouterr()
    assert re.search(says, out.err), out.err
    assert out.err.count("\n") == 1

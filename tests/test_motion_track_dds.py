"""A motion-track checkpoint on a robot behind ROS 2 topics: a served twin, real DDS, the calibration of its file."""

import os
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("cyclonedds", reason="cyclonedds is not installed: pip install 'robopolicy[ros]'")
pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")

sys.path.insert(0, str(Path(__file__).parent))
import tracks_worlds
from fake_ros_arm import LOOPBACK
from served_twin import CONFIGS, Process, serve

from robopolicy.cli.main import main
from robopolicy.geometry.calibrations import read_calibrations, write_calibrations
from robopolicy_data.reader import Dataset

os.environ["CYCLONEDDS_URI"] = LOOPBACK  # read once, when the first participant is made
DOMAIN = 151 + os.getpid() % 9


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tracks_worlds.make_checkpoint(tmp_path_factory.mktemp("tracks"))


@pytest.fixture(scope="module")
def topics(tmp_path_factory):
    """The text of the topics file, of a twin that is being served."""
    text = (CONFIGS / "twin_lift.yaml").read_text().replace("/wrist/", "/side/").replace("  wrist:", "  side:")
    text = re.sub(r"(\{topic: .*?)(, max_age_s: 0.2)?\}", r"\1, max_age_s: 1.0}", text)  # this machine may be busy
    file = tmp_path_factory.mktemp("topics") / "twin.yaml"
    file.write_text(text)
    server = serve(DOMAIN, "--config", file, "--camera-size", "48x48", "--camera-hz", "20")
    try:
        yield text
    finally:
        server.close()


def cams(path, *, size="48x48", **moved):
    """Write a calibration as the twin has it, cameras ``moved`` by so many metres along y; return its path."""
    words = ["calibrate-cameras", "--twin", "lift", "--cameras", "front", "side", "--size", size]
    assert main([*words, "--out", str(path)]) == 0
    entries = read_calibrations(path)
    for name, far in moved.items():
        entries[name]["T_base_cam"][1][3] += far
    write_calibrations(path, entries)
    return path


def robopolicy(command, file, checkpoint, *words):
    made = Process("-m", "robopolicy.cli.main", command, "--robot", f"ros:{file}", "--checkpoint", checkpoint,
                   "--domain", DOMAIN, "--max-steps", 12, "--allow-slow", *words)  # fmt: skip
    return made


def test_deploy_plans_by_the_calibration_that_the_topics_file_names(topics, checkpoint, tmp_path):
    cams(tmp_path / "cams.yaml", front=0.2)
    file, data = tmp_path / "robot.yaml", tmp_path / "d.zarr"
    file.write_text(f"calibration: cams.yaml\n{topics}")
    made = robopolicy("deploy", file, checkpoint, "--record", data)
    try:
        made.says("cameras: where the robot's calibration has them.*front 20.0 cm and 0.0 deg, side 0.0 cm")
        assert made.ends() == 0, made.lines
    finally:
        made.close()
    assert f"ros:{file}, seed 200000: done after 12 steps" in "\n".join(made.lines)
    (episode,) = Dataset(data)
    assert episode.meta.extra["cameras"].startswith("as the robot tells (")


def test_without_one_deploy_and_node_plan_by_that_of_the_training_data(topics, checkpoint, tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text(topics)
    for command, words, over in (
        ("deploy", (), "done after 12 steps"),
        ("node", ("--transport", "dds", "--autostart"), "^the episode is over$"),
    ):
        made = robopolicy(command, file, checkpoint, *words)
        try:
            made.says("cameras front, side: where they stood in the training data")
            made.says(over)
        finally:
            made.close()


def test_what_does_not_fit_is_refused_in_one_line_before_anything_moves(topics, checkpoint, tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text(f"calibration: cams.yaml\n{topics}")
    whole = read_calibrations(cams(tmp_path / "cams.yaml"))
    write_calibrations(tmp_path / "cams.yaml", {"front": whole["front"]})
    lens = {**whole, "side": {name: part for name, part in whole["side"].items() if name != "T_base_cam"}}
    for entries, told in (
        ({"front": whole["front"]}, "no calibrated camera 'side'; valid: front"),
        (lens, "camera 'side' is not calibrated: K and T_base_cam are wanted (calibrate-cameras)"),
        (read_calibrations(cams(tmp_path / "large.yaml", size="96x96")),
         "camera 'front' was calibrated at 96 x 96, its pictures are 48 x 48"),
    ):  # fmt: skip
        write_calibrations(tmp_path / "cams.yaml", entries)
        made = robopolicy("deploy", file, checkpoint)
        try:
            assert made.ends() == 1
        finally:
            made.close()
        assert told in made.lines[-1]
        assert made.lines[-1].startswith("robopolicy: ")
        assert "Traceback" not in "\n".join(made.lines)

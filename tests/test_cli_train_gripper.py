"""`robopolicy train --policy motion-track --gripper G.yaml`: another gripper's points, from the file to the plan."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from robopolicy.cli.main import main
from robopolicy.cli.train_tracks import read_gripper
from robopolicy.geometry.keypoints import ROLES
from robopolicy.training.checkpoint import load_policy
from robopolicy_data.reader import Dataset

sys.path.insert(0, str(Path(__file__).parent))
import track_data

OPENED = [[0, 0, -0.12], [0, 0.06, -0.06], [0, 0.06, 0.01], [0, -0.06, -0.06], [0, -0.06, 0.01]]
CLOSED = [[0, 0, -0.12], [0, 0.01, -0.06], [0, 0.01, 0.01], [0, -0.01, -0.06], [0, -0.01, 0.01]]
BENT = [  # each broad by its middle points alone, which change sides on the way
    [[0, 0, -0.1], [x, 0, -0.05], [0, y, 0], [x, 0, -0.05], [0, -y, 0]] for x, y in ((0.03, 0.001), (-0.03, 0.00025))
]
TRAIN = shlex.split(
    "--policy motion-track --net.width 32 --net.depth 1 --vision.width 16 --vision.feature-dim 8 --horizon 8 "
    "--n-execute 4 --batch-size 8 --threads 1 --steps 1"
)


def written(path, opened=OPENED, closed=CLOSED, more=""):
    path.write_text(f"opened: {opened}\nclosed: {closed}\n{more}")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return track_data.make_robot(tmp_path_factory.mktemp("gripper") / "d.zarr", 1)


def test_the_points_of_the_file_are_what_the_policy_is_told_and_stay_with_its_checkpoint(data, tmp_path):
    out = tmp_path / "run"
    words = ["train", *TRAIN, "--data", str(data), "--out", str(out)]
    assert main([*words, "--gripper", str(written(tmp_path / "g.yaml"))]) == 0
    policy = load_policy(out)
    np.testing.assert_array_equal(policy.config.gripper.opened, OPENED)
    np.testing.assert_array_equal(policy.config.gripper.closed, CLOSED)
    episode = Dataset(data)[0]
    state = {name: episode.state(name)[3] for name in track_data.SPEC.state}
    images = {view: episode.images(view, [3])[0] for view in track_data.CAMERAS}
    told = policy.plan([track_data.Observation(0, state, images)], generator=np.random.default_rng(0)).aux["points"]
    turn = np.diag([1.0, -1.0, -1.0])  # the tool looks down
    placed = np.array(OPENED) @ turn.T + state["tool_pos"]
    for view, camera in enumerate(track_data.CAMERAS.values()):
        np.testing.assert_allclose(told[view], camera.project(placed), atol=1e-3)
    assert main(["train", "--out", str(out), "--steps", "2", "--resume"]) == 0  # data, policy and gripper of the run
    np.testing.assert_array_equal(load_policy(out).config.gripper.opened, OPENED)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("opened: [[0, 0, 0]]\nclosed: [[0, 0, 0]]", f"opened: want 5 rows of x, y, z in m: {', '.join(ROLES)}"),
        ("opened: wide\nclosed: 3", "opened: want 5 rows"),
        (f"opened: {OPENED}", "there is no 'closed'; want both opened and closed"),
        (f"opened: {OPENED}\nclosed: {OPENED}\nshut: 1", "no key in the file 'shut'; valid: closed, opened"),
        (f"opened: {[[1000 * x for x in p] for p in OPENED]}\nclosed: {CLOSED}", "120 m from the tool"),
        (f"opened: {OPENED}\nclosed: {[[0, 0, 0.01 * k] for k in range(5)]}", "closed lie on a line"),
        (f"opened: {OPENED}\nclosed: {[*CLOSED[:4], [0, 0, float('nan')]]}".replace("nan", ".nan"), "finite"),
        (f"opened: {CLOSED}\nclosed: {OPENED}", "the tips are 20 mm apart opened, 120 mm closed; want them farther"),
        (f"opened: {OPENED}\nclosed: {OPENED}", "the tips are 120 mm apart opened, 120 mm closed; want them farther"),
        (f"opened: {OPENED}\nclosed: {[CLOSED[k] for k in (0, 3, 4, 1, 2)]}", "on opposite sides opened and closed"),
        (f"opened: {BENT[0]}\nclosed: {BENT[1]}", "at opening 0.49 the points are on a line but for 0.87 mm"),
        ("- 1", "the file is list"),
        ("a: b: c", "is no YAML"),
    ],
)
def test_a_file_that_says_no_gripper_is_refused_in_one_line_before_anything_is_trained(
    text, told, data, tmp_path, capsys
):
    file, out = tmp_path / "g.yaml", tmp_path / "run"
    file.write_text(text)
    assert main(["train", *TRAIN, "--data", str(data), "--out", str(out), "--gripper", str(file)]) == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"robopolicy: {file}")
    assert told in said
    assert "\n" not in said
    assert not out.exists()


def test_no_such_file_and_a_policy_without_points(data, tmp_path, capsys):
    words = ["train", "--data", str(data), "--out", str(tmp_path / "run"), "--steps", "1", "--gripper"]
    assert main([*words, str(tmp_path / "none.yaml"), "--policy", "motion-track"]) == 1
    assert "No such file or directory; want the YAML file of a gripper's five points" in capsys.readouterr().err
    assert main([*words, str(written(tmp_path / "g.yaml"))]) == 1
    assert "--gripper is of motion tracks: add --policy motion-track" in capsys.readouterr().err


def test_options_of_other_policies_are_refused_with_those_that_there_are(data, tmp_path, capsys):
    words = ["train", *TRAIN, "--data", str(data), "--out", str(tmp_path / "run"), "--goal.streams", "tool_pos"]
    assert main(words) == 1
    said = capsys.readouterr().err.strip()
    assert "--goal says nothing to motion-track, which has --net, --vision, " in said
    flags = re.findall(r"--[a-z-]+", said.partition("which has")[2])
    assert "--gripper" in flags
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert [flag for flag in flags if flag not in known or flags.count(flag) > 1] == []


def test_the_file_of_the_readme_is_one(tmp_path):
    text = (Path(__file__).parents[1] / "data" / "README.md").read_text()
    block = text.partition("### Another gripper")[2].partition("```yaml\n")[2].partition("```")[0]
    file = tmp_path / "g.yaml"
    file.write_text(block)
    assert len(read_gripper(file)["opened"]) == len(ROLES)

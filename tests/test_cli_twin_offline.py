"""`twin offline` and `twin render` on recorded episodes."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robopolicy.cli.main import main
from robopolicy.cli.record import record
from robopolicy.cli.twin_offline import make_offline, offline, read_starts
from robopolicy.cli.twin_render import TOOL, camera_of
from robopolicy.clock import SimClock
from robopolicy.errors import NoGLBackend, SpecMismatch
from robopolicy.interfaces import Environment
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter
from sim_envs.arm import JOINTS
from sim_envs.parameters import read_model, save
from sim_envs.rendering import probe
from sim_envs.views import Eye

sys.path.insert(0, str(Path(__file__).parent))
import recordings


@pytest.fixture(scope="module")
def lifted(tmp_path_factory):
    """Two episodes of the expert."""
    path = tmp_path_factory.mktemp("offline") / "d.zarr"
    record("twin:lift", path, 2, cameras=())
    return path


@pytest.fixture
def gl():
    try:
        probe()
    except NoGLBackend as error:
        pytest.skip(str(error))


def test_starts_are_the_recorded_states(lifted):
    starts, successes = read_starts(str(lifted), "lift")
    assert list(starts) == [0, 1]
    assert successes == {0: True, 1: True}
    for number, episode in enumerate(Dataset(lifted)):
        world = make_offline("lift", starts, SimClock())
        world.reset(number)
        seen = world.read().state
        for name in ("q", "gripper", "tool_pos", "cube_pos", "cube_quat"):
            np.testing.assert_allclose(seen[name], episode.state(name)[0], atol=1e-5)


def test_the_identified_delay_is_that_of_the_offline_twin_too(lifted, tmp_path):
    starts, _ = read_starts(str(lifted), "lift")
    moved = {}
    for delay_s in (0.0, 0.2):
        clock, path = SimClock(), tmp_path / "p.json"
        world = make_offline("lift", starts, clock)
        save(replace(read_model(world.model, JOINTS), delay_s=delay_s), path)
        world = make_offline("lift", starts, clock, parameters=path)
        world.reset(0)
        goal = world.stop()
        goal[0] += 0.05
        world.command(goal, clock.now_ns())
        clock.sleep_until(clock.now_ns() + 150_000_000)
        moved[delay_s] = float(goal[0] - world.read().state["tool_pos"][0])
        assert isinstance(world, Environment)
    assert moved[0.0] < 0.04 < 0.049 < moved[0.2], "metres still to go"


def test_a_start_in_mid_episode_goes_on_as_it_went(lifted):
    episode = Dataset(lifted)[0]
    step = episode.length - 4  # the cube is in the gripper, on its way up
    starts, _ = read_starts(str(lifted), "lift", "0", step)
    clock = SimClock()
    world = make_offline("lift", starts, clock)
    world.reset(0)
    stamps = episode.stamps_ns("step")
    for i in range(step, episode.length - 1):
        world.read()
        world.command(episode.action()[i], clock.now_ns())
        clock.sleep_until(clock.now_ns() + int(stamps[i + 1] - stamps[i]))
    np.testing.assert_allclose(world.read().state["cube_pos"], episode.state("cube_pos")[-1], atol=5e-3)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--episodes", "7"], "no episode 7"),
        (["--step", "9999"], "--step 9999: "),
        (["--task", "pusht"], "has no state block: the twin cannot be put there; it has q, dq"),
    ],
)
def test_starts_that_are_not_there_are_one_line(lifted, words, says, capsys, tmp_path):
    assert main(["twin", "offline", str(lifted), "--checkpoint", str(tmp_path), *words]) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert says in told[0]


def test_a_dataset_of_another_robot_is_refused(tmp_path):
    with DatasetWriter(tmp_path / "d.zarr", recordings.SPEC) as writer:
        episode = writer.begin(recordings.META)
        for step in recordings.make_steps(0, 3):
            episode.add(step)
        episode.commit()
    with pytest.raises(SpecMismatch, match=r"the twin cannot be put there; it has .*twin follow --record"):
        read_starts(str(tmp_path / "d.zarr"), "lift")


@pytest.mark.slow
def test_a_policy_is_judged_from_recorded_starts(lifted, tmp_path):
    from robopolicy.cli.train import train

    settings = {"steps": 1, "batch_size": 4, "device": "cpu", "num_threads": 1}
    train(lifted, tmp_path / "policy", settings=settings)
    headline, recorded = offline(str(lifted), tmp_path / "policy", tmp_path / "out", jobs=1, videos=0)
    assert headline.startswith("success 0/2")
    assert recorded == "2 of 2 succeeded"
    assert (tmp_path / "out" / "report.html").exists()


def test_a_policy_of_another_rate_is_judged_at_its_own_and_for_as_long(lifted):
    starts, _ = read_starts(str(lifted), "lift", step=3)
    assert starts[1][1].shape == (10,), "recorded were tool poses"
    usual, other = (make_offline("lift", starts, SimClock(), **more) for more in ({}, {"rate_hz": 50.0}))
    joint = make_offline("lift", starts, SimClock(), action="joint")
    joint.reset(1)
    assert (other.spec.rate_hz, other.max_steps * 20) == (50.0, usual.max_steps * 50)
    assert (joint.spec.action.kind, joint.stop().shape) == ("joint", (8,))


@pytest.mark.slow
def test_a_policy_of_10_hz_is_judged(tmp_path):
    from robopolicy.cli.train import train

    record("twin:lift", tmp_path / "d.zarr", 2, cameras=(), rate_hz=10.0)
    settings = {"steps": 1, "batch_size": 4, "device": "cpu", "num_threads": 1}
    train(tmp_path / "d.zarr", tmp_path / "policy", settings=settings)
    headline, _ = offline(str(tmp_path / "d.zarr"), tmp_path / "policy", tmp_path / "out", jobs=1, videos=0)
    assert headline.startswith("success 0/2")


def test_recordings_are_seen_from_any_camera(lifted, gl, tmp_path):
    assert main(["twin", "render", str(lifted), "--camera", "wrist", "--episode", "1", "--size", "48x64",
                 "--out", str(tmp_path / "v.webm")]) == 0  # fmt: skip
    assert (tmp_path / "v.webm").stat().st_size > 500
    data = tmp_path / "d.zarr"
    shutil.copytree(lifted, data)
    aside = "0.8,0.4,0.25,0.5,0,0.02,40"
    assert main(["twin", "render", str(data), "--camera", aside, "--size", "96x96", "--into-dataset"]) == 0
    for episode in Dataset(data):
        pictures, about = episode.derived(TOOL)["images"], episode.derived_attributes(TOOL)
        assert pictures.shape == (episode.length, 96, 96, 3)
        assert about["camera"] == aside
        projection = np.array(about["K"]) @ np.linalg.inv(about["T_base_cam"])[:3]
        column, row, depth = projection @ [*episode.state("cube_pos")[0], 1.0]
        red, green, _ = pictures[0, round(row / depth), round(column / depth)].astype(int)
        assert red > green + 60, "the cube is where the calibration has it"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--out", "v.webm"], "--out wants one --episode and a name that ends in .webm"),
        (["--out", "v.mp4", "--episode", "0"], "--out wants one --episode and a name that ends in .webm"),
        ([], "say where the pictures go: --out V.webm, or --into-dataset"),
        (["--camera", "top", "--out", "v.webm", "--episode", "0"], "no camera 'top'; valid: front, side, view, wrist"),
        (
            ["--camera", "1,2,3", "--out", "v.webm", "--episode", "0"],
            "1,2,3: want front, wrist, side, view, or X,Y",
        ),
        (["--camera", "1,2,3,1,2,3", "--out", "v.webm", "--episode", "0"], "cannot look at"),
        (["--size", "big", "--out", "v.webm", "--episode", "0"], "--size big: want HxW"),
        (["--size", "900x900", "--out", "v.webm", "--episode", "0"], "a picture of 900 x 900; at most 480 x 640"),
    ],
)
def test_views_that_cannot_be_are_one_line(lifted, words, says, capsys):
    assert main(["twin", "render", str(lifted), *words]) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert says in told[-1]
    assert len(told) == 1


def test_a_camera_of_ones_own():
    assert camera_of("wrist") == "wrist"
    assert camera_of("1,2,3,4,5,6") == Eye((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    assert camera_of("1,2,3,4,5,6,70").fovy_deg == 70.0

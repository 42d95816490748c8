"""The motion-track policy on a robot: what it is taught comes out as tool poses."""

import shlex
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from robopolicy.cli.main import main
from robopolicy.cli.running import AS_SAVED
from robopolicy.errors import ContractError, TracksLost, UnknownCamera
from robopolicy.geometry.calibrations import write_calibrations
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.motion_track import MotionTrackPolicy
from robopolicy.policies.track_config import MotionTrackConfig
from robopolicy.policies.vision import VisionConfig
from robopolicy.rotations import quat_to_matrix, rot6d_to_matrix
from robopolicy.testing_policies import PolicyContract, random_observation
from robopolicy.training.checkpoint import checkpoint_sha, load_policy
from robopolicy.types import Observation, PlanRequest
from robopolicy_data.reader import Dataset

sys.path.insert(0, str(Path(__file__).parent))
import track_data

TRAIN = shlex.split(
    "--policy motion-track --net.width 64 --net.depth 2 --vision.width 16 --vision.feature-dim 16 --horizon 8 "
    "--n-execute 4 --batch-size 16 --threads 1 --augmentation.shift 0.02 --augmentation.zoom 0.02"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tracks")
    return track_data.make_robot(folder / "robot.zarr", 4), track_data.make_hand(folder / "hand.zarr", 4)


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "tracks"
    robot, hand = map(str, data)
    assert main(["train", *TRAIN, "--data", robot, "--data", hand, "--out", str(out), "--steps", "300"]) == 0
    return out


@pytest.fixture(scope="module")
def policy(checkpoint):
    return load_policy(checkpoint)


def observed(episode, t):
    states = {name: episode.state(name)[t] for name in track_data.SPEC.state}
    images = {view: episode.images(view, [t])[0] for view in track_data.CAMERAS}
    return Observation(t, states, images)


class TestMotionTrackContract(PolicyContract):
    @pytest.fixture(autouse=True)
    def taken(self, policy):
        self.policy = policy

    def make(self):
        return self.policy

    def window(self, policy, seed=0):
        rng = np.random.default_rng(seed)
        seen = random_observation(policy.spec, rng)
        return [Observation(0, dict(policy.likely), seen.images)]


def test_it_is_loaded_as_it_was_saved_and_goes_to_where_it_was_shown(policy, data):
    assert isinstance(policy, MotionTrackPolicy)
    assert policy.config.net == MlpConfig(width=64, depth=2, dropout=0.1)
    missed, stayed, ways, opened = [], [], [], []
    for episode in Dataset(data[0]):
        positions = episode.state("tool_pos")
        for t in (2, 6, 10, 14):
            plan = policy.plan([observed(episode, t)], n=2, generator=np.random.default_rng(t))
            want = positions[t + 1 : t + 9]
            missed.append(np.linalg.norm(plan.chunks[0, :, :3] - want, axis=-1).mean())
            stayed.append(np.linalg.norm(positions[t] - want, axis=-1).mean())
            way, right = plan.chunks[0, -1, :3] - positions[t], want[-1] - positions[t]
            ways.append(way @ right / np.linalg.norm(way) / np.linalg.norm(right))
            turn = rot6d_to_matrix(plan.chunks[0, :, 3:9].astype(float))
            assert np.abs(turn - quat_to_matrix(track_data.DOWN)).max() < 0.5
            opened.append(plan.chunks[0, 0, 9])
    assert np.mean(opened) > 0.8, "open on the way"
    assert np.mean(missed) < 0.75 * np.mean(stayed)
    assert np.mean(ways) > 0.5
    late = policy.plan([observed(Dataset(data[0])[1], 26)], generator=np.random.default_rng(0))
    assert late.chunks[0, -1, 9] == 0.0, "shut at the block"


def test_what_the_monitor_is_told(policy, data):
    plan = policy.plan([observed(Dataset(data[0])[0], 3)], generator=np.random.default_rng(0))
    assert plan.aux["view_gap"].shape == plan.aux["misfit"].shape == (8,)
    assert plan.aux["tracks"].shape == (2, 8, 5, 2)
    assert (plan.aux["view_gap"] > 0).all(), "before they were brought together"


def test_the_first_candidate_does_not_depend_on_how_many_there_are(policy, data):
    seen = [observed(Dataset(data[0])[0], 3)]
    one, many = (policy.plan(seen, n=n, generator=np.random.default_rng(0)) for n in (1, 5))
    np.testing.assert_allclose(one.chunks[0], many.chunks[0], atol=2e-4)


def test_cameras_that_were_moved_and_calibrated_anew_give_the_same_motion_in_space(policy, data):
    """The policy is told where its cameras stand: with another pose for one, its plan is another."""
    seen = [observed(Dataset(data[0])[0], 3)]
    before = policy.plan(seen, generator=np.random.default_rng(0)).chunks
    told = policy.told()["cameras"]
    moved = np.array(told["left"]["T_base_cam"])
    moved[:3, 3] += [0.0, 0.05, 0.0]
    try:
        policy.calibrate({**told, "left": {**told["left"], "T_base_cam": moved.tolist()}})
        after = policy.plan(seen, generator=np.random.default_rng(0)).chunks
        assert np.abs(after - before).max() > 1e-4
        with pytest.raises(ContractError, match=r"camera 'left' was calibrated for \(480, 640\) px"):
            policy.calibrate({**told, "left": {**told["left"], "size": [480, 640]}})
        with pytest.raises(ContractError, match="two cameras are at the same place"):
            policy.calibrate(dict.fromkeys(told, told["left"]))
    finally:
        policy.calibrate(told)
    np.testing.assert_array_equal(policy.plan(seen, generator=np.random.default_rng(0)).chunks, before)


def test_a_checkpoint_runs_by_the_robots_calibration(policy, checkpoint):
    told = policy.told()["cameras"]
    moved = np.array(told["left"]["T_base_cam"])
    moved[:3, 3] += [0.0, 0.05, 0.0]
    running = AS_SAVED.resolve(checkpoint)
    here = replace(running, cameras={**told, "left": {**told["left"], "T_base_cam": moved.tolist()}}).load()
    assert np.allclose(here.cameras["left"].T_base_cam, moved)
    assert np.allclose(running.load().cameras["left"].T_base_cam, told["left"]["T_base_cam"])
    with pytest.raises(UnknownCamera, match="right"):
        replace(running, cameras={"left": told["left"]}).load()


def test_tracks_that_leave_the_picture_hold_and_tracks_that_tell_nothing_are_refused(policy, data, monkeypatch):
    seen = observed(Dataset(data[0])[0], 3)
    net = policy.tracks
    real = net.sample

    def lost(rows):
        def sample(*args):
            drawn = real(*args)
            shares, grasp = drawn.shares.clone(), torch.ones_like(drawn.grasp)
            shares[..., rows, :, :] += 20
            grasp[..., rows] = 0.0  # what was held is to be let go, but not there
            return drawn._replace(shares=shares, grasp=grasp)

        return sample

    monkeypatch.setattr(net, "sample", lost(slice(4, None)))
    plan = policy.plan([seen], generator=np.random.default_rng(0))
    assert (plan.chunks[0, 4:] == plan.chunks[0, 3]).all(), "it stays where the tracks last told it to be"
    assert np.isinf(plan.aux["misfit"][4:]).all()
    monkeypatch.setattr(net, "sample", lost(slice(None)))
    with pytest.raises(TracksLost, match="from step 1 on"):
        policy.plan([seen], generator=np.random.default_rng(0))


@pytest.mark.parametrize("agreement", [1.0, 0.3, 0.0])
def test_views_that_contradict_each_other_hold_the_arm_though_they_are_brought_together(policy, data, agreement):
    """One says down and the other up: what they agree on in the end is a motion that neither says."""
    seen = observed(Dataset(data[0])[0], 3)
    net, config, real = policy.tracks.net, policy.config, policy.tracks.net.at

    def contradictory(times, cond):
        def said(x, answer):
            rows = answer(x).clone().unflatten(0, (2, -1))
            rows[..., :10] = 0.0
            rows[0, :, 4:, 1:10:2], rows[1, :, 4:, 1:10:2] = 6.0, -6.0
            return rows.flatten(0, 1)

        return [partial(said, answer=answer) for answer in real(times, cond)]

    net.at = contradictory
    policy.tracks.config = replace(config, views=replace(config.views, agreement=agreement))
    try:
        plan = policy.plan([seen], n=3, generator=np.random.default_rng(0))
    finally:
        del net.at
        policy.tracks.config = config
    assert plan.aux["view_gap"][:4].max() < 1 < 3 < plan.aux["view_gap"][6:].min()
    assert np.isinf(plan.aux["misfit"][6:]).all()
    for chunk in plan.chunks:
        assert (chunk[6:] == chunk[5]).all(), "it stays where they last agreed"


def test_where_views_disagree_the_gripper_goes_on_as_it_was_commanded_last(policy, data, monkeypatch):
    """What is wide is held by fingers that are far apart: measured, they look open."""
    seen = observed(Dataset(data[0])[0], 3)
    seen = replace(seen, state={**seen.state, "gripper": np.array([0.8], np.float32)})
    real = policy.tracks.sample

    def disagree(*args):
        drawn = real(*args)
        grasp = torch.full_like(drawn.grasp, 0.9)
        grasp[..., 1, :] = 0.4
        return drawn._replace(grasp=grasp)

    monkeypatch.setattr(policy.tracks, "sample", disagree)
    last = np.zeros((1, 10), np.float32)

    def opening(executed):
        plan = policy.plan([seen], executed=executed, generator=np.random.default_rng(0))
        return set(plan.chunks[0, :, -1].tolist())

    assert opening(last) == {0.0}
    assert opening(last + 1) == {1.0}
    assert opening(None) == {1.0}
    asked = [PlanRequest([seen], executed=one, generator=np.random.default_rng(0)) for one in (last, None, last + 1)]
    assert [plan.chunks[0, 0, -1] for plan in policy.plan_many(asked)] == [0.0, 1.0, 1.0]


def test_a_run_repeats_bit_for_bit_and_goes_on_as_what_it_was(data, tmp_path):
    robot, hand = map(str, data)
    one, other = tmp_path / "one", tmp_path / "other"
    for out in (one, other):
        assert main(["train", *TRAIN, "--data", robot, hand, "--out", str(out), "--steps", "3"]) == 0
    assert checkpoint_sha(one) == checkpoint_sha(other)
    before = checkpoint_sha(one)
    for out in (one, other):
        assert main(["train", "--data", robot, hand, "--out", str(out), "--steps", "6", "--resume"]) == 0
    assert checkpoint_sha(one) == checkpoint_sha(other) != before
    assert isinstance(load_policy(one), MotionTrackPolicy)
    assert main(["train", "--policy", "diffusion", "--data", robot, "--out", str(one), "--steps", "9", "--resume"]) != 0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--cameras", "left"], "--cameras left: motion tracks want two calibrated cameras"),
        (["--cameras", "left", "top"], "top"),
        (["--preset", "unet"], "--preset says nothing to motion tracks"),
        (["--vision.crop", "0.9"], "augmentation.shift"),
        (["--max-delay", "3"], "--max-delay says nothing to motion-track"),
        (["--augmentation.zoom", "1.5"], "zoom below 1"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(more, told, data, tmp_path, capsys):
    args = ["train", *TRAIN, "--data", str(data[0]), "--out", str(tmp_path / "run"), "--steps", "2", *more]
    assert main(args) != 0
    said = capsys.readouterr().err.strip()
    assert told in said
    assert "\n" not in said
    assert not Path(tmp_path / "run").exists()


def test_data_with_one_camera_in_common_are_refused(data, tmp_path, capsys):
    one = {"left": track_data.CAMERAS["left"], "top": track_data.CAMERAS["right"]}
    hand = track_data.make_hand(tmp_path / "h.zarr", 1, cameras=one)
    assert main(["train", *TRAIN, "--data", str(data[0]), "--data", str(hand), "--out", str(tmp_path / "run")]) != 0
    assert "the data share left: motion tracks want two calibrated cameras" in capsys.readouterr().err


def test_a_camera_without_calibration_is_named_before_anything_is_trained_and_it_can_be_said_afterwards(
    tmp_path, capsys
):
    robot, cams = track_data.make_robot(tmp_path / "d.zarr", 1, calibrated=("left",)), tmp_path / "cams.yaml"
    train = ["train", *TRAIN, "--data", str(robot), "--out", str(tmp_path / "run"), "--steps", "2"]
    assert main(train) != 0
    said = capsys.readouterr().err.strip()
    assert "'right'" in said
    assert "data label --calibration" in said
    assert "\n" not in said
    write_calibrations(cams, {"right": track_data.CAMERAS["right"].to_json()})
    assert main(["data", "label", str(robot), "0", "--calibration", str(cams)]) == 0
    assert "labelled episode 0: cameras left, right" in capsys.readouterr().out
    assert main(train) == 0


def test_a_robot_without_tool_poses_is_refused(policy):
    spec = policy.spec.select(state=("tool_pos", "tool_quat"))
    with pytest.raises(ContractError, match="gripper"):
        MotionTrackPolicy(policy.tracks, spec, policy.told()["cameras"])
    assert MotionTrackConfig(vision=VisionConfig(crop=1.0)).goal is None

"""Motion tracks by every process and solver, by three cameras, and of several datasets: through `robopolicy train`."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robopolicy.cli.main import main
from robopolicy.cli.running import AS_SAVED
from robopolicy.cli.train_tracks import plan_tracks
from robopolicy.cli.training_data import DataChoice, load_windows, policy_spec
from robopolicy.errors import ContractError
from robopolicy.geometry.keypoints import EMBODIMENT
from robopolicy.policies.solvers import SOLVERS
from robopolicy.policies.track_net import TrackNet
from robopolicy.training.checkpoint import load_policy
from robopolicy.types import Observation
from robopolicy_data.reader import Dataset

sys.path.insert(0, str(Path(__file__).parent))
import track_data

TRAIN = shlex.split(
    "--policy motion-track --net.width 64 --net.depth 2 --vision.width 16 --vision.feature-dim 16 --horizon 8 "
    "--n-execute 4 --batch-size 16 --threads 1 --augmentation.shift 0.02 --augmentation.zoom 0.02"
)
THREE = {**track_data.CAMERAS, "behind": track_data.look((-0.1, -0.8, 0.5), size=(40, 40))}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tracks")
    return track_data.make_robot(folder / "robot.zarr", 4), track_data.make_hand(folder / "hand.zarr", 2)


def train(out, *words):
    assert main(["train", *TRAIN, *map(str, words), "--out", str(out)]) == 0
    return out


def observed(episode, t, views):
    states = {name: episode.state(name)[t] for name in track_data.SPEC.state}
    return Observation(t, states, {view: episode.images(view, [t])[0] for view in views})


@pytest.mark.parametrize("process", ["vp", "edm", "flow", "consistency"])
def test_every_solver_draws_what_every_process_learnt(process, data, tmp_path):
    robot, hand = data
    out = train(tmp_path / "run", "--data", robot, "--data", hand, "--process", process, "--steps", 40)
    seen = [observed(Dataset(robot)[0], 3, track_data.CAMERAS)]
    chunks = {}
    for solver in SOLVERS:
        policy = replace(AS_SAVED, solver=solver, steps=4).resolve(out).load()
        assert policy.config.process.kind == process
        if solver == "consistency" and process != "consistency":
            with pytest.raises(ContractError, match="learns no jumps"):
                policy.plan(seen, generator=np.random.default_rng(0))
            continue
        plan = policy.plan(seen, n=2, generator=np.random.default_rng(0))
        assert np.isfinite(plan.chunks).all()
        assert np.abs(plan.chunks[..., :3] - seen[0].state["tool_pos"]).max() < 0.6, "in the room"
        chunks[solver] = plan.chunks
    assert len({each.tobytes() for each in chunks.values()}) >= 4, "they are not the same under other names"


def test_three_cameras_of_two_sizes_teach_and_drive(tmp_path):
    robot = track_data.make_robot(tmp_path / "robot.zarr", 4, cameras=THREE)
    hand = track_data.make_hand(tmp_path / "hand.zarr", 4, cameras=THREE)
    policy = load_policy(train(tmp_path / "run", "--data", robot, hand, "--steps", 300))
    assert tuple(policy.cameras) == tuple(THREE)
    ways = []
    for episode in Dataset(robot):
        positions = episode.state("tool_pos")
        for t in (2, 8, 12):
            plan = policy.plan([observed(episode, t, THREE)], generator=np.random.default_rng(t))
            assert plan.aux["tracks"].shape == (3, 8, 5, 2)
            assert plan.aux["points"].shape == (3, 5, 2)
            way, right = plan.chunks[0, -1, :3] - positions[t], positions[t + 8] - positions[t]
            ways.append(way @ right / np.linalg.norm(way) / np.linalg.norm(right))
    assert np.mean(ways) > 0.5
    told = policy.told()["cameras"]
    with pytest.raises(ContractError, match="'behind' rides on the tool"):
        policy.calibrate({**told, "behind": {**told["behind"], "T_tool_cam": np.eye(4).tolist()}})


def test_both_embodiments_are_half_of_the_samples_however_many_datasets_there_are(data, tmp_path):
    robot, hand = data
    more, few = track_data.make_hand(tmp_path / "more.zarr", 6, seed=50), track_data.make_robot(tmp_path / "f.zarr", 1)
    plan = plan_tracks(DataChoice((robot, more, few, hand)), {}, {}, None, None)
    assert plan.data.choice.weights == pytest.approx((0.4, 0.375, 0.1, 0.125)), "by rows within an embodiment"
    windows = load_windows(plan.data, policy_spec(plan.data, 1, 8, 4), batch_size=400, seed=0, device="cpu")
    try:
        human = np.concatenate([windows.batch(k)["state"][EMBODIMENT][:, 0, 0] for k in range(5)])
    finally:
        windows.close()
    assert human.mean() == pytest.approx(0.5, abs=0.04)


def test_statistics_are_of_differences_of_both_embodiments(data, tmp_path):
    """Points are far apart in a picture and go little from step to step: the scale is that of the steps."""
    scales = {}
    for name, chosen in {"robot": data[:1], "hand": data[1:], "both": data}.items():
        plan = plan_tracks(DataChoice(tuple(chosen)), {}, {}, None, None)
        spec = policy_spec(plan.data, 1, 8, 4)
        windows = load_windows(plan.data, spec, batch_size=8, seed=0, device="cpu")
        try:
            net = TrackNet(spec, plan.config)
            net.fit_normaliser(windows.arrays)
            arrays = windows.arrays
            side = net.side.numpy()
            now = np.stack([arrays.state[f"keypoints_{view}"] for view in net.views], 1).reshape(-1, 2, 5, 2)
            ahead = arrays.action[:, :-1].reshape(-1, 2, 5, 2)
        finally:
            getattr(windows, "close", lambda: None)()
        steps = (ahead - now) * 2 / side[:, None]
        want = steps.reshape(-1, 10).std(0)
        np.testing.assert_allclose(net.action.scale[:10].numpy(), want, rtol=1e-3)
        assert (want < 0.3 * (now * 2 / side[:, None]).reshape(-1, 10).std(0)).all()
        scales[name] = torch.cat([net.action.center, net.action.scale])
    assert not torch.allclose(scales["both"], scales["robot"], rtol=1e-3)
    assert not torch.allclose(scales["both"], scales["hand"], rtol=1e-3)


def test_who_taught_it_is_said_and_what_a_robot_is_taken_to_have_where_there_is_none(data, tmp_path, capsys):
    robot, hand = data
    train(tmp_path / "both", "--data", robot, "--data", hand, "--steps", 1)
    said = capsys.readouterr()
    told = said.out + said.err
    assert "views left, right: 4 episodes of robots, 2 of hands, 50% of the samples of hands" in told
    assert "no robot is among them" not in told
    assert "outside of the pictures" not in told
    low = {
        view: replace(c, K=c.K + np.array([[0, 0, 0], [0, 0, 22], [0, 0, 0]])) for view, c in track_data.CAMERAS.items()
    }
    far = track_data.make_hand(tmp_path / "far.zarr", 2, cameras=low)
    out = train(tmp_path / "hands", "--data", far, "--steps", 1)
    said = capsys.readouterr()
    told = said.out + said.err
    assert "no robot is among them: the checkpoint takes one with tool_pos, tool_quat, gripper" in told
    assert "points outside of the pictures, learnt where they are: " in told
    assert load_policy(out).spec.state == track_data.SPEC.state


@pytest.mark.parametrize("wrong", ["inverted", "another"])
def test_a_robot_that_no_picture_shows_is_refused_however_many_hands_there_are(wrong, data, tmp_path, capsys):
    """A calibration that is the wrong way round puts few robots' points nowhere, and many hands' hide it."""
    pose = track_data.CAMERAS["right"].T_base_cam
    told = (
        np.linalg.inv(pose) if wrong == "inverted" else track_data.look((0.45, 1.0, 0.5), (0.45, 0.0, 1.1)).T_base_cam
    )
    robot = track_data.make_robot(tmp_path / "robot.zarr", 1, told_as={"right": {"T_base_cam": told.tolist()}})
    words = ["--data", str(robot), "--data", str(data[1]), "--out", str(tmp_path / "out"), "--steps", "1"]
    assert main(["train", *TRAIN, *words]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "of the robots' points are outside of the pictures of 'right'" in said or "behind the camera" in said
    assert not (tmp_path / "out").exists()


def test_cameras_that_were_moved_between_episodes_are_told(data, tmp_path, capsys):
    """Each episode's points are where its own calibration has them; a checkpoint can tell one place."""
    elsewhere = {**track_data.CAMERAS, "right": track_data.look((0.3, 1.0, 0.6))}
    later = track_data.make_robot(tmp_path / "later.zarr", 1, seed=9, cameras=elsewhere)
    out = train(tmp_path / "run", "--data", data[0], "--data", later, "--data", data[1], "--steps", 1)
    said = capsys.readouterr()
    assert "right: not always in one place; the checkpoint tells where the robot's first episode" in said.out + said.err
    assert load_policy(out).cameras["right"].is_like(track_data.CAMERAS["right"])
    train(tmp_path / "still", "--data", data[0], "--data", data[1], "--steps", 1)
    said = capsys.readouterr()
    assert "not always in one place" not in said.out + said.err

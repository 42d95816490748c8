"""Robots and hands seen as tracks: the same streams, from states or from what an import found."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robopolicy.errors import DatasetError, SpecMismatch, UnknownCamera
from robopolicy.geometry.keypoints import TWIN
from robopolicy.spec import ActionSpec, StateSpec
from robopolicy_data.loader import Loader
from robopolicy_data.reader import Dataset
from robopolicy_data.tracked import TrackedDataset
from robopolicy_data.writer import DatasetWriter

sys.path.insert(0, str(Path(__file__).parent))
import track_data

VIEWS = ("left", "right")


@pytest.fixture(scope="module")
def robot(tmp_path_factory):
    return Dataset(track_data.make_robot(tmp_path_factory.mktemp("robot") / "d.zarr", 2))


@pytest.fixture(scope="module")
def hand(tmp_path_factory):
    return Dataset(track_data.make_hand(tmp_path_factory.mktemp("hand") / "d.zarr", 3))


def test_a_robots_points_are_its_grippers_projected(robot):
    (episode, _) = TrackedDataset(robot, VIEWS, TWIN)
    position, opening, _ = track_data.motion(0)
    shown = TWIN.placed(position, np.tile(track_data.DOWN, (len(position), 1)), opening)
    for k, view in enumerate(VIEWS):
        want = track_data.CAMERAS[view].project(shown).reshape(-1, 10)
        assert np.abs(episode.state(f"keypoints_{view}") - want).max() < 1e-3
        ahead = np.concatenate([want[1:], want[-1:]])
        assert np.abs(episode.action()[:, 10 * k : 10 * k + 10] - ahead).max() < 1e-3, "where they go next"
    assert (episode.state("grasp")[:, 0] == (opening < 0.75)).all()
    assert (episode.state("embodiment") == 0).all()
    grasp = episode.action()[:, -1]
    led = np.concatenate([opening[1:], opening[-1:]]) < 0.5
    assert (grasp == led).all(), "the command that leads there"


def test_thinned_tracks_look_as_many_rows_ahead(robot):
    one, three = (next(iter(TrackedDataset(robot, VIEWS, TWIN, ahead))) for ahead in (1, 3))
    assert (three.action()[:-3, :10] == one.state("keypoints_left")[3:]).all()
    assert (three.action()[-3:, :10] == one.state("keypoints_left")[-1]).all()


def test_a_hand_and_a_robot_are_one_mixture(robot, hand):
    tracked = [TrackedDataset(each, VIEWS, TWIN) for each in (robot, hand)]
    assert tracked[0].spec == tracked[1].spec
    with Loader(tracked, n_obs=1, horizon=8, batch_size=200, seed=0, weights=(0.5, 0.5)) as loader:
        batch = loader.batch(0)
        human = batch["state"]["embodiment"][:, 0, 0]
        assert 0.35 < human.mean() < 0.65, "half and half, though there is more of the hand"
        assert batch["action"].shape == (200, 8, 21)
        assert batch["images"]["left"].shape == (200, 1, *track_data.SIZE, 3)
        near = batch["images"]["left"][human == 1][0, 0]
        assert (np.abs(near.astype(int) - [220, 160, 130]).sum(-1) < 60).any(), "the hand's own colour"


def test_a_camera_that_was_not_calibrated_is_named(robot, tmp_path):
    with DatasetWriter(tmp_path / "d.zarr", track_data.SPEC) as writer:
        source = next(iter(robot))
        episode = writer.begin(replace(source.meta, cameras={"left": source.meta.cameras["left"]}))
        for step in steps_of(source, 3):
            episode.add(step)
        episode.commit()
    tracked = TrackedDataset(Dataset(tmp_path / "d.zarr"), VIEWS, TWIN)
    with pytest.raises(DatasetError, match=r"episode 0: .*'right'"):
        tracked[0].state("keypoints_left")


def steps_of(episode, count):
    from robopolicy.types import Observation, Step

    states = {name: episode.state(name) for name in track_data.SPEC.state}
    for t in range(count):
        images = {view: episode.images(view, [t])[0] for view in VIEWS}
        stamp = int(episode.stamps_ns("step")[t])
        seen = Observation(stamp, {k: v[t] for k, v in states.items()}, images, dict.fromkeys(images, stamp))
        yield Step(seen, episode.action()[t], stamp + 1, "human")


def test_a_gripper_behind_a_camera_is_named(robot, tmp_path):
    source = next(iter(robot))
    turned = np.array(source.meta.cameras["left"]["T_base_cam"])
    turned[:3, :3] = turned[:3, :3] @ np.diag([-1.0, 1.0, -1.0])
    cameras = {**source.meta.cameras, "left": {**source.meta.cameras["left"], "T_base_cam": turned.tolist()}}
    with DatasetWriter(tmp_path / "d.zarr", track_data.SPEC) as writer:
        episode = writer.begin(replace(source.meta, cameras=cameras))
        for step in steps_of(source, 3):
            episode.add(step)
        episode.commit()
    with pytest.raises(DatasetError, match="episode 0: 15 of 15 points are behind the camera"):
        TrackedDataset(Dataset(tmp_path / "d.zarr"), VIEWS, TWIN)[0].state("keypoints_left")


def test_what_holds_no_tracks_is_refused(robot, hand, tmp_path):
    with DatasetWriter(tmp_path / "d.zarr", replace(track_data.SPEC, state={})):
        pass
    with pytest.raises(SpecMismatch, match="tool_pos, tool_quat, gripper"):
        TrackedDataset(Dataset(tmp_path / "d.zarr"), VIEWS, TWIN)
    with pytest.raises(UnknownCamera, match="wrist"):
        TrackedDataset(robot, ("left", "wrist"), TWIN)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("tool_pos", np.nan, "state tool_pos holds no number at step 5"),
        ("tool_quat", 0.0, "state tool_quat holds no rotation at step 5"),
        ("gripper", np.nan, "state gripper holds no number at step 5"),
        ("gripper", 80.0, "state gripper goes from 0 to 80; tracks want 0 closed to 1 open"),
    ],
)
def test_states_of_which_no_points_are_told_are_named(name, value, words, tmp_path):
    def told(state, t):
        return {**state, name: np.full_like(state[name], value)} if t == 5 else state

    tracked = TrackedDataset(Dataset(track_data.make_robot(tmp_path / "d.zarr", 1, told=told)), VIEWS, TWIN)
    with pytest.raises(DatasetError, match=f"episode 0: {words}"):
        tracked[0].state("keypoints_left")


def test_a_grasp_that_was_not_commanded_is_no_open_gripper(tmp_path):
    def lost(sent, t):
        return sent * np.float32(np.nan) if t == 7 else sent

    robot = Dataset(track_data.make_robot(tmp_path / "d.zarr", 1, sent_as=lost))
    with pytest.raises(DatasetError, match="episode 0: action gripper holds no number at step 7"):
        TrackedDataset(robot, VIEWS, TWIN)[0].action()
    joints = ActionSpec("joint", tuple("abcdefg"), ("rad",))
    spec = replace(track_data.SPEC, action=joints)
    made = track_data.make_robot(tmp_path / "j.zarr", 1, spec=spec, sent_as=lambda sent, t: sent[:7])
    with pytest.raises(DatasetError, match=r"its actions are joint, the last one g; tracks want .* gripper last"):
        TrackedDataset(Dataset(made), VIEWS, TWIN)[0].action()
    spec = replace(track_data.SPEC, action=ActionSpec("joint", (*"abcdef", "gripper"), (*("rad",) * 6, "1")))
    made = track_data.make_robot(tmp_path / "g.zarr", 1, spec=spec, sent_as=lambda sent, t: sent[3:])
    assert TrackedDataset(Dataset(made), VIEWS, TWIN)[0].action()[0, -1] == 0


@pytest.mark.parametrize(
    ("unit", "scale", "words"),
    [
        ("m", (0.08, 0.0), "action gripper is in m; tracks want 0 closed to 1 open"),
        ("1", (-2.0, 1.0), "action gripper goes from -1 to 1; tracks want 0 closed to 1 open"),
    ],
)
def test_a_gripper_commanded_otherwise_would_teach_the_opposite(unit, scale, words, tmp_path):
    """Of 1 for closed, a common way, every grasp would be the other one; of metres, all would be closed."""
    names, units = track_data.SPEC.action.names, track_data.SPEC.action.units
    spec = replace(track_data.SPEC, action=ActionSpec("tool_pose", (*names[:-1], "gripper"), (*units[:-1], unit)))

    def sent(values, t):
        return np.append(values[:-1], scale[0] * values[-1] + scale[1]).astype(np.float32)

    made = track_data.make_robot(tmp_path / "d.zarr", 1, spec=spec, sent_as=sent)
    with pytest.raises(DatasetError, match=f"episode 0: {words}"):
        TrackedDataset(Dataset(made), VIEWS, TWIN)[0].action()


@pytest.mark.parametrize(
    ("gripper", "words"),
    [
        (StateSpec(1, ("m",)), "the gripper in m; tracks want .* 0 closed to 1 open"),
        (StateSpec(2, ("open",)), r"gripper \(2\), .*; tracks want .*gripper \(1\)"),
    ],
)
def test_a_gripper_told_otherwise_is_refused_before_anything_is_read(gripper, words, tmp_path):
    spec = replace(track_data.SPEC, state={**track_data.SPEC.state, "gripper": gripper})

    def told(state, t):
        return {**state, "gripper": np.repeat(state["gripper"], gripper.dim)}

    robot = Dataset(track_data.make_robot(tmp_path / "d.zarr", 1, spec=spec, told=told))
    with pytest.raises(SpecMismatch, match=words):
        TrackedDataset(robot, VIEWS, TWIN)


def test_a_hand_whose_landmarks_were_not_imported_is_no_robot(robot, tmp_path):
    source = next(iter(robot))
    with DatasetWriter(tmp_path / "d.zarr", track_data.SPEC) as writer:
        episode = writer.begin(replace(source.meta, embodiment="human"))
        for step in steps_of(source, 3):
            episode.add(step)
        episode.commit()
    with pytest.raises(SpecMismatch, match=r"is of a hand and holds no keypoints_left, .*import landmarks"):
        TrackedDataset(Dataset(tmp_path / "d.zarr"), VIEWS, TWIN)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"T_tool_cam": np.eye(4).tolist()}, "camera 'left' rides on the tool"),
        (
            {"size": [480, 640]},
            r"camera 'left' was calibrated for \(480, 640\) px \(H, W\), its pictures are \(48, 64\)",
        ),
        (
            {"size": None, "K": [[640, 0, 319.5], [0, 640, 239.5], [0, 0, 1]]},
            r"camera 'left': K has its principal point at \(319.5, 239.5\), outside pictures of 64 x 48 px",
        ),
    ],
)
def test_a_camera_of_the_tool_or_of_other_pictures_is_no_view(change, words, robot, tmp_path):
    """The pose in the base frame of a camera on the tool is that of the moment when the episode began."""
    source = next(iter(robot))
    other = {**source.meta.cameras["left"], **change}
    with DatasetWriter(tmp_path / "d.zarr", track_data.SPEC) as writer:
        episode = writer.begin(replace(source.meta, cameras={**source.meta.cameras, "left": other}))
        for step in steps_of(source, 3):
            episode.add(step)
        episode.commit()
    with pytest.raises(DatasetError, match=f"episode 0: {words}"):
        TrackedDataset(Dataset(tmp_path / "d.zarr"), VIEWS, TWIN)[0].state("keypoints_left")


@pytest.mark.parametrize("ahead", [1, 3])
def test_a_hands_grasp_is_that_of_where_its_points_go(hand, ahead):
    """Of the step itself, it would be held one step late, and never be closed before it is."""
    for episode in TrackedDataset(hand, VIEWS, TWIN, ahead):
        held = episode.state("grasp")[:, 0]
        assert 0 < held.sum() < len(held)
        np.testing.assert_array_equal(episode.action()[:, -1], np.append(held[ahead:], [held[-1]] * ahead))

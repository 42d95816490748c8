"""A recording of a hand's landmarks made into a dataset of hands: points, grasp, what it did next, what is refused."""

import numpy as np
import pytest

from robopolicy.cli.main import main
from robopolicy.clock import SimClock
from robopolicy.errors import BehindCamera, ContractError, DatasetError, NoGLBackend
from robopolicy.geometry.cameras import cameras_of
from robopolicy.geometry.keypoints import hand_keypoints
from robopolicy.spec import TOOL_POSE, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import EpisodeMeta
from robopolicy_data.check import check
from robopolicy_data.importers.columns import Columns, nominal_ns, write_columns
from robopolicy_data.importers.landmarks import import_landmarks
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter
from sim_envs.worlds import make_world

VIEWS = ("front", "side")
SIZE = (48, 64)
K = [[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]]
LOOKS_DOWN = [[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 1.0], [0, 0, 0, 1]]  # from 1 m above the base
CALIBRATED = {"front": {"K": K, "T_base_cam": LOOKS_DOWN, "size": list(SIZE)}}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Two drawers opened by a hand, the left one both times."""
    world = make_world("hand:drawer", SimClock(), size=SIZE)
    try:
        world.read()
    except NoGLBackend as error:
        pytest.skip(str(error))
    world.close()
    path = tmp_path_factory.mktemp("hand") / "hand.zarr"
    words = "record --robot hand:drawer --episodes 2 --cameras front side --camera-size 48x64 --mode left --data"
    assert main([*words.split(), str(path)]) == 0
    return path


def known_landmarks(path, *, points=None, opening=None, cameras=CALIBRATED, hand="left", state="landmarks"):
    """A dataset of three steps with landmarks of one's own, 0.5 m under a camera that looks down."""
    rng = np.random.default_rng(0)
    points = rng.uniform([-0.1, -0.1, 0.4], [0.1, 0.1, 0.6], (3, 21, 3)) if points is None else points
    opening = [[1.0], [0.95], [0.5]] if opening is None else opening
    spec = PolicySpec(
        {"front": CameraSpec(*SIZE)}, {state: StateSpec(63, ("m",)), "gripper": StateSpec(1, ("open",))},
        TOOL_POSE, 10.0,
    )  # fmt: skip
    pictures = rng.integers(0, 255, (3, *SIZE, 3), np.uint8)
    columns = Columns(
        np.zeros((3, 10), np.float32),
        {state: points.reshape(3, 63).astype(np.float32), "gripper": np.array(opening, np.float32)},
        {"front": lambda first, stop: pictures[first:stop]},
        nominal_ns(3, 10.0),
    )
    with DatasetWriter(path, spec, lossless=True) as writer:
        write_columns(
            writer, EpisodeMeta("wave", "somebody", cameras=cameras, extra={"hand": {"handedness": hand}}), columns
        )
    return points


def test_a_recording_becomes_a_dataset_of_hands(recorded, tmp_path):
    path = tmp_path / "human.zarr"
    assert main(["data", "import", "landmarks", str(recorded), str(path)]) == 0
    assert [str(problem) for problem in check(path)] == []
    source, made = Dataset(recorded), Dataset(path)
    assert made.spec.action.kind == "tracks"
    assert set(made.spec.state) == {"keypoints_front", "keypoints_side", "grasp"}
    for before, after in zip(source, made, strict=True):
        assert (after.meta.embodiment, after.meta.success, after.meta.task) == ("human", True, "open a drawer")
        assert after.meta.cameras == before.meta.cameras
        np.testing.assert_array_equal(after.stamps_ns("step"), before.stamps_ns("step"))
        points = hand_keypoints(before.state("landmarks").reshape(-1, 21, 3), "right")
        for name, camera in cameras_of(after.meta.cameras, VIEWS).items():
            seen = after.state(f"keypoints_{name}").reshape(-1, 5, 2)
            np.testing.assert_allclose(seen, camera.project(points), atol=1e-4)
            assert camera.inside(seen).all()
            off = after.images(name).astype(int) - before.images(name)
            assert np.abs(off).mean() < 4  # encoded twice
        grasp = after.state("grasp")[:, 0]
        assert (np.diff(grasp) >= 0).all()  # open, then closed for good
        assert grasp[0] == 0
        assert grasp[-1] == 1
        np.testing.assert_array_equal(after.action()[:-1, -1], grasp[1:])


def test_points_grasp_and_next_step_of_known_landmarks(tmp_path):
    points = known_landmarks(tmp_path / "in")
    assert import_landmarks(tmp_path / "in", tmp_path / "out") == 1
    (episode,) = Dataset(tmp_path / "out")
    roles = points[:, [5, 6, 8, 2, 4]]  # a left hand's
    depth = 1.0 - roles[..., 2]
    by_hand = np.stack([31.5 + 60 * roles[..., 0] / depth, 23.5 - 60 * roles[..., 1] / depth], axis=-1)
    np.testing.assert_allclose(episode.state("keypoints_front").reshape(3, 5, 2), by_hand, atol=1e-3)
    assert episode.state("grasp").ravel().tolist() == [0, 0, 1]
    following = np.concatenate([by_hand[[1, 2, 2]].reshape(3, 10), [[0], [1], [1]]], axis=1)
    np.testing.assert_allclose(episode.action(), following, atol=1e-3)
    import_landmarks(tmp_path / "in", tmp_path / "sooner", closed_below=0.97, lossless=True)
    (sooner,) = Dataset(tmp_path / "sooner")
    assert sooner.state("grasp").ravel().tolist() == [0, 1, 1]
    np.testing.assert_array_equal(sooner.images("front"), Dataset(tmp_path / "in")[0].images("front"))


def test_closed_below_is_a_share_of_the_opening(tmp_path, capsys):
    known_landmarks(tmp_path / "in")
    words = ["data", "import", "landmarks", str(tmp_path / "in"), str(tmp_path / "out"), "--closed-below"]
    for wrong in ("5", "1.01", "0", "nan"):
        with pytest.raises(SystemExit):
            main([*words, wrong])
        assert f"--closed-below: {wrong} is out of range; want" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*words, "1"]) == 0


def test_what_cannot_be_projected_is_refused_by_name(tmp_path):
    high = np.tile([0.0, 0, 1.2], (3, 21, 1))  # above the camera
    small = {"front": {**CALIBRATED["front"], "size": [24, 32]}}
    cases = {
        "high": ({"points": high}, BehindCamera, "episode 0: 15 of 15 points are behind"),
        "never": ({"cameras": {"front": {}}}, ContractError, "'front' is not calibrated"),
        "small": (
            {"cameras": small},
            ContractError,
            r"calibrated for \(24, 32\) px \(H, W\), its pictures are \(48, 64\)",
        ),
        "whose": ({"hand": None}, DatasetError, "extra.hand.handedness is None; want left or right"),
        "other": ({"state": "joints"}, DatasetError, "states joints, gripper .* want landmarks"),
    }
    for name, (wrong, error, says) in cases.items():
        known_landmarks(tmp_path / name, **wrong)
        with pytest.raises(error, match=says):
            import_landmarks(tmp_path / name, tmp_path / f"{name}-out")

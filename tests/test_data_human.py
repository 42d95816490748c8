"""Episodes of a hand: what a dataset of them holds, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from robopolicy.errors import ContractError, SpecMismatch
from robopolicy.geometry.cameras import Camera
from robopolicy.geometry.keypoints import ROLES
from robopolicy.types import EpisodeMeta
from robopolicy_data.check import check
from robopolicy_data.human import HumanEpisode, human_spec, write_human
from robopolicy_data.reader import Dataset

SIZES = {"left": (24, 32), "right": (20, 28)}
META = EpisodeMeta("put it there", "hand", seed=3, extra={"why": "test"})


def hand(steps=6, seed=0, rate_hz=10.0):
    rng = np.random.default_rng(seed)
    cameras = {
        view: Camera([[40, 0, w / 2], [0, 40, h / 2], [0, 0, 1]], np.eye(4), [0.1, 0, 0, 0], (h, w))
        for view, (h, w) in SIZES.items()
    }
    return HumanEpisode(
        {view: rng.integers(0, 256, (steps, *size, 3), np.uint8) for view, size in SIZES.items()},
        {view: rng.normal(10, 30, (steps, 5, 2)).astype(np.float32) for view in SIZES},
        np.arange(steps) % 2,
        cameras,
        rate_hz,
    )


def test_what_is_written_is_what_is_read(tmp_path):
    episode = hand()
    assert write_human(tmp_path / "h.zarr", episode, META, lossless=True) == 0
    assert write_human(tmp_path / "h.zarr", hand(seed=1), META, lossless=True) == 1
    data = Dataset(tmp_path / "h.zarr")
    assert data.spec == human_spec(SIZES, 10.0)
    read = data[0]
    for view in SIZES:
        points = read.state(f"keypoints_{view}").reshape(-1, 5, 2)
        np.testing.assert_array_equal(points, episode.keypoints[view])
        np.testing.assert_array_equal(read.images(view), episode.pictures[view])
        kept = Camera.from_json(read.meta.cameras[view], view)
        np.testing.assert_array_equal(kept.K, episode.cameras[view].K)
        np.testing.assert_array_equal(kept.distortion, episode.cameras[view].distortion)
        assert kept.size == SIZES[view]
    assert read.state("grasp")[:, 0].tolist() == [0, 1, 0, 1, 0, 1]
    assert (read.meta.embodiment, read.meta.task, read.meta.seed) == ("human", META.task, 3)
    assert read.meta.extra == {"why": "test"}
    assert np.diff(read.stamps_ns("step")).tolist() == [100_000_000] * 5
    assert not check(tmp_path / "h.zarr")


def test_the_action_is_what_the_hand_does_next(tmp_path):
    episode = hand()
    write_human(tmp_path / "h.zarr", episode, META)
    data = Dataset(tmp_path / "h.zarr")
    action, names = data[0].action(), data.spec.action.names
    column = names.index("right.second_tip.y")
    following = [1, 2, 3, 4, 5, 5]  # the last repeats its own
    wanted = episode.keypoints["right"][following, ROLES.index("second_tip"), 1]
    np.testing.assert_array_equal(action[:, column], wanted)
    assert action[:, names.index("grasp")].tolist() == [1, 0, 1, 0, 1, 1]
    assert data.spec.action.kind == "tracks"
    assert data.spec.action.units == ("px",) * 20 + ("1",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"grasp": np.zeros(5)}, r"keypoints of view 'left' are \(6, 5, 2\); want finite \(5, 5, 2\)"),
        ({"grasp": np.full(6, 0.5)}, "grasp wants a 0 or a 1"),
        ({"keypoints": {"left": np.full((6, 5, 2), np.nan), "right": np.zeros((6, 5, 2))}}, "view 'left'.*finite"),
        ({"pictures": {"left": np.zeros((6, 24, 32, 3), np.uint8)}}, "left / left right / left right; want the same"),
        ({"stamps_ns": np.arange(3)}, "3 stamps for 6 steps"),
    ],
)
def test_what_does_not_fit_is_named(change, words):
    with pytest.raises(ContractError, match=words):
        replace(hand(), **change)


def test_a_camera_of_another_or_no_size_is_named():
    episode = hand()
    for size, words in (
        (None, "size of camera 'right' is not known"),
        ((21, 28), r"'right' are .*want \(6, 21, 28, 3\)"),
    ):
        cameras = {**episode.cameras, "right": replace(episode.cameras["right"], size=size)}
        with pytest.raises(ContractError, match=words):
            replace(episode, cameras=cameras)


def test_another_rate_does_not_go_into_the_same_dataset(tmp_path):
    write_human(tmp_path / "h.zarr", hand(), META)
    with pytest.raises(SpecMismatch, match=r"10 Hz.*20 Hz"):
        write_human(tmp_path / "h.zarr", hand(rate_hz=20.0), META)

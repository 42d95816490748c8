"""What is believed of tracks at most: how long a gap, how much noise, and how noise is told from what was fitted."""

import sys
from pathlib import Path

import numpy as np
import pytest

from robopolicy.errors import ContractError, TracksLost
from robopolicy.geometry import motion as motions
from robopolicy.geometry.keypoints import TWIN
from robopolicy.geometry.motion import Lifting, tracks_to_poses

sys.path.insert(0, str(Path(__file__).parent))
from watched_tool import FOCAL, STEPS, reach, rig


def lifted(made, cameras, tracks, **settings):
    return tracks_to_poses(tracks, np.zeros(tracks.shape[:-2]), cameras, TWIN, made.start, **settings)


@pytest.fixture
def noises(monkeypatch):
    """What `tracks_to_poses` took for the noise of each plan's pixels, px, call by call."""
    told, noise_of = [], motions._noise

    def noise(*args):
        told.append(noise_of(*args).reshape(-1, STEPS)[:, 0])
        return noise_of(*args)

    monkeypatch.setattr(motions, "_noise", noise)
    return told


@pytest.mark.parametrize(("lost", "told"), [(2, STEPS), (3, 6)])
def test_two_lost_steps_are_bridged_and_three_are_not(lost, told):
    made, cameras = reach(np.random.default_rng(30), opening=1.0), rig()
    tracks = made.tracks(cameras)[:, 1:]
    tracks[0, 6 : 6 + lost] = np.nan
    found = lifted(made, cameras, tracks)
    assert found.told == told
    assert np.isfinite(found.position[6 : 6 + lost]).all() == (lost == 2)
    assert np.isfinite(found.position[6 + lost :]).all(), "after the gap there are poses again"


def test_points_on_which_the_views_contradicted_each_other_do_not_count_though_the_tracks_no_longer_show_it():
    made, cameras = reach(np.random.default_rng(33), opening=1.0), rig()
    tracks, gate = made.tracks(cameras)[:, 1:], 0.03 * FOCAL
    as_told = lifted(made, cameras, tracks)
    apart = np.full((STEPS, 5), 0.99 * gate)
    near = lifted(made, cameras, tracks, apart=apart)
    np.testing.assert_array_equal(near.position, as_told.position)
    np.testing.assert_allclose(near.residual_px, 0.99 * gate)
    apart[8:, :4] = 1.01 * gate, 1.01 * gate, np.inf, np.nan  # one point that is left tells no pose
    lost = lifted(made, cameras, tracks, apart=apart)
    assert lost.told == 8
    assert (lost.why[8:] == motions.DISAGREE).all()
    with pytest.raises(TracksLost, match="from step 9 on: the views do not agree on where the points are"):
        lost.require(9)
    apart[8:] = 0.0
    apart[8:, 2] = 1.01 * gate
    assert lifted(made, cameras, tracks, apart=apart).told == STEPS, "four points are enough"
    with pytest.raises(ContractError, match=r"apart is \(5,\); want \(16, 5\)"):
        lifted(made, cameras, tracks, apart=apart[0])


@pytest.mark.parametrize("px", [0.5, 2.0])
def test_the_noise_of_tracks_is_told_from_what_the_fit_leaves_over(px, noises):
    """Of twenty numbers a step, seven were fitted: without them noise would seem a fifth less than it is."""
    rng, cameras = np.random.default_rng(31), rig(60)
    for _ in range(30):
        made = reach(rng)
        tracks = made.tracks(cameras)[:, 1:]
        lifted(made, cameras, tracks + px * rng.normal(size=tracks.shape))
    assert np.sqrt(np.mean(np.square(noises))) == pytest.approx(px, rel=0.1)


def test_more_than_a_fiftieth_of_a_radian_is_no_noise_and_exact_tracks_have_some(noises):
    """Under the usual gate no misfit counts for so much: it is for who opens the gates."""
    made, cameras = reach(np.random.default_rng(32), opening=1.0), rig()
    points = TWIN.placed(made.position, made.quat, made.opening)[1:]
    middle = points.mean(1, keepdims=True)
    swollen = np.stack([camera.project(middle + 2 * (points - middle)) for camera in cameras])
    assert lifted(made, cameras, swollen, lifting=Lifting(gate_rad=0.2, miss_m=1.0)).told == STEPS
    lifted(made, cameras, made.tracks(cameras)[:, 1:])
    too_much, too_little = np.ravel(noises)
    assert too_much == pytest.approx(0.02 * FOCAL)
    assert too_little == pytest.approx(2e-4 * FOCAL)

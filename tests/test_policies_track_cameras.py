"""Cameras of a motion-track policy that are not as they should be: what it makes of them, and what it refuses."""

import sys
from pathlib import Path

import numpy as np
import pytest

from robopolicy.errors import BehindCamera, ContractError
from robopolicy.geometry.cameras import shown_by
from robopolicy.geometry.keypoints import TOOL_STATES
from robopolicy.geometry.se3 import exp
from robopolicy.policies.motion_track import MotionTrackPolicy
from robopolicy.policies.track_net import TrackNet

sys.path.insert(0, str(Path(__file__).parent))
import track_data
from test_policies_tracks import SMALL, make_spec

EYES = {"left": (1.1, -0.25, 0.6), "right": (1.1, 0.25, 0.6)}


def entries(apart_deg):
    """Of two cameras side by side, their axes so far apart."""
    made = {}
    for view, eye, sign in zip(EYES, EYES.values(), (1, -1), strict=True):
        camera = track_data.look(eye, target=np.array(eye) - (0.8, 0, 0.6))
        turn = exp(np.array([0, 0, 0, 0, sign * np.radians(apart_deg) / 2, 0]))
        made[view] = {**camera.to_json(), "T_base_cam": (camera.T_base_cam @ turn).tolist()}
    return made


def policy(cameras):
    return MotionTrackPolicy(
        TrackNet(make_spec(("left", "right"), size=track_data.SIZE), SMALL), track_data.SPEC, cameras
    )


def shown(made):
    """{view: (5, 2)}: where the gripper would be seen if it were where it is likely."""
    position, quat, opening = (made.likely[name] for name in TOOL_STATES)
    return shown_by(made.cameras, made.config.gripper.placed(position, quat, opening[0]))


@pytest.mark.parametrize("apart_deg", [-150, -60, -2, 0, 0.5, 2, 60, 150])
def test_where_the_gripper_is_likely_is_in_front_of_all_cameras(apart_deg):
    assert all(np.isfinite(pixels).all() for pixels in shown(policy(entries(apart_deg))).values())


def test_where_cameras_meet_it_is_there():
    made = policy({view: camera.to_json() for view, camera in track_data.CAMERAS.items()})
    np.testing.assert_allclose(made.likely["tool_pos"], (0.45, 0.0, 0.1), atol=1e-6)  # which both look at


def test_cameras_that_look_away_from_each_other_have_no_such_place_and_that_is_said():
    with pytest.raises(BehindCamera, match="points are behind the camera"):
        shown(policy(entries(-180)))


def test_intrinsics_of_other_pictures_are_refused_though_their_size_is_not_told():
    told = entries(-60)
    made = policy(told)
    del told["right"]["size"]
    made.calibrate(told)
    told["right"]["K"] = [[600, 0, 320], [0, 600, 240], [0, 0, 1]]
    with pytest.raises(
        ContractError, match=r"camera 'right': K has its principal point at \(320, 240\), outside .* 64 x 48"
    ):
        made.calibrate(told)

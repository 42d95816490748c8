"""Keypoints: five roles, whichever hand or gripper plays them."""

import numpy as np
import pytest

from robopolicy.errors import ContractError, UnknownName
from robopolicy.geometry.keypoints import ROLES, TWIN, GripperKeypoints, grasped, hand_keypoints
from robopolicy.rotations import quat_to_matrix


def test_a_mirrored_hand_has_its_fingers_in_the_same_places():
    rng = np.random.default_rng(0)
    right = rng.normal(size=(7, 21, 2))
    five = hand_keypoints(right, "right")
    assert (five == right[:, [5, 2, 4, 6, 8]]).all()
    left = hand_keypoints(right, "left")
    assert (left[:, [0, 3, 4, 1, 2]] == five).all(), "thumb and index swap, the base stays"
    with pytest.raises(UnknownName, match="both"):
        hand_keypoints(right, "both")
    with pytest.raises(ContractError, match="21"):
        hand_keypoints(right[:, :20], "left")


def test_the_tips_are_as_far_apart_as_the_gripper_is_open():
    for opening in (0.0, 0.3, 1.0):
        points = TWIN.at(opening)
        gap = np.linalg.norm(points[ROLES.index("first_tip")] - points[ROLES.index("second_tip")])
        assert gap == pytest.approx(0.016 + 0.08 * opening)
        assert TWIN.opening(points) == pytest.approx(opening)
    assert (TWIN.at(np.array([2.0, -1.0])) == TWIN.at(np.array([1.0, 0.0]))).all()


def test_fingers_around_a_thing_grasp_though_they_are_not_shut():
    """A cube of 4 cm keeps a gripper of 8 cm half open, one of 5.6 cm more than that."""
    openings = np.array([0.0, 0.5, 0.7, 0.8, 1.0])
    np.testing.assert_array_equal(grasped(openings), np.array([1, 1, 1, 0, 0], np.float32))


def test_placed_in_the_base_frame():
    rng = np.random.default_rng(1)
    position, quat = rng.normal(size=(4, 3)), rng.normal(size=(4, 4))
    quat /= np.linalg.norm(quat, axis=-1, keepdims=True)
    opening = rng.uniform(size=4)
    placed = TWIN.placed(position, quat, opening)
    for k in range(4):
        turn = quat_to_matrix(quat[k])
        expected = [turn @ point + position[k] for point in TWIN.at(opening[k])]
        assert np.allclose(placed[k], expected)


def test_points_by_which_no_pose_can_be_told_are_refused():
    line = np.linspace(0, 1, 5)[:, None] * [0.0, 0.0, 1.0]
    with pytest.raises(ContractError, match="opened lie on a line"):
        GripperKeypoints(line, TWIN.closed)
    with pytest.raises(ContractError, match=r"want finite \(5, 3\)"):
        GripperKeypoints(TWIN.opened[:4], TWIN.closed)
    again = GripperKeypoints.from_json(TWIN.to_json())
    assert (again.opened == TWIN.opened).all()
    assert (again.closed == TWIN.closed).all()

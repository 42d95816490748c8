"""A hand followed through pictures: which hand, gaps, the steps of all views, when it grasps, what is refused."""

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from drawn_hand import landmarks, looking, reach

from robopolicy.errors import ConfigError, ContractError, DatasetError, MissingExtra
from robopolicy.geometry.keypoints import hand_keypoints
from robopolicy_data import hands_mediapipe
from robopolicy_data.hands import Hand, hand_size
from robopolicy_data.hands_episode import HandRules, understand
from robopolicy_data.hands_grasp import Contact, GraspRule, aperture, contact_of, grasp
from robopolicy_data.hands_tracks import common_span, fill_gaps, follow, require_detected, runs, vote

CAMERAS = {"left": looking(np.zeros(3), -0.5, 0.45), "right": looking(np.zeros(3), 0.5, 0.45, height=0.3)}


def hand(points, side="right", score=0.9):
    return Hand(points, side, score)


def pictures(points, side="right"):
    """What a perfect detector finds in (T, 21, 2)."""
    return [[hand(p, side)] for p in points]


def seen(steps=30, left=False):
    """{view: (T, 21, 2)} of a hand that reaches."""
    hands = reach(steps, left=left)
    return {view: camera.project(hands) for view, camera in CAMERAS.items()}


def line(steps):
    """(T, 21, 2) of a hand that moves 2 px a step to the right."""
    flat = landmarks()[:, :2] * [600, -600] + [100, 150]
    return flat + np.arange(steps)[:, None, None] * [2.0, 0.0]


def test_the_majority_of_all_views_says_which_hand_it_is():
    points = line(10)
    found = {"a": pictures(points, "left"), "b": pictures(points[:4], "right")}
    assert (vote(found).left, vote(found).right, vote(found).chosen) == (10, 4, "left")
    assert vote(found, "right").chosen == "right"
    unclear = {"a": pictures(points[:5], "left"), "b": pictures(points[:4], "right")}
    with pytest.raises(DatasetError, match=r"5 pictures say left, 4 right.*--hand"):
        vote(unclear)
    with pytest.raises(DatasetError, match=r"no hand in any picture \(a 3 of them\)"):
        vote({"a": [[], [], []]})


def test_the_other_hand_is_not_followed_and_a_wrong_label_is_forgiven_where_the_hand_was():
    points = line(7)
    away = points + np.array([0.0, 400.0])
    found = [
        [hand(away[0], "left", 0.99), hand(points[0])],
        [hand(points[1], "left")],  # the same hand, labelled wrongly
        [hand(away[2], "left")],  # the other one alone
        [],
        [hand(away[4], "right", 0.99), hand(points[4], "right", 0.6)],  # both labelled alike: the nearer one
        [hand(points[5])],
        [hand(points[6], "right"), hand(points[5] + np.array([1.0, 0.0]), "left")],  # both near: the label decides
    ]
    track = follow(found, "right")
    assert track.detected.tolist() == [True, True, False, False, True, True, True]
    np.testing.assert_array_equal(track.landmarks[track.detected], points[[0, 1, 4, 5, 6]])


def test_short_gaps_are_interpolated_and_longer_ones_are_not():
    points = line(20)
    found = pictures(points)
    for step in (0, 3, 4, *range(8, 12), 19):
        found[step] = []
    track = fill_gaps(follow(found, "right"), 3)
    assert np.flatnonzero(track.filled).tolist() == [3, 4]
    np.testing.assert_allclose(track.landmarks[3:5], points[3:5], atol=1e-9)
    assert not track.detected[3]
    assert not track.known[[0, 8, 11, 19]].any()
    assert fill_gaps(follow(found, "right"), 4).filled.sum() == 6
    assert not fill_gaps(follow(found, "right"), 0).filled.any()


def test_ends_without_a_hand_are_cut_off_in_all_views_together():
    views = {view: pictures(points) for view, points in seen(30).items()}
    views["left"][:4], views["right"][-3:] = [[]] * 4, [[]] * 3
    episode = understand(views, CAMERAS, 10.0, HandRules())
    assert (episode.start, episode.stop) == (4, 27)
    for view, points in seen(30).items():
        np.testing.assert_allclose(episode.keypoints[view], hand_keypoints(points[4:27], "right"), atol=1e-9)
    told = episode.to_json()["views"]
    assert told["left"] == {
        "pictures": 30, "detected": 26, "without_hand": 4, "overruled": 0, "beside": 0, "interpolated": 0, "trimmed": 7,
    }  # fmt: skip
    assert told["right"]["without_hand"] == 3


def test_a_long_gap_and_too_few_detections_are_refused_with_the_numbers():
    track = follow([[hand(p)] if k not in range(5, 12) else [] for k, p in enumerate(line(20))], "right")
    with pytest.raises(DatasetError, match=r"longer than 5 steps: view a for 7 steps at 0\.50 s"):
        common_span({"a": fill_gaps(track, 5)}, 10.0, 5)
    require_detected({"a": track}, 0.65)
    with pytest.raises(DatasetError, match=r"view a 13 of 20 \(65%\); want 70%"):
        require_detected({"a": track}, 0.7)
    nowhere = follow([[]] * 3, "right")
    with pytest.raises(DatasetError, match="0 steps at which all views have the hand"):
        common_span({"a": nowhere}, 10.0, 5)


def test_steps_at_which_one_view_has_found_something_else_are_interpolated():
    points = seen(30)
    views = {view: pictures(track) for view, track in points.items()}
    for step in (2, 3, 25):
        views["right"][step] = [hand(points["right"][step] + [5.0, 40.0])]
    episode = understand(views, CAMERAS, 10.0, HandRules())
    assert episode.odd == episode.to_json()["odd_steps"] == 3
    assert np.flatnonzero(episode.tracks["left"].filled).tolist() == [2, 3, 25]
    for view, track in points.items():
        np.testing.assert_allclose(episode.keypoints[view], hand_keypoints(track, "right"), atol=2.0)
    assert "3 steps at which they do not count as without a hand" in " ".join(episode.told(10.0))
    for step in range(10):
        views["right"][step] = [hand(points["right"][step] + [5.0, 40.0])]
    with pytest.raises(DatasetError, match=r"view right 19 of 30 \(63%\)"):
        understand(views, CAMERAS, 10.0, HandRules())


def test_a_step_is_odd_where_most_points_disagree_and_what_is_told_is_the_median_of_all():
    points = seen(30)
    points["right"][12:] += [0.0, 3.0]  # less than is allowed, at most of the steps
    points["right"][4, [6, 8, 3, 4]] += [0.0, 40.0]  # four of the five; the knuckle agrees
    episode = understand({view: pictures(track) for view, track in points.items()}, CAMERAS, 10.0, HandRules())
    assert 1.0 < episode.residual_px < 3.0
    assert episode.odd == 1
    assert np.flatnonzero(episode.tracks["left"].filled).tolist() == [4]


@pytest.mark.parametrize("left", [False, True])
def test_views_that_agree_are_taken_and_a_camera_that_moved_is_named(left):
    views = {view: pictures(points, "left" if left else "right") for view, points in seen(left=left).items()}
    episode = understand(views, CAMERAS, 10.0, HandRules())
    assert episode.residual_px < 1e-6
    assert episode.max_residual_px == pytest.approx(0.015 * 320)
    turned = looking(np.zeros(3), 0.5, 0.45, height=0.3)
    turned.T_base_cam[:3, :3] = turned.T_base_cam[:3, :3] @ cv2.Rodrigues(np.radians([4.0, 0, 0]))[0]
    with pytest.raises(DatasetError, match=r"left, right disagree by \d+\.\d px.*want 4\.8.*a camera moved"):
        understand(views, {**CAMERAS, "right": turned}, 10.0, HandRules())
    assert understand(views, {**CAMERAS, "right": turned}, 10.0, HandRules(max_residual_px=40.0)).residual_px > 4.8


def test_the_same_finger_plays_the_same_role_in_both_hands():
    right = understand({"left": pictures(seen()["left"])}, CAMERAS, 10.0, HandRules())
    points = seen()["left"]
    np.testing.assert_array_equal(right.keypoints["left"][:, 4], points[:, 8])
    left = understand({"left": pictures(points, "left")}, CAMERAS, 10.0, HandRules())
    np.testing.assert_array_equal(left.keypoints["left"][:, 4], points[:, 4])


def test_the_aperture_is_in_sizes_of_the_hand_whatever_its_scale():
    hands = np.stack([landmarks(pinch=p) for p in (0.0, 1.0)])
    apart = aperture(hands)
    assert apart[0] > 0.9
    assert apart[1] < 0.2
    np.testing.assert_allclose(aperture(hands * 7 + 3), apart)
    assert hand_size(hands[0]) == pytest.approx(0.094, abs=0.002)


def test_two_views_tell_the_aperture_in_space_which_one_view_foreshortens():
    hands = reach(30)
    episode = understand({view: pictures(points) for view, points in seen().items()}, CAMERAS, 10.0, HandRules())
    np.testing.assert_allclose(episode.aperture, aperture(hands), atol=1e-6)


def test_a_grasp_has_hysteresis_and_a_least_duration():
    rule = GraspRule(close=0.4, open=0.6, least_s=0.3)
    apart = np.array([1, 0.5, 0.39, 0.5, 0.59, 0.5, 0.61, 1, 1, 1, 0.3, 0.3, 1, 1, 1])
    assert grasp(apart, 10.0, rule).tolist() == [0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    flicker = np.array([1, 0.3, 0.3, 0.3, 0.9, 0.3, 0.3, 0.3, 1, 1, 1])
    assert grasp(flicker, 10.0, rule).tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0]
    with pytest.raises(ContractError, match=r"closes below an aperture of 0\.7"):
        GraspRule(close=0.7)


def test_with_a_mask_the_hand_closes_where_it_touches_and_is_not_wide_open():
    rule = GraspRule(least_s=0.1)
    apart = np.array([1.0, 0.3, 0.3, 0.5, 0.5, 0.5, 0.5, 0.9, 0.9])
    touch = np.array([1, 0, 0, 1, 1, 0, 0, 0, 1], bool)
    assert grasp(apart, 10.0, rule, Contact(touch, moving=False)).tolist() == [0, 0, 0, 1, 1, 1, 1, 0, 0]
    assert grasp(apart, 10.0, rule, Contact(touch, moving=True)).tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 0]


def test_contact_wants_thumb_and_a_finger_in_every_view_for_long_enough():
    rule = GraspRule(near_px=15, contact_steps=3)
    far = np.full((10, 21), 99.0)
    both = far.copy()
    both[1:5, [4, 12]] = 15.0
    both[6:8, [3, 8]] = 2.0  # too short
    thumb = far.copy()
    thumb[:, 4] = 0.0
    assert runs(contact_of({"a": both}, rule, moving=False).touching) == [(1, 5)]
    assert not contact_of({"a": thumb}, rule, moving=False).touching.any()
    assert not contact_of({"a": both, "b": thumb}, rule, moving=False).touching.any()


def test_what_is_no_hand_is_refused():
    with pytest.raises(ContractError, match=r"landmarks are \(20, 2\)"):
        Hand(np.zeros((20, 2)), "left", 1.0)


def test_what_the_detector_lacks_is_said_in_one_line(monkeypatch):
    def version(name):
        if name not in installed:
            raise hands_mediapipe.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(hands_mediapipe, "version", version)
    installed = {"protobuf": "4.25.9"}
    with pytest.raises(MissingExtra, match=r"mediapipe is not installed.*robopolicy\[human\]"):
        hands_mediapipe.MediapipeHands()
    installed = {"mediapipe": "0.10.21", "protobuf": "7.36.2"}
    with pytest.raises(ConfigError, match=r"does not run beside protobuf 7\.36\.2, it wants one below 5"):
        hands_mediapipe.MediapipeHands()


def folding(steps=30):
    """Cameras whose lens shows nothing in the pictures' corners, and {view: (T, 21, 2)} of a hand that reaches."""
    cameras = {view: replace(camera, distortion=(-0.4, 0, 0, 0)) for view, camera in CAMERAS.items()}
    return cameras, {view: camera.project(reach(steps)) for view, camera in cameras.items()}


def test_a_step_in_a_corner_that_the_lens_does_not_show_is_one_without_a_hand():
    cameras, points = folding()
    points["left"][0] += [3.0, 2.0] - points["left"][0].mean(0)  # the hand comes in there
    assert np.isnan(cameras["left"].rays(points["left"][0])).any(-1).mean() > 0.5
    seen = {view: pictures(p) for view, p in points.items()}
    made = understand(seen, cameras, 3.0, HandRules())  # at 3 Hz a hand can be that fast
    assert (made.odd, made.start, made.stop) == (1, 1, 30)
    assert made.residual_px < 1e-3


def test_two_points_of_five_that_the_lens_does_not_show_lose_no_step():
    cameras, points = folding()
    points["left"][7, [2, 4]] = 2.0  # two of the five, in the corner
    made = understand({view: pictures(p) for view, p in points.items()}, cameras, 10.0, HandRules())
    assert (made.odd, made.start, made.stop) == (0, 0, 30)


def test_a_lens_that_shows_the_hand_nowhere_is_what_is_wrong():
    cameras, points = folding()
    points["left"][:] = 2.0
    with pytest.raises(DatasetError, match="views left, right, no lens shows anything where the hand is"):
        understand({view: pictures(p) for view, p in points.items()}, cameras, 10.0, HandRules())

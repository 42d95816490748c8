"""Which hand of several in the pictures is followed: none out of reach, and what labels that are wrong do."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from drawn_hand import landmarks, looking, reach

from robopolicy.errors import DatasetError
from robopolicy_data.hands import Hand, hand_size
from robopolicy_data.hands_episode import HandRules, understand
from robopolicy_data.hands_tracks import follow

CAMERAS = {
    "a": looking(np.zeros(3), -0.5, 0.45),
    "b": looking(np.zeros(3), 0.5, 0.45, height=0.3),
    "c": looking(np.zeros(3), 0.0, 0.45),
}
HANDS = reach(40)
FLAT = landmarks()[:, :2] * [600, -600] + [100, 150]
SIZE = float(hand_size(FLAT))


def at(sizes, side="right", score=0.9):
    """A hand so many sizes to the right."""
    return Hand(FLAT + np.array([sizes * SIZE, 0.0]), side, score)


def places(track):
    """Where the track is, sizes to the right; NaN where nowhere."""
    return ((track.landmarks - FLAT)[:, 0, 0] / SIZE).round(6).tolist()


def told(found, hand=None, views=("a", "b")):
    return understand(found, {view: CAMERAS[view] for view in views}, 10.0, HandRules(hand=hand))


def test_a_hand_beside_the_hidden_one_is_not_taken_for_it():
    other = HANDS[0] + [0.06, 0.04, 0.0]  # 7 cm away, and of the same label

    def found(camera):
        both = [
            [Hand(camera.project(hand), "right", 0.95), Hand(camera.project(other), "right", 0.9)] for hand in HANDS
        ]
        return [hands[1:] if 15 <= step < 18 else hands for step, hands in enumerate(both)]

    episode = told({view: found(CAMERAS[view]) for view in "ab"})
    for view, track in episode.tracks.items():
        assert np.flatnonzero(~track.detected).tolist() == [15, 16, 17]
        off = np.linalg.norm(track.landmarks - CAMERAS[view].project(HANDS), axis=-1)
        assert off[track.detected].max() == 0
        assert off.max() < 8.0  # the pinch is not as linear as the gap; the other hand is 45 px away
    assert "37 of 40 pictures show the hand, 3 do not; 3 steps interpolated" in episode.told(10.0)[0]
    assert "37 pictures show another hand of the same label too" in episode.told(10.0)[0]


def test_a_hand_out_of_reach_is_none_and_after_a_long_time_it_is_found_anywhere():
    def found(gap):
        return [[at(0.02 * k)] if not 10 <= k < 10 + gap else [at(8.0)] if k < 14 else [] for k in range(30)]

    track = follow(found(4), "right")
    assert np.flatnonzero(~track.detected).tolist() == [10, 11, 12, 13]
    later = [[at(0.0)]] * 10 + [[]] * 6 + [[at(8.0)]] * 14
    assert places(follow(later, "right"))[9:17] == [0.0, *[pytest.approx(np.nan, nan_ok=True)] * 6, 8.0]
    assert np.flatnonzero(~follow(later, "right", most=6).detected).tolist() == list(range(16))  # it could not jump
    assert follow([[at(0.0)]] * 10 + [[]] * 5 + [[at(1.0)]] * 5, "right").detected[15:].all()
    rules = HandRules(max_gap=6, min_detected=0.4)
    bridged = understand({"a": later}, CAMERAS, 10.0, rules)
    assert (bridged.start, bridged.stop) == (16, 30)
    with pytest.raises(DatasetError, match=r"view a for 6 steps at 1\.00 s"):
        understand({"a": later}, CAMERAS, 10.0, HandRules(min_detected=0.4))


@pytest.mark.parametrize(
    ("rate_hz", "gap", "moved", "same"),
    [
        (10.0, 1, 1.4, True),  # 1.4 m/s
        (10.0, 1, 1.6, False),
        (30.0, 1, 0.6, False),
        (120.0, 1, 0.4, True),  # a detector's scatter
        (10.0, 2, 2.8, True),  # twice the time
        (10.0, 5, 3.1, False),  # however long
        (2.0, 1, 7.0, True),
    ],
)
def test_how_far_a_hand_goes_is_told_by_the_rate_and_the_gap_up_to_a_bound(rate_hz, gap, moved, same):
    found = [[at(0.0)]] * 10 + [[]] * (gap - 1) + [[at(moved)]] * 8
    assert follow(found, "right", rate_hz).detected[9 + gap :].all() == same
    assert follow(found, "right", rate_hz).detected[9 + gap :].any() == same


def test_a_wrong_label_beside_another_hand_of_the_right_one_makes_a_picture_without():
    found = [[at(0.0, "left"), at(8.0)] if 10 <= k < 14 else [at(0.0)] for k in range(30)]
    track = follow(found, "right")
    assert np.flatnonzero(~track.detected).tolist() == [10, 11, 12, 13]
    assert np.nanmax(places(track)) == 0
    alone = follow([[at(0.0, "left")] if 10 <= k < 14 else [at(0.0)] for k in range(30)], "right")
    assert alone.detected.all()
    assert np.flatnonzero(alone.overruled).tolist() == [10, 11, 12, 13]


def test_hands_that_cross_keep_their_labels_and_a_wrong_start_is_mended():
    way = np.linspace(-1.5, 1.5, 30)
    crossing = [[at(-x, "left", 0.99), at(x)] for x in way]
    track = follow(crossing, "right")
    assert track.detected.sum() >= 28
    np.testing.assert_allclose(np.array(places(track))[track.detected], way[track.detected], atol=1e-6)
    wrong = [[at(4.0, "right", 0.99), at(0.0, "right", 0.6)]] + [[at(4.0, "left", 0.99), at(0.0)]] * 20
    assert set(places(follow(wrong, "right"))) == {0.0}


def test_a_hand_found_twice_in_a_picture_is_one():
    found = [[at(0.0), at(0.02, "left")] if k % 3 else [at(0.0, "left" if k % 2 else "right")] for k in range(30)]
    assert set(places(follow(found, "right"))) == {0.0}
    assert not follow(found, "right").beside.any()


def seen(view, side, steps=40):
    return [[Hand(points, side, 0.95)] for points in CAMERAS[view].project(HANDS[:steps])]


def test_labels_that_are_wrong_throughout_a_view_are_overruled_by_the_option_and_by_the_other_views():
    two = {"a": seen("a", "right"), "b": seen("b", "left")}
    with pytest.raises(DatasetError, match=r"40 pictures say left, 40 right.*say which with --hand"):
        told(two)
    episode = told(two, "right")
    assert (episode.start, episode.stop) == (0, 40)
    assert "overruled" not in episode.told(10.0)[0]
    assert "40 of 40 pictures show the hand, 0 do not" in episode.told(10.0)[1]
    assert "40 labels of the other hand overruled" in episode.told(10.0)[1]
    assert [one["overruled"] for one in episode.to_json()["views"].values()] == [0, 40]
    two["b"][7].append(Hand(two["b"][7][0].landmarks_px + 150.0, "right", 0.9))  # what is no hand, once
    assert told(two, "right").tracks["b"].overruled.sum() == 39
    three = told({"a": seen("a", "right"), "b": seen("b", "right"), "c": seen("c", "left")}, views="abc")
    assert three.votes.chosen == "right"
    assert three.tracks["c"].overruled.all()
    single = told({"a": seen("a", "left")}, "right", views="a")
    assert single.tracks["a"].overruled.all()


def test_the_label_is_not_overruled_where_two_hands_are_in_the_pictures():
    two = {"a": seen("a", "right"), "b": seen("b", "left")}
    two["b"] = [[*hands, Hand(hands[0].landmarks_px + 150.0, "left", 0.9)] for hands in two["b"]]
    with pytest.raises(DatasetError, match=r"view b 0 of 40 \(0%\)"):
        told(two, "right")
    first = [[at(0.0, "left")]] * 10 + [[]] * 6 + [[at(6.0)]] * 30  # the other hand comes first, alone
    assert follow(first, "right").detected.sum() == 30

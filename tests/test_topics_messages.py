"""What is read out of a message, whoever carries it."""

from types import SimpleNamespace as Message

import numpy as np
import pytest

from robopolicy.errors import ContractError
from robopolicy.topics.config import ActionTopic, NumbersTopic
from robopolicy.topics.messages import decoded, numbers, picture


def values(message, topic):
    return numbers(message, topic, "here")[0].tolist()


def joint_state(*names, position=(), velocity=()):
    return Message(name=list(names), position=np.array(position), velocity=np.array(velocity), effort=np.zeros(0))


def trajectory(*points):
    return Message(joint_names=["b", "a"], points=[Message(positions=np.array(p), velocities=[]) for p in points])


def test_an_action_comes_in_its_own_order_where_the_message_names_joints():
    said = joint_state("b", "a", position=[2.0, 1.0])
    assert values(said, ActionTopic("/c", names=("a", "b"))) == [1.0, 2.0]
    assert values(said, ActionTopic("/c", names=("first", "second"))) == [2.0, 1.0]  # no joints: labels
    assert values(said, ActionTopic("/c", names=("q1",), joints=("a",))) == [1.0]
    assert values(Message(data=[2.0, 1.0]), ActionTopic("/c", names=("a", "b"))) == [2.0, 1.0]


def test_a_trajectory_of_one_point_is_a_set_point():
    vector, quats, units = numbers(trajectory([2.0, 1.0]), ActionTopic("/c", names=("a", "b")), "action")
    assert (vector.tolist(), quats, units) == ([1.0, 2.0], (), ("rad",))
    with pytest.raises(ContractError, match="action: /c holds 2 points; a set-point is one"):
        numbers(trajectory([2.0, 1.0], [2.0, 1.0]), ActionTopic("/c"), "action")


def test_a_pose_needs_no_field():
    p, q = Message(x=1.0, y=2.0, z=3.0), Message(x=0.5, y=-0.5, z=0.5, w=-0.1)
    vector, quats, _ = numbers(Message(pose=Message(position=p, orientation=q)), NumbersTopic("/p"), "here")
    assert (vector.tolist(), quats) == ([1.0, 2.0, 3.0, -0.1, 0.5, -0.5, 0.5], (3,))


def test_empty_velocities_and_missing_joints_are_told():
    said = joint_state("b", "a", position=[2.0, 1.0])
    with pytest.raises(ContractError, match="/q has 2 joints and 0 numbers"):
        values(said, NumbersTopic("/q", field="velocity", joints=("a", "b")))
    with pytest.raises(ContractError, match="here: /q has no joint 'c'; it has"):
        values(said, NumbersTopic("/q", joints=("a", "c")))


def image(pixels, encoding, *, padding=0, big=False):
    """(H, W) or (H, W, C) as ``sensor_msgs/Image``, its rows padded by so many bytes of 255."""
    height, width = pixels.shape[:2]
    rows = np.frombuffer(pixels.tobytes(), np.uint8).reshape(height, pixels[0].nbytes if height else 0)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    return Message(
        __msgtype__="sensor_msgs/msg/Image", height=height, width=width, encoding=encoding, step=rows.shape[1],
        is_bigendian=int(big), data=rows.reshape(-1),
    )  # fmt: skip


@pytest.mark.parametrize("padding", [0, 5])
def test_pictures_are_read_whatever_their_bytes_are(padding):
    rgb = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    alpha = np.concatenate([rgb, np.full((2, 3, 1), 200, np.uint8)], 2)
    grey, depth = rgb[..., 0], np.arange(6, dtype=np.uint16).reshape(2, 3) * 300
    for pixels, encoding, wanted in (
        (rgb, "rgb8", rgb), (rgb, "bgr8", rgb[..., ::-1]), (rgb, "8UC3", rgb[..., ::-1]), (alpha, "rgba8", rgb),
        (alpha, "bgra8", rgb[..., ::-1]), (grey, "mono8", np.stack([grey] * 3, 2)), (depth, "16UC1", depth),
    ):  # fmt: skip
        np.testing.assert_array_equal(picture(image(pixels, encoding, padding=padding), "here"), wanted)
    big = image(depth.astype(">u2"), "16UC1", padding=2 * padding, big=True)
    np.testing.assert_array_equal(picture(big, "here"), depth)


def test_a_picture_is_nobody_elses_array():
    for pixels, encoding in ((np.ones((2, 3), "<u2"), "16UC1"), (np.ones((2, 3, 3), np.uint8), "rgb8")):
        said = image(pixels, encoding)
        picture(said, "here")[:] = 0
        assert np.any(said.data)


def test_what_is_no_picture_is_told():
    short = image(np.zeros((2, 3, 3), np.uint8), "rgb8")
    short.data = short.data[:-1]
    with pytest.raises(ContractError, match="here: an image of 2 rows of 9 bytes, 9 used, holds 17 bytes"):
        picture(short, "here")
    with pytest.raises(ContractError, match="encoding '32FC1' is not read; want one of"):
        picture(image(np.zeros((2, 3), np.float32), "32FC1"), "here")
    with pytest.raises(ContractError, match="cannot be decoded"):
        decoded(None, "here")
    assert decoded(np.full((2, 3), 7, np.uint8), "here").shape == (2, 3, 3)
    assert decoded(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), "here")[0, 0].tolist() == [2, 1, 0]


@pytest.mark.parametrize("size", [(0, 3), (2, 0)])
def test_an_empty_picture_is_told(size):
    with pytest.raises(ContractError, match=r"here: a picture of \d x \d"):
        picture(image(np.zeros((*size, 3), np.uint8), "rgb8"), "here")

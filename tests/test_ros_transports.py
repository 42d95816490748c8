"""One suite for whatever carries ROS 2 topics: within the process, DDS without ROS, rclpy, fake and real."""

import importlib.util
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")
pytest.importorskip("cyclonedds", reason="cyclonedds is not installed: pip install 'robopolicy[ros]'")

sys.path.insert(0, str(Path(__file__).parent))
from fake_ros_arm import LOOPBACK

from robopolicy.errors import UnknownName, UsageError
from robopolicy_hardware.ros.codec import message
from robopolicy_hardware.ros.dds import Topics
from robopolicy_hardware.ros.local import LocalTopics, Wire
from robopolicy_hardware.ros.rclpy_topics import RclpyTopics
from robopolicy_hardware.ros.set_points import header
from robopolicy_hardware.ros.transport import SHADOW

os.environ["CYCLONEDDS_URI"] = LOOPBACK  # read once, when the first participant is made
DOMAIN = 100 + os.getpid() % 60  # beside other tests on this machine
FAKES = Path(__file__).parent / "fake_rclpy"
ARRAY, STATE, IMAGE = "std_msgs/msg/Float64MultiArray", "sensor_msgs/msg/JointState", "sensor_msgs/msg/Image"
REAL = importlib.util.find_spec("rclpy") is not None


def forget_rclpy():
    for name in [n for n in sys.modules if n.split(".")[0] in ("rclpy", "rosidl_runtime_py")]:
        del sys.modules[name]


@pytest.fixture(
    params=[
        "local",
        "dds",
        "fake rclpy",
        pytest.param("rclpy", marks=[pytest.mark.ros2, pytest.mark.skipif(not REAL, reason="rclpy is not installed")]),
    ]
)
def make(request, monkeypatch):
    """What makes a transport; all of them hear each other, and are closed afterwards, twice."""
    made, wire = [], Wire()
    if request.param == "fake rclpy":
        forget_rclpy()
        monkeypatch.syspath_prepend(str(FAKES))
    kinds = {
        "local": lambda: LocalTopics(wire), "dds": lambda: Topics(DOMAIN), "fake rclpy": RclpyTopics,
        "rclpy": lambda: RclpyTopics(domain=DOMAIN),
    }  # fmt: skip

    def transport():
        made.append(kinds[request.param]())
        return made[-1]

    yield transport
    for one in made:
        one.close()
        one.close()
    if request.param == "fake rclpy":
        forget_rclpy()


def until(seen, timeout_s=30.0):
    deadline_s = time.monotonic() + timeout_s
    while not (found := seen()):
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    return found


def array(values):
    return message(ARRAY)(message("std_msgs/msg/MultiArrayLayout")([], 0), np.array(values, np.float64))


def test_a_message_arrives_as_it_was_sent_and_everybody_who_listens_has_it(make):
    sender, listener, other = make(), make(), make()
    heard, threads = [], set()

    def take(received, came_ns):
        heard.append((received, came_ns))
        threads.add(threading.current_thread().name)

    first = listener.subscribe("/arm/state", STATE, take)
    second = other.subscribe("arm/state", STATE)
    publisher = sender.publisher("/arm/state", STATE)
    until(lambda: publisher.subscribers == 2)
    before_ns = time.monotonic_ns()
    publisher.send(
        message(STATE)(header(1_500_000_002, "base"), ["b", "a"], np.array([1.5, -2.0]), np.zeros(0), np.zeros(0))
    )
    received, came_ns = until(lambda: heard)[0]
    assert (received.name, received.position.tolist(), received.velocity.tolist()) == (["b", "a"], [1.5, -2.0], [])
    assert (received.header.stamp.sec, received.header.stamp.nanosec, received.header.frame_id) == (
        1,
        500_000_002,
        "base",
    )
    assert before_ns <= came_ns <= time.monotonic_ns()
    assert until(second.newest)[0].position.tolist() == [1.5, -2.0]
    assert len(threads) == 1
    assert (first.trouble, second.trouble) == ("", "")


def test_pictures_are_not_changed_on_the_way(make):
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, 480 * 640 * 3).astype(np.uint8)
    publisher, subscription = make().publisher("/front", IMAGE), make().subscribe("/front", IMAGE)
    until(lambda: publisher.subscribers)
    picture = message(IMAGE)(header(7), 480, 640, "rgb8", 0, 1920, data)

    def sent():
        publisher.send(picture)  # best effort: a picture may be lost
        time.sleep(0.02)
        return subscription.newest()

    received = until(sent)[0]
    assert (received.height, received.width, received.encoding) == (480, 640, "rgb8")
    np.testing.assert_array_equal(received.data, data)


def test_messages_come_in_their_order_and_once(make):
    publisher, subscription = make().publisher("/count", ARRAY), make().subscribe("/count", ARRAY)
    until(lambda: publisher.subscribers)
    heard = []
    for k in range(100):
        publisher.send(array([k]))
        time.sleep(0.002)
        heard += [received.data[0] for received in subscription.unseen()]
    until(lambda: heard.extend(received.data[0] for received in subscription.unseen()) or heard[-1:] == [99])
    assert heard == sorted(set(heard))
    assert len(heard) > 50


def test_who_publishes_is_known_and_who_left_is_not(make):
    transport, other = make(), make()
    assert transport.publishers("/cmd") == []
    mine, theirs = transport.publisher("/cmd", ARRAY), other.publisher("/cmd", STATE)
    until(lambda: transport.publishers("/cmd") == [ARRAY, STATE] or transport.publishers("/cmd") == [STATE, ARRAY])
    until(lambda: len(transport.publishing_nodes("/cmd")) == 2 and all(transport.publishing_nodes("/cmd")))
    assert transport.publishing_nodes("/other") == []
    theirs.close()
    theirs.close()
    until(lambda: transport.publishers("/cmd") == [ARRAY])
    mine.close()
    until(lambda: transport.publishers("/cmd") == [])


def test_another_type_on_the_topic_is_named(make):
    publisher, subscription = make().publisher("/x", STATE), make().subscribe("/x", ARRAY)
    assert until(lambda: subscription.trouble) == f"/x carries {STATE}, not {ARRAY}"
    assert publisher.subscribers == 0
    assert subscription.newest() is None


def test_who_closed_hears_nothing_more_and_does_not_count(make):
    publisher, transport = make().publisher("/y", ARRAY), make()
    heard = []
    subscription = transport.subscribe("/y", ARRAY, lambda received, came_ns: heard.append(received))
    until(lambda: publisher.subscribers)
    until(lambda: publisher.send(array([1.0])) or heard)
    subscription.close()
    subscription.close()
    until(lambda: publisher.subscribers == 0)
    count = len(heard)
    publisher.send(array([2.0]))
    time.sleep(0.1)
    assert len(heard) == count


@pytest.mark.parametrize("way", ["subscribe", "publisher"])
def test_names_that_ros_does_not_have_are_refused(make, way):
    transport = make()
    with pytest.raises(UsageError, match="'/a b' is no topic's name; want letters, digits and _"):
        getattr(transport, way)("/a b", ARRAY)
    with pytest.raises(UnknownName, match="no message type 'std_msgs/msg/Nothing'; valid: std_msgs/msg/"):
        getattr(transport, way)("/a", "std_msgs/msg/Nothing")


def test_rclpy_names_the_package_of_a_message_that_this_ros_lacks(monkeypatch):
    if REAL:
        pytest.skip("with rclpy every package of messages may be there")
    forget_rclpy()
    monkeypatch.syspath_prepend(str(FAKES))
    transport = RclpyTopics()
    try:
        with pytest.raises(UsageError, match=r"nav_msgs/msg/Odometry: apt-get install ros-\$ROS_DISTRO-nav-msgs"):
            transport.subscribe("/odom", "nav_msgs/msg/Odometry")
    finally:
        transport.close()
        forget_rclpy()


def test_who_only_watches_is_no_controller_over_dds():
    ours, controller, shadow = Topics(DOMAIN), Topics(DOMAIN, node="controller"), Topics(DOMAIN, watching=True)
    try:
        publisher, heard = ours.publisher("/watched", ARRAY), []
        shadow.subscribe("/watched", ARRAY, lambda received, came_ns: heard.append(received))
        until(lambda: publisher.send(array([1.0])) or heard)
        assert publisher.subscribers == 0
        acting = controller.subscribe("/watched", ARRAY)
        until(lambda: publisher.subscribers == 1)
        acting.close()
        until(lambda: publisher.subscribers == 0)
        count = len(heard)
        until(lambda: publisher.send(array([2.0])) or len(heard) > count)
    finally:
        for one in (ours, controller, shadow):
            one.close()


def test_a_twin_that_follows_is_no_controller_over_rclpy(monkeypatch):
    if REAL:
        pytest.skip("a fake, where rclpy is not installed")
    forget_rclpy()
    monkeypatch.syspath_prepend(str(FAKES))
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    ours, context = RclpyTopics(), rclpy.Context()
    rclpy.init(context=context)
    executor = SingleThreadedExecutor(context=context)
    try:
        publisher, following = ours.publisher("/watched", ARRAY), {}
        for name in (SHADOW, "controller"):
            node = rclpy.create_node(name, context=context)
            executor.add_node(node)
            following[name] = RclpyTopics(node)
        following[SHADOW].subscribe("/watched", ARRAY)
        assert publisher.subscribers == 0
        acting = following["controller"].subscribe("/watched", ARRAY)
        assert publisher.subscribers == 1
        acting.close()
        assert publisher.subscribers == 0
    finally:
        ours.close()
        context.try_shutdown()
        forget_rclpy()

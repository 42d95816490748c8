"""A FAKE of the few things of rclpy that robopolicy uses: raw topics between the nodes of one process.

It runs every line of ours and catches typos, order and shutdown. It does not prove that rclpy is like it: the tests
marked ``ros2`` do, on a machine with ROS.
"""

import threading
from types import SimpleNamespace

_LOCK = threading.RLock()
_ENDPOINTS = []


class Context:
    def __init__(self):
        self.up = False

    def try_shutdown(self):
        self.up = False


def init(*, args=None, context=None, domain_id=None):
    assert not context.up
    context.up = True


def create_node(name, *, context=None):
    assert context.up
    return Node(name)


class Node:
    def __init__(self, name):
        self.name, self.executor, self.mine = name, None, []

    def create_publisher(self, kind, topic, qos):
        return self._add(_Publisher(self, kind, topic, qos))

    def create_subscription(self, kind, topic, callback, qos, *, raw=False):
        assert raw, "robopolicy reads raw bytes"
        return self._add(_Subscription(self, kind, topic, callback))

    def destroy_publisher(self, one):
        self._remove(one)

    destroy_subscription = destroy_publisher

    def get_publishers_info_by_topic(self, topic):
        with _LOCK:
            found = [e for e in _ENDPOINTS if isinstance(e, _Publisher) and e.topic == _full(topic)]
        return [SimpleNamespace(topic_type=e.kind.name, node_name=e.node.name) for e in found]

    def destroy_node(self):
        for one in list(self.mine):
            self._remove(one)

    def _add(self, one):
        with _LOCK:
            _ENDPOINTS.append(one)
            self.mine.append(one)
        return one

    def _remove(self, one):
        with _LOCK:
            _ENDPOINTS.remove(one)
            self.mine.remove(one)


class _Publisher:
    def __init__(self, node, kind, topic, qos):
        self.node, self.kind, self.topic, self.qos = node, kind, _full(topic), qos

    def publish(self, data):
        assert isinstance(data, bytes), "rclpy publishes messages or bytes"
        with _LOCK:
            assert self in _ENDPOINTS, "the publisher was destroyed"
            for one in self._readers():
                one.node.executor.put(one.callback, data)

    def get_subscription_count(self):
        return len(self._readers())

    def _readers(self):
        with _LOCK:
            every = [e for e in _ENDPOINTS if isinstance(e, _Subscription)]
        return [e for e in every if (e.topic, e.kind.name) == (self.topic, self.kind.name)]


class _Subscription:
    def __init__(self, node, kind, topic, callback):
        self.node, self.kind, self.topic, self.callback = node, kind, _full(topic), callback


def _full(topic):
    return "/" + topic.lstrip("/")

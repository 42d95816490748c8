"""A FAKE, see rclpy/__init__.py."""

import threading
from types import SimpleNamespace

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup

_LOCK = threading.RLock()
_ENDPOINTS = []
NODES = {}  # by full name, while they live


class Node:
    def __init__(
        self, node_name, *, context=None, namespace=None, automatically_declare_parameters_from_overrides=False
    ):
        assert context.ok(), "rclpy.init was not called"
        self._context, self._told = context, _overrides(context.args)
        name, namespace = self._told.pop("__node", node_name), self._told.pop("__ns", namespace or "/")
        self._name, self._namespace = name, "/" + namespace.strip("/")
        self.executor, self.mine, self._services, self.logged = None, [], {}, []
        self.default_callback_group = MutuallyExclusiveCallbackGroup()
        self._parameters = {}
        if automatically_declare_parameters_from_overrides:
            for told, value in self._told.items():
                self.declare_parameter(told, value)
        if not self.has_parameter("use_sim_time"):
            self.declare_parameter("use_sim_time", False)
        NODES[self.get_fully_qualified_name()] = self

    def get_name(self):
        return self._name

    def get_fully_qualified_name(self):
        return f"{self._namespace.rstrip('/')}/{self._name}"

    def get_logger(self):
        return SimpleNamespace(
            info=lambda text: self.logged.append(("info", text)), error=lambda text: self.logged.append(("error", text))
        )

    def declare_parameter(self, name, value=None, descriptor=None, ignore_override=False):
        assert name not in self._parameters, "declared already"
        told = self._told.get(name, value)
        if not (descriptor is not None and descriptor.dynamic_typing):
            assert type(told) is type(value), f"Wrong parameter type: {name}"
        self._parameters[name] = told

    def has_parameter(self, name):
        return name in self._parameters

    def undeclare_parameter(self, name):
        del self._parameters[name]

    def get_parameters_by_prefix(self, prefix):
        names = [name for name in self._parameters if name.startswith(f"{prefix}.")]
        return {name.removeprefix(f"{prefix}."): self.get_parameter(name) for name in names}

    def get_parameter(self, name):
        return SimpleNamespace(name=name, value=self._parameters[name])

    def set_parameter(self, name, value):
        """As ``ros2 param set`` does."""
        assert name in self._parameters, "not declared"
        self._parameters[name] = value

    def create_publisher(self, msg_type, topic, qos_profile):
        return self._add(_Publisher(self, msg_type, topic, qos_profile))

    def create_subscription(self, msg_type, topic, callback, qos_profile, *, callback_group=None, raw=False):
        assert raw, "robopolicy reads raw bytes"
        return self._add(_Subscription(self, msg_type, topic, callback, callback_group or self.default_callback_group))

    def create_service(self, srv_type, srv_name, callback, *, callback_group=None):
        name = srv_name.replace("~", self.get_fully_qualified_name())
        self._services[name] = (srv_type, callback, callback_group or self.default_callback_group)

    def call(self, name):
        """As a client does from another node: the response, once the executor has served it."""
        srv_type, callback, group = self._services[name]
        return self.executor.ask(group, lambda: callback(srv_type.Request(), srv_type.Response()))

    def destroy_publisher(self, one):
        self._remove(one)

    destroy_subscription = destroy_publisher

    def get_publishers_info_by_topic(self, topic_name):
        with _LOCK:
            found = [e for e in _ENDPOINTS if isinstance(e, _Publisher) and e.topic == _full(topic_name)]
        return [
            SimpleNamespace(topic_type=e.kind.name, node_name=e.node._name, node_namespace=e.node._namespace)
            for e in found
        ]

    def get_subscriptions_info_by_topic(self, topic_name):
        with _LOCK:
            found = [e for e in _ENDPOINTS if isinstance(e, _Subscription) and e.topic == _full(topic_name)]
        return [
            SimpleNamespace(topic_type=e.kind.name, node_name=e.node._name, node_namespace=e.node._namespace)
            for e in found
        ]

    def destroy_node(self):
        for one in list(self.mine):
            self._remove(one)
        NODES.pop(self.get_fully_qualified_name(), None)

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

    def publish(self, msg):
        assert isinstance(msg, bytes), "rclpy publishes messages or bytes"
        with _LOCK:
            assert self in _ENDPOINTS, "the publisher was destroyed"
            for one in self._readers():
                one.node.executor.put(one.group, lambda one=one: one.callback(msg))

    def get_subscription_count(self):
        return len(self._readers())

    def _readers(self):
        with _LOCK:
            every = [e for e in _ENDPOINTS if isinstance(e, _Subscription) and e.node.executor is not None]
        return [e for e in every if (e.topic, e.kind.name) == (self.topic, self.kind.name)]


class _Subscription:
    def __init__(self, node, kind, topic, callback, group):
        self.node, self.kind, self.topic, self.callback, self.group = node, kind, _full(topic), callback, group


def _full(topic):
    return "/" + topic.lstrip("/")


def _overrides(args):
    """Return {name: value} of ``--ros-args -p name:=value -r __ns:=/x --params-file F``; files are of one node."""
    from ruamel.yaml import YAML

    read, told = YAML(typ="safe", pure=True), {}
    assert not args or args[0] == "--ros-args", "rcl ignores what is before --ros-args"
    for flag, value in zip(args[1::2], args[2::2], strict=True):
        if flag == "--params-file":
            with open(value) as file:
                for part in read.load(file).values():
                    told |= _flat(part["ros__parameters"])
            continue
        assert flag in ("-p", "-r"), f"the fake knows no {flag}"
        name, _, text = value.partition(":=")
        told[name] = read.load(text) if flag == "-p" else text
    return told


def _flat(data, prefix=""):
    found = {}
    for key, value in data.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found

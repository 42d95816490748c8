"""ROS 2 topics through rclpy, raw bytes both ways: the one place that imports it."""

import threading
from typing import Any

from robopolicy.errors import UsageError
from robopolicy_hardware.ros.codec import encoded
from robopolicy_hardware.ros.transport import SHADOW, Inbox, OnMessage, require_topic

QUEUE = 5  # messages kept for a slow reader
JOIN_S = 5.0  # for the spinning thread to end


class RclpyTopics:
    """A `Transport` of an rclpy node, which spins in a thread of its own.

    Args:
        node: None makes one called ``robopolicy``; a node that is given stays its owner's: it is not destroyed, and
            its owner lets it spin.
        domain: None takes ``ROS_DOMAIN_ID``; only for a node of our own.
        group: callback group of what is received; None is the node's default one, one callback at a time.

    Raises:
        UsageError: without rclpy, which comes with ROS and not from PyPI.
    """

    def __init__(self, node: Any = None, domain: int | None = None, group: Any = None) -> None:
        try:
            import rclpy
            from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
        except ImportError as error:
            raise UsageError("no rclpy here: source /opt/ros/DISTRIBUTION/setup.bash, or go without") from error
        self._context: Any = None
        self._executor: Any = None
        self._opened: list[Any] = []
        self.node, self._group = node, group
        if node is not None:
            return
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node("robopolicy", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)

        def spin() -> None:
            try:
                self._executor.spin()
            except ExternalShutdownException:
                return

        self._thread = threading.Thread(target=spin, name="rclpy", daemon=True)
        self._thread.start()

    def subscribe(self, topic: str, kind: str, on_message: OnMessage | None = None) -> "RclpySubscription":
        """Read a topic, as `Transport` says; ``on_message`` is called in the thread that spins."""
        require_topic(topic, kind)
        self._opened.append(RclpySubscription(self.node, topic, kind, on_message, self._group))
        return self._opened[-1]

    def publisher(self, topic: str, kind: str, *, latched: bool = False) -> "RclpyPublisher":
        """Return what publishes on a topic, as `Transport` says."""
        require_topic(topic, kind)
        self._opened.append(RclpyPublisher(self.node, topic, kind, latched))
        return self._opened[-1]

    def publishers(self, topic: str) -> list[str]:
        """Return the type that each publisher of a topic has, our own among them."""
        return [found.topic_type for found in self.node.get_publishers_info_by_topic(topic)]

    def publishing_nodes(self, topic: str) -> list[str]:
        """Return the full name of the node of each publisher of a topic, our own among them."""
        found = self.node.get_publishers_info_by_topic(topic)
        return [f"{one.node_namespace.rstrip('/')}/{one.node_name}" for one in found]

    def close(self) -> None:
        """Leave all topics, and end a node of our own; idempotent."""
        for one in self._opened:
            one.close()
        self._opened = []
        if self._executor is None:
            return
        executor, self._executor = self._executor, None
        executor.shutdown()
        self._thread.join(JOIN_S)
        self.node.destroy_node()
        self._context.try_shutdown()


class RclpySubscription(Inbox):
    """Messages of one topic, best effort, which matches every publisher."""

    def __init__(self, node: Any, topic: str, kind: str, on_message: OnMessage | None, group: Any = None) -> None:
        from rclpy.qos import QoSProfile, QoSReliabilityPolicy

        super().__init__(topic, kind, on_message)
        qos = QoSProfile(depth=QUEUE, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        self._node = node
        self._subscription = node.create_subscription(
            _class(kind), topic, self.take, qos, callback_group=group, raw=True
        )

    @property
    def trouble(self) -> str:
        """Why somebody publishes and nothing comes, in one line that stays the same, or nothing."""
        found = {one.topic_type for one in self._node.get_publishers_info_by_topic(self._topic)}
        if found and self._kind not in found:
            return f"{self._topic} carries {', '.join(sorted(found))}, not {self._kind}"
        return self.why

    def close(self) -> None:
        """Stop receiving; idempotent."""
        super().close()
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None


class RclpyPublisher:
    """Sends messages on one topic, reliably; the newest one to those who come later too, if it is latched."""

    def __init__(self, node: Any, topic: str, kind: str, latched: bool = False) -> None:
        from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy

        qos = QoSProfile(
            depth=1 if latched else QUEUE, reliability=QoSReliabilityPolicy.RELIABLE,
            durability=QoSDurabilityPolicy.TRANSIENT_LOCAL if latched else QoSDurabilityPolicy.VOLATILE,
        )  # fmt: skip
        self._node, self._kind, self._topic = node, kind, topic
        self._publisher = node.create_publisher(_class(kind), topic, qos)

    def send(self, message: Any) -> None:
        """Publish one message."""
        self._publisher.publish(encoded(message, self._kind))

    @property
    def subscribers(self) -> int:
        """How many readers ROS sees, those that only watch not among them."""
        if self._publisher is None or not (count := int(self._publisher.get_subscription_count())):
            return 0
        found = self._node.get_subscriptions_info_by_topic(self._topic)
        return count - sum((one.node_name, one.topic_type) == (SHADOW, self._kind) for one in found)

    def close(self) -> None:
        """Leave the topic; idempotent."""
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
            self._publisher = None


def _class(kind: str) -> Any:
    from rosidl_runtime_py.utilities import get_message

    try:
        return get_message(kind)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        package = kind.partition("/")[0].replace("_", "-")
        raise UsageError(f"this ROS has no message type {kind}: apt-get install ros-$ROS_DISTRO-{package}") from error

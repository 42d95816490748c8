"""What carries ROS 2 topics, whichever it is: names, messages that came, and what every carrier promises."""

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from robopolicy.errors import UsageError
from robopolicy_hardware.ros.codec import decoded, message

TOPIC = re.compile(r"/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")
SHADOW = "robopolicy_shadow"  # node of a twin that follows: it listens to commands, and acts on none
UNSEEN = 20  # messages kept for who asks seldom

OnMessage = Callable[[Any, int], None]


class Subscription(Protocol):
    """Messages of one topic."""

    def newest(self) -> tuple[Any, int] | None:
        """Return the newest message and when it came (monotonic ns), or None before the first."""
        ...

    def unseen(self) -> list[Any]:
        """Return the messages since the last call, oldest first, the last twenty at most."""
        ...

    @property
    def trouble(self) -> str:
        """Why somebody publishes and nothing comes, in one line that stays the same, or nothing."""
        ...

    def close(self) -> None:
        """Stop receiving; idempotent."""
        ...


class Publisher(Protocol):
    """Sends messages on one topic."""

    def send(self, message: Any) -> None:
        """Publish one message, as `codec.message` makes it."""
        ...

    @property
    def subscribers(self) -> int:
        """How many listen, as far as is known; who is known only to watch, as a twin in the shadow, does not count."""
        ...

    def close(self) -> None:
        """Leave the topic; idempotent."""
        ...


class Transport(Protocol):
    """What carries topics: DDS without ROS, rclpy, or nothing but this process."""

    def subscribe(self, topic: str, kind: str, on_message: OnMessage | None = None) -> Subscription:
        """Read a topic from now on.

        Args:
            topic: as ROS writes it.
            kind: type of its messages, e.g. ``sensor_msgs/msg/Image``.
            on_message: called with every message and when it came (monotonic ns), in the thread that receives; it must
                not raise.

        Raises:
            UnknownName: if there is no message type ``kind``.
            UsageError: if ROS has no such topic names.
        """
        ...

    def publisher(self, topic: str, kind: str, *, latched: bool = False) -> Publisher:
        """Return what publishes on a topic; raises what `subscribe` raises.

        ``latched`` keeps the newest message for those who come later and ask for it (transient local); our own
        subscriptions do not ask.
        """
        ...

    def publishers(self, topic: str) -> list[str]:
        """Return the type that each publisher of a topic has, our own among them."""
        ...

    def publishing_nodes(self, topic: str) -> list[str]:
        """Return the full name of the node of each publisher of a topic, our own among them, or what tells it apart."""
        ...

    def close(self) -> None:
        """Leave the network; idempotent."""
        ...


class Inbox:
    """What came on a topic: decoded, kept, counted; safe to fill and to read from different threads.

    Args:
        topic: for messages.
        kind: of its messages.
        on_message: told of each.

    Attributes:
        undecoded: messages so far whose bytes were no message of this type.
        why: what was wrong with the first of them.
    """

    def __init__(self, topic: str, kind: str, on_message: OnMessage | None = None) -> None:
        self.undecoded, self.why = 0, ""
        self._listening = True
        self._topic, self._kind, self._on_message = topic, kind, on_message
        self._lock = threading.Lock()
        self._newest: tuple[Any, int] | None = None
        self._unseen: deque[Any] = deque(maxlen=UNSEEN)

    def take(self, cdr: bytes) -> bool:
        """Take the bytes of one message that came now; return whether they were one, and somebody listens still."""
        came_ns = time.monotonic_ns()
        if not self._listening:
            return False
        try:
            received = decoded(cdr, self._kind)
        except Exception as error:  # bytes from the network: whatever they are, they must not end the reading
            self.undecoded += 1
            self.why = self.why or f"what comes on {self._topic} cannot be read: {error}"
            return False
        if self._on_message is not None:
            self._on_message(received, came_ns)
        with self._lock:
            self._newest = (received, came_ns)
            self._unseen.append(received)
        return True

    def close(self) -> None:
        """Take nothing more, whatever is still on its way; idempotent."""
        self._listening = False

    def newest(self) -> tuple[Any, int] | None:
        """Return the newest message and when it came (monotonic ns), or None before the first."""
        with self._lock:
            return self._newest

    def unseen(self) -> list[Any]:
        """Return the messages since the last call, oldest first, the last twenty at most."""
        with self._lock:
            messages = list(self._unseen)
            self._unseen.clear()
        return messages


def require_topic(topic: str, kind: str) -> None:
    """Refuse names that ROS does not have.

    Raises:
        UsageError, UnknownName: as `Transport.subscribe` says.
    """
    if not TOPIC.fullmatch(topic):
        raise UsageError(f"{topic!r} is no topic's name; want letters, digits and _, as in /teleop/twist")
    message(kind)

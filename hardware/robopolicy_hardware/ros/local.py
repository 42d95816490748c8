"""Topics within one process: the same bytes as on the wire, delivered where they are sent."""

import threading
from typing import Any

from robopolicy_hardware.ros.codec import encoded
from robopolicy_hardware.ros.transport import Inbox, OnMessage, require_topic


class Wire:
    """What `LocalTopics` of one process share."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.readers: list[LocalSubscription] = []
        self.writers: list[LocalPublisher] = []


class LocalTopics:
    """A `Transport` between those that were given the same wire; a message arrives before ``send`` returns.

    Args:
        wire: shared.
        node: full name of the one who speaks here.
    """

    def __init__(self, wire: Wire, node: str = "/robopolicy") -> None:
        self._wire, self._node = wire, node
        self._opened: list[Any] = []

    def subscribe(self, topic: str, kind: str, on_message: OnMessage | None = None) -> "LocalSubscription":
        """Read a topic, as `Transport` says; ``on_message`` is called in the thread that sends."""
        require_topic(topic, kind)
        self._opened.append(LocalSubscription(self._wire, topic, kind, on_message))
        return self._opened[-1]

    def publisher(self, topic: str, kind: str, *, latched: bool = False) -> "LocalPublisher":
        """Return what publishes on a topic, as `Transport` says; nobody in this process asks for what was latched."""
        require_topic(topic, kind)
        self._opened.append(LocalPublisher(self._wire, topic, kind, self._node))
        return self._opened[-1]

    def publishers(self, topic: str) -> list[str]:
        """Return the type that each publisher of a topic has, our own among them."""
        with self._wire.lock:
            return [writer.kind for writer in self._wire.writers if writer.topic == topic.lstrip("/")]

    def publishing_nodes(self, topic: str) -> list[str]:
        """Return the full name of the node of each publisher of a topic, our own among them."""
        with self._wire.lock:
            return [writer.node for writer in self._wire.writers if writer.topic == topic.lstrip("/")]

    def close(self) -> None:
        """Leave all topics; idempotent."""
        for one in self._opened:
            one.close()
        self._opened = []


class LocalSubscription(Inbox):
    """Messages of one topic."""

    def __init__(self, wire: Wire, topic: str, kind: str, on_message: OnMessage | None) -> None:
        super().__init__(topic, kind, on_message)
        self._wire, self.topic, self.kind = wire, topic.lstrip("/"), kind
        with wire.lock:
            wire.readers.append(self)

    @property
    def trouble(self) -> str:
        """Why somebody publishes and nothing comes, in one line that stays the same, or nothing."""
        with self._wire.lock:
            others = sorted({writer.kind for writer in self._wire.writers if writer.topic == self.topic})
        if others and self.kind not in others:
            return f"/{self.topic} carries {', '.join(others)}, not {self.kind}"
        return self.why

    def close(self) -> None:
        """Stop receiving; idempotent."""
        super().close()
        with self._wire.lock:
            if self in self._wire.readers:
                self._wire.readers.remove(self)


class LocalPublisher:
    """Sends messages on one topic."""

    def __init__(self, wire: Wire, topic: str, kind: str, node: str) -> None:
        self._wire, self.topic, self.kind, self.node = wire, topic.lstrip("/"), kind, node
        with wire.lock:
            wire.writers.append(self)

    def send(self, message: Any) -> None:
        """Publish one message."""
        cdr = encoded(message, self.kind)
        for reader in self._readers():
            reader.take(cdr)

    @property
    def subscribers(self) -> int:
        """How many listen."""
        return len(self._readers())

    def close(self) -> None:
        """Leave the topic; idempotent."""
        with self._wire.lock:
            if self in self._wire.writers:
                self._wire.writers.remove(self)

    def _readers(self) -> list[LocalSubscription]:
        with self._wire.lock:
            if self not in self._wire.writers:
                return []
            return [one for one in self._wire.readers if (one.topic, one.kind) == (self.topic, self.kind)]

"""Who says what on a ROS 2 network: topics, types, QoS, nodes, rates, ages and clocks, by listening for a while."""

import threading
import time
from dataclasses import dataclass
from typing import Any

from robopolicy.errors import UnknownName
from robopolicy.topics.messages import stamp_ns
from robopolicy_hardware.ros.codec import message
from robopolicy_hardware.ros.dds import Topics, watches
from robopolicy_hardware.ros.dds_discovery import everybody, look
from robopolicy_hardware.ros.dds_nodes import Announced
from robopolicy_hardware.ros.dds_types import ros_type

HEARD = 60  # topics that are listened to, at most
NODE = "robopolicy_doctor"


@dataclass(frozen=True)
class Endpoint:
    """A publisher or a subscriber of a topic, as discovery tells."""

    topic: str
    kind: str
    node: str  # full name, or its id if it does not say
    reliable: bool
    transient_local: bool
    watching: bool = False  # a subscriber that acts on nothing, as a twin in the shadow

    @property
    def qos(self) -> str:
        """In words, as ROS has them."""
        reliability = "reliable" if self.reliable else "best effort"
        return f"{reliability}, {'transient local' if self.transient_local else 'volatile'}"


@dataclass
class Heard:
    """What came on a topic.

    Attributes:
        count: messages.
        came_ns: monotonic, when the first and the newest came.
        behind_ns: header stamps, how far behind this machine's clock when they came; none without a header.
        newest: message.
        zero: header stamps that were 0.
        trouble: why nothing can be read.
    """

    def __init__(self) -> None:
        self.count = self.zero = 0
        self.came_ns: tuple[int, int] = (0, 0)
        self.behind_ns: list[int] = []
        self.newest: Any = None
        self.trouble = ""

    def take(self, received: Any, came_ns: int) -> None:
        """Note one message."""
        stamp = stamp_ns(received)
        if stamp == 0:
            self.zero += 1
        elif stamp is not None:
            self.behind_ns.append(time.time_ns() - stamp)
        self.came_ns = (self.came_ns[0] or came_ns, came_ns)
        self.count, self.newest = self.count + 1, received

    @property
    def rate_hz(self) -> float | None:
        """Messages a second, None of fewer than two."""
        first, newest = self.came_ns
        return (self.count - 1) / ((newest - first) / 1e9) if newest > first else None

    def age_s(self) -> float | None:
        """Return the seconds since the newest message, None without one."""
        return (time.monotonic_ns() - self.came_ns[1]) / 1e9 if self.count else None

    @property
    def offset_s(self) -> float | None:
        """How far the sender's clock is behind ours, at most: the smallest delay of a stamp; None without stamps."""
        return min(self.behind_ns) / 1e9 if self.behind_ns else None


class Survey:
    """Listens to every topic of a domain that can be read.

    Args:
        domain: None takes ``ROS_DOMAIN_ID``, or 0.
        unheard: topics that are not listened to.

    Raises:
        MissingExtra, UsageError: as `Topics`.
    """

    def __init__(self, domain: int | None = None, unheard: tuple[str, ...] = ()) -> None:
        from cyclonedds.domain import DomainParticipant

        self._topics = Topics(domain, node="", watching=True)
        self.domain = self._topics.domain
        self._participant = DomainParticipant(self.domain)
        self._announced = Announced(self._participant, NODE)
        self._publications: Any = everybody(self._participant, "Publication")
        self._subscriptions: Any = everybody(self._participant, "Subscription")
        self._unheard = {_full(topic) for topic in unheard}
        self.heard: dict[str, Heard] = {}

    def listen(self, seconds: float) -> None:
        """Listen for a while, to topics that turn up meanwhile too."""
        end_s = time.monotonic() + seconds
        wait = threading.Event()
        while time.monotonic() < end_s:
            for one in self.publishers():
                self._hear(one)
            wait.wait(min(0.1, max(0.0, end_s - time.monotonic())))

    def publishers(self) -> list[Endpoint]:
        """Return every publisher of a ROS topic, by topic."""
        return self._endpoints(self._publications)

    def subscribers(self) -> list[Endpoint]:
        """Return every subscriber of a ROS topic, by topic, ourselves not among them where we do not listen."""
        return self._endpoints(self._subscriptions)

    def nodes(self) -> list[str]:
        """Return the full names of the nodes there are, except ours."""
        return sorted(name for name in self._announced.seen() if name != f"/{NODE}")

    def close(self) -> None:
        """Leave the network; idempotent."""
        self._topics.close()
        self._announced.close()
        self._publications = self._subscriptions = self._participant = None

    def _hear(self, one: Endpoint) -> None:
        if one.topic in self._unheard or one.topic in self.heard or len(self.heard) >= HEARD:
            return
        heard = self.heard[one.topic] = Heard()
        try:
            message(one.kind)
            self._topics.subscribe(one.topic, one.kind, heard.take)
        except UnknownName:
            heard.trouble = "a type that is not read here"

    def _endpoints(self, ends: tuple[Any, Any]) -> list[Endpoint]:
        from cyclonedds.qos import Policy

        names, found = self._announced.nodes(), []
        for one in look(*ends):
            if not one.topic_name.startswith("rt/"):
                continue
            reliability, durability = one.qos[Policy.Reliability], one.qos[Policy.Durability]
            node = names.get(one.key.bytes) or f"a process without a node's name ({str(one.participant_key)[:8]})"
            found.append(
                Endpoint(
                    one.topic_name[2:], ros_type(one.type_name), node,
                    isinstance(reliability, Policy.Reliability.Reliable),
                    durability is Policy.Durability.TransientLocal or durability == Policy.Durability.TransientLocal,
                    watches(one.qos),
                )
            )  # fmt: skip
        return sorted(found, key=lambda end: (end.topic, end.node))


def _full(topic: str) -> str:
    return "/" + topic.lstrip("/")

"""ROS 2 topics without ROS: CycloneDDS carries them, on the wire that every ROS 2 node speaks."""

import os
import threading
from typing import Any

from robopolicy.errors import MissingExtra, UsageError
from robopolicy_hardware.ros.codec import encoded, hashed, typestore
from robopolicy_hardware.ros.dds_discovery import everybody, look, matched
from robopolicy_hardware.ros.dds_nodes import Announced, participant_data
from robopolicy_hardware.ros.dds_types import ros_type, struct_of, wire_type
from robopolicy_hardware.ros.transport import Inbox, OnMessage, require_topic

NODE = "robopolicy"
LAST_DOMAIN = 232  # the ports of those beyond do not exist
QUEUE = 5  # samples kept for a slow reader
POLL_NS = 100_000_000  # how long the reading thread waits at a time
WATCHING = b"robopolicy=watching;"  # in the user data of a reader that acts on nothing; others ignore it


class Topics:
    """A `Transport`: a DDS participant that reads and writes ROS 2 topics, by ROS's own names and types.

    The bytes are those that every ROS 2 node sends and understands: topic ``/a/b`` is ``rt/a/b`` on the wire, type
    ``pkg/msg/Name`` is ``pkg::msg::dds_::Name_``. Which network interfaces are used, ``CYCLONEDDS_URI`` says. It reads
    as best effort, which matches every publisher, and writes reliably.

    Args:
        domain: None takes ``ROS_DOMAIN_ID``, or 0.
        node: the name under which ROS 2 sees what is opened here, as in ``ros2 node list``; "" is none.
        watching: who listens here acts on nothing, and is none of a publisher's ``subscribers``.

    Raises:
        MissingExtra: if cyclonedds or rosbags is not installed.
        UsageError: if there is no such domain or node name, or DDS does not start.
    """

    def __init__(self, domain: int | None = None, *, node: str = NODE, watching: bool = False) -> None:
        try:
            from cyclonedds.core import DDSException
            from cyclonedds.domain import DomainParticipant
        except ImportError as error:
            raise MissingExtra("cyclonedds", "ros") from error
        typestore()
        wanted = (os.environ.get("ROS_DOMAIN_ID") or "0") if domain is None else str(domain)
        if not (wanted.isdecimal() and int(wanted) <= LAST_DOMAIN):
            raise UsageError(f"no ROS 2 domain {wanted!r}: --domain and ROS_DOMAIN_ID are 0 to {LAST_DOMAIN}")
        self.domain = int(wanted)
        try:
            self._participant = DomainParticipant(self.domain, qos=participant_data())
        except DDSException as error:
            raise UsageError(f"DDS does not start in domain {wanted}: {error.msg}; look at CYCLONEDDS_URI") from error
        self._publications: Any = everybody(self._participant, "Publication")
        self._announced = Announced(self._participant, node) if node else None
        self._opened: list[Any] = []
        self._watching = watching

    def subscribe(self, topic: str, kind: str, on_message: OnMessage | None = None) -> "DdsSubscription":
        """Read a topic, as `Transport` says."""
        require_topic(topic, kind)
        made = DdsSubscription(self._participant, topic, kind, on_message, self._watching)
        return self._open(made)  # type: ignore[no-any-return]

    def publisher(self, topic: str, kind: str, *, latched: bool = False) -> "DdsPublisher":
        """Return what publishes on a topic, as `Transport` says."""
        require_topic(topic, kind)
        return self._open(DdsPublisher(self._participant, topic, kind, latched))  # type: ignore[no-any-return]

    def publishers(self, topic: str) -> list[str]:
        """Return the types that a topic is published with, one for each publisher that DDS sees, our own too.

        One that was killed is seen for another ten seconds.
        """
        return [ros_type(found.type_name) for found in _published(self._publications, topic)]

    def publishing_nodes(self, topic: str) -> list[str]:
        """Return who publishes a topic, one name each: the full name of its node, or its DDS guid if it tells none."""
        found = [one.key for one in _published(self._publications, topic)]
        names = {} if self._announced is None else self._announced.nodes()
        return [names.get(guid.bytes, f"guid {guid}") for guid in found]

    def nodes(self) -> list[str]:
        """Return the full names of all nodes that are seen, our own too, sorted."""
        return [] if self._announced is None else sorted(self._announced.seen())

    def _open(self, one: Any) -> Any:
        self._opened.append(one)
        if self._announced is not None:
            self._announced.tell(self._opened)
        return one

    def close(self) -> None:
        """Leave all topics and the network; idempotent."""
        for one in self._opened:
            one.close()
        self._opened = []
        if self._announced is not None:
            self._announced.close()
        self._announced = self._publications = self._participant = None


class DdsSubscription(Inbox):
    """The newest message of a topic and when it came; a thread of its own receives."""

    def __init__(
        self, participant: Any, topic: str, kind: str, on_message: OnMessage | None, watching: bool = False
    ) -> None:
        from cyclonedds.core import InstanceState, ReadCondition, SampleState, ViewState, WaitSet
        from cyclonedds.qos import Policy
        from cyclonedds.sub import DataReader

        super().__init__(topic, kind, on_message)
        self._others = ""
        qos = _qos(kind, Policy.Reliability.BestEffort, marked=WATCHING if watching else b"")
        self._reader = DataReader(participant, _topic(participant, topic, kind), qos=qos)
        self._waiting = WaitSet(participant)
        self._waiting.attach(ReadCondition(self._reader, SampleState.Any | ViewState.Any | InstanceState.Any))
        self._publications: Any = everybody(participant, "Publication")
        self._thread = threading.Thread(target=self._receive, name=f"dds {topic}", daemon=True)
        self._thread.start()

    @property
    def reader_guid(self) -> bytes | None:
        """Its 16 bytes on the wire; None of a closed one."""
        return None if self._reader is None else self._reader.guid.bytes

    @property
    def trouble(self) -> str:
        """Why somebody publishes and nothing comes, in one line that stays the same, or nothing."""
        return self._others or self.why

    def close(self) -> None:
        """Stop receiving and leave the topic; idempotent."""
        super().close()
        self._thread.join()
        # CycloneDDS ends what nobody refers to: at once, not when the garbage of a cycle is collected.
        self._on_message = self._waiting = self._reader = self._publications = None

    def _receive(self) -> None:
        while self._listening:
            if not self._waiting.wait(POLL_NS):
                self._look_for_others()
            for sample in self._reader.take(N=QUEUE):
                if hasattr(sample, "cdr") and self.take(sample.cdr):  # without bytes: a writer left
                    self._others = ""

    def _look_for_others(self) -> None:
        """DDS joins a reader to writers of its own type only: of all others not even a message would be seen."""
        published = {found.type_name for found in _published(self._publications, self._topic)}
        others = ", ".join(sorted(ros_type(name) for name in published))
        alone = published and wire_type(self._kind) not in published
        self._others = f"{self._topic} carries {others}, not {self._kind}" if alone else ""


class DdsPublisher:
    """Sends messages on one topic, reliably; the newest one to those who come later too, if it is latched."""

    def __init__(self, participant: Any, topic: str, kind: str, latched: bool = False) -> None:
        from cyclonedds.pub import DataWriter
        from cyclonedds.qos import Policy
        from cyclonedds.util import duration

        self._kind, self._struct = kind, struct_of(kind)
        reliable = Policy.Reliability.Reliable(duration(milliseconds=100))
        qos = _qos(kind, reliable, latched=latched)
        self._writer = DataWriter(participant, _topic(participant, topic, kind), qos=qos)
        self._acting: dict[int, bool] = {}  # readers that are matched, by their handle, and whether they act on it

    def send(self, message: Any) -> None:
        """Publish one message."""
        sample = self._struct.__new__(self._struct)
        sample.cdr = encoded(message, self._kind)
        self._writer.write(sample)

    @property
    def writer_guid(self) -> bytes | None:
        """Its 16 bytes on the wire; None of a closed one."""
        return None if self._writer is None else self._writer.guid.bytes

    @property
    def subscribers(self) -> int:
        """How many readers DDS sees, those that only watch not among them."""
        if self._writer is None:
            return 0
        matched, known = self._writer.get_matched_subscriptions(), self._acting
        self._acting = {one: known[one] if one in known else _acts(self._writer, one) for one in matched}
        return sum(self._acting.values())

    def close(self) -> None:
        """Leave the topic; idempotent."""
        self._writer = None


def watches(qos: Any) -> bool:
    """Return whether a reader of this QoS says that it acts on nothing."""
    from cyclonedds.qos import Policy

    told = qos[Policy.Userdata]
    return told is not None and WATCHING in told.data


def _acts(writer: Any, reader: int) -> bool:
    """Return whether a matched reader does not say that it only watches; one that has left again does not act."""
    found = matched(writer, reader)
    return found is not None and not watches(found.qos)


def _published(publications: tuple[Any, Any], topic: str) -> list[Any]:
    wire = f"rt/{topic.lstrip('/')}"
    return [found for found in look(*publications) if found.topic_name == wire]


def _topic(participant: Any, topic: str, kind: str) -> Any:
    from cyclonedds.topic import Topic

    return Topic(participant, f"rt/{topic.lstrip('/')}", struct_of(kind))


def _qos(kind: str, reliability: Any, *, latched: bool = False, marked: bytes = b"") -> Any:
    """Keep last; a writer's and a reader's user data carry the type's hash, which newer ROS asks for, and a mark."""
    from cyclonedds.qos import Policy, Qos

    return Qos(
        reliability,
        Policy.Durability.TransientLocal if latched else Policy.Durability.Volatile,
        Policy.History.KeepLast(1 if latched else QUEUE),
        Policy.Userdata(f"typehash={hashed(kind)};".encode() + marked),
    )

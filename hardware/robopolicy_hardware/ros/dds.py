"""ROS 2 topics without ROS: CycloneDDS carries them, on the wire that every ROS 2 node speaks."""

import os
import threading
from functools import cache
from typing import Any

from robopolicy.errors import MissingExtra, UsageError
from robopolicy_hardware.ros.codec import encoded, hashed, message, typestore
from robopolicy_hardware.ros.transport import Inbox, OnMessage, require_topic

LAST_DOMAIN = 232  # the ports of those beyond do not exist
QUEUE = 5  # samples kept for a slow reader
POLL_NS = 100_000_000  # how long the reading thread waits at a time
EVERYBODY = 10_000  # publishers of all topics that are looked through, at most


class Topics:
    """A `Transport`: a DDS participant that reads and writes ROS 2 topics, by ROS's own names and types.

    The bytes are those that every ROS 2 node sends and understands: topic ``/a/b`` is ``rt/a/b`` on the wire, type
    ``pkg/msg/Name`` is ``pkg::msg::dds_::Name_``. Which network interfaces are used, ``CYCLONEDDS_URI`` says. It reads
    as best effort, which matches every publisher, and writes reliably.

    Args:
        domain: None takes ``ROS_DOMAIN_ID``, or 0.

    Raises:
        MissingExtra: if cyclonedds or rosbags is not installed.
        UsageError: if there is no such domain, or DDS does not start.
    """

    def __init__(self, domain: int | None = None) -> None:
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
            self._participant = DomainParticipant(self.domain)
        except DDSException as error:
            raise UsageError(f"DDS does not start in domain {wanted}: {error.msg}; look at CYCLONEDDS_URI") from error
        self._everybody, self._alive = _everybody(self._participant)
        self._opened: list[Any] = []

    def subscribe(self, topic: str, kind: str, on_message: OnMessage | None = None) -> "DdsSubscription":
        """Read a topic, as `Transport` says."""
        require_topic(topic, kind)
        self._opened.append(DdsSubscription(self._participant, topic, kind, on_message))
        return self._opened[-1]

    def publisher(self, topic: str, kind: str) -> "DdsPublisher":
        """Return what publishes on a topic, as `Transport` says."""
        require_topic(topic, kind)
        self._opened.append(DdsPublisher(self._participant, topic, kind))
        return self._opened[-1]

    def publishers(self, topic: str) -> list[str]:
        """Return the types that a topic is published with, one for each publisher that DDS sees, our own too.

        One that was killed is seen for another ten seconds.
        """
        return [_ros_type(found.type_name) for found in _published(self._everybody, self._alive, topic)]

    def close(self) -> None:
        """Leave all topics and the network; idempotent."""
        for one in self._opened:
            one.close()
        self._opened = []
        self._everybody = self._alive = self._participant = None


class DdsSubscription(Inbox):
    """The newest message of a topic and when it came; a thread of its own receives."""

    def __init__(self, participant: Any, topic: str, kind: str, on_message: OnMessage | None) -> None:
        from cyclonedds.core import InstanceState, ReadCondition, SampleState, ViewState, WaitSet
        from cyclonedds.qos import Policy
        from cyclonedds.sub import DataReader

        super().__init__(topic, kind, on_message)
        self._others = ""
        self._reader = DataReader(
            participant, _topic(participant, topic, kind), qos=_qos(kind, Policy.Reliability.BestEffort)
        )
        self._waiting = WaitSet(participant)
        self._waiting.attach(ReadCondition(self._reader, SampleState.Any | ViewState.Any | InstanceState.Any))
        self._everybody, self._alive = _everybody(participant)
        self._thread = threading.Thread(target=self._receive, name=f"dds {topic}", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str:
        """Why somebody publishes and nothing comes, in one line that stays the same, or nothing."""
        return self._others or self.why

    def close(self) -> None:
        """Stop receiving and leave the topic; idempotent."""
        super().close()
        self._thread.join()
        # CycloneDDS ends what nobody refers to: at once, not when the garbage of a cycle is collected.
        self._on_message = self._waiting = self._reader = self._everybody = self._alive = None

    def _receive(self) -> None:
        while self._listening:
            if not self._waiting.wait(POLL_NS):
                self._look_for_others()
            for sample in self._reader.take(N=QUEUE):
                if hasattr(sample, "cdr") and self.take(sample.cdr):  # without bytes: a writer left
                    self._others = ""

    def _look_for_others(self) -> None:
        """DDS joins a reader to writers of its own type only: of all others not even a message would be seen."""
        published = {found.type_name for found in _published(self._everybody, self._alive, self._topic)}
        others = ", ".join(sorted(_ros_type(name) for name in published))
        alone = published and _wire_type(self._kind) not in published
        self._others = f"{self._topic} carries {others}, not {self._kind}" if alone else ""


class DdsPublisher:
    """Sends messages on one topic, reliably."""

    def __init__(self, participant: Any, topic: str, kind: str) -> None:
        from cyclonedds.pub import DataWriter
        from cyclonedds.qos import Policy
        from cyclonedds.util import duration

        self._kind, self._struct = kind, _struct(kind)
        reliable = Policy.Reliability.Reliable(duration(milliseconds=100))
        self._writer = DataWriter(participant, _topic(participant, topic, kind), qos=_qos(kind, reliable))

    def send(self, message: Any) -> None:
        """Publish one message."""
        sample = self._struct.__new__(self._struct)
        sample.cdr = encoded(message, self._kind)
        self._writer.write(sample)

    @property
    def subscribers(self) -> int:
        """How many readers DDS sees."""
        return 0 if self._writer is None else len(self._writer.get_matched_subscriptions())

    def close(self) -> None:
        """Leave the topic; idempotent."""
        self._writer = None


def _everybody(participant: Any) -> tuple[Any, Any]:
    """Return what tells of every publisher there is, and the condition that it is alive."""
    from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication
    from cyclonedds.core import InstanceState, ReadCondition, SampleState, ViewState

    reader = BuiltinDataReader(participant, BuiltinTopicDcpsPublication)
    return reader, ReadCondition(reader, SampleState.Any | ViewState.Any | InstanceState.Alive)


def _published(everybody: Any, alive: Any, topic: str) -> list[Any]:
    wire = f"rt/{topic.lstrip('/')}"
    return [found for found in everybody.read(N=EVERYBODY, condition=alive) if found.topic_name == wire]


def _topic(participant: Any, topic: str, kind: str) -> Any:
    from cyclonedds.topic import Topic

    return Topic(participant, f"rt/{topic.lstrip('/')}", _struct(kind))


def _qos(kind: str, reliability: Any) -> Any:
    """Keep last, volatile; a writer's and a reader's user data carry the type's hash, which newer ROS asks for."""
    from cyclonedds.qos import Policy, Qos

    return Qos(
        reliability,
        Policy.Durability.Volatile,
        Policy.History.KeepLast(QUEUE),
        Policy.Userdata(f"typehash={hashed(kind)};".encode()),
    )


def _wire_type(kind: str) -> str:
    package, _, name = kind.split("/")
    return f"{package}::msg::dds_::{name}_"


def _ros_type(wire: str) -> str:
    package, _, name = wire.partition("::msg::dds_::")
    return f"{package}/msg/{name.removesuffix('_')}" if name else wire


@cache
def _struct(kind: str) -> Any:
    """Return the DDS type of a message: its declared fields for discovery, its bytes left as they are."""
    from cyclonedds.idl import make_idl_struct

    message(kind)
    name = kind.rpartition("/")[2]
    fields = {field: _field(*what) for field, what in typestore().fielddefs[kind][1]}
    struct = make_idl_struct(f"{name}_", _wire_type(kind).replace("::", "."), fields)

    class Bytes:
        """A received sample, not decoded yet."""

        def __init__(self, cdr: bytes) -> None:
            self.cdr = cdr

    # A subclass cannot have these: CycloneDDS looks at the class that was made from the fields.
    struct.serialize = lambda self, *args, **options: self.cdr
    struct.deserialize = classmethod(lambda cls, data, *args, **options: Bytes(bytes(data)))
    struct.deserialize_key = classmethod(lambda cls, data, *args, **options: None)  # comes when a writer leaves
    return struct


def _field(node: Any, what: Any) -> Any:
    from cyclonedds.idl import types

    if node.name == "NAME":
        return _struct(what)
    if node.name == "BASE":
        name = what[0] if isinstance(what, tuple) else what
        special = {"string": str, "bool": bool, "octet": types.byte, "byte": types.byte, "char": types.uint8}
        return special.get(name) or getattr(types, name)
    inner, size = what
    element = _field(*inner)
    return types.array[element, size] if node.name == "ARRAY" else types.sequence[element]

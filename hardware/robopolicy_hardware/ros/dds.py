"""ROS 2 topics without ROS: CycloneDDS carries them, rosbags knows the messages and their bytes."""

import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any

from robopolicy.errors import MissingExtra, UnknownName, UsageError

TOPIC = re.compile(r"/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")
LAST_DOMAIN = 232  # the ports of those beyond do not exist
QUEUE = 5  # samples kept for a slow reader
POLL_NS = 100_000_000  # how long the reading thread waits at a time
EVERYBODY = 10_000  # publishers of all topics that are looked through, at most

OnMessage = Callable[[Any, int], None]


class Topics:
    """A DDS participant that reads and writes ROS 2 topics, by ROS's own names and types.

    The bytes are those that every ROS 2 node sends and understands: topic ``/a/b`` is ``rt/a/b`` on the wire, type
    ``pkg/msg/Name`` is ``pkg::msg::dds_::Name_``. Which network interfaces are used, ``CYCLONEDDS_URI`` says.

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
        _typestore()
        wanted = (os.environ.get("ROS_DOMAIN_ID") or "0") if domain is None else str(domain)
        if not (wanted.isdecimal() and int(wanted) <= LAST_DOMAIN):
            raise UsageError(f"no ROS 2 domain {wanted!r}: --domain and ROS_DOMAIN_ID are 0 to {LAST_DOMAIN}")
        self.domain = int(wanted)
        try:
            self._participant = DomainParticipant(self.domain)
        except DDSException as error:
            raise UsageError(f"DDS does not start in domain {wanted}: {error.msg}; look at CYCLONEDDS_URI") from error
        self._everybody, self._alive = _everybody(self._participant)

    def subscribe(self, topic: str, kind: str, on_message: OnMessage | None = None) -> "Subscription":
        """Read a topic from now on, best effort, which matches every publisher.

        Args:
            topic: as ROS writes it.
            kind: type of its messages, e.g. ``sensor_msgs/msg/Image``.
            on_message: called with every message and when it came (monotonic ns), in the thread that receives; it
                must not raise.

        Raises:
            UnknownName: if there is no message type ``kind``.
            UsageError: if ROS has no such topic names.
        """
        return Subscription(self._participant, topic, kind, on_message)

    def publisher(self, topic: str, kind: str) -> "Publisher":
        """Return what publishes on a topic, reliably.

        Raises:
            UnknownName: if there is no message type ``kind``.
        """
        return Publisher(self._participant, topic, kind)

    def publishers(self, topic: str) -> list[str]:
        """Return the types that a topic is published with, one for each publisher that DDS sees, our own too."""
        return [_ros_type(found.type_name) for found in _published(self._everybody, self._alive, topic)]


class Subscription:
    """The newest message of a topic and when it came; a thread of its own receives.

    Attributes:
        undecoded: messages so far whose bytes were no message of this type.
    """

    def __init__(self, participant: Any, topic: str, kind: str, on_message: OnMessage | None = None) -> None:
        from cyclonedds.core import InstanceState, ReadCondition, SampleState, ViewState, WaitSet
        from cyclonedds.qos import Policy
        from cyclonedds.sub import DataReader

        self.undecoded, self._why, self._others = 0, "", ""
        self._topic, self._kind, self._on_message = topic, kind, on_message
        self._reader = DataReader(
            participant, _topic(participant, topic, kind), qos=_qos(kind, Policy.Reliability.BestEffort)
        )
        self._waiting = WaitSet(participant)
        self._waiting.attach(ReadCondition(self._reader, SampleState.Any | ViewState.Any | InstanceState.Any))
        self._everybody, self._alive = _everybody(participant)
        self._lock = threading.Lock()
        self._newest: tuple[Any, int] | None = None
        self._unseen: deque[Any] = deque(maxlen=QUEUE * 4)
        self._open = True
        self._thread = threading.Thread(target=self._receive, name=f"dds {topic}", daemon=True)
        self._thread.start()

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

    @property
    def trouble(self) -> str:
        """Why somebody publishes and nothing comes, in one line that stays the same, or nothing."""
        return self._others or self._why

    @property
    def publishers(self) -> int:
        """How many publishers DDS sees; one that died is counted for another ten seconds."""
        return len(self._reader.get_matched_publications()) if self._open else 0

    def close(self) -> None:
        """Stop receiving and leave the topic; idempotent."""
        self._open = False
        self._thread.join()
        # CycloneDDS ends what nobody refers to: at once, not when the garbage of a cycle is collected.
        self._on_message = self._waiting = self._reader = self._everybody = self._alive = None

    def _receive(self) -> None:
        while self._open:
            if not self._waiting.wait(POLL_NS):
                self._look_for_others()
            for sample in self._reader.take(N=QUEUE):
                if not hasattr(sample, "cdr"):
                    continue  # a writer left
                try:
                    received = _typestore().deserialize_cdr(sample.cdr, self._kind)
                except Exception as error:  # bytes from the network: whatever they are, they must not end the reading
                    self.undecoded += 1
                    self._why = self._why or f"what comes on {self._topic} cannot be read: {error}"
                    continue
                came_ns = time.monotonic_ns()
                if self._on_message is not None:
                    self._on_message(received, came_ns)
                with self._lock:
                    self._newest, self._others = (received, came_ns), ""
                    self._unseen.append(received)

    def _look_for_others(self) -> None:
        """DDS joins a reader to writers of its own type only: of all others not even a message would be seen."""
        published = {found.type_name for found in _published(self._everybody, self._alive, self._topic)}
        others = ", ".join(sorted(_ros_type(name) for name in published))
        alone = published and _wire_type(self._kind) not in published
        self._others = f"{self._topic} carries {others}, not {self._kind}" if alone else ""


class Publisher:
    """Sends messages, as rosbags makes them, on one topic."""

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
        sample.cdr = bytes(_typestore().serialize_cdr(message, self._kind))
        self._writer.write(sample)

    @property
    def subscribers(self) -> int:
        """How many readers DDS sees."""
        return len(self._writer.get_matched_subscriptions())


def message(kind: str) -> type:
    """Return the class of a message type, e.g. ``geometry_msgs/msg/TwistStamped``.

    Raises:
        UnknownName: naming the types of the same package.
    """
    types = _typestore().types
    if kind not in types:
        package = kind.partition("/")[0] + "/"
        raise UnknownName(
            "message type", kind, [name for name in types if name.startswith(package)] or ["PKG/msg/TYPE"]
        )
    found: type = types[kind]
    return found


@cache
def _typestore() -> Any:
    try:
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise MissingExtra("rosbags", "ros") from error
    return get_typestore(Stores.ROS2_JAZZY)


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

    if not TOPIC.fullmatch(topic):
        raise UsageError(f"{topic!r} is no topic's name; want letters, digits and _, as in /teleop/twist")
    return Topic(participant, f"rt/{topic.lstrip('/')}", _struct(kind))


def _qos(kind: str, reliability: Any) -> Any:
    """Keep last, volatile; a writer's and a reader's user data carry the type's hash, which newer ROS asks for."""
    from cyclonedds.qos import Policy, Qos

    hashed = _typestore().hash_rihs01(kind)
    return Qos(
        reliability,
        Policy.Durability.Volatile,
        Policy.History.KeepLast(QUEUE),
        Policy.Userdata(f"typehash={hashed};".encode()),
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
    fields = {field: _field(*what) for field, what in _typestore().fielddefs[kind][1]}
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

"""Node names on the wire: which ROS 2 node a DDS reader or writer belongs to, told and heard on ros_discovery_info."""

import re
import threading
from collections.abc import Sequence
from typing import Any

from robopolicy.errors import UsageError
from robopolicy_hardware.ros.codec import decoded, encoded, message
from robopolicy_hardware.ros.dds_discovery import everybody, look
from robopolicy_hardware.ros.dds_types import struct_of

TOPIC = "ros_discovery_info"  # without the rt/ of topics
KIND = "rmw_dds_common/msg/ParticipantEntitiesInfo"
# The hash that ROS 2 Iron to Lyrical send for it; computed from the definition it comes out otherwise, since ROS
# itself hashes the ids' `char` in a way of its own.
HASH = "RIHS01_91a0593bacdcc50ea9bdcf849a938b128412cc1ea821245c663bcd26f83c295e"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")
KEPT = 1000  # participants that are remembered


class Announced:
    """Tells everybody our node's name and which readers and writers are its, and hears the names of all others.

    Ids have the 16 bytes of ROS 2 Iron and later; Humble's, of 24, are a type of their own: neither side hears the
    other's names then, and the topics work all the same.

    Args:
        participant: of DDS.
        node: its name, ``robopolicy`` or with a namespace ``lab/robopolicy``.

    Raises:
        UsageError: if ROS has no such node names.
    """

    def __init__(self, participant: Any, node: str) -> None:
        from cyclonedds.pub import DataWriter
        from cyclonedds.qos import Policy, Qos
        from cyclonedds.sub import DataReader
        from cyclonedds.topic import Topic
        from cyclonedds.util import duration

        if not NAME.fullmatch(node.lstrip("/")):
            raise UsageError(f"{node!r} is no node's name; want letters, digits and _, as in lab/robopolicy")
        space, _, self._name = node.lstrip("/").rpartition("/")
        self._space = f"/{space}"
        self._lock = threading.Lock()
        self.unread = 0  # messages so far whose bytes were none
        self._heard: dict[bytes, Any] = {}  # newest word of each participant, by its guid
        self._guid = participant.guid.bytes
        lasting = (
            Policy.Durability.TransientLocal,
            Policy.Reliability.Reliable(duration(milliseconds=100)),
            Policy.Userdata(f"typehash={HASH};".encode()),
        )
        topic = Topic(participant, TOPIC, struct_of(KIND))
        self._writer: Any = DataWriter(participant, topic, qos=Qos(*lasting, Policy.History.KeepLast(1)))
        # Without a key all participants share the one history of a reader: the last word of each must fit in.
        self._reader: Any = DataReader(participant, topic, qos=Qos(*lasting, Policy.History.KeepAll))
        self._participants: Any = everybody(participant, "Participant")
        self.tell(())

    def tell(self, opened: Sequence[Any]) -> None:
        """Say which readers and writers are our node's: those of ``opened`` that are not closed."""
        if self._writer is None:
            return
        gid, entities = message("rmw_dds_common/msg/Gid"), message("rmw_dds_common/msg/NodeEntitiesInfo")
        import numpy as np

        def gids(what: str) -> list[Any]:
            found = [guid for one in opened if (guid := getattr(one, what, None)) is not None]
            return [gid(np.frombuffer(guid, np.uint8)) for guid in found]

        ours = entities(self._space, self._name, gids("reader_guid"), gids("writer_guid"))
        sample = struct_of(KIND).__new__(struct_of(KIND))
        sample.cdr = encoded(message(KIND)(gid(np.frombuffer(self._guid, np.uint8)), [ours]), KIND)
        self._writer.write(sample)

    def nodes(self) -> dict[bytes, str]:
        """Return {guid of a reader or writer: full name of its node}, of all participants that are alive."""
        names = {}
        for info in self._alive():
            for node in info.node_entities_info_seq:
                for gid in (*node.reader_gid_seq, *node.writer_gid_seq):
                    names[bytes(gid.data)] = _full(node)
        return names

    def seen(self) -> list[str]:
        """Return the full names of all nodes there are, those without a reader or writer too."""
        return [_full(node) for info in self._alive() for node in info.node_entities_info_seq]

    def close(self) -> None:
        """Say nothing more; idempotent."""
        self._writer = self._reader = self._participants = None

    def _alive(self) -> list[Any]:
        with self._lock:
            if self._reader is None:
                return []
            for sample in self._reader.take(N=KEPT):
                if hasattr(sample, "cdr"):
                    self._hear(sample.cdr)
            here = {found.key.bytes for found in look(*self._participants)}
            self._heard = {guid: info for guid, info in self._heard.items() if guid in here}
            return list(self._heard.values())

    def _hear(self, cdr: bytes) -> None:
        try:
            info = decoded(cdr, KIND)
        except Exception:  # bytes from the network: a name that cannot be read is no name
            self.unread += 1
            return
        self._heard[bytes(info.gid.data)] = info


def participant_data() -> Any:
    """Return the QoS of a participant that ROS 2 takes for one of its own."""
    from cyclonedds.qos import Policy, Qos

    return Qos(Policy.Userdata(b"enclave=/;"))


def _full(node: Any) -> str:
    return f"{node.node_namespace.rstrip('/')}/{node.node_name}"

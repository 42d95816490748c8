"""What DDS tells of everybody on a network: participants, publishers, subscribers, and the QoS of each."""

import threading
from typing import Any

EVERYBODY = 10_000  # participants, publishers or subscribers of all topics that are looked through, at most
_QOS = threading.Lock()  # cyclonedds 11 reads QoS through buffers of a class: two threads at once end the process


def everybody(participant: Any, what: str) -> tuple[Any, Any]:
    """Return what `look` asks: (reader, condition that what it tells of is alive).

    Args:
        participant: of DDS.
        what: "Participant", "Publication" or "Subscription".
    """
    from cyclonedds import builtin
    from cyclonedds.core import InstanceState, ReadCondition, SampleState, ViewState

    reader = builtin.BuiltinDataReader(participant, getattr(builtin, f"BuiltinTopicDcps{what}"))
    return reader, ReadCondition(reader, SampleState.Any | ViewState.Any | InstanceState.Alive)


def look(reader: Any, alive: Any) -> list[Any]:
    """Return all that are alive, as `everybody` has them; from any thread."""
    with _QOS:
        return list(reader.read(N=EVERYBODY, condition=alive))


def matched(writer: Any, reader: int) -> Any:
    """Return what is known of a reader that a writer is matched with, by its handle; None if it has left."""
    with _QOS:
        return writer.get_matched_subscription_data(reader)

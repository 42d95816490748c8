"""What a robot publishes, as streams that can be read at one instant."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from robopolicy.alignment import Aligned, Aligner
from robopolicy.errors import ConfigError, ContractError, RobopolicyError, StaleFrame
from robopolicy.topics.config import CameraTopic, NumbersTopic
from robopolicy.topics.messages import PICTURES, numbers, stamp_ns

KEEP_S = 0.5  # of every stream; pictures are large
DRIFT_NS = 1_000_000  # the wall clock was set if it moved this much against the monotonic one
RESET_NS = 1_000_000_000  # stamps that go back this far are those of a publisher that began anew


class Transport(Protocol):
    """What carries the topics: DDS, rclpy, or nothing but this process."""

    def subscribe(self, topic: str, kind: str, on_message: Any = None) -> Any:
        """Return a subscription: ``trouble`` in one line, ``close()``; ``on_message(message, monotonic ns)``."""
        ...

    def publisher(self, topic: str, kind: str) -> Any:
        """Return a publisher: ``send(message)``, how many ``subscribers``."""
        ...

    def publishers(self, topic: str) -> list[str]:
        """Return the type that each publisher of a topic has, our own among them."""
        ...


class Streams:
    """Subscribes to topics, each once, and aligns what they say by the capture times in their headers.

    Header stamps are the wall clock's; streams are kept in monotonic time, into which they are turned by the distance
    of this machine's two clocks. Publishers on other machines want theirs synchronised.

    Args:
        topics: {stream: what it is}, streams called ``camera front``, ``state q``.
        transport: carries them.
        max_age_s: a stream whose newest message is older is stale; or its own ``max_age_s``, if that is longer.
    """

    def __init__(
        self, topics: Mapping[str, CameraTopic | NumbersTopic], transport: Transport, max_age_s: float
    ) -> None:
        self._topics, self._max_age_s = dict(topics), max_age_s
        self._lock = threading.Lock()
        self._came_ns: dict[str, int] = {}  # when the newest message came
        self._seen: dict[str, Any] = {}  # of a camera the newest message; of numbers where quaternions are, units
        self._trouble: dict[str, str] = {}  # why a stream's newest message was not taken
        self._offset_ns = _offset_ns()
        self._interpolated = [
            what for what, topic in self._topics.items()
            if not isinstance(topic, CameraTopic) and topic.align == "interpolate"
        ]  # fmt: skip
        self._aligners: dict[bool, Aligner] = {}  # cameras' and numbers', once it is known which are quaternions
        by_topic: dict[tuple[str, str], list[str]] = {}
        for what, topic in self._topics.items():
            by_topic.setdefault((topic.topic, type_of(what, topic)), []).append(what)
        self._subscriptions = {
            what: subscription
            for (topic, kind), streams in by_topic.items()
            for subscription in [transport.subscribe(topic, kind, self._take(streams))]
            for what in streams
        }

    def wait(self, timeout_s: float) -> Mapping[str, Any]:
        """Wait until every stream has come.

        Returns:
            {``camera front``: a message; ``state q``: (its numbers (D,), their units)}.

        Raises:
            StaleFrame: naming the topics on which nothing came, and why.
            ContractError: if a message does not hold what the config says.
        """
        deadline_s = time.monotonic() + timeout_s
        self._wait_for(lambda what: what in self._seen, timeout_s, deadline_s)
        with self._lock:
            rules = {}
            for what, topic in self._topics.items():
                camera = isinstance(topic, CameraTopic)
                rules[what] = topic.rule if camera else topic.rule(self._seen[what][1])  # type: ignore[operator]
            self._aligners = {
                kind: Aligner({what: rule for what, rule in rules.items() if _is_camera(what) == kind}, keep_s=KEEP_S)
                for kind in (True, False)
            }
        self._wait_for(lambda what: self._newest_of(what) is not None, timeout_s, deadline_s)
        return {what: seen if _is_camera(what) else (seen[0], seen[2]) for what, seen in self._seen.items()}

    def at(self, primary: str | None, now_ns: int, after_ns: int = -1) -> Aligned:
        """Return every stream at the newest picture of the primary camera, or the newest instant all numbers reach.

        Args:
            primary: its stream, ``camera front``; None is none.
            now_ns: no instant is later.
            after_ns: nor as early as that: without a newer picture the pictures stay what they were and numbers are of
                their own instant, and if those are not newer either, of now.

        Raises:
            StaleFrame: naming the stream that is too old, and why.
        """
        newest = {what: self._newest_ns(what, now_ns) for what in self._topics}
        reached = [newest[what] for what in self._interpolated or self._topics]
        instants = (newest.get(primary, -1), min(reached), now_ns)  # type: ignore[arg-type]
        instant = next((one for one in instants if after_ns < one <= now_ns), now_ns)
        cameras = [newest[what] for what in newest if _is_camera(what)]
        picture = newest[primary] if primary is not None else min([instant, *cameras])
        try:
            seen, felt = self._aligners[True].at(picture), self._aligners[False].at(instant)
        except StaleFrame as error:
            why = next(iter(self._trouble.values()), "")
            raise StaleFrame(f"{error} ({why})" if why else str(error)) from error
        return Aligned(instant, {**seen.values, **felt.values}, {**seen.stamps_ns, **felt.stamps_ns})

    def close(self) -> None:
        """Stop listening; idempotent."""
        for subscription in set(self._subscriptions.values()):
            subscription.close()

    def _wait_for(self, here: Callable[[str], bool], timeout_s: float, deadline_s: float) -> None:
        while missing := [what for what in self._topics if not here(what)]:
            if time.monotonic() >= deadline_s:
                raise StaleFrame(f"within {timeout_s:g} s: " + "; ".join(map(self._silent, missing)))
            if self._trouble:
                raise ContractError(next(iter(self._trouble.values())))
            time.sleep(0.01)

    def _newest_of(self, what: str) -> int | None:
        return self._aligners[_is_camera(what)].newest_ns(what)

    def _newest_ns(self, what: str, now_ns: int) -> int:
        newest = self._newest_of(what)
        allowed_s = max(self._max_age_s, self._topics[what].max_age_s)
        if newest is None:
            raise StaleFrame(self._silent(what))
        if newest is None:
            raise StaleFrame(self._silent(what))
        age_s = (now_ns - newest) / 1e9
        if age_s > allowed_s:
            why = self._trouble.get(what) or self._subscriptions[what].trouble
            raise StaleFrame(
                f"{what}: the newest message on {self._topics[what].topic} is of {age_s:.2f} s ago; at most "
                f"{allowed_s:g} s is allowed" + (f" ({why})" if why else "")
            )
        if age_s < -allowed_s:
            raise StaleFrame(
                f"{what}: the stamps on {self._topics[what].topic} are {-age_s:.2f} s ahead of this machine's clock; "
                "synchronise the clocks, or set its stamp: bag"
            )
        return newest

    def _silent(self, what: str) -> str:
        why = self._trouble.get(what) or self._subscriptions[what].trouble or "nothing comes"
        return f"{what}: {why}" if self._topics[what].topic in why else f"{what}: {why} on {self._topics[what].topic}"

    def _take(self, streams: list[str]) -> Any:
        """Return what takes the messages of one topic, in the thread that receives them."""

        def take(received: Any, came_ns: int) -> None:
            for what in streams:
                try:
                    self._keep(what, received, came_ns)
                    self._trouble.pop(what, None)
                except RobopolicyError as error:  # told by whoever reads: this thread has nobody to tell
                    self._trouble[what] = str(error)

        return take

    def _keep(self, what: str, received: Any, came_ns: int) -> None:
        topic = self._topics[what]
        value = received
        if not isinstance(topic, CameraTopic):
            value, quats, units = numbers(received, topic, what)
            _require_finite(what, topic, value)
        with self._lock:
            if what not in self._seen:
                self._seen[what] = received if isinstance(topic, CameraTopic) else (value, quats, topic.units or units)
            if not self._aligners:
                return
            header = stamp_ns(received) if topic.stamp == "header" else None
            if header == 0:
                raise ContractError(f"{what}: the header stamps of {topic.topic} are 0; set its stamp: bag")
            stamp = came_ns if header is None else header + self._offset()
            newest = self._newest_of(what)
            if newest is not None and newest - stamp > RESET_NS:
                self._aligners[_is_camera(what)].clear()
            self._aligners[_is_camera(what)].push(what, stamp, value)

    def _offset(self) -> int:
        """What is added to a wall stamp; constant while nobody sets the wall clock, so that equal stamps stay equal."""
        now = _offset_ns()
        if abs(now - self._offset_ns) > DRIFT_NS:
            self._offset_ns = now
        return self._offset_ns


def _require_finite(what: str, topic: NumbersTopic, values: np.ndarray) -> None:
    if np.all(np.isfinite(values)):
        return
    i = int(np.argmin(np.isfinite(values)))
    part = f"joint {topic.joints[i]}" if topic.joints else f"number {i}"
    raise ContractError(f"{what}: {part} on {topic.topic} is {values[i]}")


def _offset_ns() -> int:
    return time.monotonic_ns() - time.time_ns()


def _is_camera(what: str) -> bool:
    return what.startswith("camera ")


def type_of(what: str, topic: CameraTopic | NumbersTopic) -> str:
    """Return the message type of a stream: as the config says, or the usual one."""
    if topic.type:
        if isinstance(topic, CameraTopic) != (topic.type in PICTURES):
            want = " or ".join(PICTURES) if isinstance(topic, CameraTopic) else "numbers"
            raise ConfigError(f"{what}: {topic.type} on {topic.topic}; want {want}")
        return topic.type
    if isinstance(topic, CameraTopic):
        return PICTURES[topic.topic.endswith("/compressed")]
    if topic.joints:
        return "sensor_msgs/msg/JointState"
    raise ConfigError(f"{what}: say the type of what {topic.topic} carries, as in type: geometry_msgs/msg/PoseStamped")

"""What a robot publishes, as streams that can be read at one instant."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robopolicy.alignment import Aligned, Aligner
from robopolicy.errors import ConfigError, ContractError, RobopolicyError, StaleFrame
from robopolicy.topics.config import CameraTopic, NumbersTopic
from robopolicy.topics.messages import PICTURES, numbers, stamp_ns
from robopolicy_hardware.cameras.topics import with_devices
from robopolicy_hardware.ros.transport import Transport

KEEP_S = 0.5  # of every stream, or as old as the oldest may be; pictures are large
PATIENCE_S = 1.0  # for a first message that can be used among others on the same topic that cannot
DRIFT_NS = 1_000_000  # the wall clock was set if it moved this much against the monotonic one
RESET_NS = 1_000_000_000  # stamps that go back this far are those of a publisher that began anew
SURE_NS = 50_000  # both clocks were read within this, so that neither was read before a pause and one after it


@dataclass(frozen=True)
class First:
    """The first numbers of a stream."""

    values: np.ndarray  # (D,) float64
    quats: tuple[int, ...]  # where quaternions start
    units: tuple[str, ...]
    frame: str  # frame_id of its header, if it has one


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
        transport = with_devices(transport, [topic for topic in topics.values() if isinstance(topic, CameraTopic)])
        self._lock = threading.Lock()
        self._seen: dict[str, Any] = {}  # the first message of a camera, `First` of numbers
        self._trouble: dict[str, str] = {}  # why a stream's newest message was not taken
        self._offset_ns = sure_offset_ns(None)
        self._interpolated = [
            what for what, topic in self._topics.items()
            if not isinstance(topic, CameraTopic) and topic.align == "interpolate"
        ]  # fmt: skip
        self._aligners: dict[str, Aligner] = {}  # one each, once it is known which numbers are quaternions
        self._keep_s = max(KEEP_S, *(self._allowed_s(what) for what in self._topics), 0.0)
        by_topic: dict[tuple[str, str], list[str]] = {}
        for what, topic in self._topics.items():
            by_topic.setdefault((topic.topic, type_of(what, topic)), []).append(what)
            if isinstance(topic, NumbersTopic) and topic.align == "after":
                raise ConfigError(
                    f"{what}: align: after wants messages that are still to come; want another of a robot"
                )
        self._subscriptions: dict[str, Any] = {}
        try:
            for (name, kind), streams in by_topic.items():
                subscription = transport.subscribe(name, kind, self._take(streams))
                self._subscriptions.update(dict.fromkeys(streams, subscription))
        except Exception:
            self.close()
            raise

    def wait(self, timeout_s: float) -> Mapping[str, Any]:
        """Wait until every stream has come.

        Returns:
            {``camera front``: a message; ``state q``: `First`}.

        Raises:
            StaleFrame: naming the topics on which nothing came, and why.
            ContractError: if the messages of a stream do not hold what the config says.
        """
        deadline_s = time.monotonic() + timeout_s
        self._wait_for(lambda what: what in self._seen, timeout_s, deadline_s)
        with self._lock:
            for what, topic in self._topics.items():
                rule = topic.rule if isinstance(topic, CameraTopic) else topic.rule(self._seen[what].quats)
                self._aligners.setdefault(what, Aligner({what: rule}, keep_s=self._keep_s))  # asked again: goes on
        self._wait_for(lambda what: self._aligners[what].newest_ns(what) is not None, timeout_s, deadline_s)
        return dict(self._seen)

    def at(self, primary: str | None, now_ns: int, after_ns: int = -1, only: Iterable[str] | None = None) -> Aligned:
        """Return the streams at the newest picture of the primary camera, or the newest instant all numbers reach.

        Args:
            primary: its stream, ``camera front``; None is none.
            now_ns: no instant is later.
            after_ns: nor as early as that: without a newer picture the pictures stay what they were and numbers are of
                their own instant, and if those are not newer either, of now.
            only: these streams, whatever becomes of the others; None is all.

        Raises:
            StaleFrame: naming the stream that is too old, and why.
        """
        newest = {what: self._newest_ns(what, now_ns) for what in (self._topics if only is None else only)}
        reached = [newest[what] for what in newest if what in self._interpolated] or list(newest.values())
        instants = (newest.get(primary, -1), min(reached), now_ns)  # type: ignore[arg-type]
        instant = next((one for one in instants if after_ns < one <= now_ns), now_ns)
        cameras = [newest[what] for what in newest if _is_camera(what)]
        picture = newest[primary] if primary is not None else min([instant, *cameras])
        values, stamps = {}, {}
        far: dict[str, int] = {}  # streams that have nothing near: how old the newest is
        for what in newest:
            try:
                found = self._aligners[what].at(picture if _is_camera(what) else instant)
            except StaleFrame:
                far[what] = now_ns - newest[what]
                continue
            values[what], stamps[what] = found.values[what], found.stamps_ns[what]
        if far:  # what others miss, the one that stalled has moved the instant away from
            worst = max(far, key=far.__getitem__)
            raise StaleFrame(self._far(worst, newest[worst], picture if _is_camera(worst) else instant, now_ns))
        return Aligned(instant, values, stamps)

    def close(self) -> None:
        """Stop listening; idempotent."""
        for subscription in set(self._subscriptions.values()):
            subscription.close()

    def _wait_for(self, here: Callable[[str], bool], timeout_s: float, deadline_s: float) -> None:
        patience_s = time.monotonic() + PATIENCE_S
        while missing := [what for what in self._topics if not here(what)]:
            if time.monotonic() >= deadline_s:
                raise StaleFrame(f"within {timeout_s:g} s: " + "; ".join(map(self._silent, missing)))
            why = [self._trouble[what] for what in missing if what in self._trouble]
            if why and time.monotonic() >= patience_s:
                raise ContractError(why[0])
            time.sleep(0.01)

    def _allowed_s(self, what: str) -> float:
        return max(self._max_age_s, self._topics[what].max_age_s)

    def _newest_ns(self, what: str, now_ns: int) -> int:
        newest, allowed_s = self._aligners[what].newest_ns(what), self._allowed_s(what)
        if newest is None:
            raise StaleFrame(self._silent(what))
        age_s = (now_ns - newest) / 1e9
        if age_s > allowed_s:
            raise StaleFrame(
                f"{what}: the newest message on {self._topics[what].topic} is of {age_s:.2f} s ago; at most "
                f"{allowed_s:g} s is allowed{self._because(what)}"
            )
        if age_s < -allowed_s:
            raise StaleFrame(
                f"{what}: the stamps on {self._topics[what].topic} are {-age_s:.2f} s ahead of this machine's clock; "
                "synchronise the clocks, or set its stamp: bag"
            )
        return newest

    def _far(self, what: str, newest_ns: int, instant_ns: int, now_ns: int) -> str:
        """Why a stream has nothing near an instant: it stalled before it, or comes too seldom."""
        topic, why = self._topics[what], self._because(what)
        newest_s, ago_s = (now_ns - newest_ns) / 1e9, (now_ns - instant_ns) / 1e9
        if newest_ns >= instant_ns:
            return (
                f"{what}: nothing on {topic.topic} within {topic.max_age_s:g} s of the instant {ago_s:.2f} s ago; "
                f"raise its max_age_s if it comes that seldom{why}"
            )
        return (
            f"{what}: the newest message on {topic.topic} is of {newest_s:.2f} s ago, the observation of {ago_s:.2f} s "
            f"ago; at most {topic.max_age_s:g} s between them is allowed (max_age_s): did it stall?{why}"
        )

    def _why(self, what: str) -> str:
        """Why nothing of a stream can be used, without its name, or nothing."""
        trouble: str = self._trouble.get(what, "").removeprefix(f"{what}: ") or self._subscriptions[what].trouble
        return trouble

    def _because(self, what: str) -> str:
        why = self._why(what)
        return f" ({why})" if why else ""

    def _silent(self, what: str) -> str:
        why = self._why(what) or "nothing comes"
        return f"{what}: {why}" if self._topics[what].topic in why else f"{what}: {why} on {self._topics[what].topic}"

    def _take(self, streams: list[str]) -> Any:
        """Return what takes the messages of one topic, in the thread that receives them."""

        def take(received: Any, came_ns: int) -> None:
            for what in streams:
                try:
                    self._keep(what, received, came_ns)
                    self._trouble.pop(what, None)
                except Exception as error:  # told by whoever reads: this thread has nobody to tell, and must not end
                    known = isinstance(error, RobopolicyError)
                    self._trouble[what] = str(error) if known else f"{type(error).__name__}: {error}"

        return take

    def _keep(self, what: str, received: Any, came_ns: int) -> None:
        topic = self._topics[what]
        value = received
        first: Any = received
        if not isinstance(topic, CameraTopic):
            value, quats, units = numbers(received, topic, what)
            _require_usable(what, topic, value, quats)
            first = First(value, quats, topic.units or units, frame_of(received))
        with self._lock:
            first = self._seen.setdefault(what, first)
            if isinstance(first, First) and len(value) != len(first.values):
                raise ContractError(f"{what}: {len(value)} numbers on {topic.topic}; it began with {len(first.values)}")
            if what not in self._aligners:
                return
            header = stamp_ns(received) if topic.stamp == "header" else None
            if header == 0:
                raise ContractError(f"{what}: the header stamps of {topic.topic} are 0; set its stamp: bag")
            stamp = came_ns if header is None else header + self._offset()
            newest = self._aligners[what].newest_ns(what)
            if newest is not None and newest - stamp > RESET_NS:
                self._aligners[what].clear()
            self._aligners[what].push(what, stamp, value)

    def _offset(self) -> int:
        """What is added to a wall stamp; constant while nobody sets the wall clock, so that equal stamps stay equal."""
        now = sure_offset_ns(self._offset_ns)
        if abs(now - self._offset_ns) > DRIFT_NS:
            self._offset_ns = now
        return self._offset_ns


def frame_of(message: Any) -> str:
    """Return the frame_id of a message's header without the slash of older days, or nothing."""
    return str(getattr(getattr(message, "header", None), "frame_id", "")).lstrip("/")


def _require_usable(what: str, topic: NumbersTopic, values: np.ndarray, quats: tuple[int, ...]) -> None:
    if not len(values):
        raise ContractError(f"{what}: {topic.topic} holds no number in {topic.field or 'it'}")
    if not np.all(np.isfinite(values)):
        i = int(np.argmin(np.isfinite(values)))
        part = f"joint {topic.joints[i]}" if topic.joints else f"number {i}"
        raise ContractError(f"{what}: {part} on {topic.topic} is {values[i]}")
    for start in quats:
        if abs(float(np.linalg.norm(values[start : start + 4])) - 1.0) > 0.1:
            raise ContractError(f"{what}: no rotation on {topic.topic}: quaternion wxyz {values[start : start + 4]}")


def sure_offset_ns(otherwise: int | None) -> int:
    """Return the monotonic clock less the wall clock; ``otherwise`` if this thread is stopped between them again."""
    for _ in range(3 if otherwise is not None else 1000):
        before_ns, wall_ns, after_ns = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        if after_ns - before_ns <= SURE_NS:
            return before_ns - wall_ns
    return before_ns - wall_ns if otherwise is None else otherwise


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

"""A robot watched from outside: what it tells and what it is told, each stream at its own newest sample."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robopolicy.errors import ContractError, StaleFrame
from robopolicy.topics.config import CameraTopic, NumbersTopic, TopicConfig
from robopolicy.topics.messages import decoded, picture
from robopolicy.types import Observation
from robopolicy_hardware.ros.intake import STOP, Intake
from robopolicy_hardware.ros.streams import Streams
from robopolicy_hardware.ros.transport import Transport

MAX_AGE_S = 0.2  # of what is told


class Group:
    """Streams that belong together, such as a position and a quaternion; read at the newest instant all of them know.

    Args:
        topics: {stream: what it is}, streams called ``camera front``, ``state q``.
        transport: carries them.
    """

    def __init__(self, topics: Mapping[str, CameraTopic | NumbersTopic], transport: Transport) -> None:
        self._streams = Streams(topics, transport, MAX_AGE_S)
        self._here, self.trouble = False, "nothing came yet"

    def wait(self, timeout_s: float) -> None:
        """Wait for the first messages; raises StaleFrame, naming what is silent, and ContractError."""
        self._streams.wait(timeout_s)
        self._here, self.trouble = True, ""

    def newest(self, now_ns: int) -> Observation | None:
        """Return the newest samples at their own instant, None if there is none of use; `trouble` says why."""
        try:
            if not self._here:
                self.wait(0.0)
            found = self._streams.at(None, now_ns)
            state, images, stamps = {}, {}, {}
            for what, value in found.values.items():
                kind, _, name = what.partition(" ")
                if kind == "state":
                    state[name] = np.array(value, np.float64)
                else:
                    images[name], stamps[name] = _pixels(value, what), found.stamps_ns[what]
        except (StaleFrame, ContractError) as error:
            self.trouble = str(error)
            return None
        self.trouble = ""
        stamp_ns = found.reference_ns if state else max(stamps.values())
        return Observation(stamp_ns, state, images, stamps)

    def close(self) -> None:
        """Stop listening; idempotent."""
        self._streams.close()


class RobotWatch:
    """Listens to a robot by the same file as `RosRobot`, and publishes nothing.

    It listens to the commands too. A transport that says so (`Topics` of `dds`, ``watching``) is not taken for a
    controller that listens there.

    Args:
        config: which topic is which field.
        transport: carries the topics.
        groups: {name: streams that are read together}, such as ``{"arm": ["state q", "state dq"]}``.
        extra: streams that the file does not have, {stream: topic}.
    """

    def __init__(
        self,
        config: TopicConfig,
        transport: Transport,
        groups: Mapping[str, Sequence[str]],
        extra: Mapping[str, NumbersTopic] | None = None,
    ) -> None:
        have = {**config.observed(), **(extra or {})}
        self.groups = {name: Group({what: have[what] for what in streams}, transport)
                       for name, streams in groups.items()}  # fmt: skip
        self._intake = Intake(config, transport)
        self.stopped = False

    def commanded(self, now_ns: int, wall_ns: int, held: np.ndarray) -> np.ndarray | None:
        """Return the set-point (A,) that the robot is told now, None if nothing new was said.

        Args:
            now_ns: robot clock.
            wall_ns: the same instant on the wall clock.
            held: (A,) in force, with which a trajectory begins.
        """
        wanted = self._intake.wanted(now_ns, wall_ns, held)
        self.stopped = isinstance(wanted, str) and wanted == STOP
        return None if wanted is None or isinstance(wanted, str) else wanted

    def close(self) -> None:
        """Stop listening; idempotent."""
        for group in self.groups.values():
            group.close()
        self._intake.close()


def _pixels(message: Any, where: str) -> np.ndarray:
    image = picture(message, where)
    if not isinstance(image, bytes):
        return image
    import cv2

    return decoded(cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_UNCHANGED) if image else None, where)

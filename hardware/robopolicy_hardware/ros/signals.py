"""Words of people on topics: a deadman's heartbeat, an emergency stop, and buttons to start, stop and reset."""

import threading
import time
from collections.abc import Callable
from typing import Any

from robopolicy_hardware.ros.transport import Transport

BOOL = "std_msgs/msg/Bool"
RECENT_S = 1.0  # a press that is over by now is one still


class Heartbeat:
    """A deadman's switch: ``std_msgs/Bool``, true again and again for as long as somebody holds it.

    Args:
        transport: carries the topic.
        topic: of the switch; false, or nothing, is that nobody holds it.
    """

    def __init__(self, transport: Transport, topic: str) -> None:
        self.topic = topic
        self._held_ns: int | None = None
        self._subscription = transport.subscribe(topic, BOOL, self._take)

    def age_s(self) -> float | None:
        """Return the seconds since the newest word that it is held; None before the first, and once it was let go."""
        held_ns = self._held_ns
        return None if held_ns is None else (time.monotonic_ns() - held_ns) / 1e9

    def close(self) -> None:
        """Leave the topic; idempotent. Nobody holds it then."""
        self._subscription.close()
        self._held_ns = None

    def _take(self, received: Any, came_ns: int) -> None:
        self._held_ns = came_ns if received.data else None


class EmergencyStop:
    """An emergency stop's words: ``std_msgs/Bool``, again and again, true when it is pressed.

    Args:
        transport: carries the topic.
        topic: of the words; whoever watches it takes silence for a press.
    """

    def __init__(self, transport: Transport, topic: str) -> None:
        self.topic = topic
        self._lock = threading.Lock()
        self._word: tuple[int, bool] | None = None  # when the newest came, and what it was
        self._pressed_ns: int | None = None  # when the newest came that it is pressed
        self._heard = threading.Event()
        self._subscription = transport.subscribe(topic, BOOL, self._take)

    def pressed_and_age(self) -> tuple[bool, float | None]:
        """Return whether it is pressed, or was within `RECENT_S`, and the seconds since its newest word, or None.

        However short a press is and however often it is asked: everybody who asks in time knows of it.
        """
        now_ns = time.monotonic_ns()
        with self._lock:
            word, pressed_ns = self._word, self._pressed_ns
        recent = pressed_ns is not None and now_ns - pressed_ns < RECENT_S * 1e9
        return recent or (word is not None and word[1]), None if word is None else (now_ns - word[0]) / 1e9

    def wait(self, timeout_s: float) -> bool:
        """Wait for its first word; return whether it came."""
        return self._heard.wait(timeout_s)

    def close(self) -> None:
        """Leave the topic; idempotent. Its silence is as it would be of a cut cable."""
        self._subscription.close()

    def _take(self, received: Any, came_ns: int) -> None:
        with self._lock:
            self._word = (came_ns, bool(received.data))
            if received.data:
                self._pressed_ns = came_ns
        self._heard.set()


class Button:
    """Calls a function at each true ``std_msgs/Bool`` of a topic: a Trigger service for machines without ROS.

    Args:
        transport: carries the topic.
        topic: of the button; false does nothing.
        pressed: called in the thread that receives, so it must neither block nor raise.
    """

    def __init__(self, transport: Transport, topic: str, pressed: Callable[[], None]) -> None:
        self.topic, self._pressed = topic, pressed
        self._subscription = transport.subscribe(topic, BOOL, self._take)

    def close(self) -> None:
        """Leave the topic; idempotent."""
        self._subscription.close()

    def _take(self, received: Any, came_ns: int) -> None:
        if received.data:
            self._pressed()

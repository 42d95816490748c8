"""What a simulated world publishes beside its robot: /clock and success; and the topic on which it starts anew."""

import threading
from typing import Any

from robopolicy.interfaces import Environment
from robopolicy_hardware.ros.codec import message
from robopolicy_hardware.ros.set_points import NUMBER
from robopolicy_hardware.ros.transport import Transport

CLOCK, BOOL, INT = "rosgraph_msgs/msg/Clock", "std_msgs/msg/Bool", "std_msgs/msg/Int64"


class WorldTopics:
    """The topics of a served world, under the name of its node.

    ``/clock`` is the stamps' clock, the wall's; ``~/success`` whether the task is done now, ``~/score`` how far it came
    at its best since the start, 0 to 1; a number on ``~/reset`` is the seed of a new start.

    Args:
        world: simulated.
        transport: carries the topics.
        node: name of the node, as in ``/robopolicy_twin/success``.
    """

    def __init__(self, world: Environment, transport: Transport, node: str) -> None:
        self._world, self._lock = world, threading.Lock()
        self._seed: int | None = None
        self._clock = transport.publisher("/clock", CLOCK)
        self._success = transport.publisher(f"/{node}/success", BOOL)
        self._score = transport.publisher(f"/{node}/score", NUMBER)
        self._reset = transport.subscribe(f"/{node}/reset", INT, self._take)

    def tell(self, wall_ns: int) -> None:
        """Publish the time and how the task stands, as of the newest read."""
        time = message("builtin_interfaces/msg/Time")(wall_ns // 1_000_000_000, wall_ns % 1_000_000_000)
        self._clock.send(message(CLOCK)(time))
        self._success.send(message(BOOL)(bool(self._world.success())))
        self._score.send(message(NUMBER)(float(self._world.score())))

    def seed(self) -> int | None:
        """Return the seed of a start that was asked for since the last call, or None."""
        with self._lock:
            seed, self._seed = self._seed, None
        return seed

    def close(self) -> None:
        """Leave the topics; idempotent."""
        for one in (self._reset, self._clock, self._success, self._score):
            one.close()

    def _take(self, received: Any, came_ns: int) -> None:
        with self._lock:
            self._seed = max(int(received.data), 0)

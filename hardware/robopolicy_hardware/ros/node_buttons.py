"""Start, stop, reset and acknowledge of a node by Bool topics: what Trigger services are, for machines without ROS."""

import queue
import threading
from collections.abc import Callable
from functools import partial

from robopolicy.errors import RobopolicyError
from robopolicy_hardware.ros.node import RobotNode
from robopolicy_hardware.ros.signals import Button
from robopolicy_hardware.ros.transport import Transport


class NodeButtons:
    """``NAME/start``, ``stop``, ``reset`` and ``acknowledge``: ``std_msgs/Bool``, true presses.

    A stop is done in the thread that receives it; the others in one of their own, in their order.

    Args:
        node: told.
        transport: carries the topics.
        name: of the node, in full.
        say: told in one line what came of each.
    """

    def __init__(self, node: RobotNode, transport: Transport, name: str, say: Callable[[str], None]) -> None:
        self._node, self._say = node, say
        self._asked: queue.Queue[tuple[str, Callable[[], str]] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._serve, name="buttons", daemon=True)
        self._thread.start()
        self._buttons = [
            Button(transport, f"{name}/start", lambda: self._asked.put(("start", partial(node.start, node.stops)))),
            Button(transport, f"{name}/stop", lambda: self._do("stop", lambda: node.stop(f"asked on {name}/stop"))),
            Button(transport, f"{name}/reset", lambda: self._asked.put(("reset", node.reset))),
            Button(transport, f"{name}/acknowledge", lambda: self._asked.put(("acknowledge", node.acknowledge))),
        ]

    def close(self) -> None:
        """Leave the topics; idempotent."""
        for button in self._buttons:
            button.close()
        self._buttons = []
        self._asked.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (asked := self._asked.get()) is not None:
            self._do(*asked)

    def _do(self, what: str, act: Callable[[], str]) -> None:
        try:
            self._say(f"{what}: {act()}")
        except RobopolicyError as error:
            self._say(f"{what} refused: {error}")

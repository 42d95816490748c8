"""A FAKE, see rclpy/__init__.py."""

import queue


class ExternalShutdownException(Exception):
    pass


class SingleThreadedExecutor:
    def __init__(self, *, context=None):
        self._context, self._work, self._open = context, queue.Queue(), True

    def add_node(self, node):
        node.executor = self

    def put(self, callback, data):
        self._work.put((callback, data))

    def spin(self):
        while self._open:
            try:
                callback, data = self._work.get(timeout=0.01)
            except queue.Empty:
                continue
            callback(data)

    def shutdown(self):
        self._open = False

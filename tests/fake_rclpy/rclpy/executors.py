"""A FAKE, see rclpy/__init__.py: callbacks of an exclusive group one at a time, in as many threads as there are."""

import threading
from concurrent.futures import Future

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup


class ExternalShutdownException(Exception):
    pass


class Executor:
    def __init__(self, threads, context):
        self._threads, self._context, self._open = threads, context, True
        self._work, self._changed = [], threading.Condition()

    def add_node(self, node):
        node.executor = self
        return True

    def put(self, group, callback):
        with self._changed:
            self._work.append((group, callback))
            self._changed.notify()

    def ask(self, group, callback, timeout_s=60):
        """Return what a callback returns, once it was served."""
        done = Future()

        def serve():
            try:
                done.set_result(callback())
            except BaseException as error:
                done.set_exception(error)
                raise

        self.put(group, serve)
        return done.result(timeout_s)

    def spin(self):
        others = [threading.Thread(target=self._serve, daemon=True) for _ in range(self._threads - 1)]
        for one in others:
            one.start()
        self._serve()
        for one in others:
            one.join()
        if not self._context.ok() and self._open:
            raise ExternalShutdownException

    def shutdown(self, timeout_sec=None):
        self._open = False
        return True

    def _serve(self):
        while self._open and self._context.ok():
            taken = self._take()
            if taken is None:
                continue
            group, callback = taken
            try:
                callback()
            finally:
                with self._changed:
                    group.busy = False
                    self._changed.notify_all()

    def _take(self):
        with self._changed:
            for i, (group, callback) in enumerate(self._work):
                exclusive = isinstance(group, MutuallyExclusiveCallbackGroup)
                if not (exclusive and group.busy):
                    group.busy = True
                    del self._work[i]
                    return group, callback
            self._changed.wait(0.01)
        return None


class SingleThreadedExecutor(Executor):
    def __init__(self, *, context=None):
        super().__init__(1, context)


class MultiThreadedExecutor(Executor):
    def __init__(self, num_threads=None, *, context=None):
        super().__init__(num_threads or 2, context)

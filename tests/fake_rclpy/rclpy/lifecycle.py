"""A FAKE, see rclpy/__init__.py."""

from enum import Enum
from types import SimpleNamespace

from rclpy.node import Node


class TransitionCallbackReturn(Enum):
    SUCCESS = 0
    FAILURE = 1
    ERROR = 2


_PATHS = {  # transition: (from, to, method)
    "configure": ("unconfigured", "inactive", "on_configure"),
    "activate": ("inactive", "active", "on_activate"),
    "deactivate": ("active", "inactive", "on_deactivate"),
    "cleanup": ("inactive", "unconfigured", "on_cleanup"),
}


class LifecycleNode(Node):
    def __init__(self, node_name, *, enable_communication_interface=True, **kwargs):
        Node.__init__(self, node_name, **kwargs)
        self.current_state = "unconfigured"

    def change_state(self, transition):
        """As ``ros2 lifecycle set`` does, through the executor: whether it succeeded."""
        done = self.executor.ask(self.default_callback_group, lambda: self._change(transition))
        return done is TransitionCallbackReturn.SUCCESS

    def trigger_configure(self):
        return self._change("configure")

    def trigger_activate(self):
        return self._change("activate")

    def _change(self, transition):
        if transition == "shutdown":
            start, end, method = self.current_state, "finalized", "on_shutdown"
        else:
            start, end, method = _PATHS[transition]
        assert self.current_state == start, f"no {transition} from {self.current_state}"
        before = SimpleNamespace(label=start)
        try:
            code = getattr(self, method)(before)
        except Exception:  # rclpy too says nothing of it
            code = TransitionCallbackReturn.ERROR
        assert isinstance(code, TransitionCallbackReturn)
        if code is TransitionCallbackReturn.SUCCESS:
            self.current_state = end
        if code is TransitionCallbackReturn.ERROR:
            well = self.on_error(before) is TransitionCallbackReturn.SUCCESS
            self.current_state = "unconfigured" if well else "finalized"
        return code

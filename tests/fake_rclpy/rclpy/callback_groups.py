"""A FAKE, see rclpy/__init__.py."""


class CallbackGroup:
    """``busy``: one of its callbacks runs."""

    def __init__(self):
        self.busy = False


class MutuallyExclusiveCallbackGroup(CallbackGroup):
    pass


class ReentrantCallbackGroup(CallbackGroup):
    pass

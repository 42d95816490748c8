"""A FAKE, see rclpy/__init__.py."""


class ParameterDescriptor:
    def __init__(self, *, name="", description="", read_only=False, dynamic_typing=False):
        assert all(isinstance(one, bool) for one in (read_only, dynamic_typing))
        self.name, self.description, self.dynamic_typing = name, description, dynamic_typing

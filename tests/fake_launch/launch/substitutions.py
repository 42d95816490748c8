"""A FAKE, see launch/__init__.py."""


class LaunchConfiguration:
    def __init__(self, variable_name, *, default=None):
        self.variable_name = variable_name

    def perform(self, context):
        value = context.launch_configurations[self.variable_name]
        assert isinstance(value, str)
        return value

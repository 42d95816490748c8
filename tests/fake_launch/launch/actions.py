"""A FAKE, see launch/__init__.py."""


class DeclareLaunchArgument:
    def __init__(self, name, *, default_value=None, description=None, choices=None):
        assert default_value is None or isinstance(default_value, str), "a default value is text"
        self.name, self.default_value, self.description = name, default_value, description

    def execute(self, context):
        return None


class OpaqueFunction:
    def __init__(self, *, function, args=None, kwargs=None):
        self.function, self.args, self.kwargs = function, args or (), kwargs or {}

    def execute(self, context):
        return self.function(context, *self.args, **self.kwargs)


class ExecuteProcess:
    def __init__(self, *, cmd, output="log", sigterm_timeout="5", **options):
        assert not options, f"the fake knows no {list(options)}"
        assert all(isinstance(word, str) for word in cmd)
        assert float(sigterm_timeout) > 0
        self.cmd, self.output = cmd, output

    def execute(self, context):
        return None

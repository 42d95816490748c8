"""A FAKE of the few things of ROS 2's launch that our launch files use: what they declare and start is recorded.

It runs every line of ours. It does not prove that launch is like it. Names and signatures are those of its own source.
"""


class LaunchContext:
    def __init__(self, *, argv=None):
        self.launch_configurations = {}


class LaunchDescription:
    def __init__(self, initial_entities=None):
        self.entities = list(initial_entities or [])


def launched(description, **arguments):
    """Visit a description with arguments, as ``ros2 launch FILE name:=value`` does; return the processes it starts."""
    context, started = LaunchContext(), []
    declared = [one for one in description.entities if type(one).__name__ == "DeclareLaunchArgument"]
    assert set(arguments) <= {one.name for one in declared}, "ros2 launch takes no argument that is not declared"
    for one in declared:
        context.launch_configurations[one.name] = arguments.get(one.name, one.default_value)
    for one in description.entities:
        if one not in declared:
            started += one.execute(context) or [one]
    return started

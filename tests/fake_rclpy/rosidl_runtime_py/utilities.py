"""A FAKE, see rclpy/__init__.py."""

from types import SimpleNamespace

INSTALLED = (
    "std_msgs", "geometry_msgs", "sensor_msgs", "trajectory_msgs", "builtin_interfaces", "diagnostic_msgs",
)  # fmt: skip


def get_message(kind):
    package = kind.partition("/")[0]
    if package not in INSTALLED:
        raise ModuleNotFoundError(f"No module named {package!r}")
    return SimpleNamespace(name=kind)

"""A simulated robot on ROS 2 topics: ros2 launch robopolicy_bringup twin.launch.py task:=lift."""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription

CONFIG = Path(__file__).resolve().parent / "config"
ARGUMENTS = {
    "task": ("lift", "what is on the table: lift, pusht"),
    "config": ("", "topics: a file, or one of config/ as in twin_joint; empty: the usual ones"),
    "node": ("robopolicy_twin", "name of its node, with its namespace, as in lab/twin"),
    "rate": ("100", "joint states a second"),
    "camera_hz": ("30", "pictures a second"),
    "seed": ("0", "of the start and the noise"),
    "command_timeout": ("0.1", "s without commands after which it holds; 0: never, as a forward controller"),
    "latency_ms": ("", "from a command until the arm begins to follow it"),
    "domain": ("", "of ROS 2; empty: ROS_DOMAIN_ID, or 0"),
}


def twin(context):
    """Start the installed executable with the options that were given."""
    told = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    named = CONFIG / f"{told['config']}.yaml"
    told["config"] = str(named) if told["config"] and named.exists() else told["config"]
    command = ["robopolicy", "twin", "serve", told.pop("task")]
    for name, value in told.items():
        command += [f"--{name.replace('_', '-')}", value] if value else []
    return [ExecuteProcess(cmd=command, output="screen", sigterm_timeout="10")]


def generate_launch_description():
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=twin)])

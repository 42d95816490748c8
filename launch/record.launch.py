"""Demonstrations into a dataset: ros2 launch robopolicy_bringup record.launch.py arm:=ur5e data:=d.zarr."""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription

CONFIG = Path(__file__).resolve().parent / "config"
ARMS = ("fr3", "ur5e", "generic")
ARGUMENTS = {
    "arm": ("", "fr3, ur5e or generic: the topics of config/, unless robot says others"),
    "robot": ("", "ros:FILE.yaml, twin:TASK, mock, or module:Class"),
    "data": ("demonstrations.zarr", "dataset, created or appended to"),
    "teleop": ("browser", "browser, gamepad, spacemouse, ros, expert: launch has no terminal for a keyboard"),
    "topic": ("", "teleop:=ros: what the teleoperator publishes"),
    "message": ("", "teleop:=ros: its type, as in JointState"),
    "episodes": ("20", "episodes the dataset shall hold in the end"),
    "operator": ("", "stored with every episode"),
    "task": ("", "in words; stored with every episode"),
    "checkpoint": ("", "a policy drives, the person takes over"),
    "monitor": ("", "its failure monitor"),
    "on_alarm": ("", "log, slow, hold, retreat, handover or stop; empty: hold"),
    "limits": ("", "YAML file of safety limits and watchdogs; with arm:= those of config/"),
    "domain": ("", "of ROS 2; empty: ROS_DOMAIN_ID, or 0"),
}


def recorder(context):
    """Start the installed executable with the options that were given."""
    told = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    arm = told.pop("arm")
    if arm and arm not in ARMS:
        raise RuntimeError(f"arm:={arm}: want one of {', '.join(ARMS)}, or robot:=ros:FILE.yaml")
    if arm:
        told["limits"] = told["limits"] or f"{CONFIG / arm}_limits.yaml"
    told["robot"] = told["robot"] or (f"ros:{CONFIG / arm}.yaml" if arm else "twin:lift")
    command = ["robopolicy", "record"]
    for name, value in told.items():
        command += [f"--{name.replace('_', '-')}", value] if value else []
    # Ten seconds from Ctrl-C to SIGTERM: the robot is stopped, and the episode committed.
    return [ExecuteProcess(cmd=command, output="screen", sigterm_timeout="10")]


def generate_launch_description():
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=recorder)])

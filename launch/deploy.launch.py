"""A policy on a robot or its twin: ros2 launch robopolicy_bringup deploy.launch.py arm:=fr3 checkpoint:=runs/first."""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription

CONFIG = Path(__file__).resolve().parent / "config"
ARMS = ("fr3", "ur5e", "generic")
ARGUMENTS = {
    "namespace": ("", "before the node's name and its topics, as in left"),
    "name": ("robopolicy", "of the node"),
    "use_sim_time": ("false", "a simulator's stamps: streams are stamped when they come"),
    "params_file": ("", "ROS 2 parameters of the node, as config/node.yaml; arguments below win over it"),
    "transport": ("rclpy", "rclpy: a lifecycle node; dds: topics alone, without ROS in this Python"),
    "arm": ("", "fr3, ur5e or generic: topics and limits of config/, unless robot and limits say others"),
    "robot": ("", "ros:FILE.yaml, twin:TASK, mock, or module:Class"),
    "checkpoint": ("", "folder that robopolicy train wrote"),
    "monitor": ("", "folder that robopolicy calibrate wrote; empty: unguarded"),
    "on_alarm": ("", "log, slow, hold, retreat or stop"),
    "on_overrun": ("", "the same, to an episode longer than any calibrated one; empty: as to an alarm"),
    "monitor_late": ("", "hold or log, to a verdict that comes too late"),
    "limits": ("", "YAML file of safety limits and watchdogs"),
    "control_rate": ("", "Hz of commands, the policy plans beside the loop"),
    "allow_slow": ("false", "drive although plans take longer than a step"),
    "seed": ("", "of a simulated world's start and of the policy's samples"),
    "domain": ("", "of ROS 2; empty: ROS_DOMAIN_ID, or 0"),
    "autostart": ("false", "configure, activate and start at once: THE ARM MOVES"),
}
OPTIONS = (
    "robot", "checkpoint", "monitor", "on_alarm", "on_overrun", "monitor_late", "limits", "control_rate", "seed",
    "domain", "params_file",
)  # fmt: skip
SWITCHES = ("autostart", "allow_slow", "use_sim_time")


def node(context):
    """Start the installed executable with the options that were given."""
    told = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    if told["arm"] and told["arm"] not in ARMS:
        raise RuntimeError(f"arm:={told['arm']}: want one of {', '.join(ARMS)}, or robot:=ros:FILE.yaml")
    if told["arm"]:
        told["robot"] = told["robot"] or f"ros:{CONFIG / told['arm']}.yaml"
        told["limits"] = told["limits"] or f"{CONFIG / told['arm']}_limits.yaml"
    command = ["robopolicy", "node"]
    for name in ("transport", "name", "namespace"):
        command += [f"--{name}", told[name]] if told[name] else []
    for name in OPTIONS:
        command += [f"--{name.replace('_', '-')}", told[name]] if told[name] else []
    for name in SWITCHES:
        command += [f"--{name.replace('_', '-')}"] if told[name].lower() in ("true", "1") else []
    # Ten seconds from Ctrl-C to SIGTERM: the robot is stopped, then a recording is committed.
    return [ExecuteProcess(cmd=command, output="screen", sigterm_timeout="10")]


def generate_launch_description():
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=node)])

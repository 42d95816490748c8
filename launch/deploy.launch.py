"""Run one guarded episode: ros2 launch robopolicy_bringup deploy.launch.py checkpoint:=... monitor:=..."""

from launch.actions import DeclareLaunchArgument, ExecuteProcess
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription

ARGUMENTS = {
    "robot": ("twin:lift", "what to drive"),
    "checkpoint": (None, "folder written by robopolicy train"),
    "monitor": (None, "folder written by robopolicy calibrate"),
    "on_alarm": ("hold", "hold or log"),
    "seed": ("200000", "start of a simulated world"),
}


def generate_launch_description():
    """Declare one argument an option and start the installed executable with them."""
    declared = [
        DeclareLaunchArgument(name, description=text, **({} if default is None else {"default_value": default}))
        for name, (default, text) in ARGUMENTS.items()
    ]
    command = ["robopolicy", "deploy", "--realtime"]
    for name in ARGUMENTS:
        command += [f"--{name.replace('_', '-')}", LaunchConfiguration(name)]
    return LaunchDescription([*declared, ExecuteProcess(cmd=command, output="screen", sigterm_timeout="10")])

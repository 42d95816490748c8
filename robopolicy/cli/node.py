"""`robopolicy node`: a ROS 2 node around deploy's loop: a lifecycle node of rclpy, or the same over DDS without ROS."""

import argparse
import json
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least, positive
from robopolicy.cli.reacting import add_reacting
from robopolicy.cli.timing import SEAMS
from robopolicy.errors import UsageError

DEFAULT_NAME = "robopolicy"


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser("node", parents=[debug], help="a ROS 2 node that starts, stops and resets the loop")
    parser.add_argument(
        "--transport", choices=["rclpy", "dds"], default="rclpy",
        help="rclpy: a lifecycle node, where ROS is sourced; dds: topics alone, without ROS (default rclpy)",
    )  # fmt: skip
    parser.add_argument("--name", default=DEFAULT_NAME, help="of the node (default robopolicy)")
    parser.add_argument("--namespace", default="", help="before its name, as in /left")
    parser.add_argument("--domain", type=at_least(0), help="ROS 2 domain (default: ROS_DOMAIN_ID, or 0)")
    parser.add_argument("--params-file", type=Path, metavar="P.yaml", help="parameters, as ros2 run --params-file has")
    parser.add_argument("--robot", metavar="NAME", help="ros:FILE.yaml, twin:TASK, mock, module:Class")
    parser.add_argument("--checkpoint", metavar="FOLDER", help="as train wrote it")
    parser.add_argument("--monitor", metavar="FOLDER", help="failure monitor; none: unguarded")
    add_reacting(parser)
    parser.add_argument("--limits", metavar="L.yaml", help="safety limits and watchdogs of the robot")
    parser.add_argument(
        "--control-rate", type=positive, metavar="HZ", help="plan beside the loop, command at this rate"
    )
    parser.add_argument("--seams", choices=SEAMS, help="how plans follow each other beside the loop (default fade)")
    parser.add_argument("--device", help="where the policy computes: cpu, cuda (default cpu)")
    parser.add_argument("--threads", type=at_least(1), metavar="N", help="CPU threads of the policy (default 1)")
    parser.add_argument("--seed", type=at_least(0), metavar="N", help="of a simulated world and the policy's samples")
    parser.add_argument("--max-steps", type=at_least(0), metavar="N", help="of an episode; 0: until stopped (default)")
    parser.add_argument("--allow-slow", action="store_true", default=None, help="drive although plans are late")
    parser.add_argument("--autostart", action="store_true", default=None, help="begin an episode at once")
    parser.add_argument(
        "--use-sim-time",
        action="store_true",
        default=None,
        help="stamp streams when they come: a simulator has its own time",
    )
    parser.add_argument("--ros-args", nargs=argparse.REMAINDER, default=[], help="for rclpy: remappings, parameters")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command until a signal ends it."""
    from robopolicy.cli.progress import say
    from robopolicy.cli.signals import ended_once
    from robopolicy_hardware.ros.node_parameters import Parameters, load_parameters, overridden

    name = full_name(args.namespace, args.name)
    with suppress(KeyboardInterrupt, SystemExit), ended_once():  # a signal is how a node ends
        if args.transport == "dds":
            if args.ros_args:
                raise UsageError("--ros-args are for rclpy; with --transport dds say --params-file and the options")
            read = Parameters() if args.params_file is None else load_parameters(args.params_file, name)
            _over_dds(overridden(read, vars(args)), name, args.domain, say)
            return
        try:
            from robopolicy_hardware.ros.lifecycle import run_lifecycle_node
        except ImportError as error:
            raise UsageError(
                f"no rclpy here ({error}): source /opt/ros/DISTRIBUTION/setup.bash, or go without: --transport dds"
            ) from error
        run_lifecycle_node(
            Parameters(),
            open_rig,
            name=args.name,
            namespace=args.namespace,
            domain=args.domain,
            ros_args=ros_args(args),
        )


def ros_args(args: argparse.Namespace) -> list[str]:
    """Return the command line as ROS reads it: the file, then our options, then what the user says to ROS itself."""
    from robopolicy_hardware.ros.node_parameters import told_by

    words = [] if args.params_file is None else ["--params-file", str(args.params_file)]
    for name, value in told_by(vars(args)).items():
        said = json.dumps(value)  # a number, true, or a text in quotes: YAML too
        words += ["-p", f"{name}:={said}"]
    words += args.ros_args
    return ["--ros-args", *words] if words else []


def full_name(namespace: str, name: str) -> str:
    """Return the full name of a node: ``/left/robopolicy``; raises UsageError if it is none."""
    from robopolicy_hardware.ros.transport import TOPIC

    made = "/".join(["", *[part for part in namespace.split("/") if part], name])
    if not TOPIC.fullmatch(made):
        raise UsageError(f"{made!r} is no node's name; want letters, digits and _, as in /left/robopolicy")
    return made


def _over_dds(parameters: Any, name: str, domain: int | None, say: Callable[..., None]) -> None:
    from robopolicy_hardware.ros.dds import Topics
    from robopolicy_hardware.ros.node import RobotNode
    from robopolicy_hardware.ros.node_buttons import NodeButtons

    parameters.require()
    with ExitStack() as stack:
        transport = Topics(domain, node=name)
        stack.callback(transport.close)
        node = RobotNode(lambda: open_rig(parameters, transport, name), say)
        stack.callback(node.close)
        node.configure()
        node.activate()
        buttons = NodeButtons(node, transport, name, say=say)
        stack.callback(buttons.close)
        words = "start, stop, reset and acknowledge"
        say(f"{name} is active in domain {transport.domain}: {name}/{words} take std_msgs/Bool")
        if parameters.autostart:
            say(f"start: {node.start()}")
        threading.Event().wait()


def open_rig(parameters: Any, transport: Any, name: str) -> Any:
    """Return the `Rig` of a node: robot and policy by the same words, loop and limits as ``robopolicy deploy``.

    Args:
        parameters: `robopolicy_hardware.ros.node_parameters.Parameters`.
        transport: carries the robot's topics, and those of the node.
        name: of the node, in full.

    Raises:
        RobopolicyError: whatever opening the robot or loading the policy raises.
    """
    from robopolicy.cli.node_rig import NodeRig

    return NodeRig(parameters, transport, name)

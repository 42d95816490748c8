"""A robot with its limits and watchdogs, as a command drives it."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from robopolicy.errors import UsageError
from robopolicy.interfaces import Environment, Robot
from robopolicy.spec import PolicySpec

FIRST_WORD_S = 2.0  # of an emergency stop: until the network has found it, and it says how it is


def add_limits(parser: Any) -> None:
    """Add the option to a parser, or to a group of one."""
    parser.add_argument(
        "--limits", type=Path, metavar="L.yaml",
        help="safety limits and watchdogs of the robot (default: cautious ones for its kind of command)",
    )  # fmt: skip


def read_limits(path: Path | str | None, spec: PolicySpec) -> tuple[Any, Any]:
    """Return (`SafetyLimits`, `Watchdogs`) of the file, or the cautious defaults; raises as `load_limits`."""
    from robopolicy_hardware.safety_limits import limits_for, load_limits
    from robopolicy_hardware.supervisor import Watchdogs

    return (limits_for(spec), Watchdogs()) if not path else load_limits(path, spec)


def look_at_limits(path: Path | str | None) -> None:
    """Refuse a file of limits that no robot could have, before one is waited for.

    Raises:
        ConfigError: naming the file and what is wrong.
        UsageError: if an age is watched and no topic tells it.
    """
    if path:
        from robopolicy_hardware.safety_limits import look_at_limits as look

        _require_topics(look(path))


def topics_of(domain: int | None) -> Any:
    """Return what carries the topics of the watchdogs, in a ROS 2 domain: the robot's own belong to ``/robopolicy``."""
    from robopolicy_hardware.ros.dds import Topics

    return Topics(domain, node="robopolicy_watchdogs")


def by_hand(robot: Robot, limits: Path | None, stack: ExitStack, domain: int | None) -> tuple[Robot, Any]:
    """Return a robot that a person or a recording drives, and its safety layer; watched if a file of limits is given.

    Args:
        robot: a simulated world is limited and not watched.
        limits: the file, or None.
        stack: closes what this opens.
        domain: of ROS 2, where an emergency stop is.

    Raises:
        UsageError: if the file asks for a deadman's switch: a person who drives has the device's own.
    """
    from robopolicy.cli.worlds import make_safety

    allowed, watchdogs = read_limits(limits, robot.spec)
    if watchdogs.deadman_topic:
        raise UsageError(f"{limits}: watchdogs.deadman_topic is of deploy and the node; here leave it out")
    safety = make_safety(robot.spec, allowed)
    if limits is None or isinstance(robot, Environment):
        return robot, safety
    made = watched(robot, watchdogs, stack, partial(topics_of, domain))
    if (why := made.refusal()) is not None:
        raise UsageError(why)
    return made, safety


def watched(robot: Robot, watchdogs: Any, stack: ExitStack, topics: Callable[[], Any]) -> Any:
    """Return the robot with its watchdogs about it, which live until the stack is closed. It closes the robot.

    Args:
        robot: driven by nobody else.
        watchdogs: `robopolicy_hardware.supervisor.Watchdogs`.
        stack: closes what this opens.
        topics: returns a `Transport`, asked for only if an operator's switch or an emergency stop is on a topic.

    Raises:
        UsageError: if an age is watched and no topic tells it.
    """
    from robopolicy_hardware.ros.signals import EmergencyStop, Heartbeat
    from robopolicy_hardware.supervisor import Supervised

    beat = stop = None
    _require_topics(watchdogs)
    if watchdogs.deadman_topic or watchdogs.estop_topic:
        transport = topics()
        stack.callback(transport.close)
        if watchdogs.deadman_topic:
            beat = Heartbeat(transport, watchdogs.deadman_topic)
        if watchdogs.estop_topic:
            stop = EmergencyStop(transport, watchdogs.estop_topic)
            stop.wait(FIRST_WORD_S)  # whoever starts is told if none came
    made = Supervised(
        robot, watchdogs, deadman=None if beat is None else beat.age_s,
        estop=None if stop is None else stop.pressed_and_age, alone=isinstance(robot, Environment),
    )  # fmt: skip
    stack.callback(made.close)
    return made


def _require_topics(watchdogs: Any) -> None:
    for name in ("deadman", "estop"):
        if getattr(watchdogs, f"{name}_s") is not None and not getattr(watchdogs, f"{name}_topic"):
            raise UsageError(f"watchdogs.{name}_s: say {name}_topic too, on which std_msgs/Bool tells of it")


def following(robot: Robot, bare: Robot, agent: Any, safety: Any) -> Robot:
    """Return the robot as it is to be driven: with whole motions, if its controller wants them.

    Args:
        robot: perhaps watched.
        bare: the same, itself.
        agent: plans beside the loop, perhaps guarded.
        safety: of the loop.

    Raises:
        UsageError: if motions are wanted, and the policy does not plan beside the loop, or a reaction to its monitor
            gives single commands.
    """
    if not getattr(bare, "follows", False):
        return robot
    from robopolicy.following import Following
    from robopolicy_hardware.motion_limits import limit_motion

    planning = getattr(agent, "inner", agent)
    used = agent.reactions.used & {"slow", "retreat"} if hasattr(agent, "reactions") else ()
    if used:
        raise UsageError(
            f"the robot's file says send: chunk; its controller takes whole motions, and {' and '.join(sorted(used))} "
            "would give single commands: --on-alarm hold or stop"
        )
    if not hasattr(planning, "ahead"):
        raise UsageError("the robot's file says send: chunk; that wants --control-rate, the distance of its points")
    return Following(robot, planning, partial(limit_motion, safety))

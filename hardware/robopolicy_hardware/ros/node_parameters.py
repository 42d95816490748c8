"""What a node is told: ROS 2 parameters, of rclpy or of the same YAML file without ROS."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from robopolicy.errors import ContractError, UsageError
from robopolicy.settings import keys, mapping, read_settings
from robopolicy.topics.config import TopicConfig
from robopolicy_hardware.ros.node_overrides import leaves

ROS_PARAMETERS = "ros__parameters"
NESTED = ("topics", "safety")  # parameters that are keys of files


DESCRIPTIONS = {
    "robot": "ros:FILE.yaml, twin:TASK, mock, or module:Class",
    "checkpoint": "folder that robopolicy train wrote",
    "monitor": "folder that robopolicy calibrate wrote; empty: unguarded",
    "on_alarm": "what an alarm of the monitor does: log, slow, hold, retreat or stop",
    "on_overrun": "what an episode longer than any calibrated one does; empty: as an alarm",
    "monitor_late": "what a verdict that comes too late does: hold or log",
    "monitor_deadline_ms": "what a verdict may take; 0: one control period",
    "limits": "YAML file of safety limits and watchdogs; empty: cautious ones for the kind of command",
    "control_rate": "Hz of commands, the policy plans beside the loop; 0: the policy's own rate, in the loop",
    "seams": "how one plan follows another beside the loop: fade, ensemble, rtc, none; empty: fade",
    "device": "where the policy computes: cpu, cuda",
    "threads": "CPU threads of the policy",
    "seed": "of a simulated world's start and of the policy's samples",
    "max_steps": "control steps of an episode; 0: until it is stopped",
    "allow_slow": "drive although plans take longer than a step",
    "autostart": "configure, activate and start an episode as soon as the node is up: THE ARM MOVES",
    "use_sim_time": "a simulator's stamps are not this machine's time: streams are stamped when they come",
    "topics": "keys of the robot's file, as in topics.action.topic",
    "safety": "keys of the file of limits, as in safety.max_rate",
}  # what each parameter of `Parameters` says of itself


@dataclass(frozen=True)
class Parameters:
    """Parameters of the node, `DESCRIPTIONS`; an empty text or 0 is "none", since ROS parameters have no null.

    Raises:
        ContractError: if a number makes no sense.
    """

    robot: str = ""
    checkpoint: str = ""
    monitor: str = ""
    on_alarm: Literal["log", "slow", "hold", "retreat", "handover", "stop"] = "hold"
    on_overrun: Literal["", "log", "slow", "hold", "retreat", "handover", "stop"] = ""
    monitor_late: Literal["hold", "log"] = "hold"
    monitor_deadline_ms: float = 0.0
    limits: str = ""
    control_rate: float = 0.0
    seams: Literal["", "fade", "ensemble", "rtc", "none"] = ""
    device: str = "cpu"
    threads: int = 1
    seed: int = 200_000
    max_steps: int = 0
    allow_slow: bool = False
    autostart: bool = False
    use_sim_time: bool = False
    topics: Mapping[str, Any] = field(default_factory=dict)  # {dotted key: value}, over those of the robot's file
    safety: Mapping[str, Any] = field(default_factory=dict)  # over those of the file of limits

    def __post_init__(self) -> None:
        for name, least in (
            ("control_rate", 0),
            ("monitor_deadline_ms", 0),
            ("threads", 1),
            ("seed", 0),
            ("max_steps", 0),
        ):
            if not getattr(self, name) >= least:
                raise ContractError(f"parameter {name} is {getattr(self, name)}; want {least} or more")

    def require(self) -> None:
        """Refuse parameters that name no robot or no policy; raises UsageError."""
        for name, example in (("robot", "ros:fr3.yaml"), ("checkpoint", "runs/lift")):
            if not getattr(self, name):
                raise UsageError(
                    f"the node has no {name}: --{name} {example}, or {name}:={example} as a parameter of ROS"
                )


def load_parameters(path: Path | str, node: str) -> Parameters:
    """Read a ROS 2 parameter file without ROS: what it says of every node, then what it says of this one.

    Args:
        path: ``{/**: {ros__parameters: {...}}, /robopolicy: {ros__parameters: {...}}}``.
        node: full name, as in ``/robopolicy``.

    Raises:
        ConfigError: naming the file and what is unknown or makes no sense.
    """

    def make(data: Any) -> Parameters:
        found: dict[str, Any] = {}
        for name, part in mapping(data, "the file").items():
            inner = mapping(part, name)
            if ROS_PARAMETERS not in inner:
                raise ContractError(f"{name} has no {ROS_PARAMETERS!r}; want it as ros2 run --params-file reads it")
            if name == "/**" or f"/{name.lstrip('/')}" == node:
                values = mapping(inner[ROS_PARAMETERS], f"{name}.{ROS_PARAMETERS}")
                for part in NESTED:
                    if part in values:
                        values[part] = leaves(mapping(values[part], f"{name}.{ROS_PARAMETERS}.{part}"))
                        values[part] = {**found.get(part, {}), **values[part]}
                found |= keys(values, Parameters, f"{name}.{ROS_PARAMETERS}")
        return Parameters(**found)

    return read_settings(path, make, "a ROS 2 parameter file")


def told_by(values: dict[str, Any]) -> dict[str, Any]:
    """Return what of ``values`` are parameters, without those that are None."""
    known = {one.name for one in fields(Parameters)}
    return {name: value for name, value in values.items() if name in known and value is not None}


def overridden(parameters: Parameters, values: dict[str, Any]) -> Parameters:
    """Return ``parameters`` with what was told beside them, as `told_by` reads it."""
    return replace(parameters, **told_by(values))


def as_told(config: TopicConfig, node: str, parameters: Parameters) -> TopicConfig:
    """Return the topics of a robot as a node has them.

    A topic without a leading slash is in its namespace; with ``use_sim_time`` streams are stamped when they come.
    """
    space = node.rpartition("/")[0]

    def told(one: Any) -> Any:
        topic = one.topic if one.topic.startswith("/") else f"{space}/{one.topic}"
        return replace(one, topic=topic, stamp="bag" if parameters.use_sim_time else one.stamp)

    action = told(config.action)
    if action.gripper is not None:
        action = replace(action, gripper=told(action.gripper))
    cameras = {name: told(one) for name, one in config.cameras.items()}
    return replace(config, cameras=cameras, state={n: told(one) for n, one in config.state.items()}, action=action)

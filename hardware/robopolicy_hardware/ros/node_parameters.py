"""What a node is told: ROS 2 parameters, of rclpy or of the same YAML file without ROS."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from robopolicy.errors import ContractError, UsageError
from robopolicy.settings import keys, mapping, read_settings

ROS_PARAMETERS = "ros__parameters"


@dataclass(frozen=True)
class Parameters:
    """Parameters of the node; an empty text or 0 is "none", since ROS parameters have no null.

    Raises:
        ContractError: if a number makes no sense.
    """

    robot: str = ""  # ros:FILE.yaml, twin:TASK, mock, module:Class
    checkpoint: str = ""  # folder that robopolicy train wrote
    monitor: str = ""  # folder that robopolicy calibrate wrote; empty: unguarded
    on_alarm: Literal["hold", "log"] = "hold"
    limits: str = ""  # YAML file of safety limits and watchdogs; empty: cautious defaults
    control_rate: float = 0.0  # Hz, the policy plans beside the loop; 0: the policy's own rate, in the loop
    device: str = "cpu"  # where the policy computes
    threads: int = 1  # of the policy on the CPU
    seed: int = 200_000  # of a simulated world's start and of the policy's samples
    max_steps: int = 0  # of an episode; 0: until it is stopped
    allow_slow: bool = False  # drive although plans take longer than a step
    autostart: bool = False  # start an episode as soon as the node is active

    def __post_init__(self) -> None:
        for name, least in (("control_rate", 0), ("threads", 1), ("seed", 0), ("max_steps", 0)):
            if not getattr(self, name) >= least:
                raise ContractError(f"parameter {name} is {getattr(self, name)}; want {least} or more")

    def require(self) -> None:
        """Refuse parameters that name no robot or no policy; raises UsageError."""
        for name, example in (("robot", "ros:config/fr3.yaml"), ("checkpoint", "runs/lift")):
            if not getattr(self, name):
                raise UsageError(f"the parameter {name!r} is empty; say which, as in {name}:={example}")


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
                values.pop("use_sim_time", None)  # every node has it; here the robot's stamps are the time
                found |= keys(values, Parameters, f"{name}.{ROS_PARAMETERS}")
        return Parameters(**found)

    return read_settings(path, make, "a ROS 2 parameter file")


def overridden(parameters: Parameters, told: dict[str, Any]) -> Parameters:
    """Return ``parameters`` with what was told beside them; None was not told."""
    known = {one.name for one in fields(Parameters)}
    return replace(parameters, **{name: value for name, value in told.items() if name in known and value is not None})

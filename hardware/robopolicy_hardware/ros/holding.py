"""Whether a robot can be held where it is: what is measured is what is commanded, in one order, unit and frame."""

from collections.abc import Mapping
from itertools import chain
from typing import Any

from robopolicy.errors import ConfigError
from robopolicy.spec import PolicySpec, StateSpec
from robopolicy.topics.config import NumbersTopic, TopicConfig
from robopolicy_hardware.ros.streams import type_of

HELD = {"joint": ("q", "gripper"), "tool_pose": ("tool_pos", "tool_quat", "gripper")}
_TOOL = {"tool_pos": (3, "m"), "tool_quat": (4, "quat"), "gripper": (1, "open")}


def require_measured(config: TopicConfig, spec: PolicySpec) -> None:
    """Refuse a robot whose measured position, sent as a command, would move it.

    Raises:
        ConfigError: saying which numbers are missing, or are not the same.
    """
    dims = {name: part.dim for name, part in spec.state.items()}
    if spec.action.kind == "tool_pose":
        for name, (dim, unit) in _TOOL.items():
            if dims.get(name) != dim:
                raise ConfigError(
                    f"to hold a tool still it wants state tool_pos (3), tool_quat (4) and gripper (1); there are {dims}"
                )
            _require_unit(name, _each(spec.state[name]), (unit,) * dim)
        return
    if dims.get("q", 0) + dims.get("gripper", 0) != spec.action.dim:
        raise ConfigError(
            f"the action has {spec.action.dim} joints ({', '.join(spec.action.names)}); to hold them still it "
            f"wants state q and gripper, as many together; there are {dims}"
        )
    held = {name: spec.state[name] for name in HELD["joint"] if name in spec.state}
    units = spec.action.units * (spec.action.dim if len(spec.action.units) == 1 else 1)
    _require_unit(" and ".join(held), tuple(chain.from_iterable(map(_each, held.values()))), units)
    _require_order(config, held)


def command_frame(config: TopicConfig, seen: Mapping[str, Any]) -> str:
    """Return the frame that commands are given in: the config's, or the one that the tool is measured in.

    Raises:
        ConfigError: if a tool pose is measured in one frame and commanded in another.
    """
    wanted = config.action.frame
    if config.action.kind != "tool_pose":
        return wanted
    for name in ("tool_pos", "tool_quat"):
        measured = seen[f"state {name}"].frame
        if wanted and measured and wanted.lstrip("/") != measured:
            raise ConfigError(
                f"state {name} is measured in the frame {measured!r}, and action.frame is {wanted!r}; want the same"
            )
        wanted = wanted or measured
    return wanted


def _require_unit(what: str, measured: tuple[str, ...], commanded: tuple[str, ...]) -> None:
    """An unknown unit, 1, may be anything but a gripper scaled to 0 closed .. 1 open."""
    for is_, wanted in zip(measured, commanded, strict=True):
        if is_ != wanted and ("1" not in (is_, wanted) or "open" in (is_, wanted)):
            scaled = "; a gripper says closed and open both in state.gripper and in action.gripper, or in neither"
            raise ConfigError(
                f"state {what} is measured in {', '.join(measured)} and commanded in {', '.join(commanded)}; "
                f"to hold it still want the same{scaled if 'open' in (is_, wanted) else ''}"
            )


def _require_order(config: TopicConfig, held: Mapping[str, StateSpec]) -> None:
    action = config.action
    measured: list[str | None] = []
    for name, part in held.items():
        topic = config.state[name]
        if type_of(f"state {name}", topic).endswith("/JointState") and not topic.joints:
            raise ConfigError(f"state {name}: say which joints of {topic.topic} it is, in the order of the action")
        measured += [topic.joints[i] if topic.joints else None for i in topic.index or range(part.dim)]
    commanded = [*(action.joints or action.names), *_gripper_joint(action.gripper)]
    for is_, wanted in zip(measured, commanded, strict=True):
        if None not in (is_, wanted) and is_ != wanted:
            raise ConfigError(
                f"the action is for {', '.join(map(str, commanded))}, and state {' and '.join(held)} measures "
                f"{', '.join(map(str, measured))}; to hold them still want the same joints in the same order"
            )


def _gripper_joint(topic: NumbersTopic | None) -> list[str | None]:
    return [] if topic is None else [topic.joints[0] if topic.joints else None]


def _each(part: StateSpec) -> tuple[str, ...]:
    return part.units * part.dim if len(part.units) == 1 else part.units

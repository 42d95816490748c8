"""Which ROS 2 topic is which field, in a bag or on a robot: the YAML file, read and checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from robopolicy.errors import ContractError, UnknownName
from robopolicy.resampling import HOWS, Rule
from robopolicy.settings import keys, mapping, read_settings
from robopolicy.spec import ACTION_KINDS

CAMERA_AGE_S, NUMBERS_AGE_S = 0.05, 0.1


@dataclass(frozen=True)
class CameraTopic:
    """A camera: ``sensor_msgs/Image`` or ``CompressedImage``, or a device of this machine."""

    topic: str  # of a device /uvc: and its path: no topic can be called so
    type: str = ""  # of its messages; a bag knows, of a robot "" is Image, or CompressedImage of .../compressed
    latency_s: float = 0.0  # from capture to header stamp
    max_age_s: float = CAMERA_AGE_S
    stamp: Literal["header", "bag"] = "header"  # bag: when it was recorded, of a robot when it came
    uvc: str = ""  # instead of a topic: what OpenCV opens, /dev/video0; its stamps are its own
    width: int = 0  # pixels, of a device; 0 is what it likes
    height: int = 0
    fps: float = 0.0
    fourcc: str = ""  # of a device, as MJPG

    @property
    def rule(self) -> Rule:
        """How it is read at an instant: the nearest picture."""
        return Rule("nearest", self.max_age_s, self.latency_s)


@dataclass(frozen=True)
class NumbersTopic:
    """A low-dimensional stream: numbers somewhere in a message."""

    topic: str
    type: str = ""  # of its messages; a bag knows, of a robot "" is JointState if joints are named
    field: str = ""  # dotted, such as pose.position; "" is position of a JointState, data of an array
    joints: tuple[str, ...] = ()  # names to pick from a JointState, in the dataset's order
    index: tuple[int, ...] = ()  # elements to pick
    units: tuple[str, ...] = ()  # one for all or one for each; () is what the field's kind suggests
    closed: float | None = None  # of a gripper: what the robot calls closed and open; in the dataset they are 0 and 1
    open: float | None = None
    align: str = "interpolate"
    latency_s: float = 0.0
    max_age_s: float = NUMBERS_AGE_S
    stamp: Literal["header", "bag"] = "header"

    def rule(self, quats: tuple[int, ...]) -> Rule:
        """How it is read at an instant; ``quats``: where quaternions start."""
        return Rule(self.align, self.max_age_s, self.latency_s, quats)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ActionTopic(NumbersTopic):
    """The commands: recorded in a bag, published to a robot."""

    kind: str = "vector"
    names: tuple[str, ...] = ()  # of its elements; joint names, in the order of the message
    gripper: NumbersTopic | None = None  # if it is commanded on a topic of its own; the last element then
    frame: str = ""  # frame_id of what is published
    send: Literal["set-point", "chunk"] = "set-point"  # chunk: whole motions, to a joint_trajectory_controller


@dataclass(frozen=True)
class TopicConfig:
    """The whole file."""

    rate_hz: float
    action: ActionTopic
    state: Mapping[str, NumbersTopic]
    cameras: Mapping[str, CameraTopic] = field(default_factory=dict)
    primary: str | None = None  # camera whose pictures are the instants; None: ticks of rate_hz
    task: str = ""
    robot: str = "ros2"
    operator: str = ""
    success: bool | None = None
    embodiment: Literal["robot", "human"] = "robot"
    source: Literal["human", "policy"] = "human"  # who drove
    episodes: str | None = None  # marker topic; None: one bag is one episode
    gaps: Literal["error", "drop"] = "error"  # instants inside an episode at which a stream has nothing near
    calibration: str = ""  # file of the cameras, of `robopolicy calibrate-cameras`; seen from this one's folder

    def streams(self) -> dict[str, CameraTopic | NumbersTopic]:
        """Return {what it is, for messages: topic}: ``camera front``, ``state q``, ``action``, ``action gripper``."""
        commands: dict[str, CameraTopic | NumbersTopic] = {"action": self.action}
        if self.action.gripper is not None:
            commands["action gripper"] = self.action.gripper
        return {**self.observed(), **commands}

    def observed(self) -> dict[str, CameraTopic | NumbersTopic]:
        """Return those of `streams` that a robot publishes."""
        cameras = {f"camera {name}": topic for name, topic in self.cameras.items()}
        return {**cameras, **{f"state {name}": topic for name, topic in self.state.items()}}


def load_config(path: Path | str) -> TopicConfig:
    """Read the YAML file.

    Raises:
        ConfigError: naming the file and the key that is missing, unknown or makes no sense.
        MissingExtra: without ruamel.yaml, which rosbags brings.
    """
    config = read_settings(path, _config, "the YAML file that says which topic is which field")
    if not config.calibration:
        return config
    return replace(config, calibration=str(Path(path).parent / config.calibration))


def _config(data: Any) -> TopicConfig:
    values = keys(data, TopicConfig, "the file", ("rate_hz", "state", "action"), prefix="")
    cameras = {n: _part(v, CameraTopic, f"cameras.{n}") for n, v in mapping(values.get("cameras"), "cameras").items()}
    state = {n: _part(v, NumbersTopic, f"state.{n}") for n, v in mapping(values["state"], "state").items()}
    command = {"topic": values["action"]} if isinstance(values["action"], str) else mapping(values["action"], "action")
    action = _action({"align": "after", **command})
    config = TopicConfig(**(values | {"cameras": cameras, "state": state, "action": action}))
    if not config.rate_hz > 0:
        raise ContractError(f"rate_hz is {config.rate_hz:g}; want steps per second")
    if config.primary is not None and config.primary not in cameras:
        raise UnknownName("primary camera", str(config.primary), cameras)
    topics = ["/" + camera.topic.lstrip("/") for camera in cameras.values()]
    if twice := sorted({topic for topic in topics if topics.count(topic) > 1}):
        raise ContractError(f"two cameras have the topic {twice[0]!r}")
    return config


def _action(values: dict[str, Any]) -> ActionTopic:
    gripper = values.get("gripper")
    if gripper is not None:
        told = {"topic": gripper} if isinstance(gripper, str) else mapping(gripper, "action.gripper")
        align = {"align": values["align"], "max_age_s": values.get("max_age_s", NUMBERS_AGE_S)}
        values = {**values, "gripper": _part({**align, **told}, NumbersTopic, "action.gripper")}
    action: ActionTopic = _part(values, ActionTopic, "action")
    if action.kind not in ACTION_KINDS:
        raise UnknownName("action kind", action.kind, ACTION_KINDS)
    if action.kind == "tool_pose" and (action.names or action.units):
        raise ContractError("action: a tool_pose has names and units of its own; leave them out")
    if action.kind == "tool_pose" and action.gripper is None:
        raise ContractError("action: a tool_pose has a gripper; give action.gripper its topic")
    return action


def _device(told: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the keys of a camera that is a device, the others filled in."""
    if odd := [key for key in ("topic", "type", "stamp") if told.get(key) is not None]:
        raise ContractError(f"{where}: uvc: {told['uvc']} is a device of this machine; leave out {odd[0]}")
    path = str(told["uvc"])
    return {**told, "uvc": path, "topic": f"/uvc:{path}", "stamp": "bag"}


def _part(data: Any, kind: Any, where: str) -> Any:
    told = {"topic": data} if isinstance(data, str) else data
    if kind is CameraTopic and isinstance(told, dict) and told.get("uvc") is not None:
        told = _device(told, where)
    values = keys(told, kind, where, ("topic",))
    part = kind(**values)
    for key in ("joints", "names", "index"):
        several = getattr(part, key, ())
        if twice := [one for one in several if several.count(one) > 1]:
            raise ContractError(f"{where}.{key}: {twice[0]!r} is there twice")
    if isinstance(part, NumbersTopic):
        if (part.closed is None) != (part.open is None) or (part.open is not None and part.open == part.closed):
            raise ContractError(f"{where}: closed {part.closed}, open {part.open}; want two different numbers, or none")
        if part.align not in HOWS:
            raise UnknownName(f"{where}.align", part.align, HOWS)
    elif not part.uvc and (part.width or part.height or part.fps or part.fourcc):
        raise ContractError(f"{where}: width, height, fps and fourcc are of a device; a topic has its own")
    elif bool(part.width) != bool(part.height):
        raise ContractError(f"{where}: width {part.width}, height {part.height}; give both or neither")
    elif part.fourcc and len(part.fourcc) != 4:
        raise ContractError(f"{where}: fourcc is {part.fourcc!r}; want four letters, as MJPG")
    if not part.max_age_s > 0:
        raise ContractError(f"{where}.max_age_s is {part.max_age_s:g}; want seconds, above 0")
    return part

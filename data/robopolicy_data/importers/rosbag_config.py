"""Which topic of a ROS bag is which field of a dataset: the YAML file, read and checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from robopolicy.errors import ContractError, DatasetError, MissingExtra, RobopolicyError, UnknownName
from robopolicy.resampling import HOWS, Rule
from robopolicy.spec import ACTION_KINDS

CAMERA_AGE_S, NUMBERS_AGE_S = 0.05, 0.1


@dataclass(frozen=True)
class CameraTopic:
    """A camera: ``sensor_msgs/Image`` or ``CompressedImage``."""

    topic: str
    latency_s: float = 0.0  # from capture to header stamp
    max_age_s: float = CAMERA_AGE_S
    stamp: Literal["header", "bag"] = "header"

    @property
    def rule(self) -> Rule:
        """How it is read at an instant: the nearest picture."""
        return Rule("nearest", self.max_age_s, self.latency_s)


@dataclass(frozen=True)
class NumbersTopic:
    """A low-dimensional stream: numbers somewhere in a message."""

    topic: str
    field: str = ""  # dotted, such as pose.position; "" is position of a JointState, data of an array
    joints: tuple[str, ...] = ()  # names to pick from a JointState, in the dataset's order
    index: tuple[int, ...] = ()  # elements to pick
    units: tuple[str, ...] = ()  # one for all or one for each; () is what the field's kind suggests
    align: str = "interpolate"
    latency_s: float = 0.0
    max_age_s: float = NUMBERS_AGE_S
    stamp: Literal["header", "bag"] = "header"
    kind: str = "vector"  # of an action
    names: tuple[str, ...] = ()  # of an action's elements

    def rule(self, quats: tuple[int, ...]) -> Rule:
        """How it is read at an instant; ``quats``: where quaternions start."""
        return Rule(self.align, self.max_age_s, self.latency_s, quats)  # type: ignore[arg-type]


@dataclass(frozen=True)
class BagConfig:
    """The whole file."""

    rate_hz: float
    action: NumbersTopic
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

    def streams(self) -> dict[str, CameraTopic | NumbersTopic]:
        """Return {what it is, for messages: topic}: ``camera front``, ``state q``, ``action``."""
        cameras = {f"camera {name}": topic for name, topic in self.cameras.items()}
        return {**cameras, **{f"state {name}": topic for name, topic in self.state.items()}, "action": self.action}


def load_config(path: Path | str) -> BagConfig:
    """Read the YAML file.

    Raises:
        DatasetError: naming the file and the key that is missing, unknown or makes no sense.
        MissingExtra: without ruamel.yaml, which rosbags brings.
    """
    try:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError
    except ImportError:
        raise MissingExtra("ruamel.yaml", "ros") from None
    try:
        data = YAML(typ="safe", pure=True).load(Path(path).read_text())
    except OSError as error:
        raise DatasetError(
            f"{path}: {error.strerror}; want the YAML file that says which topic is which field"
        ) from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is no YAML: {' '.join(str(error).split())[:160]}") from error
    try:
        return _config(data)
    except (RobopolicyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path}: {error}") from error


def _config(data: Any) -> BagConfig:
    values = _keys(data, BagConfig, "the file", required=("rate_hz", "state", "action"))
    cameras = {n: _part(v, CameraTopic, f"cameras.{n}") for n, v in _mapping(values.get("cameras"), "cameras").items()}
    state = {n: _part(v, NumbersTopic, f"state.{n}") for n, v in _mapping(values["state"], "state").items()}
    command = {"topic": values["action"]} if isinstance(values["action"], str) else _mapping(values["action"], "action")
    action = _part({"align": "after", **command}, NumbersTopic, "action")
    config = BagConfig(**(values | {"cameras": cameras, "state": state, "action": action}))
    if not isinstance(config.rate_hz, int | float) or not config.rate_hz > 0:
        raise ContractError(f"rate_hz is {config.rate_hz!r}; want steps per second")
    if config.primary is not None and config.primary not in cameras:
        raise UnknownName("primary camera", str(config.primary), cameras)
    if action.kind not in ACTION_KINDS:
        raise UnknownName("action kind", action.kind, ACTION_KINDS)
    topics = [camera.topic for camera in cameras.values()]
    if twice := sorted({topic for topic in topics if topics.count(topic) > 1}):
        raise ContractError(f"two cameras have the topic {twice[0]!r}")
    for name, allowed in (("gaps", ("error", "drop")), ("source", ("human", "policy"))):
        if getattr(config, name) not in allowed:
            raise UnknownName(name, str(getattr(config, name)), allowed)
    if config.success not in (True, False, None):
        raise ContractError(f"success is {config.success!r}; want true, false or null")
    return config


def _part(data: Any, kind: Any, where: str) -> Any:
    values = _keys({"topic": data} if isinstance(data, str) else data, kind, where, required=("topic",))
    for key in ("joints", "index", "units", "names"):
        if key in values:
            one = isinstance(values[key], str | int)
            values[key] = (values[key],) if one else tuple(values[key])
    part = kind(**values)
    if part.stamp not in ("header", "bag"):
        raise UnknownName(f"{where}.stamp", str(part.stamp), ("header", "bag"))
    if isinstance(part, NumbersTopic):
        if part.align not in HOWS:
            raise UnknownName(f"{where}.align", str(part.align), HOWS)
        part.rule(())
    else:
        part.rule  # noqa: B018  refuses ages that make no sense
    return part


def _keys(data: Any, kind: Any, where: str, required: tuple[str, ...]) -> dict[str, Any]:
    values = _mapping(data, where)
    known = [f.name for f in fields(kind)]
    for key in values:
        if key not in known:
            raise UnknownName(f"key in {where}", str(key), known)
    for key in required:
        if values.get(key) is None:
            raise ContractError(f"{where} has no {key!r}")
    return values


def _mapping(data: Any, where: str) -> dict[str, Any]:
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ContractError(f"{where} is {type(data).__name__} {str(data)[:40]!r}; want keys and values")
    return dict(data)

"""A robot behind ROS 2 topics: what it publishes is the observation, set-points go to its controllers."""

import copy
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.alignment import Aligned
from robopolicy.errors import (
    ConfigError,
    ContractError,
    StaleFrame,
    UnknownCamera,
    UnknownName,
    UnsafeCommand,
    UsageError,
)
from robopolicy.geometry.calibrations import calibrations_for
from robopolicy.interfaces import Clock
from robopolicy.rotations import matrix_to_rot6d, quat_to_matrix
from robopolicy.spec import TOOL_POSE, ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.topics.config import TopicConfig, load_config
from robopolicy.topics.messages import action_spec, decoded, picture
from robopolicy.types import ActionChunk, Observation
from robopolicy_hardware.ros.holding import HELD, command_frame, require_measured
from robopolicy_hardware.ros.motions import BRAKE_S, Motions
from robopolicy_hardware.ros.set_points import of_action, of_gripper
from robopolicy_hardware.ros.streams import Streams
from robopolicy_hardware.ros.transport import Transport

WAIT_S = 5.0  # for the first message of every topic, and for a controller that listens
MAX_AGE_S = 0.2  # of the newest message of a stream
CATCH_UP_S = 0.03  # in which receiving threads take what came while Python was busy, as with a first plan


class RosRobot:
    """Satisfies ``robopolicy.interfaces.Robot`` by ROS 2 topics, which a YAML file names.

    It waits for every stream once, at the start: sizes and lengths become the spec. Commands are set-points, published
    as they come; ``stop`` publishes the measured position, and the same again until the next command. Nothing is
    published before the first of either. With ``send: chunk`` it is a `robopolicy.following.Follower` too: `follow`
    publishes a whole motion, and commands meanwhile only the gripper, if it has a topic of its own.

    Args:
        config: which topic is which field, the same file as ``robopolicy data import rosbag`` reads.
        clock: monotonic, as `robopolicy.clock.WallClock`.
        transport: carries the topics, as `robopolicy_hardware.ros.dds.Topics`.
        cameras: those to look at; None is all.
        rate_hz: steps a second; None is the config's.
        wait_s: for the first messages.

    Raises:
        ConfigError: if the config does not say what a robot needs, or messages are not what it says.
        StaleFrame: if a stream does not come; each is named.
        UsageError: if nobody listens to the commands, or somebody else gives some too.
        UnknownCamera: naming the valid ones.
    """

    def __init__(
        self,
        config: TopicConfig,
        clock: Clock,
        transport: Transport,
        *,
        cameras: tuple[str, ...] | None = None,
        rate_hz: float | None = None,
        wait_s: float = WAIT_S,
    ) -> None:
        config = _with_cameras(config, cameras)
        self._config, self._clock = config, clock
        rate_hz = rate_hz or config.rate_hz
        of_action(config.action, 1.0 / rate_hz)  # refuses what cannot be commanded, before anything is waited for
        self.follows = config.action.send == "chunk"
        names = config.action.joints or config.action.names
        self._motions = Motions(config.action, names) if self.follows else None
        sinks = []
        self._topics = [config.action.topic]
        if config.action.gripper is not None:
            sinks.append(of_gripper(config.action.gripper))
            self._topics.append(config.action.gripper.topic)
        self._sinks: list[tuple[Any, Any]] = []
        deadline_s = time.monotonic() + wait_s
        self._closed = False
        self._streams = Streams(config.observed(), transport, MAX_AGE_S)
        try:
            seen = self._streams.wait(wait_s)
            self.spec = _spec(config, seen, rate_hz)
            require_measured(config, self.spec)
            sizes = {name: (camera.height, camera.width) for name, camera in self.spec.cameras.items()}
            self._calibration = calibrations_for(config.calibration, sizes) if config.calibration else {}
            sinks.insert(0, of_action(replace(config.action, frame=command_frame(config, seen)), 1.0 / rate_hz))
            self._sinks = [
                (transport.publisher(topic, kind), make)
                for topic, (kind, make) in zip(self._topics, sinks, strict=True)
            ]
            for topic, (publisher, _) in zip(self._topics, self._sinks, strict=True):
                _require_alone(transport, topic, publisher, deadline_s)
        except BaseException:
            self.close()
            raise
        self._read_ns = -1  # stamp of the last observation
        self._seen: dict[str, tuple[int, np.ndarray, bytes | None]] = {}  # the newest picture of each camera
        self._held: np.ndarray | None = None  # (A,) float64: what `stop` holds
        self._held_ns = 0  # since when, robot clock; 0 is for long
        self._sent: np.ndarray | None = None  # (A,) float64: the last command

    def camera_calibration(self) -> dict[str, dict[str, Any]]:
        """Return the entries of the config's file of calibrated cameras, for the episodes that are recorded."""
        return copy.deepcopy(self._calibration)

    def read(self) -> Observation:
        """Return every stream at the newest instant all know of: capture of the primary camera, if there is one.

        Raises:
            StaleFrame: naming the topic that is too old, and why.
            ContractError: if a camera changed its size, or a picture cannot be decoded.
        """
        primary = None if self._config.primary is None else f"camera {self._config.primary}"
        aligned = self._at(primary, self._read_ns)
        self._read_ns = aligned.reference_ns
        images, encoded = {}, {}
        for name, camera in self.spec.cameras.items():
            images[name], sent = self._picture(name, aligned)
            if images[name].shape != camera.shape:
                raise ContractError(f"camera {name}: a picture of {images[name].shape}; it began with {camera.shape}")
            if sent is not None:
                encoded[name] = sent
        state = {name: np.array(aligned.values[f"state {name}"], np.float32) for name in self.spec.state}
        stamps = {name: aligned.stamps_ns[f"camera {name}"] for name in images}
        return Observation(aligned.reference_ns, state, images, stamps, encoded)

    def command(self, action: np.ndarray, due_ns: int) -> np.ndarray:
        """Publish the set-point ``action`` (A,) at once; return it as sent, float32.

        Raises:
            UnsafeCommand: on a wrong length, a non-finite number or no rotation, or if no controller listens any more:
                it would begin where the commands are by then. Nothing is published then.
        """
        if np.shape(action) != (self.spec.action.dim,):
            raise UnsafeCommand(f"command has shape {np.shape(action)}; want ({self.spec.action.dim},)")
        if not np.all(np.isfinite(action)):
            raise UnsafeCommand("command is not finite")
        values = np.array(action, np.float64)
        if self.spec.action.kind == "tool_pose" and np.linalg.norm(np.cross(values[3:6], values[6:9])) < 1e-3:
            raise UnsafeCommand("command's rotation is degenerate: its two columns must be independent")
        self._require_heard()
        self._held = None
        told = None if self._motions is None else self._motions.at(self._clock.now_ns())
        if told is not None:
            values[: len(told[0])] = told[0]  # as the motion has it
        self._sent = values
        self._publish(values, arm=told is None)
        return values.astype(np.float32)

    def told(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return position (A,) and velocity (A,) of the motion now; None without one: a stop ends it.

        A gripper with its own topic stands where it was commanded last, or else where it was measured.
        """
        now = None if self._motions is None else self._motions.at(self._clock.now_ns())
        if now is None:
            return None
        rest = (self._measured() if self._sent is None else self._sent)[len(now[0]) :]
        return np.concatenate([now[0], rest]), np.concatenate([now[1], np.zeros(len(rest))])

    def follow(self, chunk: ActionChunk, velocities: np.ndarray) -> None:
        """Publish a whole motion (H, A), each row due at its stamp; of a gripper with its own topic, nothing.

        Raises:
            UnsafeCommand: as `command` does, or if the action is not sent by chunks. Nothing is published then.
        """
        if self._motions is None:
            raise UnsafeCommand("this robot takes no motions: its file does not say send: chunk")
        self._require_heard()
        joints = self.spec.action.dim - (len(self._sinks) - 1)
        part = ActionChunk(chunk.stamps_ns, chunk.values[:, :joints], chunk.made_ns)
        message = self._motions.begin(part, velocities[:, :joints], self._clock.now_ns())
        self._held = None
        self._sinks[0][0].send(message)

    def stop(self, reason: str = "") -> np.ndarray:
        """Hold the measured position, or the last set-point if the robot does not tell it any more; return it (A,).

        A motion is braked on its way, in `BRAKE_S`, and held where it rests. Of a closed robot nothing is published.

        Raises:
            StaleFrame: if the robot tells nothing and nothing was ever commanded: it holds by itself.
        """
        if self._held is None:
            now_ns = self._clock.now_ns()
            braking = None if self._motions is None else self._motions.end(now_ns)
            try:
                self._held = self._measured()
            except StaleFrame:
                if self._sent is None:
                    raise
                self._held = self._sent
            if braking is not None:
                self._held = np.concatenate([braking[1], self._held[len(braking[1]) :]])
            self._held_ns = 0 if braking is None else now_ns
            self._publish(self._held, braking=None if braking is None else braking[0])
        elif self._clock.now_ns() - self._held_ns > BRAKE_S * 1e9:  # sent again while it brakes, it would brake anew
            self._publish(self._held)
        return self._held.astype(np.float32)

    def close(self) -> None:
        """Leave the topics; idempotent."""
        self._closed = True
        self._streams.close()
        for publisher, _ in self._sinks:
            publisher.close()
        self._sinks = []

    def _picture(self, name: str, aligned: Aligned) -> tuple[np.ndarray, bytes | None]:
        """Return a camera's picture, its own, and its JPEG: decoded once, however often it is read."""
        stamp_ns = aligned.stamps_ns[f"camera {name}"]
        seen_ns, image, sent = self._seen.get(name, (-1, np.empty(0), None))
        if seen_ns != stamp_ns:
            image, sent = _pixels(aligned.values[f"camera {name}"], name)
            self._seen[name] = stamp_ns, image, sent
        return image.copy(), sent

    def _measured(self) -> np.ndarray:
        wanted = [f"state {name}" for name in HELD[self.spec.action.kind] if name in self.spec.state]
        values = self._at(None, only=wanted).values
        gripper = np.asarray(values["state gripper"]) if "state gripper" in values else np.zeros(0)
        if self.spec.action.kind == "joint":
            return np.concatenate([np.asarray(values["state q"]), gripper])
        rotation = quat_to_matrix(np.asarray(values["state tool_quat"]))
        return np.concatenate([values["state tool_pos"], matrix_to_rot6d(rotation), gripper])

    def _at(self, primary: str | None, after_ns: int = -1, only: list[str] | None = None) -> Aligned:
        """Ask once more when a stream is too old: what holds up this thread may have held up those that receive."""
        try:
            return self._streams.at(primary, self._clock.now_ns(), after_ns, only)
        except StaleFrame:
            time.sleep(CATCH_UP_S)
            return self._streams.at(primary, self._clock.now_ns(), after_ns, only)

    def _require_heard(self) -> None:
        if self._closed:
            raise UnsafeCommand("the robot is closed")
        for topic, (publisher, _) in zip(self._topics, self._sinks, strict=True):
            if not publisher.subscribers:
                raise UnsafeCommand(f"nobody listens on {topic} any more; did the controller stop?")

    def _publish(self, values: np.ndarray, *, arm: bool = True, braking: Any = None) -> None:
        """Publish set-points, of the arm unless a motion moves it; or the message ``braking`` in their place."""
        parts = [values] if len(self._sinks) < 2 else [values[:-1], values[-1:]]
        stamp_ns = time.time_ns()
        made = [make(part, stamp_ns) for (_, make), part in zip(self._sinks, parts, strict=False)]
        if braking is not None and made:
            made[0] = braking
        for k, ((publisher, _), message) in enumerate(zip(self._sinks, made, strict=True)):
            if arm or k > 0:
                publisher.send(message)


def make_ros_robot(
    path: str | Path,
    clock: Clock,
    *,
    domain: int | None = None,
    cameras: tuple[str, ...] | None = None,
    rate_hz: float | None = None,
) -> RosRobot:
    """Return the robot that the YAML file ``path`` describes, over DDS; raises what `RosRobot` and `Topics` raise.

    Args:
        path: the file.
        clock: monotonic.
        domain: None takes ``ROS_DOMAIN_ID``, or 0.
        cameras: those to look at; None is all.
        rate_hz: steps a second; None is the file's.
    """
    from robopolicy_hardware.ros.dds import Topics

    config = load_config(path)
    with named_by(path):
        return RosRobot(config, clock, Topics(domain), cameras=cameras, rate_hz=rate_hz)


@contextmanager
def named_by(path: Path | str) -> Iterator[None]:
    """Put the name of a robot's file before what is wrong with the robot; an unknown name in it is a ConfigError."""
    try:
        yield
    except UnknownCamera:
        raise  # one that was asked for beside the file
    except UnknownName as error:
        raise ConfigError(f"{path}: {error}") from error
    except (ConfigError, ContractError, StaleFrame, UsageError) as error:
        raise type(error)(f"{path}: {error}") from error


def _with_cameras(config: TopicConfig, cameras: tuple[str, ...] | None) -> TopicConfig:
    if cameras is None:
        return config
    for name in cameras:
        if name not in config.cameras:
            raise UnknownCamera("camera", name, config.cameras)
    primary = config.primary if config.primary in cameras else None
    return replace(config, cameras={name: config.cameras[name] for name in cameras}, primary=primary)


def _spec(config: TopicConfig, seen: Mapping[str, Any], rate_hz: float) -> PolicySpec:
    """Return what is observed and commanded, from the first message of every stream."""
    cameras, state = {}, {}
    for name in config.cameras:
        image, _ = _pixels(seen[f"camera {name}"], name)
        cameras[name] = CameraSpec(*image.shape[:2], "colour" if image.ndim == 3 else "depth")
    for name in config.state:
        values, units = seen[f"state {name}"].values, seen[f"state {name}"].units
        if len(units) not in (1, len(values)):
            raise ConfigError(f"state {name} has {len(values)} numbers, and {len(units)} units")
        state[name] = StateSpec(len(values), tuple(units))
    return PolicySpec(cameras, state, _action(config), rate_hz)


def _action(config: TopicConfig) -> ActionSpec:
    topic = config.action
    if topic.kind == "tool_pose":
        return TOOL_POSE
    names = topic.names or topic.joints
    return action_spec(topic, len(names), topic.units or ("rad",))


def _require_alone(transport: Transport, topic: str, publisher: Any, deadline_s: float) -> None:
    """Wait for a controller that listens, and refuse to command beside somebody else."""
    while not publisher.subscribers:
        if time.monotonic() >= deadline_s:
            raise UsageError(f"nobody listens on {topic}; is the controller active, and of that message type?")
        time.sleep(0.02)
    others = len(transport.publishers(topic)) - 1
    if others > 0:
        named = ", ".join(transport.publishing_nodes(topic))
        raise UsageError(
            f"somebody else publishes on {topic} too ({named}); two would fight over the robot: stop the other "
            "one (one that was killed is seen for another ten seconds)"
        )


def _pixels(message: Any, name: str) -> tuple[np.ndarray, bytes | None]:
    """Return a picture as `CameraSpec` says, and its JPEG as the camera sent it, if it is one in colour."""
    image = picture(message, f"camera {name}")
    if not isinstance(image, bytes):
        return image, None
    import cv2
    import simplejpeg

    try:
        if simplejpeg.decode_jpeg_header(image)[2] != "Gray":
            return simplejpeg.decode_jpeg(image, "RGB"), image
    except ValueError:
        pass  # no JPEG, or a broken one: the other decoder says so
    return decoded(cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_UNCHANGED) if image else None, name), None

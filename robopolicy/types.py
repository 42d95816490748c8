"""The types that flow between robot, loop, recorder, policy and monitor.

SI units, int64 nanoseconds, RGB uint8, poses as T_base_tool, quaternions wxyz.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from robopolicy.errors import ContractError

Source = Literal["policy", "human", "hold"]
Embodiment = Literal["robot", "human"]
MonitorState = Literal["nominal", "warn", "alarm", "overrun", "uncalibrated", "stale", "fault"]
Phase = Literal["waiting", "recording", "paused", "saving"]
Event = Literal["start", "success", "failure", "discard", "redo", "undo", "pause", "takeover", "release", "quit"]


@dataclass(frozen=True)
class Observation:
    """What the robot saw and felt at one instant; every array is fresh, never an alias of robot memory."""

    stamp_ns: int  # robot clock
    state: Mapping[str, np.ndarray]  # {name: (D,) float32}, units of PolicySpec.state
    images: Mapping[str, np.ndarray] = field(
        default_factory=dict
    )  # {camera: CameraSpec.shape and .dtype}, never resized
    image_stamps_ns: Mapping[str, int] = field(default_factory=dict)  # capture time of each image, robot clock
    encoded: Mapping[str, bytes] = field(
        default_factory=dict
    )  # {camera: JPEG as the camera sent it}, recorded as it is


@dataclass(frozen=True)
class ActionChunk:
    """A plan in time: row i of ``values`` is due at ``stamps_ns[i]``.

    Raises:
        ContractError: if the stamps are not strictly increasing int64 or do not match the rows.
    """

    stamps_ns: np.ndarray  # (H,) int64, robot clock
    values: np.ndarray  # (H, A) float32, units of PolicySpec.action
    made_ns: int  # stamp of the observation it answers

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.stamps_ns.shape != self.values.shape[:1]:
            raise ContractError(
                f"chunk: stamps {self.stamps_ns.shape} and values {self.values.shape}; want (H,) and (H, A)"
            )
        if self.stamps_ns.dtype != np.int64 or np.any(np.diff(self.stamps_ns) <= 0):
            raise ContractError("chunk: stamps must be strictly increasing int64 nanoseconds")

    def after(self, now_ns: int) -> "ActionChunk":
        """Return the rows due at or after ``now_ns``; what is late is dropped, possibly everything."""
        due = self.stamps_ns >= now_ns  # (H,)
        return ActionChunk(self.stamps_ns[due], self.values[due], self.made_ns)


@dataclass(frozen=True)
class Verdict:
    """What the failure monitor says of one policy decision."""

    stamp_ns: int
    scores: Mapping[str, float]  # larger is worse
    statistic: float  # the one number that was calibrated
    threshold: float  # alarm when statistic > threshold
    p_value: float  # conformal, of the episode so far
    state: MonitorState
    latency_s: float = 0.0
    reason: str = ""

    @property
    def acts(self) -> bool:
        """Whether the state asks for a reaction: alarm, overrun or fault."""
        return self.state in ("alarm", "overrun", "fault")


@dataclass(frozen=True)
class Command:
    """What an agent or a teleoperator wants; ``source == "hold"`` asks the robot to stay where it is."""

    values: np.ndarray | None  # (A,) float32, units of PolicySpec.action; None only with "hold"
    source: Source
    verdict: Verdict | None = None
    reason: str = ""
    ends: bool = False  # the episode is over with this one, which is a hold


@dataclass(frozen=True)
class Step:
    """One tick of the loop as it really happened: what the recorder stores."""

    observation: Observation
    sent: np.ndarray  # (A,) float32, the command after safety
    due_ns: int  # when it was to take effect, robot clock
    source: Source
    verdict: Verdict | None = None


@dataclass(frozen=True)
class EpisodeMeta:
    """What is true of a whole episode."""

    task: str
    robot: str
    seed: int | None = None
    operator: str = ""
    embodiment: Embodiment = "robot"
    success: bool | None = None
    rate_hz: float = 0.0
    software: str = ""
    cameras: Mapping[str, Any] = field(default_factory=dict)  # {camera: {"K": 3x3, "T_base_cam": 4x4}}
    notes: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)  # JSON-able, e.g. {"score": 0.93}


@dataclass(frozen=True)
class Plan:
    """N candidate chunks from one encoding of the observation; row 0 is the one to execute."""

    chunks: np.ndarray  # (N, H, A) float32, units of PolicySpec.action; [:, 0] belongs to the newest observation
    features: np.ndarray  # (E,) float32, the conditioning vector
    aux: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class PlanRequest:
    """What one environment asks of `Policy.plan`, so that several can be answered together."""

    window: Sequence[Observation]  # spec.n_obs observations, oldest first
    n: int = 1  # candidates
    previous: np.ndarray | None = None  # (H, A) what is left of the running chunk
    delay_steps: int = 0  # rows of it that will have been executed before the plan arrives
    executed: np.ndarray | None = None  # (K, A) the commands before the newest observation, oldest first
    generator: Any = None  # of this environment alone


@dataclass(frozen=True)
class Decision:
    """One policy call, as the failure monitor sees it."""

    index: int  # 0, 1, ... within the episode
    stamp_ns: int
    embedding: np.ndarray  # (E,) float32
    chunks: np.ndarray  # (N, H, A) float32, de-normalised; row 0 is executed
    n_execute: int
    aux: Mapping[str, np.ndarray] = field(default_factory=dict)
    after: int | None = None  # rows of the chunk before that this one leaves; 0: it goes on from none; None: not known

    @property
    def number(self) -> int:
        """What a person is told: counted from 1, as ``longest`` decisions and the charts are."""
        return self.index + 1


@dataclass(frozen=True)
class Status:
    """What an operator sees while demonstrating."""

    phase: Phase
    episode: int  # episodes kept so far
    episodes: int  # wanted
    time_s: float = 0.0  # into the episode
    rate_hz: float = 0.0  # achieved
    latency_s: float = 0.0  # of the operator's newest command
    dropped: int = 0  # steps the recorder could not take
    source: Source = "hold"  # who drives
    message: str = ""
    camera_hz: float = 0.0  # new frames a second of the slowest camera; 0 without cameras


@dataclass(frozen=True)
class Shape:
    """A rigid part of a scene, for 3-D views; its pose comes from `Scene.poses`."""

    name: str
    vertices: np.ndarray  # (V, 3) float32 m, in the part's own frame
    faces: np.ndarray  # (F, 3) int32
    colour: tuple[float, float, float, float]  # RGBA, 0 to 1

"""The configuration of a motion-track policy (Ren et al. 2025): what it sees, draws and decodes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from robopolicy.errors import ContractError, UnknownName
from robopolicy.geometry.keypoints import TWIN, GripperKeypoints
from robopolicy.policies.config import rebuilt, to_plain
from robopolicy.policies.consistency import ConsistencyConfig
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.processes import EDMConfig, FlowConfig, VPConfig
from robopolicy.policies.ranges import require_positive
from robopolicy.policies.solvers import SolverConfig
from robopolicy.policies.transformer import TransformerConfig
from robopolicy.policies.unet1d import UnetConfig
from robopolicy.policies.vision import VisionConfig

STEPS: tuple[str, ...] = ("delta", "offset")


@dataclass(frozen=True)
class TrackAugmentation:
    """Pictures and their points moved together, and what else is never twice the same; shares are of a picture's side.

    Raises:
        ContractError: if a size is negative, or a zoom would turn the picture inside out.
    """

    shift: float = 0.06  # +- both ways
    zoom: float = 0.08  # +-, as a factor
    turn_deg: float = 4.0  # +- about the middle
    colour: float = 0.15  # +- of brightness, of contrast and of each channel
    jitter: float = 0.008  # standard deviation of the points the network is told, of which it predicts the way on

    def __post_init__(self) -> None:
        if min(self.shift, self.zoom, self.turn_deg, self.colour, self.jitter) < 0 or self.zoom >= 1:
            raise ContractError(f"augmentation: {self}; want none below 0, zoom below 1")


@dataclass(frozen=True)
class ViewsConfig:
    """How the views of one moment go together while their tracks are drawn.

    Raises:
        ContractError: if the agreement is no share.
    """

    together: bool = True  # all views of a candidate start from the same noise
    agreement: float = 1.0  # share by which each guess is drawn to what all views see together; 0: each by itself

    def __post_init__(self) -> None:
        if not 0 <= self.agreement <= 1:
            raise ContractError(f"views: agreement is {self.agreement}; want 0 to 1")


@dataclass(frozen=True)
class AlignConfig:
    """Terms of the loss that make pictures of hands and of grippers look alike to the network; 0 leaves one out."""

    kl: float = 0.0  # divergence between Gaussians of both embodiments' features
    domain: float = 0.0  # a classifier of the embodiment, whose gradient is reversed (Ganin et al. 2016)

    def __post_init__(self) -> None:
        if self.kl < 0 or self.domain < 0:
            raise ContractError(f"align: kl {self.kl}, domain {self.domain}; want neither below 0")


@dataclass(frozen=True)
class MotionTrackConfig:
    """One member of each axis, and what belongs to tracks alone.

    Raises:
        ContractError: if a number is out of its range, or pictures would be cropped without their points.
        UnknownName: if ``step`` is none of `STEPS`.
    """

    kind: ClassVar[str] = "motion-track"
    max_delay: ClassVar[int] = 0  # a plan knows nothing of the motion that runs
    real_time: ClassVar[None] = None
    net: MlpConfig | UnetConfig | TransformerConfig = field(default_factory=lambda: MlpConfig(dropout=0.1))
    vision: VisionConfig = field(default_factory=lambda: VisionConfig(width=16, stages=2, shared=True, crop=1.0))
    process: VPConfig | EDMConfig | FlowConfig | ConsistencyConfig = field(
        default_factory=lambda: VPConfig(prediction="x0")
    )
    solver: SolverConfig = field(default_factory=lambda: SolverConfig(steps=8))
    augmentation: TrackAugmentation = field(default_factory=TrackAugmentation)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    align: AlignConfig = field(default_factory=AlignConfig)
    step: Literal["delta", "offset"] = "delta"  # points are learnt as differences: from the row before, or from now
    at_points: bool = True  # also tell the network what the picture's features are where the points are
    grasp_weight: float = 0.5  # share of the loss that is the grasp's, however many points there are
    opened: tuple[tuple[float, ...], ...] = tuple(map(tuple, TWIN.opened.tolist()))  # (5, 3) m in the tool's frame
    closed: tuple[tuple[float, ...], ...] = tuple(map(tuple, TWIN.closed.tolist()))
    lr: float = 1e-3

    def __post_init__(self) -> None:
        require_positive("policy", self, "lr")
        if self.step not in STEPS:
            raise UnknownName("step of a track", self.step, STEPS)
        if not 0 < self.grasp_weight < 1:
            raise ContractError(f"policy: grasp_weight is {self.grasp_weight}; want a share above 0 and below 1")
        if self.vision.crop != 1:
            raise ContractError(
                f"policy: vision.crop {self.vision.crop} would move pictures and not their points; want 1, and "
                "augmentation.shift, which moves both"
            )
        for name in ("opened", "closed"):
            object.__setattr__(self, name, tuple(tuple(map(float, point)) for point in getattr(self, name)))
        self.gripper  # noqa: B018  # refuses points by which no pose can be told

    @property
    def goal(self) -> None:
        """Motion tracks know no goals."""
        return None

    @property
    def gripper(self) -> GripperKeypoints:
        """Where the five points are on the gripper."""
        return GripperKeypoints(self.opened, self.closed)  # type: ignore[arg-type]

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers."""
        data: dict[str, Any] = to_plain(self)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "MotionTrackConfig":
        """Rebuild what ``to_json`` gave.

        Raises:
            ContractError: if a key is missing or unknown, or a value is none that this version knows.
        """
        return rebuilt(cls, data)

"""robopolicy: one small stack from a demonstration to a guarded robot."""

from robopolicy.errors import RobopolicyError
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import (
    ActionChunk,
    Command,
    Decision,
    EpisodeMeta,
    Observation,
    Plan,
    Step,
    Verdict,
)

__version__ = "0.1.0"

__all__ = [
    "ActionChunk",
    "ActionSpec",
    "CameraSpec",
    "Command",
    "Decision",
    "EpisodeMeta",
    "Observation",
    "Plan",
    "PolicySpec",
    "RobopolicyError",
    "StateSpec",
    "Step",
    "Verdict",
    "__version__",
]

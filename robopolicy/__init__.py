"""robopolicy: one small stack from a demonstration to a guarded robot."""

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from robopolicy.training.checkpoint import load_policy

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
    "load_policy",
]


def __getattr__(name: str) -> Any:
    """Load what needs torch only when it is asked for."""
    if name == "load_policy":
        from robopolicy.training.checkpoint import load_policy

        return load_policy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

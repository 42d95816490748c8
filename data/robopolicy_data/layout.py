"""Where things lie in a dataset: names, paths, dtypes and units of every stream, given the spec."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robopolicy.errors import ContractError
from robopolicy.spec import CameraSpec, PolicySpec

SOURCES = ("policy", "human", "hold")  # what the numbers in action/source mean
# What the numbers in derived/monitor@1/state mean; new ones are added at the end.
MONITOR_STATES = ("none", "nominal", "alarm", "uncalibrated", "warn", "overrun", "stale", "fault")
DERIVED = "derived"
MONITOR = f"{DERIVED}/monitor@1"
MOST_SCORES = 16  # of one monitor; a journal record has room for so many
LOCK, WIP, TRASH, EPISODES = ".lock", ".wip", ".trash", "episodes"
_OWN_TIMES = ("step", "action")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\-]*")


@dataclass(frozen=True)
class Stream:
    """One low-dimensional array of an episode."""

    path: str  # below the episode's folder
    dtype: str  # zarr data_type
    dim: int | None = None  # (rows, dim), or (rows,) when None
    attributes: dict[str, Any] = field(default_factory=dict)
    camera: str | None = None  # whose frames the rows are; None: the steps

    def shape(self, rows: int) -> tuple[int, ...]:
        """Return (rows,) or (rows, dim)."""
        return (rows,) if self.dim is None else (rows, self.dim)

    @property
    def chunk(self) -> str:
        """Name of the one file that holds the numbers."""
        return "c.0" if self.dim is None else "c.0.0"


def state_path(name: str) -> str:
    """Return where a state lies."""
    return f"obs/state/{name}"


def camera_path(spec: PolicySpec, name: str) -> str:
    """Return where a camera's frames lie: pictures below obs/cam, depth maps below obs/depth."""
    return f"obs/{'depth' if spec.cameras[name].kind == 'depth' else 'cam'}/{name}"


def shard_file(camera: CameraSpec) -> str:
    """Return the name of the one file that holds a camera's frames."""
    return ".".join(["c", *("0" for _ in range(1 + len(camera.shape)))])


def time_path(name: str) -> str:
    """Return where the stamps of ``step``, ``action`` or a camera lie."""
    return f"time/{name}"


def align_path(name: str) -> str:
    """Return where it says which frame of a camera each step saw."""
    return f"align/{name}"


def streams(spec: PolicySpec) -> tuple[Stream, ...]:
    """Return every low-dimensional stream that an episode of this spec has, of the steps and of the frames."""
    action = {"kind": spec.action.kind, "names": list(spec.action.names), "units": list(spec.action.units)}
    return (
        *(Stream(state_path(k), "float32", s.dim, {"units": list(s.units)}) for k, s in spec.state.items()),
        Stream("action/command", "float32", spec.action.dim, action),
        Stream("action/source", "uint8", None, {"meanings": list(SOURCES)}),
        *(Stream(time_path(k), "int64", None, {"units": ["ns"]}) for k in _OWN_TIMES),
        *(Stream(align_path(k), "int32", None, {"meaning": "frame that the step saw"}) for k in spec.cameras),
        *(Stream(time_path(k), "int64", None, {"units": ["ns"]}, camera=k) for k in spec.cameras),
    )


def monitor_streams() -> tuple[Stream, ...]:
    """Return the streams of the failure monitor's verdicts; NaN and state 0 where a step has none."""
    numbers = (Stream(f"{MONITOR}/{k}", "float64") for k in ("statistic", "threshold", "p_value"))
    state = Stream(f"{MONITOR}/state", "uint8", None, {"meanings": list(MONITOR_STATES)})
    return (*numbers, state, Stream(f"{MONITOR}/latency_s", "float64", None, {"units": ["s"]}))


def scores_stream(names: Sequence[str]) -> Stream:
    """Return the stream of a verdict's single scores, in the order of their names; NaN where a step has none."""
    return Stream(f"{MONITOR}/scores", "float64", len(names), {"names": list(names)})


def groups(paths: Iterable[str]) -> list[str]:
    """Return every folder above the given arrays, the episode's own ("") first."""
    parents = {str(parent) for path in paths for parent in Path(path).parents}
    return sorted("" if parent == "." else parent for parent in parents)


def require_name(what: str, name: str) -> None:
    """Refuse a name that cannot be a folder; ContractError."""
    if not _NAME.fullmatch(name):
        raise ContractError(f"{what} {name!r} cannot be a folder's name; use letters, digits, _ . - @")


def require_names(spec: PolicySpec) -> None:
    """Refuse names that cannot be folders.

    Raises:
        ContractError: naming the bad one.
    """
    for kind, names in (("camera", spec.cameras), ("state", spec.state)):
        for name in names:
            require_name(kind, name)
    for name in _OWN_TIMES:
        if name in spec.cameras:
            raise ContractError(f"camera {name!r}: time/{name} is taken; give the camera another name")

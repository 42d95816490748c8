"""Objects whose pose is measured: which streams of an observation hold it, and which joint it moves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from robopolicy.errors import ContractError, UnknownName, UsageError


@dataclass(frozen=True)
class Tracked:
    """A rigid object on a free joint.

    ``states`` names the streams that hold its pose: one of x, y (m), yaw (rad), which says nothing of its height and
    tilt; or a position (3,) m and a quaternion wxyz (4,).
    """

    name: str  # of its free joint
    states: tuple[str, ...]
    height: float = 0.0  # m, of its origin, where only x, y and yaw are known

    @property
    def planar(self) -> bool:
        """Whether it is known by x, y and yaw only."""
        return len(self.states) == 1


@dataclass(frozen=True)
class PoseMeasurement:
    """Where an object was seen; the twin's own estimate has the same form.

    ``planar``: only x, y and the yaw of ``quat`` mean something.
    """

    name: str  # of the object
    stamp_ns: int  # when it was there: capture, not arrival
    position: np.ndarray  # (3,) m, base frame
    quat: np.ndarray  # (4,) wxyz, base frame
    planar: bool = False


def tracked_of(task: Any) -> tuple[Tracked, ...]:
    """Return the objects of a task that can be tracked.

    Raises:
        UsageError: if it names none.
    """
    tracked: tuple[Tracked, ...] = getattr(task, "tracked", ())
    if not tracked:
        raise UsageError(f"task {type(task).__name__} has no tracked objects; give it tracked = (Tracked(...),)")
    return tracked


def placing_states(task: Any) -> tuple[str, ...]:
    """Return the names of the states that say where a task's things are: its ``tracked`` objects' and its ``placed``.

    Raises:
        UsageError: if the task can be put nowhere, having neither tracked objects nor a method place(state).
    """
    tracked = getattr(task, "tracked", ()) if hasattr(task, "place") else tracked_of(task)
    return (*(name for one in tracked for name in one.states), *getattr(task, "placed", ()))


def find_tracked(objects: Sequence[Tracked], name: str) -> Tracked:
    """Return the object of that name; UnknownName lists those there are."""
    for one in objects:
        if one.name == name:
            return one
    raise UnknownName("tracked object", name, [one.name for one in objects])


def measured(one: Tracked, state: Mapping[str, np.ndarray], stamp_ns: int) -> PoseMeasurement | None:
    """Return the pose of an object as an observation's ``state`` holds it, None if it holds none.

    It may also be under ``"NAME pose"``, x y z qw qx qy qz (7,), as a pose topic tells it.

    Raises:
        ContractError: if a stream has another length.
    """
    if f"{one.name} pose" in state:
        pose = np.asarray(state[f"{one.name} pose"], np.float64)
        return PoseMeasurement(one.name, stamp_ns, pose[:3], pose[3:], one.planar)
    if any(name not in state for name in one.states):
        return None
    values = np.concatenate([np.asarray(state[name], np.float64) for name in one.states])
    if len(values) != (3 if one.planar else 7):
        raise ContractError(f"{one.name}: {', '.join(one.states)} hold {len(values)} numbers; want {_wanted(one)}")
    if one.planar:
        half = values[2] / 2
        position = np.array([values[0], values[1], one.height])
        return PoseMeasurement(one.name, stamp_ns, position, np.array([np.cos(half), 0, 0, np.sin(half)]), True)
    return PoseMeasurement(one.name, stamp_ns, values[:3], values[3:])


def place_objects(data: mujoco.MjData, objects: Sequence[Tracked], state: Mapping[str, np.ndarray]) -> None:
    """Put every tracked object where ``state`` says, at rest.

    Raises:
        ContractError: if the state lacks one, or holds no pose.
    """
    for one in objects:
        found = measured(one, state, 0)
        if found is None:
            raise ContractError(f"state has no {' and '.join(one.states)}, the pose of {one.name}")
        length = float(np.linalg.norm(found.quat))
        if not np.all(np.isfinite(found.position)) or not 0.5 < length < 2.0:
            raise ContractError(f"{one.name}: {found.position} m, {found.quat} is no pose")
        joint = data.joint(one.name)
        joint.qpos = [*found.position, *(found.quat / length)]
        joint.qvel = 0


def _wanted(one: Tracked) -> str:
    return "x, y, yaw" if one.planar else "a position (3) and a quaternion (4)"

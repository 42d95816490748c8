"""Stretches of demonstrated tool poses, each told in the frame of the object it is about, and moved to where that is.

After MimicGen (Mandlekar et al. 2023, arXiv 2310.17596, section 4): each command of a segment becomes
T_base_tool' = T_base_object' inv(T_base_object) T_base_tool, where object' is that of the new scene.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.rotations import (
    matrix_to_rot6d,
    matrix_to_rotvec,
    quat_to_matrix,
    rot6d_to_matrix,
    rotvec_to_matrix,
)


@dataclass(frozen=True)
class Frame:
    """How the frame of an object is seen: upright on the table, whatever leans a little.

    ``states`` names the streams that hold its pose: one of x, y (m), yaw (rad); or a position (3,) m and a quaternion
    wxyz (4,). ``turns``: it looks the same after each of so many equal turns about the vertical, 4 for a cube.
    """

    name: str
    states: tuple[str, ...]
    turns: int = 1

    def at(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return T_base_object (4, 4) float64 of an observation's ``state``, its z upward.

        Raises:
            ContractError: if the state lacks it.
        """
        if missing := [name for name in self.states if name not in state]:
            raise ContractError(f"{self.name}: the state has no {' and no '.join(missing)}; it has {', '.join(state)}")
        first = np.asarray(state[self.states[0]], np.float64)
        if len(self.states) == 1:
            return _upright(np.array([first[0], first[1], 0.0]), float(first[2]))
        rotation = quat_to_matrix(np.asarray(state[self.states[1]], np.float64))
        axis = int(np.argmin(np.abs(rotation[2]))) if self.turns == 4 else 0  # of a cube any edge that lies level
        return _upright(first, float(np.arctan2(rotation[1, axis], rotation[0, axis])))


@dataclass(frozen=True)
class Demonstration:
    """What was sent and seen in one episode.

    Raises:
        ContractError: if there are no commands, they are no tool poses, or a stream has another number of rows.
    """

    name: str  # says where it came from
    commands: np.ndarray  # (T, 10) tool poses
    state: Mapping[str, np.ndarray]  # {name: (T, D)}

    def __post_init__(self) -> None:
        if self.commands.ndim != 2 or self.commands.shape[1] != 10 or not len(self.commands):
            raise ContractError(f"{self.name}: commands {self.commands.shape}; want tool poses (T, 10), T at least 1")
        for name, rows in self.state.items():
            if len(rows) != len(self.commands):
                raise ContractError(f"{self.name}: {len(rows)} rows of {name} and {len(self.commands)} commands")

    def rows(self, name: str) -> np.ndarray:
        """Return a stream (T, D); ContractError lists those there are."""
        if name not in self.state:
            raise ContractError(f"{self.name} has no state {name}; it has {', '.join(self.state)}")
        return self.state[name]

    def at(self, step: int) -> dict[str, np.ndarray]:
        """Return the state of one step."""
        return {name: rows[step] for name, rows in self.state.items()}


@dataclass(frozen=True)
class Segment:
    """Commands of one demonstration about one object."""

    frame: Frame
    pose: np.ndarray  # (4, 4) T_base_object when they began
    commands: np.ndarray  # (K, 10) as they were sent
    source: str  # of the demonstration

    def carried(self, state: Mapping[str, np.ndarray], rotation: np.ndarray) -> np.ndarray:
        """Return the commands (K, 10) float64 where the object is in ``state`` what it was.

        Of the turns after which it looks the same, that which asks the least turn of the tool is taken.

        Args:
            state: of the new scene, now.
            rotation: (3, 3) R_base_tool, now.
        """
        now, back = self.frame.at(state), inverse(self.pose)
        first = rot6d_to_matrix(self.commands[0, 3:9])
        best, least = now, np.inf
        for k in range(self.frame.turns):
            turned = now @ _upright(np.zeros(3), 2 * np.pi * k / self.frame.turns)
            way = float(np.linalg.norm(matrix_to_rotvec(rotation.T @ (turned @ back)[:3, :3] @ first)))
            if way < least - 1e-9:
                best, least = turned, way
        return moved(self.commands, best @ back)


def moved(commands: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Return tool poses (K, 10) moved by a rigid ``transform`` (4, 4) of the base frame; the grip stays."""
    commands = np.asarray(commands, np.float64)
    positions = commands[:, :3] @ transform[:3, :3].T + transform[:3, 3]
    rotations = transform[:3, :3] @ rot6d_to_matrix(commands[:, 3:9])
    return np.concatenate([positions, matrix_to_rot6d(rotations), commands[:, 9:]], axis=1)


def bridge(start: np.ndarray, end: np.ndarray, *, step_m: float, step_rad: float) -> np.ndarray:
    """Return tool poses (K, 10) from ``start`` (10,) to ``end`` (10,), both excluded: straight, turning evenly.

    The grip stays that of ``start``. K is the least with which no step is longer than ``step_m`` or ``step_rad``.
    """
    rotation = rot6d_to_matrix(start[3:9])
    turn = matrix_to_rotvec(rot6d_to_matrix(end[3:9]) @ rotation.T)
    way = end[:3] - start[:3]
    count = int(np.ceil(max(np.linalg.norm(way) / step_m, np.linalg.norm(turn) / step_rad) - 1e-9))
    rows = np.empty((max(count - 1, 0), 10))
    for i, share in enumerate(np.arange(1, count) / max(count, 1)):
        rows[i, :3] = start[:3] + share * way
        rows[i, 3:9] = matrix_to_rot6d(rotvec_to_matrix(share * turn) @ rotation)
    rows[:, 9] = start[9]
    return rows


def cut(demonstration: Demonstration, frames: Sequence[Frame], ends: Sequence[int], *, reach_m: float) -> list[Segment]:
    """Cut a demonstration into a segment a frame.

    A segment begins where the tool comes within ``reach_m`` of the object for the last time, if not before: the way
    there has nothing to do with where the object is.

    Args:
        demonstration: a successful one.
        frames: of the objects, in the order in which they are dealt with.
        ends: one past the last step of each, ascending.
        reach_m: of the tool from the object's origin.

    Raises:
        ContractError: if the ends do not ascend, or are beyond the last step.
    """
    bounds = [0, *ends]
    if len(ends) != len(frames) or np.any(np.diff(bounds) < 1) or bounds[-1] > len(demonstration.commands):
        raise ContractError(
            f"{demonstration.name}: {len(frames)} segments of {len(demonstration.commands)} steps end at {list(ends)}"
        )
    segments = []
    for frame, start, end in zip(frames, bounds, ends, strict=False):
        origins = np.stack([frame.at(demonstration.at(step))[:3, 3] for step in range(start, end)])
        away = np.linalg.norm(demonstration.rows("tool_pos")[start:end] - origins, axis=1) > reach_m
        last = int(np.flatnonzero(away)[-1]) + 1 if away.any() else 0
        first = start + min(last, end - start - 1)
        pose = frame.at(demonstration.at(first))
        segments.append(Segment(frame, pose, demonstration.commands[first:end].astype(np.float64), demonstration.name))
    return segments


def inverse(pose: np.ndarray) -> np.ndarray:
    """Return the inverse of a rigid transform (4, 4)."""
    back = np.eye(4)
    back[:3, :3] = pose[:3, :3].T
    back[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return back


def _upright(position: np.ndarray, yaw: float) -> np.ndarray:
    pose = np.eye(4)
    c, s = np.cos(yaw), np.sin(yaw)
    pose[:2, :2] = [[c, -s], [s, c]]
    pose[:3, 3] = position
    return pose

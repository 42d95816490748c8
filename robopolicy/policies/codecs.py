"""Codecs: what a network says of a chunk against the robot's commands; an anchor is fixed once a chunk.

The anchor is the newest observation, so a relative chunk is decoded against the observation that made it, and not anew
at every row: targets do not creep after an arm that lags behind them.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from robopolicy.errors import ContractError, UnknownName
from robopolicy.policies.rotations import (
    matrix_to_rot6d,
    orthonormal,
    quat_to_matrix,
    rot6d_to_matrix,
    wrap,
)
from robopolicy.spec import PolicySpec

CODECS: tuple[str, ...] = ("auto", "plain", "tool_pose", "relative", "joint")
POSITION, ROTATION = "tool_pos", "tool_quat"  # the states that an anchor is made of: m, wxyz
JOINTS = "q"  # rad


class Codec(Protocol):
    """Commands to what the network learns, and back; ``decode`` is the exact inverse of ``encode``."""

    dim: int  # of a row as the network sees it
    untouched: tuple[bool, ...]  # (dim,) which elements are in [-1, 1] as they are
    anchored: bool  # whether it looks at the observation

    def encode(self, actions: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Return (B, R, dim) of commands (B, R, A) under the observation's ``state`` {name: (B, T, D)}, robot units."""
        ...

    def decode(self, values: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Return commands (N, R, A) of values (N, R, dim) under ``state`` {name: (1 or N, T, D)}."""
        ...


class Plain:
    """Commands as they are."""

    anchored = False

    def __init__(self, spec: PolicySpec) -> None:
        self.dim = spec.action.dim
        self.untouched = (False,) * self.dim

    def encode(self, actions: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Return the actions."""
        return actions

    def decode(self, values: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Return the values."""
        return values


class ToolPose:
    """Absolute poses: position (3), rotation (6), gripper (1); a rotation comes back orthonormal (Zhou et al. 2019)."""

    anchored = False

    def __init__(self, spec: PolicySpec) -> None:
        _require_tool_pose("tool_pose", spec)
        self.dim = 10
        self.untouched = tuple(3 <= i < 9 for i in range(10))

    def encode(self, actions: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Return the actions."""
        return actions

    def decode(self, values: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Return the values with orthonormal rotations."""
        return torch.cat([values[..., :3], orthonormal(values[..., 3:9]), values[..., 9:]], dim=-1)


class Relative:
    """Poses as the newest observation's tool sees them: T_tool_target = T_base_tool^-1 T_base_target.

    They do not depend on where in the workspace, nor in which base frame, the motion is made (UMI, Chi et al. 2024).

    Raises:
        ContractError: if the action is no tool pose, or the policy does not see the tool's.
    """

    anchored = True

    def __init__(self, spec: PolicySpec) -> None:
        _require_tool_pose("relative", spec)
        missing = [name for name in (POSITION, ROTATION) if name not in spec.state]
        if missing:
            raise ContractError(
                f"codec relative: the policy must see {POSITION} and {ROTATION}; {', '.join(missing)} is not among its "
                f"states [{', '.join(spec.state)}]"
            )
        self.dim = 10
        self.untouched = tuple(3 <= i < 9 for i in range(10))

    def encode(self, actions: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Return the poses in the tool's frame."""
        origin, frame = self._anchor(state)
        position = (actions[..., :3] - origin) @ frame  # frame^T (p - origin), rows on the left
        rotation = frame.transpose(-1, -2)[:, None] @ rot6d_to_matrix(actions[..., 3:9])
        return torch.cat([position, matrix_to_rot6d(rotation), actions[..., 9:]], dim=-1)

    def decode(self, values: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Return the poses in the base frame."""
        origin, frame = self._anchor(state)
        position = values[..., :3] @ frame.transpose(-1, -2) + origin
        rotation = frame[:, None] @ rot6d_to_matrix(values[..., 3:9])
        return torch.cat([position, matrix_to_rot6d(rotation), values[..., 9:]], dim=-1)

    @staticmethod
    def _anchor(state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the newest tool's position (B, 1, 3) and rotation (B, 3, 3)."""
        return state[POSITION][:, -1:], quat_to_matrix(state[ROTATION][:, -1])


class Joint:
    """Joint targets; those whose unit is ``rad_wrapped`` as the turn from the newest ``q``, so none jumps at pi.

    A turn of more than half a revolution within one chunk cannot be told from the shorter one.

    Raises:
        ContractError: if a joint wraps and the policy does not see ``q``, or ``q`` is shorter than the commands.
    """

    def __init__(self, spec: PolicySpec) -> None:
        action = spec.action
        units = action.units * action.dim if len(action.units) == 1 else action.units
        self.dim = action.dim
        self.untouched = (False,) * self.dim
        self._wrapped = [i for i, unit in enumerate(units) if unit == "rad_wrapped"]
        self.anchored = bool(self._wrapped)
        seen = spec.state[JOINTS].dim if JOINTS in spec.state else 0
        if self._wrapped and seen <= max(self._wrapped):
            raise ContractError(
                f"codec joint: joint {max(self._wrapped)} wraps, and the policy sees {seen} joints in {JOINTS!r}; "
                f"it must see {max(self._wrapped) + 1}"
            )

    def encode(self, actions: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Return the targets, wrapped ones as turns in (-pi, pi]."""
        if not self._wrapped:
            return actions
        values = actions.clone()
        values[..., self._wrapped] = wrap(actions[..., self._wrapped] - self._anchor(state))
        return values

    def decode(self, values: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Return the targets, wrapped ones within half a revolution of the newest ``q``."""
        if not self._wrapped:
            return values
        actions = values.clone()
        actions[..., self._wrapped] = values[..., self._wrapped] + self._anchor(state)
        return actions

    def _anchor(self, state: Mapping[str, Tensor]) -> Tensor:
        return state[JOINTS][:, -1:][..., self._wrapped]


def make_codec(name: str, spec: PolicySpec) -> Codec:
    """Return the codec ``name`` for the commands of ``spec``; ``auto`` goes by the kind of the action.

    Raises:
        ContractError: if the commands, or the states the policy sees, do not suit it.
        UnknownName: if there is no such codec.
    """
    if name not in CODECS:
        raise UnknownName("codec", name, CODECS)
    if name == "auto":
        name = {"tool_pose": "tool_pose", "joint": "joint"}.get(spec.action.kind, "plain")
    made: dict[str, type[Codec]] = {"plain": Plain, "tool_pose": ToolPose, "relative": Relative, "joint": Joint}
    return made[name](spec)  # type: ignore[call-arg]


def _require_tool_pose(codec: str, spec: PolicySpec) -> None:
    if spec.action.kind != "tool_pose":
        raise ContractError(f"codec {codec}: the action is {spec.action.kind}; want tool_pose")

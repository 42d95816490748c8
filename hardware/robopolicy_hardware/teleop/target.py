"""From the motion of a hand to the command a robot takes: a target that never runs far ahead of the tool."""

import numpy as np

from robopolicy.errors import ContractError, UsageError
from robopolicy.rotations import (
    matrix_to_quat,
    matrix_to_rot6d,
    matrix_to_rotvec,
    quat_to_matrix,
    rot6d_to_matrix,
    rotvec_to_matrix,
)
from robopolicy.spec import PolicySpec
from robopolicy.types import Observation

MAX_LEAD_M = 0.10  # a servo 0.2 s behind at 0.5 m/s
MAX_LEAD_RAD = 0.6
PIXELS_A_METRE = 1000.0  # of the hand, where a plane is measured in px
DELTA_DIMS = (3, 4, 6, 7)  # xyz, with gripper, with rotation vector, with both


class ToolTarget:
    """Where the person wants the tool, in the robot's own kind of action.

    ``tool_pose``: absolute target, at most ``max_lead_m`` and ``max_lead_rad`` from where the tool is, so that a tool
    that is blocked is not wound up. ``tool_delta``: the motion since the last `command` (m, then a rotation vector in
    rad, then gripper). ``vector`` of two elements: a point in the plane, moved by x and y of the hand; in a plane of
    px forward is up on the screen. Hand motion is in the robot's base frame, metres and radians.

    Args:
        spec: of the robot.
        max_lead_m: how far the target may be from the tool.
        max_lead_rad: how far it may be turned from it.

    Raises:
        UsageError: at construction, if a hand's motion cannot be turned into the kind of action.
    """

    def __init__(self, spec: PolicySpec, *, max_lead_m: float = MAX_LEAD_M, max_lead_rad: float = MAX_LEAD_RAD) -> None:
        kind, dim = spec.action.kind, spec.action.dim
        if kind == "joint":
            raise UsageError("the robot takes joint commands: only a leader arm drives it, with --teleop ros")
        if kind == "tracks" or (kind == "vector" and dim != 2) or (kind == "tool_delta" and dim not in DELTA_DIMS):
            raise UsageError(
                f"the robot takes {kind} actions of {dim} elements ({' '.join(spec.action.names)}); "
                "a hand drives tool_pose, tool_delta and a vector of two"
            )
        self._spec, self._kind = spec, kind
        self._max_lead_m, self._max_lead_rad = max_lead_m, max_lead_rad
        self._has_grip = kind == "tool_pose" or dim in (4, 7)
        self._turns = kind == "tool_pose" or dim in (6, 7)
        self._position = np.zeros(3)  # m, of the target; of a plane (x, y, -) in its own units
        self._rotation = np.eye(3)  # R_base_target
        self.gripper = 1.0  # 0 closed .. 1 open
        self._tool: tuple[np.ndarray, np.ndarray] | None = None
        self._sent: tuple[np.ndarray, np.ndarray] = (self._position, self._rotation)

    def engage(self, observation: Observation, set_point: np.ndarray | None) -> None:
        """Put the target onto ``set_point`` (A,), the command now in force, or else onto the tool as it is seen.

        Raises:
            ContractError: if the set-point has the wrong length.
        """
        if set_point is not None and np.shape(set_point) != (self._spec.action.dim,):
            raise ContractError(f"set-point has shape {np.shape(set_point)}; want ({self._spec.action.dim},)")
        self.see(observation)
        if "gripper" in observation.state:
            self.gripper = float(np.clip(observation.state["gripper"][0], 0.0, 1.0))
        if self._kind == "vector":
            self._position = np.append(_plane_point(observation, self._spec) if set_point is None else set_point, 0.0)
            self._position = self._position.astype(np.float64)
            return
        if self._tool is not None:
            self._position, self._rotation = self._tool
        if self._kind == "tool_pose" and set_point is not None:
            self._position = np.array(set_point[:3], np.float64)
            self._rotation = rot6d_to_matrix(set_point[3:9])
        if set_point is not None and self._has_grip:
            self.gripper = float(set_point[-1])
        self._sent = (self._position, self._rotation)

    def see(self, observation: Observation) -> None:
        """Take note of where the tool is, for the limit of the lead; call it every tick."""
        state = observation.state
        if self._kind == "vector" or "tool_pos" not in state:
            return
        quat = state.get("tool_quat")
        rotation = self._rotation if quat is None else quat_to_matrix(quat)
        self._tool = (np.array(state["tool_pos"], np.float64), rotation)

    def move(self, linear_m: np.ndarray, angular_rad: np.ndarray | None = None, gripper: float | None = None) -> None:
        """Move the target by ``linear_m`` (3,) and the rotation vector ``angular_rad`` (3,); set the gripper."""
        step = np.asarray(linear_m, np.float64)
        self._position = self._position + (self._planar(step) if self._kind == "vector" else step)
        if angular_rad is not None and self._turns:
            self._rotation = rotvec_to_matrix(np.asarray(angular_rad)) @ self._rotation
        if gripper is not None:
            self.gripper = float(np.clip(gripper, 0.0, 1.0))
        self._limit()

    def place(self, position: np.ndarray, quat: np.ndarray | None = None, gripper: float | None = None) -> None:
        """Put the target at ``position`` (3,) m and ``quat`` (4,) wxyz of the base frame, as far as the lead allows.

        Of a plane, ``position`` is the point itself in the plane's units; its third element is ignored.
        """
        self._position = np.array(position, np.float64)
        if quat is not None and self._turns:
            self._rotation = quat_to_matrix(quat)
        self.move(np.zeros(3), None, gripper)

    @property
    def position(self) -> np.ndarray:
        """Where the target is, (3,) m in the base frame; of a plane its two coordinates and zero."""
        return self._position.copy()

    @property
    def quat(self) -> np.ndarray:
        """How the target is turned, (4,) wxyz."""
        return matrix_to_quat(self._rotation)

    def command(self, observation: Observation | None = None) -> np.ndarray:
        """Return the command (A,) float32; with an observation the lead is limited about the tool seen in it."""
        if observation is not None:
            self.see(observation)
        self._limit()
        if self._kind == "vector":
            return self._position[:2].astype(np.float32)
        grip = [self.gripper] if self._has_grip else []
        if self._kind == "tool_pose":
            return np.concatenate([self._position, matrix_to_rot6d(self._rotation), grip]).astype(np.float32)
        moved = self._position - self._sent[0]
        turned = matrix_to_rotvec(self._rotation @ self._sent[1].T) if self._turns else []
        self._sent = (self._position, self._rotation)
        return np.concatenate([moved, turned, grip]).astype(np.float32)

    def _limit(self) -> None:
        if self._tool is None or self._kind != "tool_pose":
            return
        lead = self._position - self._tool[0]
        if (length := float(np.linalg.norm(lead))) > self._max_lead_m:
            self._position = self._tool[0] + lead * (self._max_lead_m / length)
        turn = matrix_to_rotvec(self._rotation @ self._tool[1].T)
        if (angle := float(np.linalg.norm(turn))) > self._max_lead_rad:
            self._rotation = rotvec_to_matrix(turn * (self._max_lead_rad / angle)) @ self._tool[1]

    def _planar(self, step: np.ndarray) -> np.ndarray:
        if self._spec.action.units[0] == "px":
            return np.array([-step[1], -step[0], 0.0]) * PIXELS_A_METRE
        return np.array([step[0], step[1], 0.0])


def _plane_point(observation: Observation, spec: PolicySpec) -> np.ndarray:
    """Where a robot of the plane is, as far as one can tell: a state as long as its action, or zero."""
    for value in observation.state.values():
        if len(value) == spec.action.dim:
            return np.array(value, np.float64)
    return np.zeros(spec.action.dim)

"""A leader arm drives a robot of joints: by joint name, and never with a jump."""

from typing import Any

import numpy as np

from robopolicy.errors import UsageError
from robopolicy.spec import PolicySpec
from robopolicy.types import Command, Observation

APPROACH_RAD_S = 0.5  # at which the robot goes to where the leader is


class LeaderArm:
    """Follows the joint positions of ``sensor_msgs/JointState`` messages.

    What lies between robot and leader when it is engaged is taken back at a limited speed, joint by joint; from then
    on the robot is where the leader is. A joint that the leader lacks (often the gripper) stays as it was engaged.

    Args:
        spec: of a robot with joint actions; the names of its action are joint names.
    """

    def __init__(self, spec: PolicySpec) -> None:
        self._names, self._step = spec.action.names, APPROACH_RAD_S / spec.rate_hz
        self._start: np.ndarray | None = None  # (A,) the set-point engaged at
        self._gap: np.ndarray | None = None  # (A,) still to be taken back

    def engage(self, observation: Observation, set_point: np.ndarray | None) -> None:
        """Start from where the robot is."""
        if set_point is None:
            seen = [observation.state[name] for name in ("q", "gripper") if name in observation.state]
            joints = np.concatenate(seen) if seen else np.empty(0)
            set_point = joints if len(joints) == len(self._names) else None
        self._start = None if set_point is None else np.array(set_point, np.float64)
        self._gap = None

    def follow(self, observation: Observation, received: Any, grip: float | None = None) -> Command:
        """Return the leader's joints in the robot's order, less the gap that is left; ``grip`` is the leader's own.

        Raises:
            UsageError: if the leader has none of the robot's joints; both sides printed.
        """
        leader = dict(zip(received.name, received.position, strict=False))
        if not set(leader) & set(self._names):
            raise UsageError(f"the leader has joints {', '.join(leader)}; the robot has {', '.join(self._names)}")
        if self._start is None:
            self._start = np.array([leader.get(name, 0.0) for name in self._names])
        wanted = np.array([leader.get(name, at) for name, at in zip(self._names, self._start, strict=True)])
        if self._gap is None:
            self._gap = self._start - wanted
        else:
            self._gap = np.sign(self._gap) * np.maximum(np.abs(self._gap) - self._step, 0.0)
        return Command((wanted + self._gap).astype(np.float32), "human")

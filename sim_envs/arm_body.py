"""The arm as a twin's body: its parts in the model, what drives them, how they are placed and what is seen of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

from robopolicy.spec import StateSpec
from robopolicy.types import Embodiment
from sim_envs.arm import FINGER_TRAVEL, FINGERS, JOINTS, STICK_RADIUS, TOOL, add_arm
from sim_envs.drives import Drive, JointDrive, ToolDrive
from sim_envs.servo import ToolServo

ACTIONS = ("tool_pose", "joint")
ARM_STATE = {
    "q": StateSpec(7, ("rad",)),
    "dq": StateSpec(7, ("rad/s",)),
    "tool_pos": StateSpec(3, ("m",)),
    "tool_quat": StateSpec(4, ("quat",)),
    "gripper": StateSpec(1, ("open",)),
}


class ArmBody:
    """What of a `Twin` is the arm; another body overrides all of it.

    Attributes:
        embodiment: of the episodes that are recorded.
        actions: what it can be commanded with.
        body_state: the part of the state that the task does not add.
        placed_by: the states, and their lengths, by which `Twin.reset_to` places it.
    """

    embodiment: Embodiment = "robot"
    actions: tuple[str, ...] = ACTIONS
    body_state: Mapping[str, StateSpec] = ARM_STATE
    placed_by: Mapping[str, int] = {"q": len(JOINTS), "gripper": 1}

    model: mujoco.MjModel
    data: mujoco.MjData
    _drive: Drive
    _stick: bool
    _set_point: np.ndarray
    _start: Any  # (rng) -> where the tool starts and how it is turned

    def _add_body(self, scene: mujoco.MjSpec) -> None:
        add_arm(scene, stick=self._stick)

    def _make_drive(self, action: str) -> Drive:
        self._servo = ToolServo(self.model)
        return ToolDrive(self.model, self._servo) if action == "tool_pose" else JointDrive(self.model)

    def _actuate(self) -> None:
        self.data.ctrl[self._arm_actuators] = self._drive.tick()
        self.data.ctrl[self._finger_actuators] = STICK_RADIUS if self._stick else self._set_point[-1] * FINGER_TRAVEL

    def _own_state(self) -> dict[str, np.ndarray]:
        return {"q": self.data.qpos[self._qpos], "dq": self.data.qvel[self._dofs]}

    def _opening(self) -> float:
        one, other = self.data.qpos[self._finger_qpos].tolist()
        return min(max((one + other) / 2 / FINGER_TRAVEL, 0.0), 1.0)

    def _start_body(self, rng: np.random.Generator) -> None:
        position, quat = self._start(rng)
        self._servo.start(self._home_q)
        self._servo.solve(position, quat)
        self._place_joints(self._servo.q, STICK_RADIUS if self._stick else FINGER_TRAVEL)

    def _place_body(self, state: Mapping[str, np.ndarray]) -> None:
        self._servo.start(np.asarray(state["q"], np.float64))
        self._place_joints(self._servo.q, float(state["gripper"][0]) * FINGER_TRAVEL)
        self.data.qvel[self._dofs] = state.get("dq", 0.0)

    def _place_joints(self, q: np.ndarray, opening: float) -> None:
        self._drive.start(q)
        self.data.qpos[self._qpos] = self.data.ctrl[self._arm_actuators] = q
        self.data.qpos[self._finger_qpos] = self.data.ctrl[self._finger_actuators] = opening

    def _find_parts(self) -> None:
        model = self.model
        self._site = model.site(TOOL).id
        # A chain's joints, and their actuators, follow one another; numpy takes a fifth of the time for a slice.
        self._qpos = _run([model.joint(name).qposadr[0] for name in JOINTS])
        self._dofs = _run([model.joint(name).dofadr[0] for name in JOINTS])
        self._finger_qpos = _run([model.joint(name).qposadr[0] for name in FINGERS])
        self._arm_actuators = _run([model.actuator(name).id for name in JOINTS])
        self._finger_actuators = _run([model.actuator(name).id for name in FINGERS])
        self._home_q = self._servo.q.copy()


def _run(places: Sequence[int]) -> slice:
    """Return the slice of ``places`` that follow one another."""
    first, end = int(places[0]), int(places[-1]) + 1
    assert list(places) == list(range(first, end)), places
    return slice(first, end)

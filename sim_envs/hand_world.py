"""The twin's tasks done by a human-like hand that floats: the same scenes, cameras, starts and commands."""

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from robopolicy.errors import UnknownName, UnknownTask
from robopolicy.geometry.keypoints import Handedness
from robopolicy.interfaces import Clock
from robopolicy.spec import StateSpec
from robopolicy.types import Embodiment
from sim_envs.arm import FINGER_TRAVEL, TOOL
from sim_envs.arm_body import ARM_STATE
from sim_envs.drives import Drive, ToolDrive
from sim_envs.hand import FLESH, HANDS, LANDMARKS, PARTS, PINCH, TARGET, TIPS, WELD_S, add_hand, joint_angles
from sim_envs.servo import GAIN, MAX_SPEED, MAX_TURN, RATE_HZ
from sim_envs.tasks import canonical, make_task
from sim_envs.twin import Twin

TASKS = ("lift", "stack", "drawer", "turned_drawer", "left_drawer", "right_drawer")  # what thumb and index can do
LEAD = 1.9 * WELD_S * RATE_HZ  # ticks by which the target goes before the reference, so that damping costs no lag
HAND_STATE = {
    "landmarks": StateSpec(3 * len(LANDMARKS), ("m",)),
    **{name: ARM_STATE[name] for name in ("tool_pos", "tool_quat", "gripper")},
}


class HandServo:
    """Walks a hand's pose to a tool pose as fast as the arm's servo walks its tool; `ToolDrive` drives both."""

    def start(self, pose: np.ndarray) -> None:
        """Begin at ``pose`` (7,): position, m, quaternion wxyz."""
        self._position, self._quat = pose[:3].astype(np.float64), pose[3:].astype(np.float64)

    def tick(self, position: np.ndarray, quat: np.ndarray) -> np.ndarray:
        """Walk 1 / RATE_HZ seconds towards the tool pose and return where the hand is to be drawn to (7,)."""
        way, turn = position - self._position, _turn(self._quat, quat)
        way *= min(GAIN, MAX_SPEED / RATE_HZ / (float(np.linalg.norm(way)) + 1e-12))
        turn *= min(GAIN, MAX_TURN / RATE_HZ / (float(np.linalg.norm(turn)) + 1e-12))
        self._position = self._position + way
        self._quat = _turned(self._quat, turn)
        return np.concatenate([self._position + LEAD * way, _turned(self._quat, LEAD * turn)])


class HandTwin(Twin):
    """A hand at one of the twin's tasks: a `Robot` and `Environment` as the twin is, from the same starts by seed.

    It takes the same tool poses: the tool is the middle between the tips of thumb and index, y from the second finger
    to the first of `robopolicy.geometry.keypoints.ROLES`, and the grip how far they are apart. Beside the tool and the
    task's objects its state has ``landmarks``: MediaPipe's 21, (x, y, z) each, m, in the base frame. Of its cameras
    ``front`` and ``side`` none is on the hand.

    Args:
        task: its name, one of `TASKS`.
        clock: shared with the loop.
        hand: left or right.
        options: as of `Twin`.

    Raises:
        UnknownTask: naming what a hand can do.
        UnknownName: if the hand is neither left nor right.
        UnknownCamera: naming the cameras there are.
    """

    embodiment: Embodiment = "human"
    default_cameras = ("front", "side")
    offered_cameras = default_cameras
    actions = ("tool_pose",)
    body_state: Mapping[str, StateSpec] = HAND_STATE
    placed_by: Mapping[str, int] = {"tool_pos": 3, "tool_quat": 4, "gripper": 1}

    def __init__(self, task: str, clock: Clock, *, hand: Handedness = "right", **options: Any) -> None:
        if canonical(task) not in TASKS:
            raise UnknownTask("task of a hand", task, TASKS)
        if hand not in HANDS:
            raise UnknownName("hand", hand, HANDS)
        self.hand = hand
        super().__init__(make_task(task), clock, **options)

    def landmarks(self) -> np.ndarray:
        """Return the landmarks (21, 3) in the base frame, m, as of the newest read."""
        return self.data.site_xpos[self._landmarks].copy()

    def about(self) -> dict[str, Any]:
        """Return what a recording says of it."""
        return {"hand": {"handedness": self.hand}}

    def _add_body(self, scene: mujoco.MjSpec) -> None:
        add_hand(scene, self.hand)

    def _make_drive(self, action: str) -> Drive:
        return ToolDrive(self.model, HandServo())

    def _find_parts(self) -> None:
        model = self.model
        self._site = model.site(TOOL).id
        self._landmarks = np.array([model.site(name).id for name in LANDMARKS])
        self._tips = [model.site(name).id for name in TIPS]
        self._pose = slice(int(model.joint("hand").qposadr[0]), int(model.joint("hand").qposadr[0]) + 7)
        self._grip, self._grip_actuator = int(model.joint(PINCH).qposadr[0]), model.actuator(PINCH).id
        self._fingers = {name: [int(model.joint(f"{name}_{p}").qposadr[0]) for p in PARTS[name]] for name in PARTS}
        self._target = int(model.body_mocapid[model.body(TARGET).id])

    def _actuate(self) -> None:
        self._aim_at(self._drive.tick())
        self.data.ctrl[self._grip_actuator] = self._set_point[-1] * FINGER_TRAVEL

    def _aim_at(self, pose: np.ndarray) -> None:
        self.data.mocap_pos[self._target], self.data.mocap_quat[self._target] = pose[:3], pose[3:]

    def _own_state(self) -> dict[str, np.ndarray]:
        return {"landmarks": self.data.site_xpos[self._landmarks].ravel()}

    def _opening(self) -> float:
        one, other = self.data.site_xpos[self._tips]
        return float(np.clip((np.linalg.norm(one - other) / 2 - FLESH) / FINGER_TRAVEL, 0.0, 1.0))

    def _start_body(self, rng: np.random.Generator) -> None:
        self._place(np.concatenate(self._start(rng)), FINGER_TRAVEL)

    def _place_body(self, state: Mapping[str, np.ndarray]) -> None:
        pose = np.concatenate([state["tool_pos"], state["tool_quat"]]).astype(np.float64)
        self._place(pose, float(state["gripper"][0]) * FINGER_TRAVEL)

    def _place(self, pose: np.ndarray, gap: float) -> None:
        data = self.data
        self._drive.start(pose)
        self._aim_at(pose)
        data.qpos[self._pose] = pose
        data.qpos[self._grip] = data.ctrl[self._grip_actuator] = gap
        for name, places in self._fingers.items():
            data.qpos[places] = joint_angles(name, np.array(gap), self.hand)


def _turn(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the turn (3,) rad in the base frame, from one quaternion wxyz to the other."""
    inverse, way, turn = np.empty(4), np.empty(4), np.empty(3)
    mujoco.mju_negQuat(inverse, one)
    mujoco.mju_mulQuat(way, other, inverse)
    mujoco.mju_quat2Vel(turn, way, 1.0)
    return turn


def _turned(quat: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Return a quaternion wxyz turned by ``turn`` (3,) rad in the base frame."""
    way, found = np.empty(4), np.empty(4)
    angle = float(np.linalg.norm(turn))
    mujoco.mju_axisAngle2Quat(way, turn / angle if angle > 1e-12 else np.array([0.0, 0, 1]), angle)
    mujoco.mju_mulQuat(found, way, quat)
    return found / np.linalg.norm(found)

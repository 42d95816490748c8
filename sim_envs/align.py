"""Align: push a frame with marked sides into its outline, from inside or from outside."""

from collections.abc import Mapping

import mujoco
import numpy as np

from sim_envs.arm import STICK_REACH, TOOL
from sim_envs.contacts import is_off_table
from sim_envs.planar import lies_flat
from sim_envs.push_planner import Flat
from sim_envs.scene import make_scene
from sim_envs.tracked import Tracked

OUTER, INNER, HALF_HEIGHT = 0.06, 0.05, 0.015  # m, half sizes of the frame
START = np.array([[0.42, -0.20], [0.58, -0.09]])  # m, of the frame's centre
TARGET = np.array([[0.42, 0.09], [0.58, 0.20]])  # m, of the outline's
YAW = np.pi / 2  # rad, +-, of both
# As close as in Aligning of D3IL (Jia et al., 2024).
NEAR, TURNED = 0.018, 0.15  # m, rad
MOVED = 1e-4  # m: less is no motion

_CORNERS = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
_MID, _HALF = (OUTER + INNER) / 2, (OUTER - INNER) / 2  # m
WALLS = {  # centre x, y and half sizes x, y, in m; the front one is red
    "front": (_MID, 0.0, _HALF, OUTER),
    "back": (-_MID, 0.0, _HALF, OUTER),
    "left": (0.0, _MID, INNER, _HALF),
    "right": (0.0, -_MID, INNER, _HALF),
}
COLOURS = {"front": [0.84, 0.22, 0.18, 1], "back": [0.30, 0.36, 0.44, 1]}
COLOURS |= {"left": [0.42, 0.50, 0.60, 1], "right": [0.42, 0.50, 0.60, 1]}
_PARTS = tuple(np.array([x, y]) + _CORNERS * [w, d] for x, y, w, d in WALLS.values())
C = 0.07  # m, torque over force at which the frame slides
SIDES = {  # the frame as it is pushed from either side; the way along the inner edge is clockwise
    "inside": Flat((INNER * _CORNERS[::-1],), _PARTS, C, 2 * OUTER**2),
    "outside": Flat((OUTER * _CORNERS,), _PARTS, C, 2 * OUTER**2),
}


class Align:
    """A 12 cm frame and its outline lie on either side of the middle, each at any place and within +-90 degrees.

    Done when the frame is within 18 mm and 0.15 rad of the outline, red side to red side. The mode is the side of the
    walls from which the stick has moved it farther.
    """

    instruction = "push the frame into its outline, red side to red side"
    max_steps = 400
    stick = True
    modes = tuple(SIDES)
    units: Mapping[str, tuple[str, ...]] = {
        "frame": ("m", "m", "rad_wrapped"),
        "target": ("m", "m", "rad_wrapped"),
    }
    tracked = (Tracked("frame", ("frame",), HALF_HEIGHT),)
    placed = ("target",)

    def build(self) -> mujoco.MjSpec:
        """Return the table with the frame and its outline."""
        spec = make_scene()
        frame = spec.worldbody.add_body(name="frame", pos=[0.5, -0.15, HALF_HEIGHT])
        frame.add_freejoint(name="frame")
        target = spec.worldbody.add_body(name="target", pos=[0.5, 0.15, 0], mocap=True)
        box = mujoco.mjtGeom.mjGEOM_BOX
        for side, (x, y, w, d) in WALLS.items():
            spec.add_material(name=side, rgba=COLOURS[side], specular=0.2, shininess=0.3)
            frame.add_geom(
                name=f"frame_{side}", type=box, pos=[x, y, 0], size=[w, d, HALF_HEIGHT], material=side,
                mass=0.06, friction=[0.3, 0.005, 0.0001], condim=3, priority=1,
            )  # fmt: skip
            rgba = [*(0.5 + 0.5 * np.array(COLOURS[side][:3])), 1]
            target.add_geom(
                name=f"target_{side}", type=box, pos=[x, y, 0], size=[w, d, 0.001], rgba=rgba,
                contype=0, conaffinity=0,
            )  # fmt: skip
        return spec

    def bind(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Look at ``data`` from now on."""
        self._joint, self._body, self._tool = data.joint("frame"), data.body("frame"), data.site(TOOL).xpos
        self._data, self._mark = data, model.body("target").mocapid[0]

    def reset(self, rng: np.random.Generator) -> None:
        """Put frame and outline down somewhere."""
        self._put(np.array([*rng.uniform(*START), rng.uniform(-YAW, YAW)]))
        self._put_target(np.array([*rng.uniform(*TARGET), rng.uniform(-YAW, YAW)]))
        self._before: np.ndarray | None = None  # (3,) the frame's pose at the last look
        self._pushed = dict.fromkeys(self.modes, 0.0)  # m, from each side
        self._reach = self._gap()

    def place(self, state: Mapping[str, np.ndarray]) -> None:
        """Put the outline where the state ``target`` (3,) has it."""
        self._put_target(np.asarray(state["target"], np.float64))

    def move_goal(self, gap: np.ndarray) -> None:
        """Move the outline by ``gap`` (3,) m, m, rad."""
        self._put_target(self._target() + gap)

    def watch(self) -> None:
        """Keep from which side of the walls the frame was moved how far."""
        pose = self._pose()
        if self._before is not None and self._tool[2] < 2 * HALF_HEIGHT:
            moved = _apart(pose, self._before)
            inside = np.linalg.norm(self._tool[:2] - pose[:2]) < OUTER  # the stick is too thick for any doubt
            if moved > MOVED:
                self._pushed["inside" if inside else "outside"] += moved
        self._before = pose

    def success(self) -> bool:
        """Whether the frame lies flat in its outline, the right way round."""
        if not lies_flat(self._body.xmat):
            return False
        frame, target = self._pose(), self._target()
        turned = abs(_wrapped(frame[2] - target[2]))
        return bool(np.linalg.norm(frame[:2] - target[:2]) < NEAR and turned < TURNED)

    def progress(self) -> float:
        """How much of the way between frame and outline is gone, a turn counted as its corners' way, 0 to 1.

        0 while the frame does not lie flat.
        """
        if not lies_flat(self._body.xmat):
            return 0.0
        return 1.0 if self.success() else float(np.clip(1 - self._gap() / self._reach, 0.0, 0.99))

    def mode(self) -> str | None:
        """``"inside"`` or ``"outside"``: from where the frame was moved farther; None before it was moved."""
        inside, outside = self._pushed["inside"], self._pushed["outside"]
        return None if inside == outside else "inside" if inside > outside else "outside"

    def failure(self) -> str:
        """What is wrong with the frame.

        ``"off_table"`` if it fell, ``"overturned"`` while it does not lie flat and the right way up,
        ``"out_of_reach"`` while its centre is where the stick cannot get.
        """
        if is_off_table(self._body.xpos):
            return "off_table"
        if not lies_flat(self._body.xmat):
            return "overturned"
        away = float(np.hypot(*self._body.xpos[:2]))
        return "" if STICK_REACH[0] < away < STICK_REACH[1] else "out_of_reach"

    def queries(self) -> Mapping[str, np.ndarray]:
        """Return the poses of frame and outline, (3,) each: x, y in m and yaw in rad, within +-pi."""
        return {"frame": self._pose().astype(np.float32), "target": self._target().astype(np.float32)}

    def disturb(self, rng: np.random.Generator) -> str:
        """Take the frame back to the side where it starts, turned any way."""
        pose = np.array([*rng.uniform(*START), rng.uniform(-np.pi, np.pi)])
        self._put(pose)
        self._before = None
        return f"the frame was taken to ({pose[0]:.2f}, {pose[1]:.2f}) m"

    def _pose(self) -> np.ndarray:
        return np.array([*self._body.xpos[:2], _yaw(self._body.xquat)])

    def _target(self) -> np.ndarray:
        return np.array([*self._data.mocap_pos[self._mark][:2], _yaw(self._data.mocap_quat[self._mark])])

    def _gap(self) -> float:
        return _apart(np.array([*self._joint.qpos[:2], _yaw(self._joint.qpos[3:])]), self._target())

    def _put(self, pose: np.ndarray) -> None:
        self._joint.qpos = [*pose[:2], HALF_HEIGHT, *_quat(pose[2])]
        self._joint.qvel = 0

    def _put_target(self, pose: np.ndarray) -> None:
        self._data.mocap_pos[self._mark] = [*pose[:2], 0.0]
        self._data.mocap_quat[self._mark] = _quat(pose[2])


def _apart(pose: np.ndarray, other: np.ndarray) -> float:
    """Return how far apart two poses of the frame are, m, a turn counted as its corners' way."""
    turn = np.sqrt(2.0) * OUTER * _wrapped(pose[2] - other[2])
    return float(np.hypot(np.linalg.norm(pose[:2] - other[:2]), turn))


def _wrapped(angle: float) -> float:
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def _yaw(quat: np.ndarray) -> float:
    w, x, y, z = quat
    return float(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))


def _quat(yaw: float) -> list[float]:
    return [float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))]

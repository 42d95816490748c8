"""Peg: stand a square peg into a square hole."""

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from sim_envs.contacts import Contacts, is_off_table
from sim_envs.scene import make_scene
from sim_envs.tracked import Tracked

HALF, HALF_LENGTH = 0.012, 0.035  # m, of the peg
PLAY = 0.0015  # m, free on each side of the peg in the hole
BLOCK, RIM = 0.034, 0.040  # m, half the block's edge; its height
CHAMFER = 0.008  # m, wide and high, at 45 degrees
CENTRE = np.array([0.48, 0.0])  # m, of the rectangle that peg and block start in
REACH = np.array([0.07, 0.13])  # m, half of it
APART = 0.10  # m at least between their middles
MAX_YAW = 0.5  # rad
IN = 0.006  # m: so close to the table, and to the middle of the hole, is in
UPRIGHT = 0.9  # cosine of the most that a standing peg leans
FORCE = 8.0  # N between peg and block, for so long without going down: jammed. The grip slips at about 17
JAMMED_S, DOWN = 0.4, 0.002  # s, m


class Peg:
    """A peg of 24 x 24 x 70 mm and a block with a chamfered hole 3 mm wider, at random places and yaws."""

    instruction = "put the peg into the hole"
    max_steps = 360
    stick = False
    units: Mapping[str, tuple[str, ...]] = {"peg_pos": ("m",), "peg_quat": ("quat",), "hole": ("m", "m", "rad")}
    tracked = (Tracked("peg", ("peg_pos", "peg_quat")),)
    placed = ("hole",)

    def build(self) -> mujoco.MjSpec:
        """Return the table with peg and block on it."""
        spec = make_scene()
        spec.add_material(name="peg", rgba=[0.95, 0.62, 0.12, 1], specular=0.25, shininess=0.3)
        spec.add_material(name="block", rgba=[0.25, 0.42, 0.52, 1], specular=0.15, shininess=0.3)
        spec.add_material(name="chamfer", rgba=[0.45, 0.65, 0.75, 1], specular=0.15, shininess=0.3)
        peg = spec.worldbody.add_body(name="peg", pos=[CENTRE[0], 0.07, HALF_LENGTH])
        peg.add_freejoint(name="peg")
        peg.add_geom(
            name="peg",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[HALF, HALF, HALF_LENGTH],
            material="peg",
            mass=0.11,
            friction=[0.6, 0.01, 0.0005],
            condim=4,
            solref=[0.008, 1.0],  # stiff: a narrow grip would else let it creep
            solmix=10,
        )
        _add_block(spec.worldbody.add_body(name="block", pos=[CENTRE[0], -0.07, 0], mocap=True))
        return spec

    def bind(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Look at ``data`` from now on."""
        self._joint, self._peg, self._block, self._data = data.joint("peg"), data.body("peg"), data.body("block"), data
        self._mocap = int(model.body_mocapid[model.body("block").id])
        self._contacts = Contacts(model, data)
        self._forget()

    def reset(self, rng: np.random.Generator) -> None:
        """Stand the peg somewhere and the block 10 cm away from it or farther."""
        places = np.zeros((2, 2))
        while np.linalg.norm(places[0] - places[1]) < APART:
            places = CENTRE + rng.uniform(-REACH, REACH, (2, 2))
        half_yaw = rng.uniform(-MAX_YAW, MAX_YAW) / 2
        self._joint.qpos = [*places[0], HALF_LENGTH, np.cos(half_yaw), 0, 0, np.sin(half_yaw)]
        self._joint.qvel = 0
        self._put(np.array([*places[1], rng.uniform(-MAX_YAW, MAX_YAW)]))
        self._forget()

    def place(self, state: Mapping[str, np.ndarray]) -> None:
        """Put the block where an observed ``state`` has it."""
        self._put(np.asarray(state["hole"], np.float64))

    def move_goal(self, offset: np.ndarray) -> None:
        """Move the block by ``offset`` x, y (m), yaw (rad)."""
        self._put(self._hole() + offset)

    def success(self) -> bool:
        """Whether the peg stands in the hole, down to the table."""
        beside, bottom = self._place()
        return bool(beside < IN and bottom < IN and self._lean() > UPRIGHT)

    def progress(self) -> float:
        """1 when done; half for being over the hole, the rest for going down into it."""
        if self.success():
            return 1.0
        beside, bottom = self._place()
        near = float(np.clip(1 - beside / APART, 0.0, 1.0))
        deep = float(np.clip(1 - bottom / RIM, 0.0, 1.0)) if beside < CHAMFER else 0.0
        return 0.5 * near + 0.45 * deep

    def queries(self) -> Mapping[str, np.ndarray]:
        """Return the peg's pose, (3,) m and wxyz (4,) with w >= 0, and ``hole``: x, y (m), yaw (rad)."""
        quat = self._peg.xquat if self._peg.xquat[0] >= 0 else -self._peg.xquat
        return {
            "peg_pos": self._peg.xpos.astype(np.float32),
            "peg_quat": quat.astype(np.float32),
            "hole": self._hole().astype(np.float32),
        }

    def watch(self) -> None:
        """Keep whether the peg was carried: then it can be dropped."""
        self._held = self._contacts.held("peg")
        if self._held and self._peg.xpos[2] > HALF_LENGTH + 0.01:
            self._carried = True
        if self.success():
            self._carried = False
        bottom, now = self._place()[1], float(self._data.time)
        if self._contacts.force("peg", "block") < FORCE or bottom < self._pressed[1] - DOWN:
            self._pressed = now, bottom

    def failure(self) -> str:
        """``off_table``; ``jammed``: pressed on the block and stuck; ``toppled``: it lies; ``dropped``: was carried."""
        if is_off_table(self._peg.xpos):
            return "off_table"
        if not self.success() and self._data.time - self._pressed[0] > JAMMED_S:
            return "jammed"
        if self._held or self._place()[0] < PLAY + CHAMFER:
            return ""
        if self._lean() < UPRIGHT:
            return "toppled"
        return "dropped" if self._carried else ""

    def disturb(self, rng: np.random.Generator) -> str:
        """Take the peg, out of the gripper if need be, and toss it beside the block: it comes to lie."""
        side = 1.0 if self._block.xpos[1] < CENTRE[1] else -1.0
        x, y = CENTRE[0] + rng.uniform(-0.06, 0.0), CENTRE[1] + side * rng.uniform(0.13, 0.17)
        spin = rng.normal(size=4)
        self._joint.qpos = [x, y, 0.06, *(spin / np.linalg.norm(spin))]
        self._joint.qvel = [0, 0, 0, *rng.uniform(-3, 3, 3)]
        return f"the peg was tossed to ({x:.2f}, {y:.2f}) m"

    def _place(self) -> tuple[float, float]:
        """Return how far the peg is beside the hole's middle and how high its lower end is, m."""
        beside = float(np.hypot(*(self._peg.xpos - self._block.xpos)[:2]))
        return beside, float(self._peg.xpos[2]) - HALF_LENGTH * self._lean()

    def _forget(self) -> None:
        self._carried = self._held = False
        self._pressed = float(self._data.time), RIM + HALF_LENGTH  # since when, and from what height, m

    def _lean(self) -> float:
        return float(abs(self._peg.xmat[8]))

    def _hole(self) -> np.ndarray:
        matrix = self._block.xmat
        return np.array([*self._block.xpos[:2], np.arctan2(matrix[3], matrix[0])])

    def _put(self, pose: np.ndarray) -> None:
        self._data.mocap_pos[self._mocap] = [*pose[:2], 0]
        self._data.mocap_quat[self._mocap] = [np.cos(pose[2] / 2), 0, 0, np.sin(pose[2] / 2)]


def _add_block(block: Any) -> None:
    """Add four walls around the hole, each with a rim and a slope on it."""
    hole, low = HALF + PLAY, RIM - CHAMFER
    wall, rim = (BLOCK - hole) / 2, (BLOCK - hole - CHAMFER) / 2
    for k in range(4):
        quarter = k * np.pi / 2
        c, s = round(np.cos(quarter)), round(np.sin(quarter))
        turn = np.array([np.cos(quarter / 2), 0, 0, np.sin(quarter / 2)])
        for name, out, height, half, material in (
            ("wall", hole + wall, low / 2, (wall, BLOCK, low / 2), "block"),
            ("rim", BLOCK - rim, RIM - CHAMFER / 2, (rim, BLOCK, CHAMFER / 2), "block"),
        ):
            _box(block, f"{name}{k}", (c * out, s * out, height), turn, half, material)
        thick = 0.0015  # m, half; the slope's upper side goes from (hole, low) to (hole + CHAMFER, RIM)
        out = hole + CHAMFER / 2 + thick * np.sqrt(0.5)
        height = RIM - CHAMFER / 2 - thick * np.sqrt(0.5)
        slope, tilt = np.empty(4), np.array([np.cos(np.pi / 8), 0, -np.sin(np.pi / 8), 0])
        mujoco.mju_mulQuat(slope, turn, tilt)
        half = (CHAMFER * np.sqrt(0.5), hole + CHAMFER, thick)
        _box(block, f"slope{k}", (c * out, s * out, height), slope, half, "chamfer")


def _box(
    body: Any, name: str, pos: tuple[float, ...], quat: np.ndarray, half: tuple[float, ...], material: str
) -> None:
    body.add_geom(
        name=f"block_{name}",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=pos,
        quat=quat,
        size=half,
        material=material,
        friction=[0.3, 0.005, 0.0001],
    )

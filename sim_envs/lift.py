"""Lift: pick a red cube off the table."""

from collections.abc import Mapping

import mujoco
import numpy as np

from sim_envs.arm import TOOL
from sim_envs.contacts import is_off_table
from sim_envs.scene import make_scene
from sim_envs.tracked import Tracked

HALF = 0.02  # m, half the cube's edge
CENTRE = (0.50, 0.0)  # m, of the square the cube starts in
REACH = 0.08  # m, half of that square
MAX_YAW = 0.6  # rad
RAISED = 0.10  # m above the table that counts as lifted
CLEAR = 0.01  # m above the table: a cube in the hand and so high is held by it
IN_HAND = 0.03  # m between the tool and the cube's centre


class Lift:
    """A 4 cm cube at a random place (16 x 16 cm) and yaw (+-0.6 rad); done when it is 10 cm up."""

    instruction = "lift the red cube"
    max_steps = 120
    stick = False
    units: Mapping[str, tuple[str, ...]] = {"cube_pos": ("m",), "cube_quat": ("quat",)}
    tracked = (Tracked("cube", ("cube_pos", "cube_quat")),)
    resizable = ("cube",)

    def build(self) -> mujoco.MjSpec:
        """Return the table with the cube on it."""
        spec = make_scene()
        spec.add_material(name="cube", rgba=[0.86, 0.12, 0.10, 1], specular=0.25, shininess=0.3)
        cube = spec.worldbody.add_body(name="cube", pos=[*CENTRE, HALF])
        cube.add_freejoint(name="cube")
        cube.add_geom(
            name="cube",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[HALF] * 3,
            material="cube",
            mass=0.08,
            friction=[1.0, 0.01, 0.0005],
            condim=4,
        )
        return spec

    def bind(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Look at ``data`` from now on."""
        self._joint, self._body, self._tool = data.joint("cube"), data.body("cube"), data.site(TOOL).xpos

    def reset(self, rng: np.random.Generator) -> None:
        """Put the cube down somewhere."""
        xy = np.asarray(CENTRE) + rng.uniform(-REACH, REACH, 2)
        half_yaw = rng.uniform(-MAX_YAW, MAX_YAW) / 2
        self._joint.qpos = [*xy, HALF, np.cos(half_yaw), 0, 0, np.sin(half_yaw)]
        self._joint.qvel = 0
        self._was_up = self._dropped = False

    def watch(self) -> None:
        """Keep whether the cube was up in the hand, and whether it has left it since."""
        in_hand = bool(np.linalg.norm(self._tool - self._body.xpos) < IN_HAND)
        if in_hand and self._body.xpos[2] > HALF + CLEAR:
            self._was_up, self._dropped = True, False
        elif self._was_up and not in_hand:
            self._dropped = True

    def failure(self) -> str:
        """``"off_table"`` if the cube fell from it; ``"dropped"`` from when it left the hand until it is up again."""
        return "off_table" if is_off_table(self._body.xpos) else "dropped" if self._dropped else ""

    def success(self) -> bool:
        """Whether the cube is up."""
        return self.progress() >= 1.0

    def progress(self) -> float:
        """How much of the way up the cube is, 0 to 1."""
        return min(max((float(self._body.xpos[2]) - HALF) / RAISED, 0.0), 1.0)

    def queries(self) -> Mapping[str, np.ndarray]:
        """Return the cube's pose: position (3,) m, quaternion wxyz (4,) with w >= 0."""
        quat = self._body.xquat if self._body.xquat[0] >= 0 else -self._body.xquat
        return {"cube_pos": self._body.xpos.astype(np.float32), "cube_quat": quat.astype(np.float32)}

    def disturb(self, rng: np.random.Generator) -> str:
        """Snatch the cube, out of the gripper if need be, and toss it 13 to 18 cm to the side of where it starts."""
        side = 1.0 if self._body.xpos[1] < CENTRE[1] else -1.0
        x = CENTRE[0] + rng.uniform(-0.06, 0.06)
        y = CENTRE[1] + side * (REACH + rng.uniform(0.05, 0.10))
        spin = rng.normal(size=4)
        self._joint.qpos = [x, y, 0.06, *(spin / np.linalg.norm(spin))]
        self._joint.qvel = [0, side * 0.2, 0, *rng.uniform(-6, 6, 3)]
        return f"the cube was tossed to ({x:.2f}, {y:.2f}) m"

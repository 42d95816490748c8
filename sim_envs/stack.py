"""Stack: put one of two cubes on the other, whichever."""

from collections.abc import Mapping

import mujoco
import numpy as np

from sim_envs.contacts import Contacts, is_off_table
from sim_envs.scene import make_scene
from sim_envs.tracked import Tracked

HALF = 0.02  # m, half a cube's edge
CENTRE = np.array([0.50, 0.0])  # m, of the rectangle that the cubes start in
REACH = np.array([0.07, 0.14])  # m, half of it
APART = 0.10  # m at least between their centres: room for a finger
MAX_YAW = 0.6  # rad
COLOURS = {"red": (0.86, 0.12, 0.10, 1.0), "blue": (0.13, 0.35, 0.80, 1.0)}
PAIRS = (("red", "blue"), ("blue", "red"))  # top, base
SLOW = 0.02  # m/s: rests
LEVEL = 0.98  # cosine of the most that a cube's sides may lean


class Stack:
    """Two 4 cm cubes at random places and yaws; done when one rests on the other and nothing touches it."""

    instruction = "stack the two cubes"
    max_steps = 240
    stick = False
    resizable = tuple(COLOURS)
    modes = tuple(f"{top}_on_{base}" for top, base in PAIRS)
    units: Mapping[str, tuple[str, ...]] = {
        f"{name}_{part}": (unit,) for name in COLOURS for part, unit in (("pos", "m"), ("quat", "quat"))
    }
    tracked = tuple(Tracked(name, (f"{name}_pos", f"{name}_quat")) for name in COLOURS)

    def build(self) -> mujoco.MjSpec:
        """Return the table with both cubes on it."""
        spec = make_scene()
        for i, (name, rgba) in enumerate(COLOURS.items()):
            spec.add_material(name=name, rgba=rgba, specular=0.25, shininess=0.3)
            cube = spec.worldbody.add_body(name=name, pos=[CENTRE[0], 0.07 - 0.14 * i, HALF])
            cube.add_freejoint(name=name)
            cube.add_geom(
                name=name,
                type=mujoco.mjtGeom.mjGEOM_BOX,
                size=[HALF] * 3,
                material=name,
                mass=0.08,
                friction=[1.0, 0.01, 0.0005],
                condim=4,
            )
        return spec

    def bind(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Look at ``data`` from now on."""
        self._joints = {name: data.joint(name) for name in COLOURS}
        self._bodies = {name: data.body(name) for name in COLOURS}
        self._halves = {name: model.geom(name).size for name in COLOURS}  # m, as they are now
        self._contacts = Contacts(model, data)
        self._forget()

    def reset(self, rng: np.random.Generator) -> None:
        """Put the cubes down, 10 cm apart or more."""
        places = np.zeros((2, 2))
        while np.linalg.norm(places[0] - places[1]) < APART:
            places = CENTRE + rng.uniform(-REACH, REACH, (2, 2))
        for name, xy in zip(COLOURS, places, strict=True):
            half_yaw = rng.uniform(-MAX_YAW, MAX_YAW) / 2
            self._joints[name].qpos = [*xy, HALF, np.cos(half_yaw), 0, 0, np.sin(half_yaw)]
            self._joints[name].qvel = 0
        self._forget()

    def success(self) -> bool:
        """Whether one cube rests on the other, let go."""
        return any(self._rests(*pair) for pair in PAIRS)

    def progress(self) -> float:
        """1 when done; before, up to 1/2 for raising a cube to the height of the stack and 1/4 for going over."""
        if self.success():
            return 1.0
        offset = self._bodies["red"].xpos - self._bodies["blue"].xpos
        raised = float(np.clip(abs(offset[2]) / (2 * HALF), 0.0, 1.0))
        over = float(np.clip(1 - (np.hypot(*offset[:2]) - HALF) / APART, 0.0, 1.0))
        return raised * (0.5 + 0.25 * over)

    def queries(self) -> Mapping[str, np.ndarray]:
        """Return both cubes' poses: position (3,) m, quaternion wxyz (4,) with w >= 0."""
        found = {}
        for name, body in self._bodies.items():
            quat = body.xquat if body.xquat[0] >= 0 else -body.xquat
            found[f"{name}_pos"] = body.xpos.astype(np.float32)
            found[f"{name}_quat"] = quat.astype(np.float32)
        return found

    def mode(self) -> str | None:
        """Which cube is the upper one; None while they lie side by side."""
        for mode, (top, base) in zip(self.modes, PAIRS, strict=True):
            if self._bodies[top].xpos[2] - self._bodies[base].xpos[2] > HALF:
                return mode
        return None

    def watch(self) -> None:
        """Keep which cubes were carried and whether they were stacked: what can be dropped, or can topple."""
        held = {name for name in COLOURS if self._contacts.held(name)}
        if held:
            self._stacked = False
        self._carried |= {name for name in held if self._bodies[name].xpos[2] > HALF + 0.01}
        if self.success():
            self._stacked, self._carried = True, set()
        self._lost = self._carried - held - self._on_top()

    def failure(self) -> str:
        """``off_table``; ``toppled``: it was stacked; ``dropped``: it was carried, until it is held or stacked."""
        if any(is_off_table(body.xpos) for body in self._bodies.values()):
            return "off_table"
        if self._stacked and not self._on_top():
            return "toppled"
        return "dropped" if self._lost else ""

    def disturb(self, rng: np.random.Generator) -> str:
        """Snatch the upper cube, or either, out of the gripper if need be, and toss it beside where cubes start."""
        name = max(COLOURS, key=lambda one: (round(float(self._bodies[one].xpos[2]), 3), rng.random()))
        other = self._bodies[PAIRS[0][1] if name == PAIRS[0][0] else PAIRS[0][0]].xpos
        side = 1.0 if other[1] < CENTRE[1] else -1.0
        x, y = CENTRE[0] + rng.uniform(-0.06, 0.06), CENTRE[1] + side * rng.uniform(0.15, 0.19)
        spin = rng.normal(size=4)
        self._joints[name].qpos = [x, y, 0.06, *(spin / np.linalg.norm(spin))]
        self._joints[name].qvel = [0, side * 0.2, 0, *rng.uniform(-6, 6, 3)]
        return f"the {name} cube was tossed to ({x:.2f}, {y:.2f}) m"

    def _rests(self, top: str, base: str) -> bool:
        upper, lower = self._bodies[top], self._bodies[base]
        if not self._stands_over(top, base) or abs(lower.xpos[2] - self._halves[base][2]) > 0.004:
            return False
        level = all(np.abs(body.xmat).max() > LEVEL and np.abs(body.xmat[6:]).max() > LEVEL for body in (upper, lower))
        slow = np.linalg.norm(self._joints[top].qvel[:3]) < SLOW
        touched = self._contacts.by_arm((top,))
        return bool(level and slow and not touched and self._contacts.touch(top, base))

    def _on_top(self) -> set[str]:
        return {top for top, base in PAIRS if self._stands_over(top, base)}

    def _stands_over(self, top: str, base: str) -> bool:
        offset = self._bodies[top].xpos - self._bodies[base].xpos
        height = self._halves[top][2] + self._halves[base][2]
        return bool(np.hypot(*offset[:2]) < self._halves[base][0] and abs(offset[2] - height) < 0.005)

    def _forget(self) -> None:
        self._carried: set[str] = set()
        self._lost: set[str] = set()
        self._stacked = False

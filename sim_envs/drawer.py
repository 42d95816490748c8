"""Drawer: pull open one of a chest's two drawers, whichever has a handle."""

from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

from sim_envs.arm import TOOL
from sim_envs.contacts import Contacts
from sim_envs.scene import make_scene

SIDES = {"left": 1.0, "right": -1.0}  # as the arm sees them: left is +y of the chest
CENTRE = np.array([0.64, 0.0])  # m, of the chest; its front looks at the arm
REACH = np.array([0.02, 0.05])  # m, +-
MAX_YAW = 0.25  # rad
DEPTH, WIDTH, HEIGHT = 0.15, 0.30, 0.075  # m, of the chest
WALL = 0.006  # m
TRAVEL = 0.11  # m a drawer slides
OPEN = 0.08  # m that counts as open
PULLED = 0.02  # m that tells which one it is to be
HANDLE_Z = 0.045  # m, of a handle over the table
NECK = (0.016, 0.008, 0.022)  # m, half of what the fingers close on
LIP = (0.003, 0.014, 0.022)  # m, half of its end, behind which they pull
GRASPED = 0.025  # m, of the tool from a handle that it can still hold
APART = 0.07  # m, of a handle from the chest's middle
WOOD, FRONT, METAL = "chest", "drawer", "handle"


def _units(sides: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    parts = {f"{side}_{what}": ("m",) for what in ("handle", "open") for side in sides}
    return {"chest": ("m", "m", "rad"), **parts}


class Drawer:
    """A chest at a random place and yaw with two drawers side by side; done when one is 8 cm open."""

    instruction = "open a drawer"
    max_steps = 200
    stick = False
    handles: tuple[str, ...] = tuple(SIDES)  # the drawers that have one; the others' fronts are plain
    centre = CENTRE
    facing = 0.0  # rad, the yaw about which it is drawn
    placed: tuple[str, ...] = ("chest", "left_open", "right_open")
    modes: tuple[str, ...] = tuple(SIDES)
    units = _units(handles)

    def build(self) -> mujoco.MjSpec:
        """Return the table with the chest on it."""
        spec = make_scene()
        spec.add_material(name=WOOD, rgba=[0.42, 0.30, 0.22, 1], specular=0.1, shininess=0.2)
        spec.add_material(name=FRONT, rgba=[0.93, 0.90, 0.82, 1], specular=0.15, shininess=0.3)
        spec.add_material(name=METAL, rgba=[0.85, 0.45, 0.10, 1], specular=0.5, shininess=0.6)
        chest = spec.worldbody.add_body(name="chest", pos=[*CENTRE, 0], mocap=True)
        inner = WIDTH / 2 - WALL
        _board(chest, "chest_top", (0, 0, HEIGHT - WALL / 2), (DEPTH / 2, WIDTH / 2, WALL / 2), WOOD)
        _board(chest, "chest_back", (DEPTH / 2 - WALL / 2, 0, HEIGHT / 2), (WALL / 2, inner, HEIGHT / 2 - WALL), WOOD)
        upright = (DEPTH / 2, WALL / 2, HEIGHT / 2 - WALL / 2)
        for name, y in (("left", inner + WALL / 2), ("middle", 0.0), ("right", -inner - WALL / 2)):
            _board(chest, f"chest_{name}", (0, y, upright[2]), upright, WOOD)
        for side, sign in SIDES.items():
            handle_y = sign * APART if side in self.handles else None
            _add_drawer(spec, chest, side, sign * (inner + WALL / 2) / 2, handle_y)
        return spec

    def bind(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Look at ``data`` from now on."""
        self._joints = {side: data.joint(f"{side}_drawer") for side in self.handles}
        self._bars = {side: data.geom(f"{side}_handle") for side in self.handles}
        self._tool = data.site(TOOL)
        self._chest, self._data = data.body("chest"), data
        self._mocap = int(model.body_mocapid[model.body("chest").id])
        self._contacts = Contacts(model, data)
        self._held: str | None = None

    def reset(self, rng: np.random.Generator) -> None:
        """Put the chest somewhere, both drawers shut."""
        self._put(np.array([*(self.centre + rng.uniform(-REACH, REACH)), self._draw_yaw(rng)]))
        self._shut()

    def place(self, state: Mapping[str, np.ndarray]) -> None:
        """Put chest and drawers where an observed ``state`` has them."""
        self._put(np.asarray(state["chest"], np.float64))
        for side, joint in self._joints.items():
            joint.qpos = state[f"{side}_open"][0]

    def success(self) -> bool:
        """Whether a drawer is open."""
        return self.progress() >= 1.0

    def progress(self) -> float:
        """How far the farther drawer is open, 0 to 1."""
        return float(np.clip(max(self._opening(side) for side in self.handles) / OPEN, 0.0, 1.0))

    def queries(self) -> Mapping[str, np.ndarray]:
        """Return ``chest`` x, y (m), yaw (rad); of each drawer its handle x, y and how far it is open, m."""
        matrix, (sin, cos) = self._chest.xmat, (np.sin(self.facing), np.cos(self.facing))
        off = np.arctan2(matrix[3] * cos - matrix[0] * sin, matrix[0] * cos + matrix[3] * sin)  # never near a half turn
        found = {"chest": np.array([*self._chest.xpos[:2], self.facing + off], np.float32)}
        for side in self.handles:
            found[f"{side}_handle"] = self._bars[side].xpos[:2].astype(np.float32)
            found[f"{side}_open"] = np.array([self._opening(side)], np.float32)
        return found

    def mode(self) -> str | None:
        """The drawer that is farther open; None while both are all but shut, or where only one has a handle."""
        side = max(self.handles, key=self._opening)
        return side if self.modes and self._opening(side) > PULLED else None

    def watch(self) -> None:
        """Keep which handle was held last: it can slip."""
        for side in self.handles:
            if self._contacts.held(f"{side}_drawer") and self._reach(side) < GRASPED:
                self._held = side

    def failure(self) -> str:
        """``collided``: the arm touches the chest itself; ``slipped``: a handle was held and no drawer is open yet."""
        if self._contacts.by_arm(("chest",)):
            return "collided"
        slipped = self._held is not None and self._reach(self._held) > GRASPED and not self.success()
        return "slipped" if slipped else ""

    def disturb(self, rng: np.random.Generator) -> str:
        """Push the chest to another place, both drawers shut again, out of the gripper if need be."""
        side = 1.0 if self._chest.xpos[1] < self.centre[1] else -1.0
        xy = self.centre + np.array([rng.uniform(-REACH[0], REACH[0]), side * rng.uniform(0.05, 0.09)])
        self._put(np.array([*xy, self._draw_yaw(rng)]))
        for joint in self._joints.values():
            joint.qpos = joint.qvel = 0
        return f"the chest was pushed to ({xy[0]:.2f}, {xy[1]:.2f}) m and shut"

    def _opening(self, side: str) -> float:
        return float(self._joints[side].qpos[0])

    def _reach(self, side: str) -> float:
        return float(np.linalg.norm(self._bars[side].xpos - self._tool.xpos))

    def _draw_yaw(self, rng: np.random.Generator) -> float:
        return self.facing + float(rng.uniform(-MAX_YAW, MAX_YAW))

    def _put(self, pose: np.ndarray) -> None:
        self._data.mocap_pos[self._mocap] = [*pose[:2], 0]
        self._data.mocap_quat[self._mocap] = [np.cos(pose[2] / 2), 0, 0, np.sin(pose[2] / 2)]

    def _shut(self) -> None:
        for joint in self._joints.values():
            joint.qpos = joint.qvel = 0
        self._held = None


class TurnedDrawer(Drawer):
    """The chest turned round: a camera that looks at the arm sees the handles, and what is done with them."""

    centre = np.array([0.50, 0.0])
    facing = np.pi


class LeftDrawer(TurnedDrawer):
    """With one handle, on the chest's +y side: the drawer to open."""

    instruction = "open the left drawer"
    handles = ("left",)
    placed = ("chest", "left_open")
    modes = ()
    units = _units(handles)


class RightDrawer(TurnedDrawer):
    """With one handle, on the chest's -y side: the drawer to open."""

    instruction = "open the right drawer"
    handles = ("right",)
    placed = ("chest", "right_open")
    modes = ()
    units = _units(handles)


def _add_drawer(spec: mujoco.MjSpec, chest: Any, side: str, y: float, handle_y: float | None) -> None:
    """Add a tray in the chest's front, its middle at ``y``, that slides out along -x; without a handle it is shut.

    Args:
        spec: the scene.
        chest: its body.
        side: the tray's name is that and ``_drawer``.
        y: m in the chest's frame.
        handle_y: m; None: no handle.
    """
    name = f"{side}_drawer"
    body = chest.add_body(name=name, pos=[0, 0, 0], gravcomp=1)
    if handle_y is not None:
        _add_slide(body, name)
    half_width = (WIDTH / 2 - 1.5 * WALL) / 2 - 0.003
    front, back, top = -DEPTH / 2 - WALL / 2, DEPTH / 2 - 0.015, HEIGHT - WALL - 0.004
    long, middle = (back - front) / 2, (back + front) / 2
    _board(body, f"{name}_front", (front, y, HEIGHT / 2), (WALL / 2, half_width, HEIGHT / 2 - 0.005), FRONT, mass=0.2)
    _board(body, f"{name}_floor", (middle, y, 0.008), (long, half_width, 0.003), WOOD, mass=0.2)
    for k, edge in enumerate((-1, 1)):
        where = (middle, y + edge * (half_width - 0.003), 0.008 + top / 2 - 0.01)
        _board(body, f"{name}_side{k}", where, (long, 0.003, top / 2 - 0.01), FRONT, mass=0.05)
    if handle_y is not None:
        start = -DEPTH / 2 - WALL
        grip = {"material": METAL, "friction": [1.0, 0.01, 0.0005], "condim": 4}
        _board(body, f"{side}_handle", (start - NECK[0], handle_y, HANDLE_Z), NECK, mass=0.03, **grip)
        _board(body, f"{side}_lip", (start - 2 * NECK[0] - LIP[0], handle_y, HANDLE_Z), LIP, mass=0.02, **grip)
    spec.add_exclude(bodyname1="chest", bodyname2=name)


def _add_slide(body: Any, name: str) -> None:
    body.add_joint(
        name=name,
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=[-1, 0, 0],
        range=[0, TRAVEL],
        limited=True,
        solref_limit=[0.006, 1.0],
        damping=[6.0, 0, 0],
        frictionloss=1.0,
        armature=0.05,
    )


def _board(body: Any, name: str, pos: tuple[float, ...], half: tuple[float, ...], material: str, **more: Any) -> None:
    box = mujoco.mjtGeom.mjGEOM_BOX
    body.add_geom(name=name, type=box, pos=pos, size=half, material=material, **{"mass": 0.1, **more})

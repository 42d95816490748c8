"""PushT: push a flat T onto its mark with a stick."""

from collections.abc import Mapping

import mujoco
import numpy as np

from sim_envs.arm import STICK_REACH
from sim_envs.contacts import is_off_table
from sim_envs.planar import CENTROID, PX, coverage, lies_flat
from sim_envs.scene import make_scene
from sim_envs.tracked import Tracked
from sim_envs.turning import TURNS, Turning

GOAL = np.array([0.48, 0.0, np.pi / 4])  # m, m, rad
SPREAD = 0.10  # m, +-, of the T's centroid about the goal's at the start; any yaw
HALF_HEIGHT = 0.015  # m
COVERED = 0.90  # of the mark: done. People reach .95 in one demonstration of twenty, .90 in half of them
FULL = 0.95  # the coverage that scores 1, as published


class PushT:
    """The published T (512 px = 0.5 m) anywhere on the table; the score is the best coverage / 0.95, at most 1.

    Its modes are the way the T was turned on the whole, seen from above: the start suggests one, but either can be.
    """

    instruction = "push the T onto its mark"
    max_steps = 400
    stick = True
    resizable = ("block",)  # the score goes by its pose
    modes = TURNS
    units: Mapping[str, tuple[str, ...]] = {"block": ("m", "m", "rad_wrapped")}
    tracked = (Tracked("block", ("block",), HALF_HEIGHT),)

    def build(self) -> mujoco.MjSpec:
        """Return the table with the T and its mark."""
        spec = make_scene()
        spec.add_material(name="block", rgba=[0.35, 0.44, 0.55, 1], specular=0.2, shininess=0.3)
        spec.add_material(name="mark", rgba=[0.45, 0.78, 0.42, 1], specular=0.0)
        half = GOAL[2] / 2
        mark = spec.worldbody.add_body(name="mark", pos=[*GOAL[:2], 0], quat=[np.cos(half), 0, 0, np.sin(half)])
        block = spec.worldbody.add_body(name="block", pos=[*GOAL[:2], HALF_HEIGHT])
        block.add_freejoint(name="block")
        for part, centre, width, depth in (("bar", (0, 15), 120, 30), ("stem", (0, 75), 30, 90)):
            flat = [centre[0] * PX, (centre[1] - CENTROID) * PX]
            size = [width * PX / 2, depth * PX / 2]
            box = mujoco.mjtGeom.mjGEOM_BOX
            drawn = {"material": "mark", "contype": 0, "conaffinity": 0}
            mark.add_geom(name=f"mark_{part}", type=box, pos=[*flat, 0], size=[*size, 0.0006], **drawn)
            block.add_geom(
                name=f"block_{part}",
                type=box,
                pos=[*flat, 0],
                size=[*size, HALF_HEIGHT],
                material="block",
                mass=0.25 * width * depth / 6300,
                friction=[0.3, 0.005, 0.0001],
                condim=3,
                priority=1,
            )
        return spec

    def bind(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Look at ``data`` from now on."""
        self._joint, self._body = data.joint("block"), data.body("block")
        self._model, self._mark = model, model.body("mark").id
        self._turning = Turning()

    def reset(self, rng: np.random.Generator) -> None:
        """Put the T down somewhere that is not half done already."""
        self._turning.begin()
        self._goal = GOAL
        self.move_goal(np.zeros(3))
        pose = GOAL
        while coverage(pose, GOAL) > 0.4:
            pose = np.array([*(GOAL[:2] + rng.uniform(-SPREAD, SPREAD, 2)), rng.uniform(-np.pi, np.pi)])
        self._put(pose)

    def success(self) -> bool:
        """Whether the T lies flat and covers at least 90 % of its mark."""
        return self._coverage() >= COVERED

    def progress(self) -> float:
        """Coverage / 0.95, at most 1; 0 while the T does not lie flat."""
        return min(self._coverage() / FULL, 1.0)

    def watch(self) -> None:
        """Keep how far the T has turned."""
        self._turning.see(float(self._pose()[2]))

    def mode(self) -> str | None:
        """Which way the T was turned on the whole; None before it has turned."""
        return self._turning.mode()

    def failure(self) -> str:
        """What is wrong with the T.

        ``"off_table"`` if it fell, ``"overturned"`` while it does not lie flat and the right way up,
        ``"out_of_reach"`` while its centroid is where the stick cannot get.
        """
        if is_off_table(self._body.xpos):
            return "off_table"
        if not lies_flat(self._body.xmat):
            return "overturned"
        away = float(np.hypot(*self._body.xpos[:2]))
        return "" if STICK_REACH[0] < away < STICK_REACH[1] else "out_of_reach"

    def move_goal(self, gap: np.ndarray) -> None:
        """Move the mark by ``gap`` (3,) m, m, rad until the next reset; only cameras see where it is."""
        self._goal = self._goal + gap
        half = self._goal[2] / 2
        self._model.body_pos[self._mark][:2] = self._goal[:2]
        self._model.body_quat[self._mark] = [np.cos(half), 0, 0, np.sin(half)]

    def queries(self) -> Mapping[str, np.ndarray]:
        """Return the T's pose (3,): x, y of its centroid in m and its yaw in rad, within +-pi."""
        return {"block": self._pose().astype(np.float32)}

    def disturb(self, rng: np.random.Generator) -> str:
        """Take the T away: turned, 16 to 20 cm to the side of its mark, farther than it ever starts."""
        side = 1.0 if self._body.xpos[1] < GOAL[1] else -1.0
        pose = np.array([GOAL[0] + rng.uniform(-0.05, 0.05), side * rng.uniform(0.16, 0.20), rng.uniform(-3, 3)])
        self._put(pose)
        self._turning.lift()
        return f"the T was taken to ({pose[0]:.2f}, {pose[1]:.2f}) m"

    def _pose(self) -> np.ndarray:
        w, x, y, z = self._body.xquat
        return np.array([*self._body.xpos[:2], np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))])

    def _coverage(self) -> float:
        return coverage(self._pose(), self._goal) if lies_flat(self._body.xmat) else 0.0

    def _put(self, pose: np.ndarray) -> None:
        half = pose[2] / 2
        self._joint.qpos = [*pose[:2], HALF_HEIGHT, np.cos(half), 0, 0, np.sin(half)]
        self._joint.qvel = 0

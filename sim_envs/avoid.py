"""Avoid: bring the stick through three rows of posts to the finish line, by any of 24 ways."""

from collections.abc import Mapping
from itertools import product

import mujoco
import numpy as np

from sim_envs.arm import STICK_RADIUS, TOOL
from sim_envs.scene import make_scene

# Layout and modes of Avoiding: Jia et al., Towards Diverse Behaviors: A Benchmark for Imitation Learning with Human
# Demonstrations (D3IL), 2024; moved by 3.5 cm, so that both lines are in the front camera's sight. Metres; rows are
# crossed towards +y, gaps count from the arm's foot outwards.
ROWS = (-0.135, 0.045, 0.225)  # y
POSTS = ((0.50,), (0.425, 0.575), (0.35, 0.50, 0.65))  # x of each row
RADII = (0.03, 0.025, 0.025)
HEIGHT = 0.05  # the stick is 6 cm long: the fingers pass over the posts, the stick does not
START_Y, FINISH_Y = -0.315, 0.315
GRAZE = 0.0005  # m: a stick that comes so near has touched
DEAF_S = 1.0  # that a disturbance lasts


class Avoid:
    """From the start line between the posts over the finish line; a touch or a way over a post ends every chance.

    A mode is the sequence of gaps that were passed, ``"1-3-2"`` for the first row's gap 1, the second's 3 and the
    third's 2. A row that is crossed back has not been passed.
    """

    instruction = "bring the stick between the posts to the finish line"
    max_steps = 200
    stick = True
    home = np.array([0.50, START_Y, 0.015])  # m
    home_spread = np.array([0.05, 0.01, 0.004])  # m
    modes = tuple("-".join(map(str, gaps)) for gaps in product((1, 2), (1, 2, 3), (1, 2, 3, 4)))

    def build(self) -> mujoco.MjSpec:
        """Return the table with posts, start line and finish line."""
        spec = make_scene()
        spec.add_material(name="post", rgba=[0.80, 0.20, 0.16, 1], specular=0.3, shininess=0.4)
        spec.add_material(name="finish", rgba=[0.40, 0.74, 0.38, 1], specular=0.0)
        spec.add_material(name="start", rgba=[0.93, 0.93, 0.90, 1], specular=0.0)
        box, cylinder = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER
        for name, y in (("start", START_Y), ("finish", FINISH_Y)):
            body = spec.worldbody.add_body(name=name, pos=[0.5, y, 0.001])
            size = [0.25, 0.006, 0.001]
            body.add_geom(name=name, type=box, size=size, material=name, contype=0, conaffinity=0)
        for row, (y, xs, radius) in enumerate(zip(ROWS, POSTS, RADII, strict=True), start=1):
            for i, x in enumerate(xs, start=1):
                post = spec.worldbody.add_body(name=f"post{row}{i}", pos=[x, y, HEIGHT / 2])
                size = [radius, HEIGHT / 2, 0]
                post.add_geom(name=f"post{row}{i}", type=cylinder, size=size, material="post", friction=[0.3, 0, 0])
        return spec

    def bind(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Look at ``data`` from now on."""
        self._tool, self._data = data.site(TOOL).xpos, data
        names = [f"post{row}{i}" for row, xs in enumerate(POSTS, start=1) for i in range(1, len(xs) + 1)]
        self._posts = np.array([model.geom(name).id for name in names])
        self._centres = np.array([(x, y) for y, xs in zip(ROWS, POSTS, strict=True) for x in xs])  # (6, 2) m
        self._reaches = np.array([r for r, xs in zip(RADII, POSTS, strict=True) for _ in xs]) + STICK_RADIUS + GRAZE

    def reset(self, rng: np.random.Generator) -> None:
        """Forget the way; the posts stand where they always do."""
        self._before: np.ndarray | None = None  # (3,) m, the tip at the last look
        self._gaps: list[int] = []  # from 1; 0 is unknown
        self._failure, self._hears_s = "", 0.0

    def place(self, state: Mapping[str, np.ndarray]) -> None:
        """Nothing moves here but the arm."""

    def disturb(self, rng: np.random.Generator) -> str:
        """Let what is commanded be lost for a second: the arm stops at its last set-point."""
        self._hears_s = float(self._data.time) + DEAF_S
        return f"what is commanded is lost for {DEAF_S:g} s"

    def braked(self) -> bool:
        """Whether what is commanded is lost."""
        return bool(self._data.time < self._hears_s)

    def watch(self) -> None:
        """Look which rows the tip has crossed, and whether it touched a post on the way."""
        tip = self._tool.copy()
        if self._before is None:  # put into the middle of a way: how it came there nobody knows
            self._gaps = [0 for y in ROWS if y <= tip[1]]
        before = tip if self._before is None else self._before
        self._before = tip
        if not self._failure and self._touched(before, tip):
            self._failure = "collided"
        for row, y in enumerate(ROWS):
            if before[1] < y <= tip[1] and len(self._gaps) == row:
                self._cross(row, before + (tip - before) * (y - before[1]) / (tip[1] - before[1]))
            elif tip[1] < y <= before[1]:
                del self._gaps[row:]

    def success(self) -> bool:
        """Whether the stick is over the finish line, by all three rows and past every post."""
        return not self._failure and len(self._gaps) == len(ROWS) and bool(self._tool[1] > FINISH_Y)

    def progress(self) -> float:
        """How much of the way from line to line the stick has made, 0 to 1; 0 once it failed."""
        made = (self._tool[1] - START_Y) / (FINISH_Y - START_Y)
        return 0.0 if self._failure else float(np.clip(made, 0.0, 1.0))

    def mode(self) -> str | None:
        """Which gaps were passed; None before the third row, or if the episode began behind one."""
        name = "-".join(map(str, self._gaps))
        return name if name in self.modes else None

    def failure(self) -> str:
        """``"collided"`` with a post, or ``"flew_over"`` a row: neither can be mended."""
        return self._failure

    def queries(self) -> Mapping[str, np.ndarray]:
        """Return nothing: the posts stand where they always do, and the tool is in the arm's own state."""
        return {}

    def _cross(self, row: int, at: np.ndarray) -> None:
        if at[2] > HEIGHT and not self._failure:
            self._failure = "flew_over"
        self._gaps.append(1 + int(np.searchsorted(POSTS[row], at[0])))

    def _touched(self, before: np.ndarray, tip: np.ndarray) -> bool:
        """Whether the tip's way, or any part of arm and stick now, touched a post."""
        if np.isin(self._data.contact.geom, self._posts).any():
            return True
        if min(before[2], tip[2]) > HEIGHT:
            return False
        way = tip[:2] - before[:2]
        along = (self._centres - before[:2]) @ way / max(float(way @ way), 1e-12)
        nearest = before[:2] + np.clip(along, 0.0, 1.0)[:, None] * way
        return bool((np.linalg.norm(self._centres - nearest, axis=1) < self._reaches).any())

"""Memory: a ball shows for a second over one of two pads; later the stick has to touch that pad."""

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from robopolicy.errors import UnknownName
from sim_envs.arm import TOOL
from sim_envs.scene import make_scene

SIDES = {"left": 1.0, "right": -1.0}  # of y
PADS = {side: np.array([0.50, 0.13 * sign, 0.0]) for side, sign in SIDES.items()}  # m
PAD_RADIUS = 0.035  # m
TOUCH_Z = 0.012  # m, of the tip over the table
SHOWN_S, GO_S = 1.0, 2.5  # the ball is seen before the first, the arm stands braked before the second
DARK_S = 1.0  # that a disturbance puts the lamp out, or off
LAMP = np.array([0.66, 0.0, 0.02])  # m
BALL_Z, AWAY_Z = 0.07, -2.0  # m; away is under the floor
TICK_S = 0.001  # half a physics step: when it is 1 s, time has been summed up to a little less


class Memory:
    """Touch the pad over which the ball was, after it has been gone for 1.5 s.

    While the ball shows, and until a green lamp does, a brake holds the arm: nothing that is commanded before leaves
    a trace in the world. What is seen when the lamp comes on, cameras, states and all, is the same to the bit
    wherever the ball was, so whoever goes by what is seen then alone is right in half of the episodes at best.

    Args:
        cue: ``"left"`` (y > 0) or ``"right"`` in every episode; None draws it.

    Raises:
        UnknownName: naming the two.
    """

    instruction = "touch the pad over which the ball was"
    max_steps = 140
    stick = True
    modes = tuple(SIDES)
    placed = ("cue", "go")

    def __init__(self, cue: str | None = None) -> None:
        if cue is not None and cue not in SIDES:
            raise UnknownName("cue", cue, SIDES)
        self._cue = cue

    def build(self) -> mujoco.MjSpec:
        """Return the table with two pads, the ball and the lamp."""
        spec = make_scene()
        spec.add_material(name="pad", rgba=[0.36, 0.40, 0.46, 1], specular=0.1)
        spec.add_material(name="ball", rgba=[0.98, 0.76, 0.10, 1], specular=0.4, shininess=0.5)
        spec.add_material(name="lamp", rgba=[0.20, 0.75, 0.30, 1], specular=0.4, emission=0.4)
        kind, seen_only = mujoco.mjtGeom, {"contype": 0, "conaffinity": 0}
        for side, at in PADS.items():
            pad = spec.worldbody.add_body(name=f"pad_{side}", pos=[*at[:2], 0.001])
            size = [PAD_RADIUS, 0.001, 0]
            pad.add_geom(name=f"pad_{side}", type=kind.mjGEOM_CYLINDER, size=size, material="pad", **seen_only)
        for name, radius in (("ball", 0.02), ("lamp", 0.018)):
            body = spec.worldbody.add_body(name=name, pos=[0, 0, AWAY_Z], mocap=True)
            body.add_geom(name=name, type=kind.mjGEOM_SPHERE, size=[radius, 0, 0], material=name, **seen_only)
        return spec

    def bind(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Look at ``data`` from now on."""
        self._model, self._data, self._tool = model, data, data.site(TOOL).xpos
        self._tokens: dict[str, Any] = {name: model.body(name).mocapid[0] for name in ("ball", "lamp")}

    def reset(self, rng: np.random.Generator) -> None:
        """Draw the side and show the ball there."""
        drawn = str(rng.choice(self.modes))
        self._side = self._cue or drawn
        self._touched: str | None = None
        self._go_s = GO_S
        self._data.time = 0.0
        self._show()

    def place(self, state: Mapping[str, np.ndarray]) -> None:
        """Go to the phase that an observed ``cue`` (1,) and ``go`` (1,) tell; the side if the ball was seen."""
        cue, go = float(state["cue"][0]), float(state["go"][0])
        if cue:
            self._side = "left" if cue > 0 else "right"
        self._data.time = GO_S if go else 0.0 if cue else SHOWN_S
        self._show()

    def braked(self) -> bool:
        """Whether the lamp is still off: the arm stands."""
        return bool(self._data.time < self._go_s - TICK_S)

    def disturb(self, rng: np.random.Generator) -> str:
        """Put the lamp out for a second, or let it come on a second later: what is commanded until then is lost."""
        self._go_s = max(float(self._data.time), self._go_s) + DARK_S
        self._show()
        return f"the lamp stays off for {DARK_S:g} s more"

    def watch(self) -> None:
        """Hide the ball and light the lamp in time, and keep which pad was touched first."""
        if self._show():
            mujoco.mj_kinematics(self._model, self._data)
        if self._touched is None and self._tool[2] < TOUCH_Z:
            near = [side for side, at in PADS.items() if np.hypot(*(self._tool - at)[:2]) < PAD_RADIUS]
            self._touched = near[0] if near else None

    def success(self) -> bool:
        """Whether the right pad was touched, and first."""
        return self._touched == self._side

    def mode(self) -> str | None:
        """Which pad was touched first."""
        return self._touched

    def failure(self) -> str:
        """``"wrong_pad"`` once the other one was touched first."""
        return "wrong_pad" if self._touched not in (None, self._side) else ""

    def queries(self) -> Mapping[str, np.ndarray]:
        """Return ``cue`` (1,): 1 left, -1 right while the ball shows, then 0; ``go`` (1,): whether the lamp is on."""
        cue = SIDES[self._side] if self._is_shown() else 0.0
        return {"cue": np.array([cue], np.float32), "go": np.array([not self.braked()], np.float32)}

    def _is_shown(self) -> bool:
        return bool(self._data.time < SHOWN_S - TICK_S)

    def _show(self) -> bool:
        """Put ball and lamp where they belong now; return whether one of them moved."""
        ball = PADS[self._side] + [0, 0, BALL_Z] if self._is_shown() else np.array([0, 0, AWAY_Z])
        lamp = np.array([0, 0, AWAY_Z]) if self.braked() else LAMP
        before = self._data.mocap_pos.copy()
        self._data.mocap_pos[self._tokens["ball"]], self._data.mocap_pos[self._tokens["lamp"]] = ball, lamp
        return not np.array_equal(before, self._data.mocap_pos)

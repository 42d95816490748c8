"""Perturbations in mid-episode: an object is pushed, the gripper's hold slips."""

from typing import Any

import mujoco
import numpy as np

from sim_envs.arm import FINGERS
from sim_envs.perturbation_axis import ARM, Axis, Effect, Start, is_twin, moving_bodies

PUSH_M_S = 1.0
PUSH_S = (0.5, 2.5)  # from the start of the episode, drawn
OPENED_M = 0.02  # of a drawer, before which there is nothing to push shut
SLIP_S = 0.15
SLIP_AFTER_S = (0.05, 0.6)  # from when something is first held, drawn
TICK_NS = 10_000_000
NO_GRIP = 1e-5  # MuJoCo's least friction


def push(start: Start) -> Effect:
    """Give one of the objects that move another speed, all at once, at a drawn time; a drawer is pushed shut."""
    model, data = start.model, start.data
    bodies = _pushable(model)
    body = bodies[int(start.rng.integers(len(bodies)))]
    after_s, way = start.rng.uniform(*PUSH_S), start.rng.uniform(-np.pi, np.pi)
    speed, begins_ns = PUSH_M_S * start.severity, start.world.advance() + round(after_s * 1e9)
    if model.jnt_type[model.body_jntadr[body]] == mujoco.mjtJoint.mjJNT_SLIDE.value:
        _push_back(start, [int(model.body_jntadr[one]) for one in bodies], begins_ns, speed)
        return Effect(f"pushed shut once {100 * OPENED_M:g} cm open, from {after_s:.2f} s on, {speed:.2f} m/s")
    dof = int(model.body_dofadr[body])
    kick = speed * np.array([np.cos(way), np.sin(way)])

    def now(stamp_ns: int) -> None:
        data.qvel[dof : dof + 2] += kick

    start.world.call_at(begins_ns, now)
    name = model.body(body).name
    return Effect(f"{name} pushed at {after_s:.2f} s, {speed:.2f} m/s towards {np.degrees(way):.0f} deg")


def _push_back(start: Start, joints: list[int], begins_ns: int, speed: float) -> None:
    """Push the first of the sliding joints that has gone so far back to where it began, once.

    Pushed open, a heavy drawer would open itself: nobody's success.
    """
    data, qpos, dofs = start.data, start.model.jnt_qposadr[joints], start.model.jnt_dofadr[joints]
    began = data.qpos[qpos].copy()

    def look(now_ns: int) -> None:
        gone = data.qpos[qpos] - began
        far = int(np.argmax(np.abs(gone)))
        if abs(gone[far]) > OPENED_M:
            data.qvel[dofs[far]] -= speed * np.sign(gone[far])
        else:
            start.world.call_at(now_ns + TICK_NS, look)

    start.world.call_at(begins_ns, look)


class Slip(Effect):
    """Soon after the fingers first hold something they hold nothing, for a moment, once an episode.

    Of two geoms that touch MuJoCo takes the larger friction, so the pads get priority over what they hold, and none.
    """

    def __init__(self, start: Start) -> None:
        model = start.model
        self._model, self._data, self._world = model, start.data, start.world
        self._after_ns = round(start.rng.uniform(*SLIP_AFTER_S) * 1e9)
        self._lasts_ns = round(SLIP_S * start.severity * 1e9)
        self._friction, self._priority = start.take("geom_friction"), start.take("geom_priority")
        self._sides = [_geoms_of(model, name) for name in FINGERS]
        self._pads = np.flatnonzero(self._sides[0] | self._sides[1])
        self._objects = ~np.isin(model.geom_bodyid, [0, *_arm(model)])
        super().__init__(f"no grip for {self._lasts_ns / 1e9:.3f} s, {self._after_ns / 1e9:.2f} s after the first hold")
        self._world.call_at(self._world.advance(), self._look)

    def _look(self, now_ns: int) -> None:
        if self._held():
            self._world.call_at(now_ns + self._after_ns, self._let_go)
        else:
            self._world.call_at(now_ns + TICK_NS, self._look)

    def _held(self) -> bool:
        pairs = self._data.contact.geom  # (ncon, 2)
        objects = self._objects[pairs]
        return all(bool((objects & side[pairs[:, ::-1]]).any()) for side in self._sides)

    def _let_go(self, now_ns: int) -> None:
        self._before = self._friction[self._pads].copy(), self._priority[self._pads].copy()
        self._friction[self._pads] = NO_GRIP
        self._priority[self._pads] = self._model.geom_priority.max() + 1
        self._world.call_at(now_ns + self._lasts_ns, self._grip_again)

    def _grip_again(self, now_ns: int) -> None:
        self._friction[self._pads], self._priority[self._pads] = self._before


def _geoms_of(model: mujoco.MjModel, body: str) -> np.ndarray:
    """Return which geoms of a body collide, (ngeom,) bool."""
    found: np.ndarray = (model.geom_bodyid == model.body(body).id) & (model.geom_contype > 0)
    return found


def _arm(model: mujoco.MjModel) -> np.ndarray:
    found: np.ndarray = np.flatnonzero(model.body_rootid == model.body(ARM).id)
    return found


def _pushable(model: mujoco.MjModel) -> list[int]:
    kinds = mujoco.mjtJoint
    allowed = (kinds.mjJNT_FREE.value, kinds.mjJNT_SLIDE.value)
    return [body for body in moving_bodies(model) if int(model.jnt_type[model.body_jntadr[body]]) in allowed]


def _lacks_pushable(world: Any) -> str:
    return "" if is_twin(world) and _pushable(world.model) else "no object that moves"


def _lacks_grip(world: Any) -> str:
    if not is_twin(world):
        return "no gripper"
    if getattr(world.task, "stick", False):
        return "no use of the gripper: it holds a stick"
    return "" if moving_bodies(world.model) else "nothing to hold"


AXES = {
    "push": Axis(
        "once in the first 0.5 to 2.5 s an object is pushed to 1 m/s; a drawer, once it is open, shut",
        _lacks_pushable, push,
    ),
    "slip": Axis("once, soon after the first hold, the fingers have no grip for 0.15 s", _lacks_grip, Slip),
}  # fmt: skip

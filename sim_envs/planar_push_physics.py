"""Push-T in a plane in MuJoCo: a round pusher under PD control, a sliding T, four walls; units of gym-pusht, px."""

from dataclasses import dataclass

import mujoco
import numpy as np

from robopolicy.errors import ContractError
from sim_envs.planar import CENTROID, PX

# Facts of gym-pusht 0.1: its pusher, its walls, its control.
RADIUS = 15.0  # px
WALLS, WALL_RADIUS = (5.0, 506.0), 2.0  # px, where the four round bars lie in x and in y, and how thick they are
STIFFNESS, RESISTANCE = 100.0, 20.0  # 1/s^2 and 1/s: acceleration = STIFFNESS (target - position) - RESISTANCE velocity
TICK_S, TICKS = 0.01, 10  # of the pusher's control, and how many to an action
SUBSTEPS = 5  # of MuJoCo to a tick

_MASS = 0.25  # kg of the T; every other figure is relative to it
_HEAVY = 1e4 * _MASS  # the pusher's: nothing stops it, as nothing stops gym-pusht's kinematic one
_TALL = 150 * PX  # m, half height of the T, so that a pusher within it is pushed out sideways


@dataclass(frozen=True)
class Physics:
    """What the twin does not know of the world that it doubles, and has to identify."""

    friction: float  # between pusher and T, 1
    centre_px: float  # from the T's top edge to its centre of mass, along the stem
    gyration_px: float  # square root of moment of inertia over mass
    damping: float  # 1/s: rate at which a T let go loses its speed, turning or not
    catch_s: float  # time in which contact brings the T to the pusher's speed
    relax_s: float  # time in which contact pushes the T out of the pusher

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (np.isfinite(value) and value >= 0 and (value > 0 or name == "friction")):
                raise ContractError(f"planar Push-T: {name} is {value}; want a finite number above 0")


NOMINAL = Physics(friction=0.5, centre_px=CENTROID, gyration_px=39.6, damping=30.0, catch_s=0.01, relax_s=0.02)
"""A uniform T, and a guess of the rest: what one writes down before anything was measured."""
IDENTIFIED = Physics(friction=0.001, centre_px=45.0, gyration_px=54.76, damping=384.0, catch_s=0.0039, relax_s=0.115)
"""From pushes recorded in gym-pusht; tests/benchmarks/bench_pusht_twin.py finds and prints them again."""


def turned(angle: float, down_px: float) -> np.ndarray:
    """Return where a point ``down_px`` along the stem lies from the T's origin, (2,) px."""
    return down_px * np.array([-np.sin(angle), np.cos(angle)])


class PlanarPush:
    """The world itself: put it into a state, push, look.

    A state is gym-pusht's, (5,): x, y of the pusher, x, y of the T's own origin, the middle of its top edge, in px,
    and its angle in rad. Angles turn from x to y, and y points down when drawn.
    """

    def __init__(self, physics: Physics) -> None:
        self.physics = physics
        self._model = _build(physics)
        self._data = mujoco.MjData(self._model)
        self.velocity = np.zeros(2)  # px/s, of the pusher

    def put(self, state: np.ndarray, velocity: np.ndarray | None = None) -> None:
        """Put everything to ``state`` (5,), the T at rest and the pusher at ``velocity`` (2,) px/s or at rest."""
        mujoco.mj_resetData(self._model, self._data)
        centre = state[2:4] + turned(state[4], self.physics.centre_px)
        self._data.qpos[:] = [*state[:2] * PX, *centre * PX, state[4]]
        self.velocity = np.zeros(2) if velocity is None else np.array(velocity, dtype=float)

    def state(self) -> np.ndarray:
        """Return the state (5,) float64 px, px, px, px, rad (not wrapped)."""
        angle = self._data.qpos[4]
        origin = self._data.qpos[2:4] / PX - turned(angle, self.physics.centre_px)
        return np.array([*self._data.qpos[:2] / PX, *origin, angle])

    def step(self, target: np.ndarray) -> None:
        """Let the pusher go for ``target`` (2,) px for one action, 0.1 s."""
        pusher, speed = self._data.qpos[:2], self._data.qvel[:2]
        here = pusher / PX
        for _ in range(TICKS):
            self.velocity = self.velocity + TICK_S * (STIFFNESS * (target - here) - RESISTANCE * self.velocity)
            here = here + TICK_S * self.velocity
            for _ in range(SUBSTEPS):
                speed[:] = self.velocity * PX
                mujoco.mj_step(self._model, self._data)
            pusher[:] = here * PX  # exactly, whatever pushed back


def _build(physics: Physics) -> mujoco.MjModel:
    spec = mujoco.MjSpec()
    spec.option.timestep = TICK_S / SUBSTEPS
    spec.option.gravity = [0, 0, 0]
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.iterations = 20
    _add_pusher(spec, physics)
    _add_block(spec, physics)
    _add_walls(spec, physics)
    return spec.compile()


def _contact(physics: Physics) -> dict[str, list[float]]:
    """Return how contacts give way: quick in speed, slow in depth, as two time constants of one spring and damper.

    MuJoCo's spring k and damper b act on accelerations: of k = 1 / (catch relax), b = 1/catch + 1/relax the depth
    decays with exactly these two time constants (manual, Computation, Reference: aref = -b v - k r).
    """
    catch, relax = physics.catch_s, physics.relax_s
    return {"solref": [-1 / (catch * relax), -(1 / catch + 1 / relax)], "solimp": [0.99, 0.99, 0.001, 0.5, 2]}


def _add_pusher(spec: mujoco.MjSpec, physics: Physics) -> None:
    pusher = spec.worldbody.add_body(name="pusher", mass=_HEAVY, inertia=[1, 1, 1], explicitinertial=True)
    _slide(pusher, 0.0)
    pusher.add_geom(
        type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[RADIUS * PX, 0, 0], contype=1, conaffinity=2, priority=1, condim=3,
        friction=[max(physics.friction, 1e-5), 0, 0], **_contact(physics),
    )  # fmt: skip


def _add_block(spec: mujoco.MjSpec, physics: Physics) -> None:
    turning = _MASS * (physics.gyration_px * PX) ** 2  # kg m^2
    block = spec.worldbody.add_body(name="block", mass=_MASS, inertia=[turning] * 3, explicitinertial=True)
    _slide(block, _MASS * physics.damping)
    block.add_joint(type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0, 0, 1], damping=turning * physics.damping)
    for top, width, depth in ((0, 120, 30), (30, 30, 90)):
        block.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX, pos=[0, (top + depth / 2 - physics.centre_px) * PX, 0],
            size=[width / 2 * PX, depth / 2 * PX, _TALL], contype=2, conaffinity=1 | 4,
        )  # fmt: skip


def _add_walls(spec: mujoco.MjSpec, physics: Physics) -> None:
    (low, high), thick = np.array(WALLS) * PX, WALL_RADIUS * PX
    middle, half = (low + high) / 2, (high - low) / 2 + thick
    for side in (low, high):
        for pos, size in (([side, middle, 0], [thick, half, _TALL]), ([middle, side, 0], [half, thick, _TALL])):
            spec.worldbody.add_geom(
                type=mujoco.mjtGeom.mjGEOM_BOX, pos=pos, size=size, contype=4, conaffinity=2, priority=1, condim=1,
                **_contact(physics),
            )  # fmt: skip


def _slide(body: mujoco.MjsBody, damping: float) -> None:
    for axis in ([1, 0, 0], [0, 1, 0]):
        body.add_joint(type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis, damping=damping)

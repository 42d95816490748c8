"""Two MuJoCo worlds that differ in what nobody writes down: a servoed pusher, a free T, a place to push it to."""

import copy
from dataclasses import dataclass, replace

import mujoco
import mujoco.rollout
import numpy as np

from sim_envs.planar import CENTROID, PX, distance, place
from sim_envs.sysid import Fit, Residuals, Unknown, fit
from sim_envs.sysid_arm import Motion, held_commands

STEP_S, CONTROL_HZ = 0.002, 20.0
LOG_STEPS = 5  # of 2 ms between two measurements
WINDOW_S = 0.5  # that identification simulates from a measured state
RADIUS = 0.0146  # m, of the pusher
GOAL = np.zeros(2)  # m, where the T's centroid shall be
CLOSE = 0.010  # m: there
EPISODE_S = 10.0
NOISE = np.array([2e-4, 2e-4, 1e-3, 1e-3, np.radians(0.6)])  # m, m, m, m, rad of what is measured
LEAD = 0.03  # m, of the target before a pusher that goes around the T
ORBIT = 0.135  # m, from the T's centroid, at which it goes around it
CLIP = 3.0  # standard deviations of the noise, from which on a residual counts linearly and not squared
PUSHER_KG = 1.0
NAMES = ("pusher_x", "pusher_y")


@dataclass(frozen=True)
class Physics:
    """What the two worlds differ in."""

    table_friction: float = 0.45
    pusher_friction: float = 0.5
    mass: float = 0.20  # kg, of the T
    com_x: float = 0.0  # m, from its centroid
    com_y: float = 0.0
    kp: float = 600.0  # N/m
    kv: float = 60.0  # N s/m
    delay: float = 0.0  # s
    joint_friction: float = 0.0  # N
    armature: float = 0.0  # kg


NOMINAL = Physics()
HIDDEN = Physics(0.22, 0.25, 0.32, 0.006, -0.004, 350.0, 45.0, 0.030, 1.0, 0.3)
SERVO = (
    Unknown("kp", "N/m", 600.0, 100.0, 2000.0, 300.0, 5),
    Unknown("kv", "N s/m", 60.0, 5.0, 200.0, 30.0, 4),
    Unknown("delay", "s", 0.0, 0.0, 0.15, 0.02, 6),
    Unknown("joint_friction", "N", 0.0, 0.0, 8.0, 1.0, 3),
    Unknown("armature", "kg", 0.0, 0.0, 3.0, 0.5, 2),
)
CONTACT = (
    Unknown("table_friction", "", 0.45, 0.05, 1.2, 0.3, 2),
    Unknown("pusher_friction", "", 0.5, 0.0, 1.2, 0.3, 1),
    Unknown("mass", "kg", 0.20, 0.05, 1.0, 0.15, 0),
    Unknown("com_x", "m", 0.0, -0.02, 0.02, 0.01, 2),
    Unknown("com_y", "m", 0.0, -0.02, 0.02, 0.01, 2),
)


def build() -> mujoco.MjModel:
    spec = mujoco.MjSpec()
    spec.option.timestep = STEP_S
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    geom = mujoco.mjtGeom
    spec.worldbody.add_geom(name="table", type=geom.mjGEOM_PLANE, size=[1, 1, 0.1], contype=1, conaffinity=2)
    block = spec.worldbody.add_body(name="block", pos=[0, 0, 0.015])
    block.add_freejoint(name="block")
    for (x, y), width, depth in (((0, 15), 120, 30), ((0, 75), 30, 90)):
        block.add_geom(
            name=f"block{width}", type=geom.mjGEOM_BOX, pos=[x * PX, (y - CENTROID) * PX, 0],
            size=[width * PX / 2, depth * PX / 2, 0.015], mass=0.2 * width * depth / 6300, condim=3, priority=1,
            contype=2, conaffinity=1,
        )  # fmt: skip
    pusher = spec.worldbody.add_body(name="pusher", pos=[0, 0, 0.02])
    pusher.add_geom(
        name="pusher", type=geom.mjGEOM_CYLINDER, size=[RADIUS, 0.018, 0], mass=PUSHER_KG, condim=3, priority=2,
        contype=4, conaffinity=2,
    )  # fmt: skip
    for name, axis in zip(NAMES, ([1, 0, 0], [0, 1, 0]), strict=True):
        pusher.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis)
        spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT).set_to_position(kp=600, kv=60)
    return spec.compile()


class World:
    """One of the worlds; its state is x, y of the pusher, x, y, yaw of the T (5,)."""

    def __init__(self, physics: Physics) -> None:
        self.physics = physics
        self.model = build()
        self.data = mujoco.MjData(self.model)
        alter(self.model, self.data, physics)
        self._last = np.zeros(2)

    def put(self, state: np.ndarray) -> None:
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = full(state)
        self.data.ctrl[:] = self._last = np.array(state[:2])

    def state(self) -> np.ndarray:
        return flat(self.data.qpos)

    def rests(self) -> bool:
        return bool(np.abs(self.data.qvel).max() < 1e-3)

    def go(self, target: np.ndarray, log: list[np.ndarray] | None = None) -> None:
        """Command ``target`` (2,) m for one control period; it takes force after the delay.

        ``log`` gets the state before every `LOG_STEPS` steps.
        """
        steps = round(1 / CONTROL_HZ / STEP_S)
        late = round(self.physics.delay / STEP_S)  # within one period: a longer one would need a queue
        assert late <= steps
        for k in range(0, steps, LOG_STEPS if log is not None else steps):
            if log is not None:
                log.append(self.state())
            end = k + LOG_STEPS if log is not None else steps
            for command, count in ((self._last, min(end, late) - k), (target, end - max(k, late))):
                if count > 0:
                    self.data.ctrl[:] = command
                    mujoco.mj_step(self.model, self.data, count)
        self._last = np.array(target)


def alter(model: mujoco.MjModel, data: mujoco.MjData, physics: Physics) -> None:
    """Write physics into a compiled model that `build` made."""
    block, fresh = model.body("block").id, build_once()
    model.geom_friction[[model.geom("block120").id, model.geom("block30").id], 0] = physics.table_friction
    model.geom_friction[model.geom("pusher").id, 0] = physics.pusher_friction
    model.body_mass[block] = physics.mass
    model.body_inertia[block] = fresh.body_inertia[block] * physics.mass / fresh.body_mass[block]
    model.body_ipos[block] = fresh.body_ipos[block] + [physics.com_x, physics.com_y, 0]
    model.actuator_gainprm[:, 0] = physics.kp
    model.actuator_biasprm[:, 1], model.actuator_biasprm[:, 2] = -physics.kp, -physics.kv
    dofs = [model.joint(name).dofadr[0] for name in NAMES]
    model.dof_frictionloss[dofs], model.dof_armature[dofs] = physics.joint_friction, physics.armature
    mujoco.mj_setConst(model, data)


_FRESH: list[mujoco.MjModel] = []


def build_once() -> mujoco.MjModel:
    if not _FRESH:
        _FRESH.append(build())
    return _FRESH[0]


def full(state: np.ndarray) -> np.ndarray:
    """MuJoCo's positions (9,): the T's free joint first."""
    return np.array([*state[2:4], 0.015, np.cos(state[4] / 2), 0, 0, np.sin(state[4] / 2), *state[:2]])


def flat(qpos: np.ndarray) -> np.ndarray:
    """The state (..., 5) of MuJoCo's positions (..., 9)."""
    yaw = 2 * np.arctan2(qpos[..., 6], qpos[..., 3])
    return np.stack([qpos[..., 7], qpos[..., 8], qpos[..., 0], qpos[..., 1], np.angle(np.exp(1j * yaw))], axis=-1)


@dataclass(frozen=True)
class Policy:
    """Pushes the T to the goal from behind, again and again; how well is known by construction."""

    speed: float = 0.15  # m/s while it pushes
    bias: float = 0.0  # m, it aims beside the middle
    noise: float = 0.0  # m, of what it sees of the T
    lag: int = 0  # control periods, of what it sees

    def run(self, world: World, seed: int) -> bool:
        """Return whether the T is where it should be at the end of the episode that ``seed`` names."""
        rng = np.random.default_rng(seed)
        world.put(start(rng))
        self._drive(world, rng, EPISODE_S, None)
        return bool(np.linalg.norm(world.state()[2:4] - GOAL) < CLOSE)

    def record(self, world: World, rng: np.random.Generator, seconds: float) -> tuple[np.ndarray, np.ndarray]:
        """Return measured states (T, 5) at 100 Hz, with noise, and the targets (K, 2) at 20 Hz; the goal moves."""
        world.put(start(rng))
        log: list[np.ndarray] = []
        targets = self._drive(world, rng, seconds, log)
        return np.array(log) + NOISE * rng.normal(size=(len(log), 5)), np.array(targets)

    def _drive(
        self, world: World, rng: np.random.Generator, seconds: float, log: list[np.ndarray] | None
    ) -> list[np.ndarray]:
        seen, targets, target, goal = [], [], world.state()[:2], GOAL
        for _ in range(round(seconds * CONTROL_HZ)):
            seen.append(world.state() + self.noise * np.array([0, 0, 1, 1, 0]) * rng.normal(size=5))
            if log is not None and np.linalg.norm(seen[-1][2:4] - goal) < CLOSE:
                goal = rng.uniform(-0.15, 0.15, 2)  # a recording goes on
            target = self._next(seen[max(0, len(seen) - 1 - self.lag)], target, goal)
            targets.append(target)
            world.go(target, log)
            if log is None and len(targets) > 20 and np.array_equal(targets[-20], target) and world.rests():
                break  # nothing will change any more
        return targets

    def _next(self, state: np.ndarray, target: np.ndarray, goal: np.ndarray) -> np.ndarray:
        here, block = state[:2], state[2:4]
        way = goal - block
        left = float(np.linalg.norm(way))
        if left < 0.6 * CLOSE:
            return here if left > 0.5 * CLOSE else target
        ahead = way / left
        side = np.array([-ahead[1], ahead[0]])
        along, across = float((here - block) @ ahead), float((here - block) @ side) - self.bias
        if along < -0.02 and abs(across) < 0.012 + 0.1 * abs(along):  # behind it: push
            move = ahead - side * np.clip(across / 0.03, -0.5, 0.5)
            target = target + move / np.linalg.norm(move) * min(self.speed, 0.04 + 3 * left) / CONTROL_HZ
            return here + (target - here) * min(1.0, 0.06 / max(float(np.linalg.norm(target - here)), 1e-9))
        return here + _around(here, block, block - ahead * ORBIT + side * self.bias) * LEAD


def _around(here: np.ndarray, block: np.ndarray, there: np.ndarray) -> np.ndarray:
    """The direction (2,), at most a unit long, that leads to a place without touching the T on the way."""
    offset, goal = here - block, there - block
    radius = np.linalg.norm(offset)
    turn = np.angle(np.exp(1j * (np.arctan2(goal[1], goal[0]) - np.arctan2(offset[1], offset[0]))))
    if abs(turn) < 0.15:
        move = (there - here) / LEAD
        return move / max(1.0, float(np.linalg.norm(move)))
    if radius < 0.8 * ORBIT:
        return offset / radius
    tangent = np.sign(turn) * np.array([-offset[1], offset[0]]) / radius
    move = tangent + offset / radius * np.clip((ORBIT - radius) / 0.02, -1, 1)
    return move / np.linalg.norm(move)


def start(rng: np.random.Generator) -> np.ndarray:
    """Where an episode begins: the T 8 to 16 cm from its goal, the pusher 15 cm from the T."""
    angle, yaw, where = rng.uniform(-np.pi, np.pi, 3)
    block = GOAL + rng.uniform(0.08, 0.16) * np.array([np.cos(angle), np.sin(angle)])
    return np.array([*(block + 0.15 * np.array([np.cos(where), np.sin(where)])), *block, yaw])


class Windows:
    """Half seconds of recordings, each simulated from its own measured start with any physics.

    Args:
        recordings: of `Policy.record`.
        touching: those in which the pusher may touch the T; else those in which it cannot, where the T says nothing.
    """

    def __init__(self, recordings: list[tuple[np.ndarray, np.ndarray]], *, touching: bool) -> None:
        self._touching = touching
        self._model = build()
        self._datas = [mujoco.MjData(self._model)]
        self._models: list[mujoco.MjModel] = []
        self._steps, samples = round(WINDOW_S / STEP_S), round(WINDOW_S / STEP_S) // LOG_STEPS
        self._motions, starts, measured = [], [], []
        for states, targets in recordings:
            times = np.arange(len(states)) * STEP_S * LOG_STEPS
            due = np.arange(len(targets)) / CONTROL_HZ
            for k in range(samples // 2, len(states) - samples - 6, samples):
                part = slice(k, k + samples + 1)
                if _touches(states[part]) != touching:
                    continue
                self._motions.append(Motion("window", times[part], states[part, :2], due, targets, held=states[0, :2]))
                starts.append(_smoothed(states, k))
                measured.append(states[k + 1 : k + samples + 1])
        self._starts, self._measured = np.array(starts), np.array(measured)
        self.blocks = np.repeat(np.arange(len(starts)), samples * (5 if touching else 2))

    def residuals(self, physics: list[Physics]) -> np.ndarray:
        """Return predicted - measured over noise (R, B), one column for each physics."""
        while len(self._models) < len(physics):
            self._models.append(copy.copy(self._model))
        for model, one in zip(self._models, physics, strict=False):
            alter(model, self._datas[0], one)
        count = len(self._motions)
        models = [model for model in self._models[: len(physics)] for _ in range(count)]
        control = np.concatenate(
            [[held_commands(motion, self._steps, STEP_S, one.delay) for motion in self._motions] for one in physics]
        )
        states, _ = mujoco.rollout.rollout(models, self._datas, np.tile(self._starts, (len(physics), 1)), control)
        predicted = flat(states[:, LOG_STEPS - 1 :: LOG_STEPS, 1:10]).reshape(len(physics), *self._measured.shape)
        gap = predicted - self._measured
        gap[..., 4] = np.angle(np.exp(1j * gap[..., 4]))
        scaled = (gap / NOISE)[..., : 5 if self._touching else 2]
        # Pseudo-Huber: a window in which a contact went another way shall not outweigh the others.
        tamed = np.sign(scaled) * CLIP * np.sqrt(2 * (np.sqrt(1 + (scaled / CLIP) ** 2) - 1))
        return tamed.reshape(len(physics), -1).T


def _touches(states: np.ndarray) -> bool:
    own = [place((s[:2] - s[2:4])[None], np.array([0, 0, -s[4]]))[0] for s in states]
    return bool(distance(np.array(own)).min() < RADIUS + 0.004)


SCALE = Unknown("scale", "", 1.0, 0.3, 3.0, 0.4, 3)  # of all the servo's forces: what only a load can show


def identify(
    recordings: list[tuple[np.ndarray, np.ndarray]], rng: np.random.Generator
) -> tuple[Physics, tuple[Fit, Fit]]:
    """Return the physics and how well it is known: the servo where nothing touches, then the T where it is pushed.

    One after the other, because a contact that begins a millimetre earlier goes elsewhere: all at once, least squares
    on the T stops in the first of many small valleys, far from the servo's true gains. For the same reason the T's
    parameters are searched without slopes; `fit` then says what they are worth, and what it does not believe is taken
    from the search all the same: the twin is to push as the world does, whatever the numbers are called.
    """
    free = Windows(recordings, touching=False)

    def alone(points: np.ndarray) -> np.ndarray:
        return free.residuals([replace(NOMINAL, **_named(SERVO, column)) for column in points.T])

    servo = fit(SERVO, alone, blocks=free.blocks, max_iters=8, step=1e-3)
    base = replace(NOMINAL, **_named(SERVO, servo.values))
    pushed, unknowns = Windows(recordings, touching=True), (*CONTACT, SCALE)

    def loaded(points: np.ndarray) -> np.ndarray:
        return pushed.residuals([_loaded(base, column) for column in points.T])

    best = searched(unknowns, loaded, rng)
    contact = fit(unknowns, loaded, blocks=pushed.blocks, max_iters=1, step=2e-2, start=best)
    return _loaded(base, best), (servo, contact)


def searched(
    unknowns: tuple[Unknown, ...], residuals: Residuals, rng: np.random.Generator, *, rounds: int = 7, draws: int = 32
) -> np.ndarray:
    """The values (P,) to which the cross-entropy method comes (Rubinstein 1999): it needs no slopes."""
    low, high = np.array([(unknown.low, unknown.high) for unknown in unknowns]).T
    mean = np.array([unknown.nominal for unknown in unknowns])
    spread = 0.7 * np.array([unknown.scale for unknown in unknowns])
    for _ in range(rounds):
        points = mean[:, None] + spread[:, None] * rng.normal(size=(len(mean), draws))
        points[:, 0] = mean
        points = np.clip(points, low[:, None], high[:, None])
        elite = points[:, np.argsort(np.square(residuals(points)).sum(axis=0))[: draws // 4]]
        mean, spread = elite.mean(axis=1), 0.8 * elite.std(axis=1) + 0.25 * spread
    return mean


def _named(unknowns: tuple[Unknown, ...], values: np.ndarray) -> dict[str, float]:
    return {unknown.name: float(value) for unknown, value in zip(unknowns, values, strict=True)}


def _loaded(base: Physics, values: np.ndarray) -> Physics:
    """Contact parameters, and the servo's forces and the pusher's inertia times a scale."""
    scale = float(values[-1])
    inertia = (PUSHER_KG + base.armature) * scale - PUSHER_KG
    return replace(
        base, **_named(CONTACT, values[:-1]), kp=base.kp * scale, kv=base.kv * scale,
        joint_friction=base.joint_friction * scale, armature=max(inertia, 0.0),
    )  # fmt: skip


def _smoothed(states: np.ndarray, k: int, half: int = 5) -> np.ndarray:
    """MuJoCo's state (1 + 9 + 8,) at sample k, from parabolas through the samples around it."""
    around = states[k - half : k + half + 1].copy()
    around[:, 4] = np.unwrap(around[:, 4])
    times = np.arange(-half, half + 1) * STEP_S * LOG_STEPS
    _, speed, place = np.polyfit(times, around, 2)
    velocity = [*speed[2:4], 0, 0, 0, speed[4], *speed[:2]]
    return np.array([0.0, *full(place), *velocity])

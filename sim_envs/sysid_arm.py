"""Identification of an arm's joints: friction, damping, armature, gains and delay from commands and measured angles."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mujoco
import mujoco.rollout
import numpy as np

from robopolicy.errors import ContractError
from sim_envs.arm import JOINTS, add_arm
from sim_envs.parameters import JointParameters, Parameters, apply, read_model
from sim_envs.sysid import Fit, Unknown, fit

SETTLE_S = 0.3  # from the start of a motion: not compared, what moved the arm before is not known
BLOCK_S = 0.5  # residuals this close hang together
MAX_DELAY_S = 0.15
USEFUL = 1.1  # by how much the held-out error has to fall at least
FINEST = 1e-6  # rad: an error smaller than this is none, as of a twin that recorded itself


@dataclass(frozen=True)
class Motion:
    """One recorded motion of an arm's J joints.

    Raises:
        ContractError: if lengths do not fit, a number is not finite or times do not rise.
    """

    name: str
    times_s: np.ndarray  # (T,) of the measured angles, rising
    q: np.ndarray  # (T, J) rad
    command_times_s: np.ndarray  # (K,) when each command was due, rising
    commands: np.ndarray  # (K, J) rad, joint targets, each in force until the next
    held: np.ndarray | None = None  # (J,) rad, the target in force before the first command; None is q[0]
    dq: np.ndarray | None = None  # (T, J) rad/s; None is at rest in the beginning

    def __post_init__(self) -> None:
        joints = self.q.shape[1] if self.q.ndim == 2 else 0
        fits = self.q.shape == (len(self.times_s), joints) and self.commands.shape == (
            len(self.command_times_s),
            joints,
        )
        if not fits or len(self.times_s) < 2 or len(self.command_times_s) == 0:
            raise ContractError(
                f"{self.name}: {len(self.times_s)} stamps, angles {self.q.shape}, {len(self.command_times_s)} due "
                f"times, commands {self.commands.shape}; want (T,), (T, J), (K,), (K, J)"
            )
        for what, times in (("measurements", self.times_s), ("commands", self.command_times_s)):
            if not (np.diff(times) > 0).all():
                raise ContractError(f"{self.name}: the stamps of its {what} do not rise")
        if not (np.isfinite(self.q).all() and np.isfinite(self.commands).all()):
            raise ContractError(f"{self.name}: an angle or a command is not finite")

    @property
    def duration_s(self) -> float:
        """From the first to the last measurement."""
        return float(self.times_s[-1] - self.times_s[0])


@dataclass(frozen=True)
class Identified:
    """An arm before and after."""

    nominal: Parameters
    parameters: Parameters
    fit: Fit
    before: np.ndarray  # (J,) rad, RMS error of each joint on held-out motions at the nominal parameters
    after: np.ndarray  # (J,) rad
    held_out: tuple[str, ...]  # the motions that neither fit nor choice has seen
    trace: Mapping[str, Any]  # of one of them: motion, joint, times_s (T,), errors nominal and identified (T,) rad

    @property
    def ratio(self) -> float:
        """By how much the held-out error fell."""
        return float(np.sqrt(np.mean(self.before**2)) / np.sqrt(np.mean(self.after**2)))

    @property
    def useful(self) -> bool:
        """Whether it explains what it was not fitted to, and there was something to explain."""
        return self.ratio >= USEFUL and float(np.sqrt(np.mean(self.before**2))) > FINEST


def arm_spec(*, stick: bool = False) -> mujoco.MjSpec:
    """Return the twin's arm alone, as the twin steps it: nothing to touch."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.option.timestep = 0.002
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    add_arm(spec, stick=stick)
    return spec


def identify(
    model: mujoco.MjModel,
    motions: Sequence[Motion],
    held_out: Sequence[Motion],
    *,
    joints: Sequence[str] = JOINTS,
    max_iters: int = 40,
    threads: int = 1,
    tick: Callable[[int, float], None] = lambda simulated, rms: None,
) -> Identified:
    """Identify the parameters of ``joints`` from ``motions`` and judge them on ``held_out`` ones.

    Every motion is simulated from its first measurement to its last by its own commands, never corrected.
    Contacts are left out: motions through the air are what to record.

    Args:
        model: of the arm, each joint driven by a position actuator; its values are the nominal ones.
        motions: recorded, with the same joints in the same order.
        held_out: recorded, others.
        joints: their names in the model.
        max_iters: of each of the two optimisations.
        threads: that simulate.
        tick: told how many arms were simulated, and the RMS error (rad) of the first of them, again and again.

    Raises:
        ContractError: if there is nothing to learn from or to judge on, or a motion has another number of joints.
        UnknownName: if the model has no such joint.
        MissingExtra: without what mujoco.sysid needs.
    """
    if not motions or not held_out:
        raise ContractError(f"{len(motions)} motions to identify from, {len(held_out)} held out; want one of each")
    nominal = read_model(model, joints)
    unknowns = arm_unknowns(nominal, model)
    rollouts = Rollouts(model, motions, joints, threads=threads)

    def residuals(points: np.ndarray) -> np.ndarray:
        gaps = rollouts.residuals([_parameters(nominal, column) for column in points.T])
        tick(points.shape[1], float(np.sqrt(np.mean(gaps[:, 0] ** 2))))
        return gaps

    found = fit(unknowns, residuals, blocks=rollouts.blocks, max_iters=max_iters)
    parameters = _parameters(nominal, found.values)
    judged = Rollouts(model, held_out, joints, threads=threads)
    before, after = judged.errors([nominal, parameters])
    shown, worst = held_out[0], int(np.argmax(before))
    gaps = judged.predict([nominal, parameters], shown)[:, :, worst] - shown.q[:, worst]
    trace = {"motion": shown.name, "joint": joints[worst], "times_s": shown.times_s, "nominal": gaps[0]}
    names = tuple(motion.name for motion in held_out)
    return Identified(nominal, parameters, found, before, after, names, {**trace, "identified": gaps[1]})


def arm_unknowns(nominal: Parameters, model: mujoco.MjModel) -> list[Unknown]:
    """Return the delay, then five unknowns a joint, in the order of `JointParameters`."""
    unknowns = [Unknown("delay", "s", nominal.delay_s, 0.0, MAX_DELAY_S, 0.02, keep=9)]
    for name, joint in nominal.joints.items():
        torque = float(model.actuator_forcerange[_servo(model, name), 1]) or joint.kp * 0.03
        inertia = 0.1 + joint.armature
        unknowns += [
            Unknown(f"{name} kp", "N m/rad", joint.kp, joint.kp / 5, joint.kp * 5, joint.kp / 2, keep=4),
            Unknown(f"{name} kv", "N m s/rad", joint.kv, joint.kv / 10, joint.kv * 5, joint.kv / 2, keep=3),
            Unknown(f"{name} damping", "N m s/rad", joint.damping, 0, joint.damping + joint.kv, joint.kv / 2, keep=0),
            Unknown(f"{name} armature", "kg m^2", joint.armature, 0, joint.armature + 2, inertia, keep=1),
            Unknown(f"{name} friction", "N m", joint.frictionloss, 0, torque / 5 + joint.frictionloss, torque / 20, 2),
        ]
    return unknowns


def _parameters(nominal: Parameters, values: np.ndarray) -> Parameters:
    rows = np.asarray(values[1:], float).reshape(-1, 5)
    joints = {
        name: JointParameters(*(max(float(value), 0.0) for value in row))
        for name, row in zip(nominal.joints, rows, strict=True)
    }
    return replace(nominal, joints=joints, delay_s=max(float(values[0]), 0.0))


class Rollouts:
    """Simulates motions with any parameters, many at once, and compares them with what was measured."""

    def __init__(
        self, model: mujoco.MjModel, motions: Sequence[Motion], joints: Sequence[str], *, threads: int = 1
    ) -> None:
        self._model = copy.copy(model)
        self._model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT.value
        self._motions = list(motions)
        for motion in self._motions:
            if motion.q.shape[1] != len(joints):
                raise ContractError(f"{motion.name} has {motion.q.shape[1]} joints; the model {len(joints)}: {joints}")
        self._qpos = np.array([self._model.joint(name).qposadr[0] for name in joints])
        self._dofs = np.array([self._model.joint(name).dofadr[0] for name in joints])
        self._servos = np.array([_servo(self._model, name) for name in joints])
        self._models = [copy.copy(self._model)]
        self._datas = [mujoco.MjData(self._model) for _ in range(max(threads, 1))]
        self._compared = [motion.times_s - motion.times_s[0] >= SETTLE_S for motion in self._motions]
        if not any(compared.any() for compared in self._compared):
            raise ContractError(f"no motion lasts longer than {SETTLE_S} s")

    @property
    def blocks(self) -> np.ndarray:
        """Which residuals hang together (R,): half seconds of a motion, all joints of it."""
        found, first = [], 0
        for motion, compared in zip(self._motions, self._compared, strict=True):
            block = ((motion.times_s - motion.times_s[0])[compared] / BLOCK_S).astype(int) + first
            found.append(np.repeat(block, motion.q.shape[1]))
            first = int(block.max(initial=first)) + 1
        return np.concatenate(found)

    def residuals(self, points: Sequence[Parameters]) -> np.ndarray:
        """Return predicted - measured angles (R, B) rad, one column a point."""
        return np.concatenate([gap.reshape(len(points), -1).T for gap in self._gaps(points)])

    def errors(self, points: Sequence[Parameters]) -> np.ndarray:
        """Return each joint's RMS error over all motions (B, J) rad, one row a point."""
        joined = np.concatenate(list(self._gaps(points)), axis=1)
        rms: np.ndarray = np.sqrt(np.mean(joined**2, axis=1))
        return rms

    def predict(self, points: Sequence[Parameters], motion: Motion) -> np.ndarray:
        """Return the simulated angles (B, T, J) rad at the motion's own stamps."""
        self._prepare(points)
        step_s = float(self._model.opt.timestep)
        steps = int(np.ceil(motion.duration_s / step_s)) + 1
        control = np.repeat(self._start(motion)[1][None], len(points), axis=0)[:, None].repeat(steps, axis=1)
        for b, point in enumerate(points):
            control[b][:, self._servos] = held_commands(motion, steps, step_s, point.delay_s)
        start = np.repeat(self._start(motion)[0][None], len(points), axis=0)
        states, _ = mujoco.rollout.rollout(self._models[: len(points)], self._datas, start, control)
        angles = np.concatenate([start[:, None], states], axis=1)[:, :, 1 + self._qpos]
        # A state that rollout returns is the one at the end of its step.
        return _at(motion.times_s - motion.times_s[0], step_s, angles)

    def _gaps(self, points: Sequence[Parameters]) -> list[np.ndarray]:
        return [
            (self.predict(points, motion) - motion.q)[:, compared]
            for motion, compared in zip(self._motions, self._compared, strict=True)
        ]

    def _prepare(self, points: Sequence[Parameters]) -> None:
        while len(self._models) < len(points):
            self._models.append(copy.copy(self._model))
        for model, point in zip(self._models, points, strict=False):
            apply(point, model)

    def _start(self, motion: Motion) -> tuple[np.ndarray, np.ndarray]:
        data = self._datas[0]
        mujoco.mj_resetData(self._model, data)
        data.qpos[self._qpos] = motion.q[0]
        if motion.dq is not None:
            data.qvel[self._dofs] = motion.dq[0]
        state = np.zeros(mujoco.mj_stateSize(self._model, mujoco.mjtState.mjSTATE_FULLPHYSICS.value))
        mujoco.mj_getState(self._model, data, state, mujoco.mjtState.mjSTATE_FULLPHYSICS.value)
        return state, data.ctrl.copy()


def held_commands(motion: Motion, steps: int, step_s: float, delay_s: float) -> np.ndarray:
    """Return the mean command of each simulation step (steps, J) rad, each command ``delay_s`` after it was due.

    A mean, because then the motion changes smoothly with a delay that is no whole number of steps.
    """
    first = motion.q[0] if motion.held is None else motion.held
    edges = motion.times_s[0] + step_s * np.arange(steps + 1) - delay_s
    times = np.concatenate([[min(edges[0], motion.command_times_s[0]) - 1.0], motion.command_times_s])
    values = np.concatenate([first[None], motion.commands])
    times = np.append(times, max(edges[-1], times[-1]) + 1.0)
    area = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values * np.diff(times)[:, None], axis=0)])
    at_edges = np.stack([np.interp(edges, times, column) for column in area.T], axis=1)
    means: np.ndarray = np.diff(at_edges, axis=0) / step_s
    return means


def _at(times_s: np.ndarray, step_s: float, angles: np.ndarray) -> np.ndarray:
    where = times_s / step_s
    before = np.clip(where.astype(int), 0, angles.shape[1] - 2)
    part = (where - before)[None, :, None]
    found: np.ndarray = angles[:, before] * (1 - part) + angles[:, before + 1] * part
    return found


def _servo(model: mujoco.MjModel, joint: str) -> int:
    drives = model.actuator_trnid[:, 0] == model.joint(joint).id
    return int(np.nonzero(drives & (model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT.value))[0][0])

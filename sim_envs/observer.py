"""An observer: keeps a MuJoCo world where the real one is, by encoders and by late, noisy, rare object poses."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import mujoco
import numpy as np

from robopolicy.errors import ContractError
from sim_envs.observer_filter import Belief, Noise
from sim_envs.observer_health import Health, Tally
from sim_envs.observer_history import History, multiply, quat_of, turn_between
from sim_envs.stability import blew_up, forget_warnings, rest
from sim_envs.tracked import PoseMeasurement, Tracked, find_tracked

Outcome = Literal["accepted", "rejected", "restarted", "late", "invalid", "repeated"]
STATE = mujoco.mjtState.mjSTATE_INTEGRATION
POSITION = Noise(measured=0.0015, drift=0.0005, share=0.10)  # m
TURN = Noise(measured=math.radians(1.5), drift=math.radians(0.5), share=0.10)  # rad
AHEAD_NS = 200_000_000  # beyond the present, by which a measurement's stamp is no stamp


@dataclass(frozen=True)
class ObserverSettings:
    """What is known of measurements and model."""

    position: Noise = POSITION
    turn: Noise = TURN
    gate: float = 4.0  # standard deviations beyond which a measurement is rejected
    restart_after: int = 5  # rejections in a row that agree with each other, after which they are believed
    hand_speed: float = 1.0  # m/s at which such rejected poses may still move
    rate_hz: float = 30.0  # measurements of each object a second
    joint_gate: float = 0.5  # rad or m by which a joint may be elsewhere at once; more is a glitch, unless it lasts
    speed_gate: float = 10.0  # rad/s or m/s, the same for a joint's speed
    silence_s: float = 1.0  # without a measurement after which the twin is called diverged
    penetration: float = 0.0002  # m that a correction may leave an object in another


class Observer:
    """Corrects a MuJoCo state that somebody else integrates.

    The owner of ``data`` steps the physics with the commands that the real robot gets, calls `note` after every few
    steps (50 Hz or more), and hands over what was measured whenever it comes. A measurement of time t is compared with
    what the twin believed of time t; the correction is applied to the present and re-based into everything since.

    Args:
        model: with any parameters.
        data: corrected in place; its kinematics are up to date after every call.
        objects: what is measured, each on a free joint.
        joints: names of the measured joints, hinges or slides.
        settings: see there.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        objects: Sequence[Tracked],
        joints: Sequence[str] = (),
        settings: ObserverSettings = ObserverSettings(),
    ) -> None:
        self._model, self._data, self.objects, self._settings = model, data, tuple(objects), settings
        for one in objects:
            if model.joint(one.name).type[0] != mujoco.mjtJoint.mjJNT_FREE.value:
                raise ContractError(f"{one.name} is no free joint; an object that is tracked moves freely")
        self._free = [(int(model.joint(o.name).qposadr[0]), int(model.joint(o.name).dofadr[0])) for o in objects]
        self._bodies = [int(model.joint(o.name).bodyid[0]) for o in objects]
        self._qpos = np.array([model.joint(name).qposadr[0] for name in joints], int)
        self._dofs = np.array([model.joint(name).dofadr[0] for name in joints], int)
        self._history = History(len(objects), len(self._qpos))
        self._good = np.zeros(mujoco.mj_stateSize(model, STATE))
        self.reset()

    def reset(self) -> None:
        """Start anew from the present state: nothing of it is believed yet."""
        settings = self._settings
        self._history.clear()
        self._beliefs = [(Belief(settings.position), Belief(settings.turn)) for _ in self.objects]
        self._tallies = [Tally(settings.rate_hz, settings.silence_s) for _ in self.objects]
        self._rejected: list[list[PoseMeasurement]] = [[] for _ in self.objects]
        self._seen_ns = [-1] * len(self.objects)
        self._jumps = 0
        forget_warnings(self._data)
        self._now_ns: int | None = None
        self.recoveries = 0
        mujoco.mj_getState(self._model, self._data, self._good, STATE)

    def note(self, now_ns: int) -> None:
        """Take the present state as that of ``now_ns``; one that is no state any more is put back to the last good."""
        self._recover()
        if self._now_ns is not None and now_ns <= self._now_ns:
            return
        dt_s = 0.0 if self._now_ns is None else (now_ns - self._now_ns) / 1e9
        self._now_ns = now_ns
        qpos, qvel = self._data.qpos, self._data.qvel
        for (_, dof), (position, turn) in zip(self._free, self._beliefs, strict=True):
            position.grow(dt_s, float(np.linalg.norm(qvel[dof : dof + 3])))
            turn.grow(dt_s, float(np.linalg.norm(qvel[dof + 3 : dof + 6])))
        positions = np.array([qpos[at : at + 3] for at, _ in self._free]).reshape(-1, 3)
        quats = np.array([qpos[at + 3 : at + 7] for at, _ in self._free]).reshape(-1, 4)
        self._history.add(now_ns, positions, quats, np.stack([qpos[self._qpos], qvel[self._dofs]]))

    def encoders(
        self, stamp_ns: int, q: np.ndarray, dq: np.ndarray | None = None, slack: np.ndarray | None = None
    ) -> bool:
        """Put the joints where they were measured; return whether they were taken.

        Args:
            stamp_ns: when.
            q: (J,) rad or m.
            dq: (J,); None leaves the speeds to the physics.
            slack: (J,) by how much each may differ, as fingers that hold something; None is nothing.
        """
        if self._now_ns is None:
            return False
        change = np.stack([q, q if dq is None else dq]).astype(np.float64) - self._history.joints_at(stamp_ns)
        if dq is None:
            change[1] = 0.0
        if not np.isfinite(change).all() or self._glitch(change):
            return False
        if slack is not None:
            change[0] = np.sign(change[0]) * np.maximum(np.abs(change[0]) - slack, 0.0)
            change[1] = np.where(slack > 0, 0.0, change[1])
        self._history.move_joints(stamp_ns, change)
        self._data.qpos[self._qpos] += change[0]
        self._data.qvel[self._dofs] += change[1]
        mujoco.mj_kinematics(self._model, self._data)
        return True

    def _glitch(self, change: np.ndarray) -> bool:
        """Whether joints jump as no joint does; what is told again and again is believed."""
        gates = np.array([[self._settings.joint_gate], [self._settings.speed_gate]])
        far = bool((np.abs(change) > gates).any())
        self._jumps = self._jumps + 1 if far else 0
        return 0 < self._jumps < self._settings.restart_after

    def joints_at(self, stamp_ns: int) -> np.ndarray:
        """Return where the joints were and how fast, (2, J), as of the newest `note` at most."""
        return self._history.joints_at(stamp_ns)

    def rejoin(self) -> None:
        """Take the joints from somebody who put them elsewhere: all moments that are kept have them there."""
        first, _ = self._history.span_ns
        present = np.stack([self._data.qpos[self._qpos], self._data.qvel[self._dofs]])
        self._history.put_joints(first, present)
        forget_warnings(self._data)

    def see(self, seen: PoseMeasurement) -> Outcome:
        """Correct an object by where it was measured; return what became of the measurement.

        Raises:
            UnknownName: naming the objects there are.
        """
        i = self.objects.index(find_tracked(self.objects, seen.name))
        first, last = self._history.span_ns
        ahead = self._now_ns is not None and seen.stamp_ns - last > AHEAD_NS
        bad = not np.isfinite([*seen.position, *seen.quat]).all() or abs(np.linalg.norm(seen.quat) - 1) > 0.1
        if bad or ahead:  # a stamp of the far future would make all that come after it old
            self._tallies[i].invalid += 1
            return "invalid"
        if seen.stamp_ns <= self._seen_ns[i]:
            return "repeated"
        if self._now_ns is None or seen.stamp_ns < first:
            return "late"
        self._seen_ns[i] = seen.stamp_ns
        seen = replace(seen, stamp_ns=min(seen.stamp_ns, last), planar=seen.planar or self.objects[i].planar)
        shift, turn = self._innovation(i, seen)
        position, rotation = self._beliefs[i]
        axes = (2, 1) if seen.planar else (3, 3)
        distance = max(position.distance(shift, axes[0]), rotation.distance(turn, axes[1]))
        if distance > self._settings.gate:
            self._tallies[i].take(seen.stamp_ns, distance, accepted=False)
            return self._doubt(i, seen, shift, turn)
        self._rejected[i].clear()
        self._tallies[i].take(seen.stamp_ns, distance, accepted=True)
        self._correct(i, seen.stamp_ns, position.gain(shift, axes[0]) * shift, rotation.gain(turn, axes[1]) * turn)
        return "accepted"

    def health(self) -> Mapping[str, Health]:
        """Return how each object stands, as of the last `note`."""
        now_ns = self._now_ns or 0
        return {one.name: tally.health(now_ns, self.recoveries)
                for one, tally in zip(self.objects, self._tallies, strict=True)}  # fmt: skip

    def estimate(self, name: str) -> PoseMeasurement:
        """Return where an object is believed to be now; UnknownName lists the objects."""
        i = self.objects.index(find_tracked(self.objects, name))
        at, _ = self._free[i]
        pose = self._data.qpos[at : at + 7].copy()
        return PoseMeasurement(name, self._now_ns or 0, pose[:3], pose[3:], self.objects[i].planar)

    def _innovation(self, i: int, seen: PoseMeasurement) -> tuple[np.ndarray, np.ndarray]:
        position, quat = self._history.pose_at(i, seen.stamp_ns)
        shift = seen.position - position
        if not seen.planar:
            return shift, turn_between(quat, seen.quat / np.linalg.norm(seen.quat))
        yaw = _yaw(seen.quat) - _yaw(quat)
        return np.array([*shift[:2], 0.0]), np.array([0.0, 0.0, (yaw + np.pi) % (2 * np.pi) - np.pi])

    def _correct(self, i: int, since_ns: int, shift: np.ndarray, turn: np.ndarray) -> None:
        (at, _), quat = self._free[i], quat_of(turn)
        pose = self._data.qpos[at : at + 7]
        before = pose[:3].copy()
        deepest = max(self._settings.penetration, self._depth(i))
        pose[:3] += shift
        pose[3:] = multiply(quat, pose[3:])
        pose[3:] /= np.linalg.norm(pose[3:])
        self._resolve(i, deepest)
        self._history.move(i, since_ns, pose[:3] - before, quat)

    def _doubt(self, i: int, seen: PoseMeasurement, shift: np.ndarray, turn: np.ndarray) -> Outcome:
        """Keep a rejected measurement; believe it once enough of them in a row tell the same."""
        doubts = self._rejected[i]
        if doubts:
            dt_s = (seen.stamp_ns - doubts[-1].stamp_ns) / 1e9
            near = self._settings.gate * 2 * self._settings.position.measured + self._settings.hand_speed * dt_s
            if np.linalg.norm(seen.position - doubts[-1].position) > near:
                doubts.clear()
        doubts.append(seen)
        if len(doubts) < self._settings.restart_after:
            return "rejected"
        doubts.clear()
        self._tallies[i].restart(seen.stamp_ns)
        for belief in self._beliefs[i]:
            belief.settle()
        _, dof = self._free[i]
        self._data.qvel[dof : dof + 6] = 0
        self._correct(i, seen.stamp_ns, shift, turn)
        return "restarted"

    def _depth(self, i: int) -> float:
        """How deep the object was in others before the correction, m; its contacts are of the last step."""
        return max((-float(c.dist) for c, _ in self._contacts(i)), default=0.0)

    def _resolve(self, i: int, deepest: float) -> None:
        """Move the object out of what a correction moved it into, along the normals."""
        model, data, (at, _) = self._model, self._data, self._free[i]
        axes = np.array([1.0, 1.0, 0.0]) if self.objects[i].planar else np.ones(3)
        for _ in range(3):
            mujoco.mj_kinematics(model, data)
            mujoco.mj_collision(model, data)
            out = [(deepest + float(c.dist), sign * np.array(c.frame[:3])) for c, sign in self._contacts(i)]
            depth, normal = min(out, default=(0.0, axes), key=lambda item: item[0])
            if depth >= 0:
                return
            data.qpos[at : at + 3] -= depth * axes * normal
        mujoco.mj_kinematics(model, data)

    def _contacts(self, i: int) -> list[tuple[mujoco.MjContact, float]]:
        """The object's contacts, and the sign that makes their normals point into it."""
        body, found = self._bodies[i], []
        for k in range(self._data.ncon):
            contact = self._data.contact[k]
            bodies = self._model.geom_bodyid[contact.geom[0]], self._model.geom_bodyid[contact.geom[1]]
            if body in bodies:
                found.append((contact, 1.0 if bodies[1] == body else -1.0))
        return found

    def _recover(self) -> None:
        """Put a state that blew up back to the last good one, at rest; the next measurements are taken as they are."""
        data = self._data
        if not blew_up(data):
            mujoco.mj_getState(self._model, data, self._good, STATE)
            return
        self.recoveries += 1
        mujoco.mj_setState(self._model, data, self._good, STATE)
        rest(self._model, data)
        for position, turn in self._beliefs:
            position.forget()
            turn.forget()


def _yaw(quat: np.ndarray) -> float:
    w, x, y, z = quat
    return float(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))

"""Perturbations between policy and robot: commands that come late or wrong, observations that do not come."""

from typing import Any

import numpy as np

from robopolicy.rotations import matrix_to_rot6d, rot6d_to_matrix, rotvec_to_matrix
from robopolicy.spec import ActionSpec
from robopolicy.types import Observation
from sim_envs.perturbation_axis import Axis, Effect, Start, is_twin

DELAY_S = 0.2
NOISE = {"m": 0.01, "rad": 0.03, "px": 20.0}  # standard deviation, by the unit of what is commanded
NOISE_RAD = np.radians(5)  # of a commanded rotation, about each axis
LOST = 0.7  # probability
STALE_S = 0.15  # what is lost is never older: at .2 s the safety layer stops the robot, as it would a real one


class Delayed(Effect):
    """Every command takes force later; in a world that goes by steps, the next whole number of them."""

    def __init__(self, start: Start) -> None:
        delay_ns, period_ns = round(DELAY_S * start.severity * 1e9), start.world.spec.period_ns
        self._delay_ns = delay_ns if is_twin(start.world) else -(-delay_ns // period_ns) * period_ns
        super().__init__(f"commands {self._delay_ns / 1e9:.3f} s late")

    def sent(self, action: np.ndarray, due_ns: int) -> tuple[np.ndarray, int]:
        """Return the command as it is, due later."""
        return action, due_ns + self._delay_ns


class Noisy(Effect):
    """Every command is off by something new; the grip is not."""

    def __init__(self, start: Start) -> None:
        spec: ActionSpec = start.world.spec.action
        self._rng, self._pose = start.rng, spec.kind == "tool_pose"
        self._turn = NOISE_RAD * start.severity
        self._sigma = np.array([_sigma(spec, i) for i in range(spec.dim)]) * start.severity
        told = sorted({f"{sigma:.3g} {unit}" for sigma, unit in zip(self._sigma, _units(spec), strict=True) if sigma})
        turned = f", {np.degrees(self._turn):.2g} deg" if self._pose else ""
        super().__init__(f"commands off by {', '.join(told)}{turned} (standard deviation)")

    def sent(self, action: np.ndarray, due_ns: int) -> tuple[np.ndarray, int]:
        """Return the command with noise."""
        off = self._rng.normal(size=len(self._sigma)) * self._sigma
        turn = self._rng.normal(size=3) * self._turn
        noisy = np.asarray(action, np.float64) + off
        if self._pose and np.isfinite(noisy).all():
            noisy[3:9] = matrix_to_rot6d(rotvec_to_matrix(turn) @ rot6d_to_matrix(noisy[3:9]))
        return noisy.astype(np.float32), due_ns


class Dropping(Effect):
    """Readings that never arrive: the last that did stands in, with its own stamp, as a driver's buffer keeps it.

    The state and each camera's picture are lost on their own, and a picture that was lost is when it is read once
    more. The first of an episode always arrive.
    """

    def __init__(self, start: Start) -> None:
        self._rng, self._chance = start.rng, LOST * start.severity
        self._state: tuple[int, dict[str, np.ndarray]] | None = None
        self._images: dict[str, tuple[int, np.ndarray]] = {}
        self._lost_ns: dict[str, int] = {}  # stamp of each camera's newest lost picture
        super().__init__(f"{100 * self._chance:.0f} % of states and pictures lost, none older than {STALE_S:g} s")

    def seen(self, observation: Observation) -> Observation:
        """Return the newest that arrived, fresh arrays."""
        now_ns = observation.stamp_ns
        lost = self._rng.random(1 + len(observation.images)) < self._chance
        if self._state is None or not lost[0] or _too_old(now_ns, self._state[0]):
            self._state = now_ns, {name: values.copy() for name, values in observation.state.items()}
        for (name, image), gone in zip(sorted(observation.images.items()), lost[1:], strict=True):
            taken_ns = observation.image_stamps_ns.get(name, now_ns)
            if gone:
                self._lost_ns[name] = taken_ns
            arrives = self._lost_ns.get(name) != taken_ns
            if name not in self._images or arrives or _too_old(now_ns, self._images[name][0]):
                self._images[name] = taken_ns, image.copy()
        stamp_ns, state = self._state
        return Observation(
            stamp_ns,
            {name: values.copy() for name, values in state.items()},
            {name: image.copy() for name, (_, image) in self._images.items()},
            {name: image_ns for name, (image_ns, _) in self._images.items()},
        )


def _too_old(now_ns: int, stamp_ns: int) -> bool:
    return now_ns - stamp_ns > STALE_S * 1e9


def _units(spec: ActionSpec) -> tuple[str, ...]:
    return spec.units if len(spec.units) == spec.dim else spec.units * spec.dim


def _sigma(spec: ActionSpec, i: int) -> float:
    """Return the noise of one number of an action; rotations, grips and what has no unit have none of this kind."""
    return NOISE.get(_units(spec)[i], 0.0)


def _lacks_nothing(world: Any) -> str:
    return ""


def _lacks_units(world: Any) -> str:
    spec = world.spec.action
    known = any(_sigma(spec, i) for i in range(spec.dim))
    return "" if known else f"no unit of its actions that says how much noise is much ({', '.join(spec.units)})"


AXES = {
    "action_delay": Axis("commands take force 0.2 s late, or the next whole number of steps", _lacks_nothing, Delayed),
    "action_noise": Axis(
        "each command is off by 1 cm and 5 deg, joints by 0.03 rad, px by 20 (standard deviation)", _lacks_units, Noisy
    ),
    "dropout": Axis(
        "70 % of states and pictures are lost; the last one stands in with its old stamp, 0.15 s at most",
        _lacks_nothing, Dropping,
    ),
}  # fmt: skip

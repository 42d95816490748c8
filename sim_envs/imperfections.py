"""What a real robot does to the policy's plans: delays, noise, lost pictures, another friction and mass."""

from collections import deque
from dataclasses import dataclass, fields
from typing import Any

import mujoco
import numpy as np

from robopolicy.errors import ContractError
from robopolicy.interfaces import Clock
from robopolicy.types import Observation

NOISY = {"q": "joint_noise_rad", "dq": "speed_noise_rad_s", "tool_pos": "position_noise_m"}


@dataclass(frozen=True)
class Imperfections:
    """How a simulated robot differs from the one that the policy side believes in; the defaults differ in nothing.

    Raises:
        ContractError: if a number is not finite, negative, or no probability.
    """

    command_latency_s: float = 0.0  # from a command's due time until the arm begins to follow it
    joint_noise_rad: float = 0.0  # standard deviation of every measured joint
    speed_noise_rad_s: float = 0.0
    position_noise_m: float = 0.0  # of the tool's and of every object's measured position
    camera_latency_s: float = 0.0  # from capture, which is the picture's stamp, until it is there
    camera_drop: float = 0.0  # probability that a picture never comes
    camera_stops_s: float | None = None  # after so long no picture comes any more
    friction: float = 1.0  # factor on every sliding friction
    mass: float = 1.0  # factor on mass and inertia of what is not the arm
    damping: float = 1.0  # factor on the damping of the arm's servos
    gain: float = 1.0  # factor on their stiffness

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            if not (np.isfinite(value) and value >= 0):
                raise ContractError(f"{field.name} is {value}; want a finite number from 0 on")
            if field.name in ("friction", "mass", "damping", "gain") and value == 0:
                raise ContractError(f"{field.name} is 0; want a factor above 0")
        if self.camera_drop > 1:
            raise ContractError(f"camera_drop is {self.camera_drop:g}; want a probability, 0 to 1")

    def alter(self, model: mujoco.MjModel) -> None:
        """Change the physics of a compiled twin; once, since the factors multiply."""
        model.geom_friction[:, 0] *= self.friction
        loose = [body for body in range(1, model.nbody) if _is_loose(model, body)]
        model.body_mass[loose] *= self.mass
        model.body_inertia[loose] *= self.mass
        model.actuator_gainprm[:, 0] *= self.gain
        model.actuator_biasprm[:, 1] *= self.gain
        model.actuator_biasprm[:, 2] *= self.damping


class Imperfect:
    """A simulated robot with imperfections: a `Robot` around another one.

    Args:
        robot: simulated, a `sim_envs.twin.Twin`; its model is altered.
        imperfections: what is not as it should be.
        clock: the robot's.
        rng: noise and lost pictures are drawn from it.
    """

    def __init__(self, robot: Any, imperfections: Imperfections, clock: Clock, rng: np.random.Generator) -> None:
        self.spec, self._robot, self._clock, self._rng = robot.spec, robot, clock, rng
        self._not = imperfections
        imperfections.alter(robot.model)
        self._start_ns = clock.now_ns()
        self._delay_ns = round(imperfections.camera_latency_s * 1e9)
        self._coming: deque[tuple[int, dict[str, np.ndarray]]] = deque()  # pictures on their way, with their stamp
        self._taken_ns = -1
        self._here: tuple[int, dict[str, np.ndarray]] | None = None

    def read(self) -> Observation:
        """Return what the sensors say: noisy numbers of now, pictures of a while ago with the stamps of then.

        A picture that is lost leaves the one before in place; before the first one came there are none at all.
        """
        seen = self._robot.read()
        state = {name: self._noisy(name, values) for name, values in seen.state.items()}
        self._take_pictures(seen)
        while self._coming and self._coming[0][0] + self._delay_ns <= seen.stamp_ns:
            self._here = self._coming.popleft()
        if self._here is None:
            return Observation(seen.stamp_ns, state)
        stamp_ns, images = self._here
        copies = {name: image.copy() for name, image in images.items()}
        return Observation(seen.stamp_ns, state, copies, dict.fromkeys(copies, stamp_ns))

    def command(self, action: np.ndarray, due_ns: int) -> np.ndarray:
        """Pass the set-point on, to be followed later; return what the robot returns and raise what it raises."""
        due_ns = max(due_ns, self._clock.now_ns()) + round(self._not.command_latency_s * 1e9)
        sent: np.ndarray = self._robot.command(action, due_ns)
        return sent

    def stop(self, reason: str = "") -> np.ndarray:
        """Hold; the arm's own stop has no latency."""
        held: np.ndarray = self._robot.stop(reason)
        return held

    def close(self) -> None:
        """Release the robot; idempotent."""
        self._robot.close()

    def __getattr__(self, name: str) -> Any:
        """Everything else is the robot's: reset, success, camera_calibration."""
        return getattr(self._robot, name)

    def _noisy(self, name: str, values: np.ndarray) -> np.ndarray:
        sigma = getattr(self._not, NOISY.get(name, "position_noise_m" if name.endswith("_pos") else ""), 0.0)
        if not sigma:
            return values
        return (values + self._rng.normal(0.0, sigma, values.shape)).astype(np.float32)

    def _take_pictures(self, seen: Observation) -> None:
        stamp_ns = max(seen.image_stamps_ns.values(), default=-1)
        if stamp_ns <= self._taken_ns:
            return
        self._taken_ns = stamp_ns
        stops_s = self._not.camera_stops_s
        stopped = stops_s is not None and (stamp_ns - self._start_ns) / 1e9 >= stops_s
        if not stopped and self._rng.random() >= self._not.camera_drop:
            self._coming.append((stamp_ns, dict(seen.images)))


def _is_loose(model: mujoco.MjModel, body: int) -> bool:
    """Whether a body stands on joints of a task's object: it is not of the arm, which is compensated for gravity."""
    return model.body_dofnum[model.body_rootid[body]] > 0 and model.body_gravcomp[body] == 0

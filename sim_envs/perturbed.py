"""A world with perturbations in force: the same `Robot` and `Environment`, other from its next reset on."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

from robopolicy.types import Observation
from sim_envs.perturbation_axis import Altered, Axis, Effect, Start, is_twin


class Perturbed:
    """Wraps a world; everything that is not here is the world's own.

    Each axis draws from a generator of its own, made of the episode's seed and the axis's name: adding one axis changes
    no draw of another. A reset puts everything back before anything is drawn. Nothing of it is told to the policy:
    `camera_calibration` tells of the cameras as they were calibrated, a command's answer of the command that was given.

    Args:
        world: any; its model is changed in place.
        active: axes by name, each with its severity, above 0.
        perturbations: all that was asked for, for whoever reports.
    """

    def __init__(self, world: Any, active: Mapping[str, tuple[Axis, float]], perturbations: Sequence[Any]) -> None:
        self.spec, self.instruction, self.max_steps = world.spec, world.instruction, world.max_steps
        self.perturbations = tuple(perturbations)
        self._world, self._active = world, dict(active)
        self._altered: Altered | None = None
        if is_twin(world):  # one ledger a world, however many wrap it in turn
            self._altered = world.altered = getattr(world, "altered", None) or Altered(world.model)
        self._effects: dict[str, Effect] = {}

    def reset(self, seed: int) -> None:
        """Put the world back to nominal, into the start that ``seed`` names, and perturb it."""
        self.restore()
        self._world.reset(seed)
        for name, (axis, severity) in self._active.items():
            rng = np.random.default_rng((seed, _number(name)))
            self._effects[name] = axis.begin(Start(self._world, severity, rng, self._altered))

    def restore(self) -> None:
        """Put the world's model back to nominal, bit for bit; what an episode did to its state, a reset undoes."""
        self._effects = {}
        if self._altered is None:
            return
        if self._altered.give_back():
            self._world.retexture()
        self._world.decorations = ()

    def describe(self) -> dict[str, str]:
        """Return what was drawn for this episode, in words, by axis."""
        return {name: effect.told for name, effect in self._effects.items()}

    def read(self) -> Observation:
        """Return what arrives of the world's observation."""
        observation: Observation = self._world.read()
        for effect in self._effects.values():
            observation = effect.seen(observation)
        return observation

    def command(self, action: np.ndarray, due_ns: int) -> np.ndarray:
        """Pass on what arrives of a command (A,); return it as it was given, but where the world allowed it not.

        Raises:
            UnsafeCommand: as the world does.
        """
        action = np.asarray(action, np.float32)
        arrives = action
        for effect in self._effects.values():
            arrives, due_ns = effect.sent(arrives, due_ns)
        sent: np.ndarray = self._world.command(arrives, due_ns)
        if arrives is action:
            return sent
        return np.where(sent == arrives, action, sent).astype(np.float32)

    def stop(self, reason: str = "") -> np.ndarray:
        """Hold; nothing comes between a robot and its stop."""
        held: np.ndarray = self._world.stop(reason)
        return held

    def close(self) -> None:
        """Close the world; idempotent."""
        self._world.close()

    def success(self) -> bool:
        """Whether the task is done, as of the newest read."""
        return bool(self._world.success())

    def score(self) -> float:
        """How far the episode came at its best, 0 to 1."""
        return float(self._world.score())

    def disturb(self, rng: np.random.Generator) -> str:
        """Disturb the world; return how, in words."""
        return str(self._world.disturb(rng))

    def picture(self) -> np.ndarray:
        """Return a view for people, (H, W, 3) uint8 RGB."""
        picture: np.ndarray = self._world.picture()
        return picture

    def camera_calibration(self) -> dict[str, dict[str, Any]]:
        """Return the calibration that the policy was told: of the cameras where they nominally are."""
        if self._altered is None:
            return dict(getattr(self._world, "camera_calibration", dict)())
        model, data = self._world.model, self._world.data
        moved = {name: getattr(model, name).copy() for name in ("cam_pos", "cam_quat")}
        try:
            for name in moved:
                getattr(model, name)[:] = self._altered.nominal(name)
            mujoco.mj_camlight(model, data)
            return dict(self._world.camera_calibration())
        finally:
            for name, values in moved.items():
                getattr(model, name)[:] = values
            mujoco.mj_camlight(model, data)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the world's: modes, failure, shapes, poses."""
        if name.startswith("__") or "_world" not in self.__dict__:  # as copy and pickle ask before there is one
            raise AttributeError(name)
        return getattr(self._world, name)


def _number(name: str) -> int:
    """Return the same number for a name in every process: Python's own hash differs."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")

"""What an axis of perturbation is: what it does to an episode's start, and what goes on while the episode runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from robopolicy.types import Observation

ARM = "base"  # root body of the arm
# What mj_setConst derives from masses and sizes.
DERIVED = (
    "body_subtreemass", "body_invweight0", "dof_M0", "dof_invweight0", "dof_length", "actuator_acc0", "cam_poscom0",
    "light_poscom0",
)  # fmt: skip


class Altered:
    """A compiled model whose arrays can be changed and given back, bit for bit."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._nominal: dict[str, np.ndarray] = {}

    def take(self, name: str) -> np.ndarray:
        """Return a live array of the model, such as ``"geom_friction"`` or ``"vis.headlight.ambient"``, to change."""
        array = self._array(name)
        self._nominal.setdefault(name, array.copy())
        return array

    def nominal(self, name: str) -> np.ndarray:
        """Return a copy of what the array holds when nothing is changed."""
        return self._nominal.get(name, self._array(name)).copy()

    def derive(self) -> None:
        """Recompute what MuJoCo derives from masses, inertias and sizes, as the compiler does."""
        for name in DERIVED:
            self.take(name)
        mujoco.mj_setConst(self._model, mujoco.MjData(self._model))

    def give_back(self) -> bool:
        """Put every taken array back; return whether textures were among them."""
        for name, values in self._nominal.items():
            self._array(name)[:] = values
        textured = "tex_data" in self._nominal
        self._nominal.clear()
        return textured

    def _array(self, name: str) -> np.ndarray:
        owner: Any = self._model
        for part in name.split("."):
            owner = getattr(owner, part)
        array: np.ndarray = owner
        return array


@dataclass(frozen=True)
class Start:
    """The start of an episode, for an axis to change."""

    world: Any  # already reset
    severity: float  # above 0, at most 1
    rng: np.random.Generator  # of this axis and this seed alone
    altered: Altered | None  # of the world's model; None if it shows none

    @property
    def model(self) -> mujoco.MjModel:
        """The twin's compiled model."""
        model: mujoco.MjModel = self.world.model
        return model

    @property
    def data(self) -> mujoco.MjData:
        """The twin's state."""
        data: mujoco.MjData = self.world.data
        return data

    def take(self, name: str) -> np.ndarray:
        """Return an array of the model to change; it is put back at the next reset."""
        assert self.altered is not None, "axes of a model are only asked of worlds that have one"
        return self.altered.take(name)

    def sign(self) -> float:
        """Draw -1 or 1."""
        return float(self.rng.choice([-1.0, 1.0]))


class Effect:
    """What an axis does to this episode, in words; and to what is seen and sent, if anything."""

    def __init__(self, told: str = "") -> None:
        self.told = told

    def seen(self, observation: Observation) -> Observation:
        """Return what arrives of an observation."""
        return observation

    def sent(self, action: np.ndarray, due_ns: int) -> tuple[np.ndarray, int]:
        """Return what arrives of a command (A,), and when it is due."""
        return action, due_ns


@dataclass(frozen=True)
class Axis:
    """One kind of perturbation."""

    most: str  # what severity 1 is, in units; the size follows the severity, the seed draws direction and sign
    lacks: Callable[[Any], str]  # what a world lacks that this needs; "" if it can be had there
    begin: Callable[[Start], Effect]


def is_twin(world: Any) -> bool:
    """Whether it is a world of the arm, with a model to change."""
    arm = getattr(world, "embodiment", "robot") == "robot"
    return arm and isinstance(getattr(world, "model", None), mujoco.MjModel) and hasattr(world, "call_at")


def free_bodies(model: mujoco.MjModel) -> list[int]:
    """Return the bodies on free joints: loose objects."""
    free = model.jnt_type == mujoco.mjtJoint.mjJNT_FREE.value
    return sorted(int(body) for body in model.jnt_bodyid[free])


def moving_bodies(model: mujoco.MjModel) -> list[int]:
    """Return the bodies that joints move and that are not of the arm: objects, drawers."""
    arm = model.body(ARM).id
    moving = (model.body_weldid > 0) & (model.body_rootid != arm) & (model.body_dofnum > 0)
    return [int(body) for body in np.flatnonzero(moving)]

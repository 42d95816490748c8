"""What touches what: held between the fingers, touched by the arm, resting on another, off the table."""

from collections.abc import Sequence

import mujoco
import numpy as np

from sim_envs.arm import FINGERS
from sim_envs.scene import TABLE_CENTRE, TABLE_HALF


class Contacts:
    """The contacts of a scene with the arm in it, asked by names of bodies; as of the newest physics step."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self._model, self._data, self._hand = model, data, data.body("hand")
        own = model.body_rootid[model.body("hand").id]  # of the arm, or of a hand that floats
        self._arm = model.body_rootid[model.geom_bodyid] == own
        self._of_body: dict[str, np.ndarray] = {}

    def touch(self, one: str, other: str) -> bool:
        """Whether the bodies of these names touch."""
        return bool(self._between((one,), (other,)).any())

    def held(self, body: str) -> bool:
        """Whether both fingers press on the body from their sides, not only with their tips."""
        opening = self._hand.xmat.reshape(3, 3)[:, 1]
        across = np.abs(self._data.contact.frame[:, :3] @ opening) > 0.5
        return all((across & self._between((finger,), (body,))).any() for finger in FINGERS)

    def by_arm(self, bodies: Sequence[str]) -> bool:
        """Whether any part of the arm, hand or fingers touches any of the bodies."""
        return bool(self._pairs(self._arm, self._geoms(bodies)).any())

    def force(self, one: str, other: str) -> float:
        """Return the sum of the normal forces between two bodies, N."""
        total, force = 0.0, np.zeros(6)
        for i in np.flatnonzero(self._between((one,), (other,))):
            mujoco.mj_contactForce(self._model, self._data, int(i), force)
            total += float(force[0])
        return total

    def _between(self, ones: Sequence[str], others: Sequence[str]) -> np.ndarray:
        """Return which contacts are between the two groups of bodies, (ncon,) bool."""
        return self._pairs(self._geoms(ones), self._geoms(others))

    def _pairs(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        pairs = self._data.contact.geom
        found: np.ndarray = (a[pairs[:, 0]] & b[pairs[:, 1]]) | (b[pairs[:, 0]] & a[pairs[:, 1]])
        return found

    def _geoms(self, bodies: Sequence[str]) -> np.ndarray:
        key = " ".join(bodies)
        if key not in self._of_body:
            ids = [self._model.body(name).id for name in bodies]
            self._of_body[key] = np.isin(self._model.geom_bodyid, ids)
        return self._of_body[key]


def is_off_table(position: np.ndarray) -> bool:
    """Whether the point (3,) m is beside the table or under its top."""
    x, y, z = position.tolist()
    beside = abs(x - TABLE_CENTRE[0]) > TABLE_HALF[0] or abs(y - TABLE_CENTRE[1]) > TABLE_HALF[1]
    return bool(beside or z < -0.005)

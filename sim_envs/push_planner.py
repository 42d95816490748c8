"""Which push next: quasi-static pushes of a flat thing, two of them looked ahead.

A pusher that sticks to the contact turns force into motion by the ellipsoidal limit surface: a force f at r from the
centroid moves the body with the twist (fx, fy, (r x f) / c^2). Lynch and Mason, Stable Pushing: Mechanics,
Controllability, and Planning, 1996; Howe and Cutkosky, 1996. A force that is constant in the body's frame gives a
constant twist, so the path of every push is an arc in closed form.
"""

from dataclasses import dataclass

import numpy as np

from sim_envs.arm import STICK_RADIUS, STICK_REACH
from sim_envs.planar import OUTLINE, PARTS, distance, place

SPACING = 0.007  # m, between contacts along the outline
MARGIN = 0.005  # m, kept from the corners
LEANS = np.radians([-10.0, 0.0, 10.0])  # of the force against the normal; friction holds up to 16.7
LENGTHS = np.array([0.002, 0.004, 0.007, 0.011, 0.016, 0.022, 0.03, 0.04, 0.05, 0.06])  # m, of the contact's path
NEAREST_X = 0.15  # m, of the stick: nearer to the arm's foot its elbow gets in the way
SHORTLIST = 40  # first pushes of which the second is looked for


@dataclass(frozen=True)
class Flat:
    """A flat thing that slides on the table, in the frame of its centroid."""

    outlines: tuple[np.ndarray, ...]  # (N, 2) m each, the thing to the left of the way along them: where it is pushed
    parts: tuple[np.ndarray, ...]  # (4, 2) m each, the rectangles along its axes that it is made of
    c: float  # m, torque over force at which it slides
    mean_square: float  # m^2, of its corners' distances from the centroid


TEE = Flat((OUTLINE,), PARTS, 0.048, float(np.mean(np.sum(OUTLINE**2, axis=1))))
"""The published T; its c is fitted to the twin, where it stands on its corners."""


@dataclass(frozen=True)
class Push:
    """One push in the frame of the thing."""

    contact: int  # which row of the planner's contacts
    point: np.ndarray  # (2,) m, the stick's centre while it touches
    inward: np.ndarray  # (2,), the unit normal into it
    along: np.ndarray  # (2,), the unit direction in which the contact moves
    length: float  # m, of the contact's path


def error(pose: np.ndarray, goal: np.ndarray, mean_square: float = TEE.mean_square) -> np.ndarray:
    """Return how far a thing is from the goal, (...,) m for poses (..., 3): a turn counts as its corners' way."""
    gap = pose[..., :2] - goal[:2]
    turn = 2 * (1 - np.cos(pose[..., 2] - goal[2]))
    root: np.ndarray = np.sqrt(np.sum(gap**2, axis=-1) + mean_square * turn)
    return root


class PushPlanner:
    """Finds the push that, followed by the best second one, leaves a thing nearest to its goal.

    Args:
        goal: (3,) m, m, rad; may be set anew at any time.
        flat: what is pushed, and along which outlines.
        switch_cost_m: error that a change of contact must save to be worth its way around.
    """

    def __init__(self, goal: np.ndarray, flat: Flat = TEE, switch_cost_m: float = 0.003) -> None:
        self.goal = goal
        self._flat = flat
        self._switch_cost_m = switch_cost_m
        touch, inward = _contacts(flat)
        lean = np.stack([np.cos(LEANS), np.sin(LEANS)], axis=1)  # (L, 2)
        across = np.stack([-inward[:, 1], inward[:, 0]], axis=1)
        force = lean[None, :, :1] * inward[:, None] + lean[None, :, 1:] * across[:, None]  # (K, L, 2)
        torque = touch[:, None, 0] * force[..., 1] - touch[:, None, 1] * force[..., 0]
        spin = torque / flat.c**2
        at_contact = np.stack([force[..., 0] - spin * touch[:, None, 1], force[..., 1] + spin * touch[:, None, 0]], -1)
        speed = np.linalg.norm(at_contact, axis=-1, keepdims=True)
        self.inward = inward  # (K, 2), unit normals into it
        self.points = touch - STICK_RADIUS * inward  # (K, 2) m, of the stick's centre while it touches
        self._along = at_contact / speed  # (K, L, 2)
        twist = np.concatenate([force, spin[..., None]], axis=-1) / speed  # (K, L, 3) a metre of the contact's path
        self.moves = _arcs(twist[:, :, None] * LENGTHS[None, None, :, None])  # (K, L, S, 3) poses in its frame

    def error(self, pose: np.ndarray) -> np.ndarray:
        """Return how far the thing at poses (..., 3) is from the goal, (...,) m."""
        return error(pose, self.goal, self._flat.mean_square)

    def plan(self, pose: np.ndarray, keep: np.ndarray, current: int | None = None) -> Push | None:
        """Return the push to do next from ``pose`` (3,), or None if none helps.

        Args:
            pose: of the thing, m, m, rad.
            keep: (K,) bool, contacts that may be used.
            current: the contact that the stick touches now, free of the cost of a switch.
        """
        first = _compose(pose, self.moves)  # (K, L, S, 3)
        cost = self.error(first)
        start = place(self.points, pose)  # (K, 2)
        away = np.linalg.norm(start, axis=1)
        usable = keep & (away > STICK_REACH[0]) & (away < STICK_REACH[1]) & (start[:, 0] > NEAREST_X)
        switch = np.full(len(self.points), self._switch_cost_m)
        if current is not None:
            switch[current] = 0.0
        cost = np.where(usable[:, None, None], cost, np.inf) + switch[:, None, None]
        best = np.argsort(cost, axis=None)[:SHORTLIST]
        second = _compose(first.reshape(-1, 3)[best][:, None], self.moves.reshape(1, -1, 3))  # (B, K L S, 3)
        contact = np.unravel_index(best, cost.shape)[0]
        after = self.error(second).min(axis=1) + self._switch_cost_m + switch[contact]
        after[~usable[contact]] = np.inf  # what cannot be done now opens no way either
        one, two = cost.ravel()[best[0]], after.min()
        if min(one, two) >= self.error(pose) + self._switch_cost_m:
            return None
        chosen = best[0] if one <= two else best[int(np.argmin(after))]
        k, lean, s = np.unravel_index(chosen, cost.shape)
        return Push(int(k), self.points[k], self.inward[k], self._along[k, lean], float(LENGTHS[s]))


def _contacts(flat: Flat) -> tuple[np.ndarray, np.ndarray]:
    """Return points (K, 2) m on the outlines where the stick fits, and the normals (K, 2) into the thing there."""
    points, normals = [], []
    sides = [pair for line in flat.outlines for pair in zip(line, np.roll(line, -1, axis=0), strict=True)]
    for a, b in sides:
        length = float(np.linalg.norm(b - a))
        along = (b - a) / length
        count = max(2, round((length - 2 * MARGIN) / SPACING) + 1)
        for t in np.linspace(MARGIN, length - MARGIN, count):
            points.append(a + t * along)
            normals.append([-along[1], along[0]])
    touch, inward = np.array(points), np.array(normals)
    fits = distance(touch - (STICK_RADIUS + 0.001) * inward, flat.parts) > STICK_RADIUS
    return touch[fits], inward[fits]


def _arcs(twist: np.ndarray) -> np.ndarray:
    """Return where constant twists (..., 3) for one unit of time lead, as poses (..., 3) in the starting frame."""
    x, y, w = np.moveaxis(twist, -1, 0)
    small = np.abs(w) < 1e-9
    safe = np.where(small, 1.0, w)
    s, c = np.where(small, 1.0, np.sin(w) / safe), np.where(small, 0.0, (1 - np.cos(w)) / safe)
    return np.stack([s * x - c * y, c * x + s * y, w], axis=-1)


def _compose(pose: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Return poses (..., 3) moved by poses (..., 3) given in their own frames."""
    c, s = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    x = pose[..., 0] + c * move[..., 0] - s * move[..., 1]
    y = pose[..., 1] + s * move[..., 0] + c * move[..., 1]
    return np.stack([x, y, pose[..., 2] + move[..., 2]], axis=-1)

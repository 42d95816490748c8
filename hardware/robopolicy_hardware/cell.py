"""The space an arm may be in: no link leaves it, and the arm can always brake before one would."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.spec import PolicySpec
from robopolicy_hardware.kinematics import Chain
from robopolicy_hardware.safety_limits import SafetyLimits, arm_joints

STRIDE = 0.1  # rad or m, of all joints together, between two places of a way that are looked at
SKIN_M = 0.0013  # kept from every wall: between two places a point 1 m away bulges by up to 1 m * STRIDE^2 / 8
HALVINGS = 6  # of the share of a step: to 1/64
TOUCHING = 1e-9  # m of a point, rad or m of a joint


class Links:
    """Keeps the links of an arm inside the workspace and over the table, by slowing the whole step.

    A velocity is allowed if the arm could stop from it on a straight line of its joints, as fast as the accelerations
    allow, with every link still inside: then braking stays allowed at every later tick.

    Args:
        chain: of the arm.
        limits: with a workspace, a table or both.
        spec: of the robot; joint actions.

    Raises:
        ContractError: if a link is outside wherever the joints are.
    """

    def __init__(self, chain: Chain, limits: SafetyLimits, spec: PolicySpec) -> None:
        names = spec.action.names
        self._columns = np.array([names.index(name) for name in chain.joints])
        self._accel = None if limits.max_accel is None else np.array(limits.max_accel)[self._columns]
        box = None
        if limits.low is not None and limits.high is not None:
            sides = np.array(limits.low) + limits.margin, np.array(limits.high) - limits.margin
            box = sides[0][self._columns], sides[1][self._columns]
        chain = chain if limits.links is None else chain.only(limits.links)
        self._cell = Cell(chain, limits.workspace_low, limits.workspace_high, limits.table_m, box)

    def slowed(self, start: np.ndarray, wanted: np.ndarray, before: np.ndarray, dt_s: float) -> np.ndarray:
        """Return the velocity (A,) nearest to ``wanted`` on the way from braking to it that keeps the links inside.

        Args:
            start: (A,) the command before.
            wanted: (A,) velocity.
            before: (A,) velocity of the command before.
            dt_s: until the next command.
        """
        goal = wanted[self._columns]
        least = before[self._columns] * self._braked(before[self._columns], dt_s)

        def way(share: float) -> np.ndarray:
            velocity = least + share * (goal - least)
            return velocity * (dt_s + self._stopping_s(velocity) / 2)

        share = self._cell.share(start[self._columns], way)
        if share == 1.0:
            return wanted
        slowed = wanted.copy()
        slowed[self._columns] = least + share * (goal - least)
        return slowed

    def _stopping_s(self, velocity: np.ndarray) -> float:
        return 0.0 if self._accel is None else float(np.max(np.abs(velocity) / self._accel))

    def _braked(self, velocity: np.ndarray, dt_s: float) -> float:
        """What is left of a velocity after braking for ``dt_s``."""
        stopping_s = self._stopping_s(velocity)
        return 0.0 if stopping_s <= dt_s else 1.0 - dt_s / stopping_s


class Cell:
    """The space that the points of a chain may be in, and whether a motion stays there.

    Args:
        chain: of the arm.
        low: (3,) m, corner of the box in the base's frame; None is no wall.
        high: (3,) m.
        table_m: height of a plane that nothing goes below; None is none.
        box: ((J,), (J,)) lowest and highest joint positions of a path; None does not limit.

    Raises:
        ContractError: if a link is outside wherever the joints are: no motion would be allowed.
    """

    def __init__(
        self,
        chain: Chain,
        low: tuple[float, ...] | None,
        high: tuple[float, ...] | None,
        table_m: float | None,
        box: tuple[np.ndarray, np.ndarray] | None,
    ) -> None:
        self.chain = chain
        floor = np.array(low if low is not None else (-np.inf,) * 3, np.float64)
        if table_m is not None:
            floor[2] = max(floor[2], table_m)
        ball = chain.radii[:, None] + SKIN_M
        self._low = floor + ball  # (P, 3)
        self._high = np.array(high if high is not None else (np.inf,) * 3) - ball
        free = np.full(len(chain.joints), np.inf)
        self._box = (-free, free) if box is None else box
        self._require_possible()

    def outside(self, q: np.ndarray) -> np.ndarray:
        """Return how far each ball sticks out of each wall, m: (P, 6) of (J,), (K, P, 6) of (K, J); 0 inside."""
        points = self.chain.forward(q)
        out: np.ndarray = np.concatenate([self._low - points, points - self._high], axis=-1)
        return np.maximum(out, 0.0)

    def share(self, start: np.ndarray, way: Callable[[float], np.ndarray]) -> float:
        """Return the largest share f in [0, 1] for which the straight way (J,) = ``way(f)`` from ``start`` stays in.

        A way that begins outside may not lead farther out through the same wall. What is looked at are places at most
        `STRIDE` apart; share 0 is taken without a look.
        """
        if self._stays(start, way(1.0), 0.0):
            return 1.0
        before = self.outside(start)
        if np.any(before > 0) and self._stays(start, way(1.0), before):
            return 1.0
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._stays(start, way(middle), before) else (low, middle)
        return low

    def _stays(self, start: np.ndarray, way: np.ndarray, before: np.ndarray | float) -> bool:
        end = start + way
        low, high = (np.minimum(self._box[0], start), np.maximum(self._box[1], start))
        if (end < low - TOUCHING).any() or (end > high + TOUCHING).any():
            return False
        places = max(1, int(np.ceil(np.abs(way).sum() / STRIDE)))
        path = start + np.arange(1, places + 1)[:, None] / places * way
        return bool((self.outside(path) <= before + TOUCHING).all())

    def _require_possible(self) -> None:
        low = np.clip(self.chain.low, -np.pi, np.pi)
        high = np.clip(self.chain.high, -np.pi, np.pi)
        q = np.random.default_rng(0).uniform(np.minimum(low, high), high, (512, len(low)))
        always = np.all(np.any(self.outside(q) > 0, axis=2), axis=0)  # (P,)
        if np.any(always):
            link = self.chain.links[int(np.argmax(always))]
            raise ContractError(
                f"safety: {link!r} is outside the workspace wherever the joints are; make it larger, or name the links "
                "that are to stay inside: links: [...]"
            )


def with_chain(limits: SafetyLimits, spec: PolicySpec, chain: Chain | None) -> SafetyLimits:
    """Return the limits, their box that of the model where they have none of their own.

    Raises:
        ContractError: if limits of the links come without a chain, the chain has other joints than the action, or the
            box is wider than the model's.
    """
    if chain is None:
        if limits.of_links:
            raise ContractError(
                "safety: a workspace or a table wants to know where the links are: name an MJCF, mjcf: FILE"
            )
        return limits
    wanted = arm_joints(spec)
    if sorted(chain.joints) != sorted(wanted):
        raise ContractError(f"safety: the robot commands joints {list(wanted)}, the MJCF moves {list(chain.joints)}")
    low, high = _ranges(spec, chain)
    if limits.low is None or limits.high is None:
        if not (np.all(np.isfinite(low)) and np.all(np.isfinite(high))):
            return limits
        return replace(limits, low=tuple(low.tolist()), high=tuple(high.tolist()))
    for i in (spec.action.names.index(name) for name in chain.joints):
        name = spec.action.names[i]
        if limits.low[i] < low[i] - 1e-6:
            raise ContractError(
                f"safety: low of {name} is {limits.low[i]:g}; its range in the MJCF begins at {low[i]:g}"
            )
        if limits.high[i] > high[i] + 1e-6:
            raise ContractError(
                f"safety: high of {name} is {limits.high[i]:g}; its range in the MJCF ends at {high[i]:g}"
            )
    return limits


def _ranges(spec: PolicySpec, chain: Chain) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest of each element (A,): the model's of a joint, 0 and 1 of a gripper."""
    low, high = np.zeros(spec.action.dim), np.ones(spec.action.dim)
    for name, a, b in zip(chain.joints, chain.low, chain.high, strict=True):
        i = spec.action.names.index(name)
        low[i], high[i] = a, b
    return low, high

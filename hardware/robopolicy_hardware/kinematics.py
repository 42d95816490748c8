"""Where the links of an arm are: forward kinematics as plain arrays."""

from dataclasses import dataclass, replace

import numpy as np

from robopolicy.errors import ContractError


@dataclass(frozen=True)
class Chain:
    """J joints that a command moves, and P points on the links behind them, all at the reference position.

    Screw axes in the frame of the base (Lynch and Park, Modern Robotics, 2017, section 4.1, product of exponentials).
    `sim_envs.chains.read_chain` reads one from an MJCF.

    Raises:
        ContractError: if lengths differ or a joint comes before the one that carries it.
    """

    joints: tuple[str, ...]
    axes: np.ndarray  # (J, 3) unit, of turning or sliding
    anchors: np.ndarray  # (J, 3) m, a point on each axis
    slides: np.ndarray  # (J,) bool: it slides, m; others turn, rad
    parents: np.ndarray  # (J,) int, the joint that carries it, -1 is the base
    reference: np.ndarray  # (J,) where the arm stands while axes and points are as said here
    low: np.ndarray  # (J,) range of the model, minus infinity without one
    high: np.ndarray  # (J,)
    points: np.ndarray  # (P, 3) m
    radii: np.ndarray  # (P,) m of the ball about each
    movers: np.ndarray  # (P,) int, the last joint that moves it
    links: tuple[str, ...]  # (P,) name of the body it is on

    def __post_init__(self) -> None:
        count, points = len(self.joints), len(self.points)
        wrong = [
            name for name in ("axes", "anchors", "slides", "parents", "reference", "low", "high")
            if len(getattr(self, name)) != count
        ] + [name for name in ("radii", "movers", "links") if len(getattr(self, name)) != points]  # fmt: skip
        if wrong:
            raise ContractError(f"chain of {count} joints and {points} points: {wrong[0]} has another length")
        if np.any(self.parents >= np.arange(count)):
            raise ContractError("chain: a joint comes before the one that carries it")
        cross = np.zeros((count, 3, 3))
        x, y, z = np.asarray(self.axes, np.float64).T
        cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -z, y, -x
        turns = (~np.asarray(self.slides, bool))[:, None, None]
        cross = (cross - cross.transpose(0, 2, 1)) * turns
        object.__setattr__(self, "_cross", cross)
        object.__setattr__(self, "_square", cross @ cross)

    def forward(self, q: np.ndarray) -> np.ndarray:
        """Return where the points are, (P, 3) m in the base's frame, of joint positions (J,); (K, P, 3) of (K, J)."""
        angle = np.atleast_2d(np.asarray(q, np.float64)) - self.reference  # (K, J)
        sine, versine = np.sin(angle)[..., None, None], (1 - np.cos(angle))[..., None, None]
        local = np.zeros((*angle.shape, 4, 4))
        rotation = np.eye(3) + sine * self._cross + versine * self._square  # type: ignore[attr-defined]
        local[..., :3, :3], local[..., 3, 3] = rotation, 1.0
        slid = (angle * self.slides)[..., None] * self.axes
        local[..., :3, 3] = self.anchors - (rotation @ self.anchors[..., None])[..., 0] + slid
        for j, parent in enumerate(self.parents.tolist()):
            if parent >= 0:
                local[:, j] = local[:, parent] @ local[:, j]
        poses = local[:, self.movers]  # (K, P, 4, 4)
        placed = (poses[..., :3, :3] @ self.points[..., None])[..., 0] + poses[..., :3, 3]
        return placed if np.ndim(q) == 2 else placed[0]

    def only(self, links: tuple[str, ...]) -> "Chain":
        """Return the chain with the points on ``links`` alone; ContractError if there is none on one of them."""
        for link in links:
            if link not in self.links:
                valid = ", ".join(dict.fromkeys(self.links))
                raise ContractError(f"links: nothing moves or nothing is solid on {link!r}; valid: {valid}")
        kept = np.array([link in links for link in self.links])
        names = tuple(link for link in self.links if link in links)
        return replace(self, points=self.points[kept], radii=self.radii[kept], movers=self.movers[kept], links=names)

"""What every score of the embedding does first: drop what never moves, give the rest one scale, thin in time."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robopolicy.errors import ContractError

DEAD = 1e-6  # a standard deviation below it is that of an element that never moved
FLOOR = 0.05  # no scale is smaller than this share of the median one, or a nearly constant element outweighs the rest


@dataclass(frozen=True)
class Standard:
    """Which elements of an embedding (E,) count, and in what units: D of them, D <= E."""

    mean: np.ndarray  # (D,)
    scale: np.ndarray  # (D,), positive
    alive: np.ndarray  # (E,) bool

    @classmethod
    def of(cls, x: np.ndarray, rows: np.ndarray | None = None) -> "Standard":
        """Learn from embeddings x (M, E).

        Args:
            x: what the scales come from.
            rows: indices of those that the mean comes from; None takes all.

        Raises:
            ContractError: if no element ever changes.
        """
        std = x.std(axis=0)
        alive = std > DEAD
        if not alive.any():
            raise ContractError(f"the {x.shape[1]} elements of the embedding never change over {len(x)} decisions")
        scale = np.maximum(std[alive], FLOOR * np.median(std[alive]))
        mean: np.ndarray = (x if rows is None else x[rows])[:, alive].mean(axis=0)
        return cls(mean, scale, alive)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return embeddings x (M, E) standardised, (M, D) float64 in C order."""
        kept = x[:, self.alive].astype(np.float64)
        standard: np.ndarray = np.ascontiguousarray((kept - self.mean) / self.scale)
        return standard

    def arrays(self) -> dict[str, np.ndarray]:
        """Return mean, scale and alive."""
        return {"mean": self.mean, "scale": self.scale, "alive": self.alive}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Standard":
        """Rebuild what ``arrays`` gave."""
        return cls(arrays["mean"], arrays["scale"], arrays["alive"])


def thinned(n: int, max_points: int) -> np.ndarray:
    """Return at most ``max_points`` of the indices 0 to n - 1, evenly spread: every episode keeps its share."""
    if n <= max_points:
        return np.arange(n)
    rows: np.ndarray = np.linspace(0, n - 1, max_points).round().astype(int)
    return rows


def squared_distances(a: np.ndarray, b: np.ndarray, squares_of_b: np.ndarray | None = None) -> np.ndarray:
    """Return |a_i - b_j|^2 (A, B) of rows a (A, D) and b (B, D).

    Args:
        a: many or one.
        b: many.
        squares_of_b: (B,) |b_j|^2 where they are known; they cost as much as the product.
    """
    if squares_of_b is None:
        squares_of_b = (b**2).sum(axis=1)
    squares: np.ndarray = (a**2).sum(axis=1)[:, None] + squares_of_b[None, :] - 2.0 * a @ b.T
    squares[squares < 0] = 0.0  # rounding
    return squares

"""What a policy says of the rows of its own plan, as one number a decision."""

from collections.abc import Mapping
from typing import Self

import numpy as np

from robopolicy.errors import ContractError, MonitorError
from robopolicy.monitor.episodes import Episodes, score_episode
from robopolicy.monitor.layout import ActionLayout
from robopolicy.types import Decision

FLOOR = 1e-3  # of the fit's median, added before the logarithm: a row that was given and not planned has no variance


class Told:
    """The mean, over the rows to be executed, of one entry of ``Plan.aux``: (H,), or one number for all of them.

    Such numbers span powers of ten within an episode, so it is the logarithm that is scored, over a floor of a
    thousandth of the fit's median.

    Attributes:
        source: the entry.
        lacking: how a policy comes to have it, for messages.
        most: what counts in the place of infinity; infinity where that is a fault.

    Args:
        layout: of no use.
        seed: nothing is drawn.
        log: whether to take the logarithm.
    """

    name = ""
    source = ""
    lacking = ""
    requires: frozenset[str] = frozenset()
    min_candidates = 1
    most = np.inf  # what counts for a row that was told to be infinite

    def __init__(self, *, layout: ActionLayout | None = None, seed: int = 0, log: bool = True) -> None:
        self._log = log
        self._floor = np.nan

    def fit(self, episodes: Episodes) -> None:
        """Learn how large the numbers are.

        Raises:
            MonitorError: if a decision has none.
            ContractError: if they are not finite, negative, or always the same.
        """
        values = np.array([self._mean(decision) for episode in episodes for decision in episode])
        if not np.isfinite(values).all() or (values < 0).any():
            raise ContractError(f"{self.source} is not finite, or negative; the monitor cannot learn from it")
        if not values.size or np.ptp(values) == 0:
            raise ContractError(f"{self.source} never changes: {self.lacking}")
        self._floor = FLOOR * float(np.median(values[values > 0]))

    def update(self, decision: Decision) -> float:
        """Return the score; raises MonitorError if the policy did not say."""
        if np.isnan(self._floor):
            raise ContractError(f"{self.name} was never fitted")
        mean = self._mean(decision)
        if not self._log or not mean >= 0:
            return mean if mean >= 0 else np.nan
        return float(np.log(mean + self._floor))

    def reset(self) -> None:
        """Nothing is carried from one decision to the next."""

    def held_out(self, episodes: Episodes) -> list[np.ndarray]:
        """Return each episode's scores (T_i,); one floor is too little to have learnt an episode by."""
        return [score_episode(self, episode) for episode in episodes]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the floor and whether logarithms are taken."""
        return {"settings": np.array([self._floor, self._log], np.float64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Rebuild what ``arrays`` gave."""
        floor, log = arrays["settings"]
        score = cls(log=bool(log))
        score._floor = float(floor)
        return score

    def _mean(self, decision: Decision) -> float:
        if self.source not in decision.aux:
            has = ", ".join(sorted(decision.aux)) or "nothing"
            raise MonitorError(
                f"score {self.name} needs the policy to give aux {self.source!r}; it gives {has}: {self.lacking}"
            )
        values = np.asarray(decision.aux[self.source], np.float64)
        values = np.where(np.isposinf(values), self.most, values)
        return float(values if values.ndim == 0 else values[: decision.n_execute].mean())

"""The chunk player: which row of which chunk is due now."""

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.spec import PolicySpec
from robopolicy.types import ActionChunk


class ChunkPlayer:
    """Plays one chunk by its stamps; a newer chunk replaces it; past the last row it holds, never extrapolates.

    Args:
        period_ns: step between rows, for padding in ``remaining``.
    """

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._chunk: ActionChunk | None = None

    @property
    def started(self) -> bool:
        """Whether there is a chunk to play."""
        return self._chunk is not None

    def put(self, chunk: ActionChunk) -> None:
        """Play ``chunk`` from now on.

        Raises:
            ContractError: if it is empty, or answers an older observation than the running one.
        """
        if len(chunk.stamps_ns) == 0:
            raise ContractError("chunk: no rows; want at least one")
        if self._chunk is not None and chunk.made_ns < self._chunk.made_ns:
            raise ContractError(f"chunk made at {chunk.made_ns} ns is older than the running {self._chunk.made_ns} ns")
        self._chunk = chunk

    def at(self, now_ns: int) -> np.ndarray:
        """Return a copy of the row (A,) in force at ``now_ns``: the last one due, or the first before its time.

        Raises:
            ContractError: if there is no chunk yet.
        """
        if self._chunk is None:
            raise ContractError("no chunk to play; call put first")
        row = int(np.searchsorted(self._chunk.stamps_ns, now_ns, side="right")) - 1
        values: np.ndarray = self._chunk.values[max(row, 0)].copy()
        return values

    def remaining(self, now_ns: int, horizon: int) -> np.ndarray | None:
        """Return what is left of the running chunk, row 0 due at ``now_ns``, the last row repeated to (horizon, A)."""
        if self._chunk is None:
            return None
        due_ns = now_ns + self._period_ns * np.arange(horizon, dtype=np.int64)
        rows = np.searchsorted(self._chunk.stamps_ns, due_ns, side="right") - 1
        values: np.ndarray = self._chunk.values[np.maximum(rows, 0)]
        return values


def rows_after(before_ns: int | None, stamp_ns: int, spec: PolicySpec) -> int:
    """Return by how many rows a plan of ``stamp_ns`` begins after the one of ``before_ns``; 0 if there is none.

    Both in the agent's own time, which goes slowly where the robot does.
    """
    return 0 if before_ns is None else max(spec.n_execute, round((stamp_ns - before_ns) / spec.period_ns))

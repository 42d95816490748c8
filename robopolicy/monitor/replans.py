"""What two successive plans of an episode both speak of, and by what measure their rows are compared."""

from collections.abc import Sequence

import numpy as np

from robopolicy.errors import ContractError, MonitorError
from robopolicy.monitor.episodes import Episodes
from robopolicy.types import Decision


def rows_between(previous: Decision, decision: Decision, dt_s: float | None) -> int:
    """Return by how many rows the later chunks begin after the earlier ones.

    That is what was executed in between: the earlier decision's ``n_execute``, or more where the plan came late. The
    agent knows best: slow, fewer rows pass than time; and a plan made anew, after a person drove, goes on from none.

    Args:
        previous: the decision before.
        decision: of the same episode.
        dt_s: seconds between two rows of a chunk, for decisions that do not say; None takes ``n_execute``, however
            much time passed.
    """
    if decision.after is not None:
        return decision.after or len(previous.chunks[0])
    if dt_s is None:
        return previous.n_execute
    return max(previous.n_execute, round((decision.stamp_ns - previous.stamp_ns) / (dt_s * 1e9)))


def overlap(previous: Decision, decision: Decision, dt_s: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that the chunks (N, H, A) of both decisions have for the same times: (N, R, A) each, R >= 0."""
    shift = rows_between(previous, decision, dt_s)
    earlier = previous.chunks[:, shift:]
    return earlier, decision.chunks[:, : earlier.shape[1]]


def element_weights(episodes: Episodes, left_out: Sequence[int] = ()) -> np.ndarray:
    """Return one over the spread (A,) float64 of each action element over the rows of all executed candidates.

    An element that never moved cannot disagree and weighs 0, as do those ``left_out``.

    Raises:
        ContractError: if no element moves, or a chunk is not finite.
    """
    rows = np.concatenate([decision.chunks[0] for episode in episodes for decision in episode])
    if not np.isfinite(rows).all():
        raise ContractError("a chunk is not finite; the monitor cannot learn from it")
    std = rows.std(axis=0, dtype=np.float64)
    moves = std > 1e-6
    moves[list(left_out)] = False
    if not moves.any():
        raise ContractError("the actions never change; there is no spread to compare chunks by")
    return np.where(moves, 1 / np.where(moves, std, 1.0), 0.0)


def require_candidates(name: str, episodes: Episodes, least: int) -> None:
    """Refuse what a score that compares candidates cannot learn from.

    Raises:
        MonitorError: if there are no decisions, or one of them has fewer candidates than ``least``.
    """
    counts = {len(decision.chunks) for episode in episodes for decision in episode}
    if not counts or not all(len(episode) for episode in episodes):
        raise MonitorError(f"score {name}: an episode has no decisions; there is nothing to learn from")
    if min(counts) < least:
        raise MonitorError(
            f"score {name} compares {least} or more candidates a decision; these have {min(counts)}: "
            "have the policy draw more (--candidates 16)"
        )

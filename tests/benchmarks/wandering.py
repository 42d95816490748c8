"""Demonstrations with segments that do not belong to the task, and how well marks find them."""

from dataclasses import dataclass, replace

import numpy as np

from robopolicy_data.windows import Arrays


@dataclass(frozen=True)
class Found:
    """Marks against the truth, step by step."""

    precision: float
    recall: float
    marked: float  # share of all steps

    def __str__(self) -> str:
        return f"precision {self.precision:.0%}, recall {self.recall:.0%}, {self.marked:.1%} of the steps marked"


def compare_marks(marked: np.ndarray, truth: np.ndarray) -> Found:
    """Return precision and recall of marks (N,) bool against the truth (N,) bool; NaN where there is none."""
    both = float((marked & truth).sum())
    precision = both / marked.sum() if marked.any() else float("nan")
    recall = both / truth.sum() if truth.any() else float("nan")
    return Found(precision, recall, float(marked.mean()))


def separation(score: np.ndarray, truth: np.ndarray) -> float:
    """Return the area under the ROC curve: the chance that an extraneous step scores above another."""
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(score[truth], score[~truth]).statistic / (truth.sum() * (~truth).sum()))


def spans_to_rows(spans: list[list[tuple[int, int]]], episode_ends: np.ndarray) -> np.ndarray:
    """Return (N,) bool from each episode's spans."""
    rows = np.zeros(episode_ends[-1], bool)
    starts = np.concatenate([[0], episode_ends[:-1]])
    for parts, a, b in zip(spans, starts, episode_ends, strict=True):
        for first, end in parts:
            rows[a + first : min(a + end, b)] = True
    return rows


def insert_detours(
    arrays: Arrays, rng: np.random.Generator, *, share: float = 0.5, shortest: int = 15, longest: int = 35
) -> tuple[Arrays, np.ndarray]:
    """Return Push-T demonstrations in which ``share`` of the episodes make a detour through the air, and where.

    At a random step the pusher swings out over a smooth loop of its own, at least 75 px clear of the block, and comes
    back; the block stays. Commands run two steps ahead of the pusher, as people's do.
    """
    starts = np.concatenate([[0], arrays.episode_ends[:-1]])
    states, actions, truth = [], [], []
    for a, b in zip(starts, arrays.episode_ends, strict=True):
        state, action = arrays.state["state"][a:b], arrays.action[a:b]
        inserted = _detour(state, int(rng.integers(shortest, longest + 1)), rng) if rng.random() < share else None
        if inserted is None:
            states.append(state)
            actions.append(action)
            truth.append(np.zeros(len(state), bool))
            continue
        at, path = inserted
        away = np.repeat(state[at : at + 1], len(path), axis=0)
        away[:, :2] = path
        ahead = np.concatenate([path[2:], np.repeat(state[at : at + 1, :2], 2, axis=0)]).astype(np.float32)
        states.append(np.concatenate([state[:at], away, state[at:]]))
        actions.append(np.concatenate([action[:at], ahead, action[at:]]))
        truth.append(np.concatenate([np.zeros(at, bool), np.ones(len(path), bool), np.zeros(len(state) - at, bool)]))
    ends = np.cumsum([len(part) for part in states])
    changed = replace(
        arrays, state={"state": np.concatenate(states)}, action=np.concatenate(actions), episode_ends=ends
    )
    return changed, np.concatenate(truth)


def _detour(state: np.ndarray, steps: int, rng: np.random.Generator) -> tuple[int, np.ndarray] | None:
    """Return where to insert and the path (steps, 2) px, or None if no loop keeps clear of the block."""
    phase = np.linspace(0, 1, steps + 2)[1:-1, None]
    for _ in range(60):
        at = int(rng.integers(2, len(state) - 2))
        if np.hypot(*(state[at, :2] - state[at, 2:4])) < 75:
            continue
        out, side = rng.normal(size=(2, 2))
        reach = rng.uniform(60, 160)
        loop = np.sin(np.pi * phase) * out / np.linalg.norm(out) * reach
        loop += np.sin(2 * np.pi * phase) * side / np.linalg.norm(side) * reach * rng.uniform(0.2, 0.6)
        path = (state[at, :2] + loop).astype(np.float32)
        clear = np.hypot(*(path - state[at, 2:4]).T).min() > 75
        if clear and path.min() > 10 and path.max() < 500:
            return at, path
    return None

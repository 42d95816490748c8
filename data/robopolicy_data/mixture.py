"""One dataset or many: that they fit together, what is marked in them, and which windows make up a batch."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from robopolicy.errors import ContractError, DatasetError
from robopolicy.spec import PolicySpec
from robopolicy_data.arrays import Arrays
from robopolicy_data.episode import Episode
from robopolicy_data.reader import Dataset

MARKS = {"idle": "quality@1/idle", "extraneous": "extraneous@1/extraneous"}  # short names of marks


class Mixture:
    """Which windows a batch is made of, as a function of seed and step.

    Args:
        parts: (P,) windows of each dataset, which lie one after the other.
        seed: of the order.
        size: windows a batch and rank; fewer if there are fewer.
        weights: share of each part, drawn with replacement; None takes every window once an epoch.
        rank: which of the ``world`` equal parts of a batch.
        world: how many.
        names: of the parts, for messages.

    Raises:
        ContractError: if there are no windows, or the weights make no sense.
    """

    def __init__(
        self,
        parts: np.ndarray,
        seed: int,
        size: int,
        weights: Sequence[float] | None = None,
        rank: int = 0,
        world: int = 1,
        names: Sequence[str] = (),
    ) -> None:
        total = int(np.sum(parts))
        if total < world:
            raise ContractError(f"loader: {total} windows are left; want at least {world}, one for each process")
        self.size = min(size, total // world) if weights is None else size
        self._parts, self._seed, self._rank, self._world = np.asarray(parts, np.int64), seed, rank, world
        self._share = None if weights is None else _share(weights, self._parts, names)
        self._epoch: tuple[int, np.ndarray] | None = None

    @property
    def about(self) -> dict[str, Any]:
        """What makes the order, JSON-able."""
        share = None if self._share is None else self._share.tolist()
        return {"parts": self._parts.tolist(), "weights": share, "rank": self._rank, "world": self._world}

    def draw(self, step: int) -> np.ndarray:
        """Return the windows (size,) of batch number ``step``."""
        size = self.size * self._world
        mine = slice(self._rank, None, self._world)
        if self._share is None:
            epoch, k = divmod(step, int(self._parts.sum()) // size)
            return self._order(epoch)[k * size : (k + 1) * size][mine]
        rng = np.random.default_rng([self._seed, step])
        part = rng.choice(len(self._share), size, p=self._share)
        within = rng.integers(0, self._parts[part])
        first = np.cumsum(self._parts) - self._parts
        return (first[part] + within)[mine]

    def _order(self, epoch: int) -> np.ndarray:
        if self._epoch is None or self._epoch[0] != epoch:
            order = np.random.default_rng([self._seed, epoch]).permutation(int(self._parts.sum()))
            self._epoch = (epoch, order)
        return self._epoch[1]


def require_same_spec(
    datasets: Sequence[Dataset], cameras: Sequence[str] | None, states: Sequence[str] | None
) -> PolicySpec:
    """Return what all datasets hold of the named cameras and states.

    Raises:
        SpecMismatch: if they differ in those, the action or the rate; both sides printed.
        UnknownCamera, UnknownName: naming the valid ones.
    """
    if not datasets:
        raise DatasetError("no dataset to load from")
    chosen = None if cameras is None else tuple(cameras)
    first, *others = [d.spec.select(chosen, None if states is None else tuple(states)) for d in datasets]
    for spec, dataset in zip(others, datasets[1:], strict=True):
        here, there = f"dataset {datasets[0].where}", f"dataset {dataset.where}"
        first.require_from(spec, needs=here, offers=there)
        spec.require_from(first, needs=there, offers=here)
    return first


def not_failed(episode: Episode) -> bool:
    """Whether an episode succeeded or nobody judged it: what a policy learns from unless told otherwise."""
    return episode.meta.success is not False


def require_finite(episodes: Sequence[Episode], arrays: Arrays) -> None:
    """Refuse NaN and infinity, from which nothing can be learnt; DatasetError names the first."""
    streams = {f"state {name}": values for name, values in arrays.state.items()} | {"action": arrays.action}
    for name, values in streams.items():
        if np.isfinite(values.min(initial=0)) and np.isfinite(values.max(initial=0)):  # min and max pass NaN on
            continue
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        owner = int(np.searchsorted(arrays.episode_ends, row, side="right"))
        step = row - (int(arrays.episode_ends[owner - 1]) if owner else 0)
        raise DatasetError(
            f"{episodes[owner].where}: {name} holds NaN or infinity at step {step}; trim or delete the episode "
            "(`robopolicy data check` lists all of them)"
        )


def thinned(spec: PolicySpec, every: int) -> PolicySpec:
    """Return the spec of a policy that steps once in ``every`` rows of the data.

    Raises:
        ContractError: if the actions are differences, of which none may be left out.
    """
    if every < 1:
        raise ContractError(f"every is {every}; want at least 1")
    if every > 1 and spec.action.kind == "tool_delta":
        raise ContractError(
            f"every {every}: the actions are tool_delta, which cannot be thinned without adding them up"
        )
    return replace(spec, rate_hz=spec.rate_hz / every)


def read_marks(episodes: Sequence[Episode], name: str) -> np.ndarray:
    """Return a mark of every step of all episodes, (N,) bool.

    Args:
        episodes: in order.
        name: ``"idle"``, ``"extraneous"`` or ``"tool@version/array"`` below derived/.

    Raises:
        DatasetError: if an episode has not been marked, saying what marks it.
    """
    tool, _, array = MARKS.get(name, name).rpartition("/")
    marks = []
    for episode in episodes:
        found = (episode.derived(tool) or {}).get(array) if tool else None
        if found is None:
            raise DatasetError(
                f"{episode.where} has no marks {name!r}; `robopolicy data quality D.zarr --write` marks idle, with "
                "--extraneous also extraneous; any other is named tool@version/array"
            )
        if found.shape != (episode.length,):
            raise DatasetError(f"{episode.where}: marks {name!r} have the shape {found.shape}, one a step wanted")
        marks.append(found.astype(bool))
    return np.concatenate(marks)


def _share(weights: Sequence[float], parts: np.ndarray, names: Sequence[str]) -> np.ndarray:
    given = np.asarray(weights, np.float64)
    if given.shape != parts.shape or not (np.isfinite(given).all() and (given >= 0).all() and given.sum() > 0):
        raise ContractError(f"loader: weights {list(weights)} for {len(parts)} datasets: want one each, 0 or more")
    empty = [i for i in range(len(parts)) if given[i] > 0 and parts[i] == 0]
    if empty:
        named = names[empty[0]] if names else f"number {empty[0]}"
        raise ContractError(f"loader: dataset {named} has weight {given[empty[0]]:g} but no window to draw")
    share: np.ndarray = given / given.sum()
    return share

"""Batches of training windows from one dataset or a mixture, in an order that depends on nothing but seed and step."""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import ContractError, DatasetError, UnknownCamera
from robopolicy.spec import PolicySpec
from robopolicy_data.arrays import Arrays, read_numbers
from robopolicy_data.cache import Pictures, require_size
from robopolicy_data.episode import Episode
from robopolicy_data.mixture import Mixture, not_failed, read_marks, require_finite, require_same_spec, thinned
from robopolicy_data.parallel import cores
from robopolicy_data.plan import Plan, open_pictures, plan_memory
from robopolicy_data.reader import Dataset
from robopolicy_data.windows import Rows, Windows

GOALS = 7  # keeps the draw of the goals apart from that of the order; part of what makes a run repeat


class Loader:
    """Random windows of whole batches: pictures gathered or decoded by threads straight into the batch, no copy after.

    One thread makes the next batches while the present one is used; no processes, no collation. Memory is what `plan`
    says: the numbers of all steps, the pictures as ``cache`` asks, and ``prefetch`` + 1 batches, which are reused.

    Args:
        datasets: a dataset or where it is, or several; then the chosen cameras, states, action and rate must be equal.
        n_obs: observations a window.
        horizon: actions a window.
        batch_size: windows a batch; no more than there are.
        seed: of the order.
        weights: share of each dataset in the samples, drawn with replacement. None takes every window once an epoch,
            the odd rest left out.
        cameras: which; None is all of the spec.
        states: which; None is all of the spec.
        every: rows of the data a step of the policy: 5 makes 20 Hz windows of 100 Hz data.
        past: actions before the newest observation's that a window has besides; see `Windows`.
        skip: marks to leave out, ``"idle"``, ``"extraneous"`` or ``"tool@version/array"``; see `Windows`.
        keep: which episodes.
        cache: ``"decoded"`` pictures in memory, ``"compressed"`` ones decoded a batch, ``"disk"`` leaves them where
            they are; ``"auto"`` is the first of these that fits.
        memory_limit_gb: GB of 1e9 bytes; None is half of what the machine has to spare.
        threads: that decode or gather; None is one a core.
        sizes: {camera: (H, W)} to decode to; cheapest are eighths of the recorded size, JPEG's own scaling.
        rank: which part of every batch this process takes, 0 .. world - 1.
        world: how many processes share the order; together they see each window once an epoch.
        prefetch: batches made ahead; 0 makes each when it is asked for.
        allocate: (shape, dtype) -> array, for batches in pinned memory.
        say: told in one line what will be loaded, before it is.
        progress: called with (pieces loaded, pieces in all).

    Attributes:
        spec: of the windows: chosen cameras (at ``sizes``) and states, rate / ``every``, n_obs and horizon.
        arrays: the numbers of all steps, no pictures.
        plan: how much memory goes where.
        batch_size: windows a batch of this rank.
        past: actions of a window before the newest observation's.
        goal: what a window of a goal-conditioned policy also holds: the ``end`` of its episode, or a step drawn evenly
            from those to come (``future``); None: nothing.

    Raises:
        DatasetError: if there is nothing to load, something is damaged, or a state or action is NaN or infinite.
        SpecMismatch: if the datasets differ; both sides printed.
        UnknownCamera, UnknownName: naming the valid ones.
        ContractError: on settings that make no sense, or more memory than the limit.
    """

    def __init__(
        self,
        datasets: Dataset | Path | str | Sequence[Dataset | Path | str],
        *,
        n_obs: int,
        horizon: int,
        batch_size: int,
        seed: int = 0,
        weights: Sequence[float] | None = None,
        cameras: Sequence[str] | None = None,
        states: Sequence[str] | None = None,
        every: int = 1,
        past: int = 0,
        goal: str | None = None,
        skip: Sequence[str] = (),
        keep: Callable[[Episode], bool] = not_failed,
        cache: str = "auto",
        memory_limit_gb: float | None = None,
        threads: int | None = None,
        sizes: Mapping[str, tuple[int, int]] | None = None,
        rank: int = 0,
        world: int = 1,
        prefetch: int = 2,
        allocate: Callable[[tuple[int, ...], str], np.ndarray] = np.empty,
        say: Callable[[str], None] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        _require(batch_size=batch_size, world=world, every=every, threads=1 if threads is None else threads)
        if not 0 <= rank < world or prefetch < 0:
            raise ContractError(f"loader: rank {rank} of {world}, prefetch {prefetch}: want 0 <= rank < world, 0 ahead")
        several = [datasets] if isinstance(datasets, Dataset | Path | str) else datasets
        opened = [one if isinstance(one, Dataset) else Dataset(one) for one in several]
        whole = require_same_spec(opened, cameras, states)
        self.spec = _spec(whole, n_obs, horizon, every, dict(sizes or {}))
        chosen = [[episode for episode in dataset if keep(episode)] for dataset in opened]
        episodes = [episode for part in chosen for episode in part]
        if not episodes:
            held = sum(map(len, opened))
            raise DatasetError(f"{', '.join(d.where for d in opened) or 'no dataset'}: no episode to load of {held}")
        self.threads = threads or cores()
        self.arrays: Arrays = read_numbers(episodes, whole)
        require_finite(episodes, self.arrays)
        marks = [read_marks(episodes, name) for name in skip]
        self._windows = Windows(self.arrays.episode_ends, n_obs, horizon, every=every, past=past, skip=marks)
        rows = [sum(episode.length for episode in part) for part in chosen]
        parts = np.diff(np.searchsorted(self._windows.now, np.cumsum([0, *rows])))
        self._mixture = Mixture(parts, seed, batch_size, weights, rank, world, [d.where for d in opened])
        if goal not in (None, "end", "future"):
            raise ContractError(f"loader: goal is {goal!r}; want 'end', 'future' or None")
        self.batch_size, self.seed, self.past, self.goal = self._mixture.size, seed, past, goal
        self._rank, self._world = rank, world
        self.plan: Plan = plan_memory(
            episodes, self.spec, self.arrays, cache=cache, windows=len(self),
            batch_bytes=self._batch_bytes() * (prefetch + 1), limit_gb=memory_limit_gb,
        )  # fmt: skip
        if say is not None:
            say(f"{len(episodes):,} episodes, {len(self):,} windows; {self.plan}")
        self._pictures: dict[str, Pictures] = open_pictures(episodes, self.spec, self.plan.cache, whole, progress)
        self._slots = deque(self._slot(allocate) for _ in range(prefetch + 1))
        self._pool = ThreadPoolExecutor(self.threads, "decode") if self.threads > 1 else None
        self._maker = ThreadPoolExecutor(1, "batch") if prefetch else None
        self._ahead: deque[tuple[int, dict[str, Any], Future[None]]] = deque()
        self._lent: dict[str, Any] | None = None
        self._closed = False

    def __len__(self) -> int:
        """Return the number of windows, of all ranks."""
        return len(self._windows)

    @property
    def about(self) -> dict[str, Any]:
        """What makes the order of the batches, beside the data: JSON-able, to compare when a run resumes."""
        about = {**self._mixture.about, "every": self._windows.every}
        return about if self.goal is None else {**about, "goal": self.goal}

    def rows(self) -> Rows:
        """Return the rows of ``arrays`` that every window is made of."""
        return self._windows.rows()

    def batch(self, step: int) -> dict[str, Any]:
        """Return batch number ``step``: always the same for the same seed, whatever was asked for before.

        Its arrays are the caller's until the next call, which takes them back to fill them anew.

        Returns:
            ``state {name: (B, n_obs, D) float32}``, ``images {camera: (B, n_obs, H, W, 3) uint8, or uint16 without
            the 3}``, ``action (B, past + horizon, A) float32``, ``padded_obs (B, n_obs) bool``, ``padded_action
            (B, past + horizon) bool``: True where a window reaches beyond its episode and repeats its first or last;
            with goals also ``goal``: {"state": {name: (B, 1, D)}, "images": {camera: (B, 1, H, W, 3)}}.

        Raises:
            DatasetError: if a picture turns out to be damaged, naming it.
        """
        if self._closed:
            raise ContractError("loader: it is closed; open another one")
        if self._lent is not None:
            self._slots.append(self._lent)
            self._lent = None
        if self._maker is None:
            self._fill(step, self._slots[0])
            self._lent = self._slots.popleft()
            return self._split(self._lent)
        if self._ahead and self._ahead[0][0] != step:
            self._forget()
        following = self._ahead[-1][0] + 1 if self._ahead else step
        while self._slots:
            slot = self._slots.popleft()
            self._ahead.append((following, slot, self._maker.submit(self._fill, following, slot)))
            following += 1
        _, slot, future = self._ahead[0]
        wait([future])  # an interrupt here leaves all as it was
        self._ahead.popleft()
        self._lent = slot
        future.result()
        return self._split(slot)

    def close(self) -> None:
        """End the threads, batches not yet begun left unmade; idempotent."""
        self._closed = True
        self._forget()
        for pool in (self._maker, self._pool):
            if pool is not None:
                pool.shutdown()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _forget(self) -> None:
        """Take back the batches made ahead: somebody jumped."""
        begun = [future for *_, future in self._ahead if not future.cancel()]
        wait(begun)
        self._slots += [slot for _, slot, _ in self._ahead]
        self._ahead.clear()

    def _split(self, slot: dict[str, Any]) -> dict[str, Any]:
        """Return the slot with the goals, its last column, apart."""
        if self.goal is None:
            return slot
        parts: dict[str, dict[str, np.ndarray]] = {kind: slot[kind] for kind in ("state", "images")}
        seen = {kind: {name: array[:, :-1] for name, array in part.items()} for kind, part in parts.items()}
        goal = {kind: {name: array[:, -1:] for name, array in part.items()} for kind, part in parts.items()}
        return {**slot, **seen, "goal": goal}

    def _fill(self, step: int, slot: dict[str, Any]) -> None:
        ids = self._mixture.draw(step)
        rows = self._windows.rows(ids)
        observed = rows.obs
        if self.goal is not None:
            share = 1.0 if self.goal == "end" else self._draw_ahead(step)
            observed = np.concatenate([rows.obs, self._windows.ahead(ids, share)[:, None]], axis=1)
        for name, values in self.arrays.state.items():
            np.take(values, observed, axis=0, out=slot["state"][name], mode="clip")
        np.take(self.arrays.action, rows.action, axis=0, out=slot["action"], mode="clip")
        slot["padded_obs"][...], slot["padded_action"][...] = rows.padded_obs, rows.padded_action
        tasks = []
        for name, pictures in self._pictures.items():
            out = slot["images"][name]
            seen = self.arrays.seen[name][observed].reshape(-1)
            tasks += pictures.tasks(seen, out.reshape(-1, *out.shape[2:]), self.threads)
        if self._pool is None:
            for task in tasks:
                task()
        else:
            begun = [self._pool.submit(task) for task in tasks]
            try:
                wait(begun)
            finally:  # all, also after an error or an interrupt: none may write into a batch that is given back
                wait([one for one in begun if not one.cancel()])
            for one in begun:
                one.result()

    def _draw_ahead(self, step: int) -> np.ndarray:
        """Return how far ahead the goal of each window of this rank lies, (B,) in 0..1 of what is left."""
        drawn = np.random.default_rng([self.seed, step, GOALS]).random(self.batch_size * self._world)
        return drawn[self._rank :: self._world]

    def _slot(self, allocate: Callable[[tuple[int, ...], str], np.ndarray]) -> dict[str, Any]:
        return {
            "state": {name: allocate(shape, "float32") for name, shape in self._shapes("state").items()},
            "images": {
                name: allocate(shape, self.spec.cameras[name].dtype) for name, shape in self._shapes("images").items()
            },
            "action": allocate((self.batch_size, self.past + self.spec.horizon, self.spec.action.dim), "float32"),
            "padded_obs": allocate((self.batch_size, self.spec.n_obs), "bool"),
            "padded_action": allocate((self.batch_size, self.past + self.spec.horizon), "bool"),
        }

    def _shapes(self, kind: str) -> dict[str, tuple[int, ...]]:
        front = (self.batch_size, self.spec.n_obs + (self.goal is not None))
        if kind == "state":
            return {name: (*front, part.dim) for name, part in self.spec.state.items()}
        return {name: (*front, *camera.shape) for name, camera in self.spec.cameras.items()}

    def _batch_bytes(self) -> int:
        numbers = sum(map(math.prod, self._shapes("state").values()))
        numbers += self.batch_size * (self.past + self.spec.horizon) * self.spec.action.dim
        pixels = sum(
            math.prod(shape) * np.dtype(self.spec.cameras[name].dtype).itemsize
            for name, shape in self._shapes("images").items()
        )
        return 4 * numbers + pixels + self.batch_size * (self.spec.n_obs + self.past + self.spec.horizon)


def _spec(recorded: PolicySpec, n_obs: int, horizon: int, every: int, sizes: dict[str, tuple[int, int]]) -> PolicySpec:
    """Return the spec of the windows."""
    for name in sizes:
        if name not in recorded.cameras:
            raise UnknownCamera("camera", name, recorded.cameras)
        require_size(name, recorded.cameras[name], sizes[name])
    cameras = {
        name: replace(camera, height=sizes[name][0], width=sizes[name][1]) if name in sizes else camera
        for name, camera in recorded.cameras.items()
    }
    return replace(thinned(recorded, every), cameras=cameras, n_obs=n_obs, horizon=horizon, n_execute=1)


def _require(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ContractError(f"loader: {name} is {count}; want at least 1")

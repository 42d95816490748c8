"""Training windows, gathered on the device or brought there; the order depends on nothing but seed and step."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from robopolicy.errors import ContractError
from robopolicy.spec import PolicySpec

_EPOCHS = "every window once an epoch"
WHOLE = slice(None)
_GOALS = 7  # as `robopolicy_data.loader.GOALS`: both draw the same goals


class Arrays(Protocol):
    """All steps of a dataset, one after the other."""

    state: Mapping[str, np.ndarray]  # {name: (N, D) float32}
    action: np.ndarray  # (N, A) float32
    images: Mapping[str, np.ndarray]  # {camera: (F, H, W, 3) uint8}
    # and, if a camera is slower than the steps, seen {camera: (N,) int64}: which picture each step saw; and, for a
    # policy whose encoder is frozen, features {camera: (F, D) float32} in place of images


class Sampler(Protocol):
    """Which rows of the arrays make up each of W windows."""

    arrays: Any  # Arrays
    obs_rows: np.ndarray  # (W, n_obs) int64
    action_rows: np.ndarray  # (W, past + horizon) int64
    # and past, if it is not 0: how many of those rows come before the newest observation's; and, where known,
    # padded_obs (W, n_obs) bool, padded_action (W, past + horizon) bool and last_rows (W,) int64, of the own episode


@runtime_checkable
class Batches(Protocol):
    """Whole batches made in the host's memory, as `robopolicy_data.loader.Loader` makes them."""

    arrays: Any  # state and action of all steps
    spec: PolicySpec  # of the windows
    seed: int
    batch_size: int
    # and past, if it is not 0: actions of a window before the newest observation's

    @property
    def about(self) -> Mapping[str, Any]:
        """What makes the order of the batches, beside the data; JSON-able."""
        ...

    def __len__(self) -> int:
        """Return the number of windows."""
        ...

    def batch(self, step: int) -> dict[str, Any]:
        """Return batch number ``step`` in arrays that stay as they are until the next call."""
        ...


def open_windows(
    windows: Sampler | Batches,
    spec: PolicySpec,
    device: torch.device,
    seed: int,
    past: int = 0,
    goal: str | None = None,
    world: int = 1,
) -> "DeviceWindows | HostWindows":
    """Return what a trainer takes batches from.

    Args:
        windows: in memory, or a loader's.
        spec: of the policy.
        device: where the training happens.
        seed: of the run.
        past: actions of a window before the newest observation's, that the policy learns.
        goal: what each window also shows as ``goal``: the ``end`` of its episode or a ``future`` step of it.
        world: processes that share each batch.

    Raises:
        ContractError: if they do not fit the others.
    """
    if not isinstance(windows, Batches):
        return DeviceWindows(windows, spec, device, past, goal)
    offered = {"goals": getattr(windows, "goal", None), "seed": windows.seed}
    for name, want in {"goals": goal, "seed": seed}.items():
        if offered[name] != want:
            raise ContractError(f"training: the loader's {name} is {offered[name]}, the run's {want}")
    shares = windows.about.get("world", 1)
    if shares not in (1, world):
        raise ContractError(f"training: the loader shares with {shares} processes, the run with {world}")
    have = (windows.spec.n_obs, getattr(windows, "past", 0), windows.spec.horizon, windows.spec.action.dim)
    _require_shapes(have, spec, past, windows.spec.state, windows.spec.cameras)
    return HostWindows(windows, spec, device)


def pinned(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Return an array in memory that a GPU copies from while the CPU goes on: `allocate` of a loader."""
    array: np.ndarray = torch.empty(shape, dtype=getattr(torch, dtype), pin_memory=True).numpy()
    return array


class DeviceWindows:
    """The arrays a policy needs, held on ``device`` (pictures as uint8) and gathered there by row.

    Args:
        sampler: `robopolicy_data.windows.WindowSampler` or anything with its three attributes.
        spec: of the policy: which states and cameras, and the horizons.
        device: where the training happens.
        past: actions of a window before the newest observation's, that the policy learns.
        goal: what each window also shows as ``goal``: the ``end`` of its episode or a ``future`` step of it.

    Raises:
        ContractError: if the sampler has no windows, or its horizons or names are not those of the spec.
    """

    def __init__(
        self, sampler: Sampler, spec: PolicySpec, device: torch.device, past: int = 0, goal: str | None = None
    ) -> None:
        arrays = sampler.arrays
        self._goal = goal
        self._last = None if goal is None else torch.as_tensor(_last_rows(sampler), device=device)
        _require_fit(sampler, spec, past)
        self._state = {name: torch.as_tensor(arrays.state[name], device=device) for name in spec.state}
        features = getattr(arrays, "features", {})
        self._images = {
            name: torch.as_tensor(arrays.images[name], device=device) for name in spec.cameras if name not in features
        }
        self._features = {
            name: torch.as_tensor(features[name], device=device) for name in spec.cameras if name in features
        }
        self._action = torch.as_tensor(arrays.action, device=device)
        self._obs_rows = torch.as_tensor(sampler.obs_rows, device=device)
        self._action_rows = torch.as_tensor(sampler.action_rows, device=device)
        seen = getattr(arrays, "seen", {})
        self._seen = {name: torch.as_tensor(seen[name], device=device) for name in spec.cameras if name in seen}
        self._padded = {
            name: torch.as_tensor(getattr(sampler, name), device=device)
            for name in ("padded_obs", "padded_action")
            if hasattr(sampler, name)
        }
        self._device = device
        self._permutation: tuple[int, int, Tensor] | None = None

    def __len__(self) -> int:
        return len(self._obs_rows)

    def size(self, wanted: int) -> int:
        """Return how many windows a batch has."""
        return min(wanted, len(self))

    @property
    def about(self) -> dict[str, Any]:
        """What makes the order, beside seed and step."""
        return {"order": _EPOCHS} if self._goal is None else {"order": _EPOCHS, "goal": self._goal}

    def batch(self, seed: int, step: int, size: int, part: slice = WHOLE) -> dict[str, Any]:
        """Return ``part`` of batch number ``step`` of the run ``seed``.

        Every window comes once an epoch, the odd rest is left out.
        """
        size = min(size, len(self))
        epoch, k = divmod(step, len(self) // size)
        ids = self._epoch(seed, epoch)[k * size : (k + 1) * size]
        batch = self.gather(ids[part])
        return batch if self._last is None else {**batch, "goal": self._goals(ids, seed, step, part)}

    def gather(self, ids: Tensor) -> dict[str, Any]:
        """Return windows ids (B,): states (B, n_obs, D), images (B, n_obs, H, W, 3), action and, if known, padded_*.

        A camera whose pictures were embedded is in ``features`` (B, n_obs, F) and not in ``images``.
        """
        return {
            **self._observed(_take(self._obs_rows, ids)),
            "action": _take(self._action, _take(self._action_rows, ids)),
            **{name: values[ids] for name, values in self._padded.items()},
        }

    def _observed(self, rows: Tensor) -> dict[str, Any]:
        return {
            "state": {name: _take(values, rows) for name, values in self._state.items()},
            "images": {name: _take(values, self._frames(name, rows)) for name, values in self._images.items()},
            "features": {name: _take(values, self._frames(name, rows)) for name, values in self._features.items()},
        }

    def _frames(self, camera: str, rows: Tensor) -> Tensor:
        return self._seen[camera][rows] if camera in self._seen else rows

    def _goals(self, ids: Tensor, seed: int, step: int, part: slice) -> dict[str, Any]:
        assert self._last is not None
        now, last = self._obs_rows[ids[part], -1], self._last[ids[part]]
        if self._goal == "end":
            return self._observed(last[:, None])
        share = torch.from_numpy(np.random.default_rng([seed, step, _GOALS]).random(len(ids))[part]).to(self._device)
        return self._observed((now + (share * (last - now)).round().long())[:, None])

    def _epoch(self, seed: int, epoch: int) -> Tensor:
        if self._permutation is None or self._permutation[:2] != (seed, epoch):
            order = np.random.default_rng([seed, epoch]).permutation(len(self))
            self._permutation = (seed, epoch, torch.from_numpy(order).to(self._device))
        return self._permutation[2]


class HostWindows:
    """Batches of a loader, brought to ``device``; on the CPU they are the loader's own arrays.

    Args:
        loader: that fits the run, as `open_windows` sees to.
        spec: of the policy.
        device: where the training happens.
    """

    def __init__(self, loader: Batches, spec: PolicySpec, device: torch.device) -> None:
        self._world = loader.about.get("world", 1)
        self._loader, self._spec, self._device = loader, spec, device
        self._copied: torch.cuda.Event | None = None

    def __len__(self) -> int:
        return len(self._loader)

    def size(self, wanted: int) -> int:
        """Return how many windows a batch of all processes has: the loader's own number."""
        return self._loader.batch_size * self._world

    @property
    def about(self) -> dict[str, Any]:
        """What makes the order, beside seed and step."""
        order = dict(self._loader.about)
        plain = order.get("weights") is None  # then it is that of `DeviceWindows`
        for name in ("rank", "world"):
            order.pop(name, None)  # however many share it, together they see the same batches
        goal = {} if order.pop("goal", None) is None else {"goal": self._loader.about["goal"]}
        return {"order": _EPOCHS if plain else order, **goal}

    def batch(self, seed: int, step: int, size: int, part: slice = WHOLE) -> dict[str, Any]:
        """Return ``part`` of batch number ``step``, the loader's if it shares too; it is good until the next call."""
        if self._copied is not None:
            self._copied.synchronize()  # the loader fills these arrays anew once it is asked again
        made = self._loader.batch(step)
        part = part if self._world == 1 else WHOLE
        batch: dict[str, Any] = {
            **self._observed(made, part),
            **({"goal": self._observed(made["goal"], part)} if "goal" in made else {}),
            **{
                name: self._bring(made[name][part])
                for name in ("action", "padded_obs", "padded_action")
                if name in made
            },
        }
        if self._device.type == "cuda":
            self._copied = torch.cuda.Event()
            self._copied.record()
        return batch

    def _observed(self, made: Mapping[str, Any], part: slice) -> dict[str, Any]:
        return {
            "state": {name: self._bring(made["state"][name][part]) for name in self._spec.state},
            "images": {name: self._bring(made["images"][name][part]) for name in self._spec.cameras},
        }

    def _bring(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._device, non_blocking=True)


def _take(values: Tensor, rows: Tensor) -> Tensor:
    """Return values[rows], whole rows at a time, which is faster on a CPU."""
    return values.index_select(0, rows.flatten()).view(*rows.shape, *values.shape[1:])


def _last_rows(sampler: Sampler) -> np.ndarray:
    rows = getattr(sampler, "last_rows", None)
    if rows is None:
        raise ContractError("training: the windows do not say where their episodes end, which goals need: last_rows")
    return np.asarray(rows)


def _require_fit(sampler: Sampler, spec: PolicySpec, past: int) -> None:
    before = getattr(sampler, "past", 0)
    rows = sampler.action_rows.shape[1] - before
    have = (sampler.obs_rows.shape[1], before, rows, sampler.arrays.action.shape[1])
    cameras = {**sampler.arrays.images, **getattr(sampler.arrays, "features", {})}
    _require_shapes(have, spec, past, sampler.arrays.state, cameras)
    if len(sampler.obs_rows) == 0:
        raise ContractError("training: the dataset has no windows; record at least one episode")


def _require_shapes(
    have: tuple[int, int, int, int], spec: PolicySpec, past: int, states: Mapping[str, Any], cameras: Mapping[str, Any]
) -> None:
    want = (spec.n_obs, past, spec.horizon, spec.action.dim)
    if have != want:
        raise ContractError(f"training: windows have (n_obs, past, horizon, action) {have}, the policy has {want}")
    for kind, names, offered in (("state", spec.state, states), ("camera", spec.cameras, cameras)):
        missing = [name for name in names if name not in offered]
        if missing:
            raise ContractError(f"training: no {kind} {missing} in the data; it has {sorted(offered)}")

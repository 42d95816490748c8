"""Training windows gathered on the device, in an order that depends on nothing but seed and step."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from robopolicy.errors import ContractError
from robopolicy.spec import PolicySpec


class Arrays(Protocol):
    """All steps of a dataset, one after the other."""

    state: Mapping[str, np.ndarray]  # {name: (N, D) float32}
    action: np.ndarray  # (N, A) float32
    images: Mapping[str, np.ndarray]  # {camera: (N, H, W, 3) uint8}


class Sampler(Protocol):
    """Which rows of the arrays make up each of W windows."""

    arrays: Any  # Arrays
    obs_rows: np.ndarray  # (W, n_obs) int64
    action_rows: np.ndarray  # (W, horizon) int64


class DeviceWindows:
    """The arrays a policy needs, held on ``device`` (pictures as uint8) and gathered there by row.

    Args:
        sampler: `robopolicy_data.windows.WindowSampler` or anything with its three attributes.
        spec: of the policy: which states and cameras, and the horizons.
        device: where the training happens.

    Raises:
        ContractError: if the sampler has no windows, or its horizons or names are not those of the spec.
    """

    def __init__(self, sampler: Sampler, spec: PolicySpec, device: torch.device) -> None:
        arrays = sampler.arrays
        _require_fit(sampler, spec)
        self._state = {name: torch.as_tensor(arrays.state[name], device=device) for name in spec.state}
        self._images = {name: torch.as_tensor(arrays.images[name], device=device) for name in spec.cameras}
        self._action = torch.as_tensor(arrays.action, device=device)
        self._obs_rows = torch.as_tensor(sampler.obs_rows, device=device)
        self._action_rows = torch.as_tensor(sampler.action_rows, device=device)
        self._device = device
        self._permutation: tuple[int, int, Tensor] | None = None

    def __len__(self) -> int:
        return len(self._obs_rows)

    def batch(self, seed: int, step: int, size: int) -> dict[str, Any]:
        """Return batch number ``step`` of the run ``seed``: every window once an epoch, the odd rest left out."""
        size = min(size, len(self))
        epoch, k = divmod(step, len(self) // size)
        return self.gather(self._epoch(seed, epoch)[k * size : (k + 1) * size])

    def gather(self, ids: Tensor) -> dict[str, Any]:
        """Return windows ids (B,): state {name: (B, n_obs, D)}, images {camera: (B, n_obs, H, W, 3)}, action."""
        rows = self._obs_rows[ids]
        return {
            "state": {name: values[rows] for name, values in self._state.items()},
            "images": {name: values[rows] for name, values in self._images.items()},
            "action": self._action[self._action_rows[ids]],
        }

    def _epoch(self, seed: int, epoch: int) -> Tensor:
        if self._permutation is None or self._permutation[:2] != (seed, epoch):
            order = np.random.default_rng([seed, epoch]).permutation(len(self))
            self._permutation = (seed, epoch, torch.from_numpy(order).to(self._device))
        return self._permutation[2]


def _require_fit(sampler: Sampler, spec: PolicySpec) -> None:
    have = (sampler.obs_rows.shape[1], sampler.action_rows.shape[1], sampler.arrays.action.shape[1])
    want = (spec.n_obs, spec.horizon, spec.action.dim)
    if have != want:
        raise ContractError(f"training: windows have (n_obs, horizon, action) {have}, the policy's spec has {want}")
    for kind, names, offered in (
        ("state", spec.state, sampler.arrays.state),
        ("camera", spec.cameras, sampler.arrays.images),
    ):
        missing = [name for name in names if name not in offered]
        if missing:
            raise ContractError(f"training: no {kind} {missing} in the data; it has {sorted(offered)}")
    if len(sampler.obs_rows) == 0:
        raise ContractError("training: the dataset has no windows; record at least one episode")

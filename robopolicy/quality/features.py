"""States and actions as the numbers that demonstrations are compared in, fitted on the demonstrations to trust."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robopolicy.errors import ContractError
from robopolicy.policies.normaliser import Normaliser
from robopolicy.spec import PolicySpec

RIDGE = 1e-3  # of the states' own variance
LEAST = 0.05  # of an action element's own spread: what is left of it after the state is never scaled up beyond this
LEAST_STATE = 0.02  # a scaled state that spreads less than this is not blown up further: a tilt that is nearly constant
LEAST_UNITS = 1e-3  # and never beyond this, in the action's units (a constant has no spread)


class Features(nn.Module):
    """Scaled states, and what of the next actions the state does not say by itself.

    The command of a position-controlled robot lies next to where the robot is, whatever the robot is about to do; so
    the best linear guess of the next ``horizon`` actions from the state is taken off, and the rest, where the
    decisions are, is scaled to unit variance. A command that is a velocity or a delta passes nearly unchanged.

    Args:
        spec: which states, and the action.
        horizon: actions looked ahead; an episode's last one is repeated after its end.
    """

    def __init__(self, spec: PolicySpec, horizon: int) -> None:
        super().__init__()
        if horizon < 1 or not spec.state:
            raise ContractError(f"features: horizon {horizon}, states {list(spec.state)}; want at least one of each")
        self.spec, self.horizon = spec, horizon
        self.names = tuple(spec.state)
        self.states = nn.ModuleList(Normaliser.of_state(part) for part in spec.state.values())
        self.state_dim = sum(Normaliser.of_state(part).out_dim for part in spec.state.values())
        self.action_dim = spec.action.dim * horizon
        self.mean: Tensor
        self.spread: Tensor
        self.guess: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(self.state_dim))
        self.register_buffer("spread", torch.ones(self.state_dim))
        self.register_buffer("guess", torch.full((self.state_dim + 1, self.action_dim), torch.nan))
        self.register_buffer("scale", torch.full((self.action_dim,), torch.nan))

    def fit(self, arrays: Any) -> None:
        """Take ranges and the linear guess from ``arrays`` (state {name: (N, D)}, action (N, A), episode_ends (E,))."""
        for name, normaliser in zip(self.names, self.states, strict=True):
            normaliser.fit(torch.as_tensor(arrays.state[name]))  # type: ignore[operator]
        scaled = self._scaled(arrays.state)
        self.mean.copy_(scaled.mean(dim=0))
        self.spread.copy_(scaled.std(dim=0).clamp(min=LEAST_STATE))
        x = _with_one(self.state(arrays.state)).double()  # (N, F + 1)
        y = self._chunks(arrays.action, arrays.episode_ends).double()  # (N, H * A)
        gram = x.T @ x / len(x)
        gram += RIDGE * torch.diag(gram.diagonal().mean().expand(len(gram)))
        guess = torch.linalg.solve(gram, x.T @ y / len(x))
        left = (y - x @ guess).std(dim=0)
        self.guess.copy_(guess)
        self.scale.copy_(torch.maximum(left, LEAST * y.std(dim=0)).clamp(min=LEAST_UNITS))

    def state(self, state: Mapping[str, np.ndarray]) -> Tensor:
        """Return the states (N, F) of {name: (N, D)}, of mean 0 and variance 1 over what was fitted."""
        return (self._scaled(state) - self.mean) / self.spread

    def action(self, state: Tensor, action: np.ndarray, episode_ends: np.ndarray) -> Tensor:
        """Return what is left of the next actions (N, horizon * A) after the guess, scaled.

        Args:
            state: (N, F) from `state`.
            action: (N, A).
            episode_ends: (E,) one past each episode's last row.
        """
        return self.residual(state, self._chunks(action, episode_ends))

    def residual(self, state: Tensor, chunks: Tensor) -> Tensor:
        """Return what is left of ``chunks`` (N, horizon * A) after the guess from ``state`` (N, F), scaled."""
        return (chunks - _with_one(state) @ self.guess) / self.scale

    def _scaled(self, state: Mapping[str, np.ndarray]) -> Tensor:
        parts = zip(self.names, self.states, strict=True)
        return torch.cat([net(torch.as_tensor(np.asarray(state[name], np.float32))) for name, net in parts], dim=-1)

    def _chunks(self, action: np.ndarray, episode_ends: np.ndarray) -> Tensor:
        """Return each row's next ``horizon`` actions, (N, horizon * A)."""
        lengths = np.diff(episode_ends, prepend=0)
        last = np.repeat(episode_ends - 1, lengths)[:, None]
        rows = np.minimum(np.arange(len(last))[:, None] + np.arange(self.horizon), last)
        return torch.as_tensor(np.asarray(action, np.float32)[rows]).flatten(1)


def _with_one(values: Tensor) -> Tensor:
    return torch.cat([values, torch.ones(len(values), 1)], dim=1)

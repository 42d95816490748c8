"""A residual MLP over the flattened chunk: the network for machines without a GPU."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from robopolicy.policies.processes import TIME_SCALE
from robopolicy.policies.ranges import require_least, require_share
from robopolicy.policies.steps import StepEmbedding, require_step_dim


@dataclass(frozen=True)
class MlpConfig:
    """Size of a `ChunkMLP`; ``build`` makes one.

    Raises:
        ContractError: if a size is out of its range.
    """

    kind: ClassVar[str] = "mlp"
    width: int = 512  # numbers in the residual stream
    depth: int = 3  # residual blocks of two layers
    expansion: int = 2  # inner width of a block, as a multiple of its width
    step_dim: int = 32  # length of the noise-level embedding
    dropout: float = 0.0  # share of the inner units that training leaves out

    def __post_init__(self) -> None:
        require_least(self.kind, self, 1, "width", "depth", "expansion")
        require_step_dim(self.kind, self.step_dim)
        require_share(self.kind, self, "dropout")

    def build(self, horizon: int, action_dim: int, tokens: int, token_dim: int) -> nn.Module:
        """Return the network for chunks (horizon, action_dim) under conditions (tokens, token_dim)."""
        return ChunkMLP(self, horizon, action_dim, tokens * token_dim)


class ChunkMLP(nn.Module):
    """Chunk, noise level and condition are concatenated, then pass through pre-norm residual blocks."""

    def __init__(self, config: MlpConfig, horizon: int, action_dim: int, cond_dim: int) -> None:
        super().__init__()
        width = config.width
        self.step = StepEmbedding(config.step_dim, config.step_dim)
        self.widths = [horizon * action_dim, config.step_dim, cond_dim, 2 * horizon]  # of what enters
        self.enter = nn.Linear(sum(self.widths), width)
        self.blocks = nn.ModuleList(
            _block(width, width * config.expansion, config.dropout) for _ in range(config.depth)
        )
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, horizon * action_dim))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Map a noisy chunk x (B, H, A) at times t (B,) or (B, H) under cond (B, K, E) to (B, H, A)."""
        noisiest = t if t.ndim == 1 else t.amax(1)
        known = x.new_zeros(len(x), 2 * x.shape[1]) if t.ndim == 1 else _ahead(t, noisiest)
        whole = torch.cat([x.flatten(1), self.step(noisiest), cond.flatten(1), known], dim=1)
        return self._leave(self.enter(whole)).view_as(x)

    def at(self, times: Tensor, cond: Tensor) -> list[Callable[[Tensor], Tensor]]:
        """Return a function of x (B, H, A) for each of the times (n,), under cond (B, K, E).

        What the first layer makes of noise level and condition is made once, for all times.
        """
        chunk, step, condition, _ = torch.split(self.enter.weight, self.widths, dim=1)
        chunk = chunk.T
        told = linear(self.step(times), step)[:, None] + linear(cond.flatten(1), condition, self.enter.bias)

        def answer(told: Tensor, x: Tensor) -> Tensor:
            return self._leave(torch.addmm(told, x.flatten(1), chunk)).view_as(x)

        return [partial(answer, one) for one in told.unbind()]

    def _leave(self, hidden: Tensor) -> Tensor:
        for block in self.blocks:
            hidden = hidden + block(hidden)
        flat: Tensor = self.leave(hidden)
        return flat


def _ahead(t: Tensor, noisiest: Tensor) -> Tensor:
    """Return how much cleaner each row is than the noisiest one, and whether it is at all: (B, 2 H), 0 where it is not.

    The difference alone would be small where there is little noise, and given rows would be continued worse.
    """
    ahead = (noisiest[:, None] - t).float()
    return torch.cat([ahead / TIME_SCALE, ahead.tanh()], dim=1)


def _block(width: int, inner: int, dropout: float) -> nn.Sequential:
    layers = [nn.LayerNorm(width), nn.Linear(width, inner), nn.SiLU(), nn.Dropout(dropout), nn.Linear(inner, width)]
    nn.init.zeros_(layers[-1].weight)  # each block starts as the identity
    nn.init.zeros_(layers[-1].bias)
    return nn.Sequential(*layers)

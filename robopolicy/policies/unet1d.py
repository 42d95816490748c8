"""A U-Net over the time axis of a chunk, conditioned by FiLM (Chi et al., Diffusion Policy, 2023)."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from robopolicy.errors import ContractError
from robopolicy.policies.steps import StepEmbedding


@dataclass(frozen=True)
class UnetConfig:
    """Size of a `ChunkUnet`; ``build`` makes one."""

    kind: ClassVar[str] = "unet1d"
    channels: tuple[int, ...] = (256, 512, 1024)  # of each level; one more level halves the rows once more
    kernel: int = 5  # rows that a convolution spans, odd
    groups: int = 8  # of GroupNorm; divides the channels
    step_dim: int = 256  # length of the noise-level embedding

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))  # JSON has only lists

    def build(self, horizon: int, action_dim: int, tokens: int, token_dim: int) -> nn.Module:
        """Return the network for chunks (horizon, action_dim) under conditions (tokens, token_dim).

        Raises:
            ContractError: if the horizon cannot be halved once a level.
        """
        factor = 2 ** (len(self.channels) - 1)
        if horizon % factor:
            raise ContractError(
                f"unet1d: horizon {horizon} is not a multiple of {factor}, as {len(self.channels)} levels need"
            )
        return ChunkUnet(self, action_dim, tokens * token_dim)


class ChunkUnet(nn.Module):
    """Down, middle and up levels of two residual blocks each; every block sees noise level and condition."""

    def __init__(self, config: UnetConfig, action_dim: int, cond_dim: int) -> None:
        super().__init__()
        dims = [action_dim, *config.channels]
        self.step = StepEmbedding(config.step_dim, config.step_dim)
        film_dim = config.step_dim + cond_dim

        def block(n_in: int, n_out: int) -> _FilmBlock:
            return _FilmBlock(n_in, n_out, film_dim, config.kernel, config.groups)

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        last = len(config.channels) - 1
        for i, (n_in, n_out) in enumerate(pairwise(dims)):
            halve = nn.Conv1d(n_out, n_out, 3, stride=2, padding=1) if i < last else nn.Identity()
            self.down.append(nn.ModuleList([block(n_in, n_out), block(n_out, n_out), halve]))
        self.middle = nn.ModuleList([block(dims[-1], dims[-1]), block(dims[-1], dims[-1])])
        for n_out, n_in in reversed(list(pairwise(dims[1:]))):
            double = nn.ConvTranspose1d(n_out, n_out, 4, stride=2, padding=1)
            self.up.append(nn.ModuleList([block(2 * n_in, n_out), block(n_out, n_out), double]))
        self.leave = nn.Sequential(
            _conv_norm_mish(dims[1], dims[1], config.kernel, config.groups), nn.Conv1d(dims[1], action_dim, 1)
        )

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Map a noisy chunk x (B, H, A) at times t (B,) or (B, H) under cond (B, K, E) to (B, H, A)."""
        step = self.step(t)  # (B, S) or (B, H, S)
        flat = cond.flatten(1)
        films = [torch.cat([step, flat if step.ndim == 2 else flat[:, None].expand(-1, step.shape[1], -1)], dim=-1)]
        for _ in self.down[1:]:  # a level sees half the rows of the one above
            films.append(films[-1] if step.ndim == 2 else films[-1].unflatten(1, (-1, 2)).mean(2))
        hidden = x.transpose(1, 2)  # (B, A, H)
        skips = []
        for film, (first, second, halve) in zip(films, self.down, strict=True):  # type: ignore[misc]
            hidden = second(first(hidden, film), film)
            skips.append(hidden)
            hidden = halve(hidden)
        for block in self.middle:
            hidden = block(hidden, films[-1])
        for film, (first, second, double) in zip(reversed(films[1:]), self.up, strict=True):  # type: ignore[misc]
            hidden = torch.cat([hidden, skips.pop()], dim=1)
            hidden = double(second(first(hidden, film), film))
        return self.leave(hidden).transpose(1, 2)


class _FilmBlock(nn.Module):
    """Two convolutions with a per-channel scale and shift of the condition between them, and a skip."""

    def __init__(self, n_in: int, n_out: int, film_dim: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.first = _conv_norm_mish(n_in, n_out, kernel, groups)
        self.second = _conv_norm_mish(n_out, n_out, kernel, groups)
        self.film = nn.Sequential(nn.Mish(), nn.Linear(film_dim, 2 * n_out))
        self.skip = nn.Conv1d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        told = self.film(film)  # (B, 2 n_out), or one for each row: (B, h, 2 n_out)
        scale, shift = (told[..., None] if told.ndim == 2 else told.transpose(1, 2)).chunk(2, dim=1)
        return self.second(torch.addcmul(shift, self.first(x), 1 + scale)) + self.skip(x)


def _conv_norm_mish(n_in: int, n_out: int, kernel: int, groups: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(n_in, n_out, kernel, padding=kernel // 2), nn.GroupNorm(groups, n_out), nn.Mish())

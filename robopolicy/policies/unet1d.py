"""A U-Net over the time axis of a chunk, conditioned by FiLM (Chi et al., Diffusion Policy, 2023)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import fold, linear, pad

from robopolicy.errors import ContractError
from robopolicy.policies.ranges import require_least
from robopolicy.policies.steps import StepEmbedding, require_step_dim

FEW = 8  # chunks for which, on a CPU, a convolution is quicker as a matrix product


@dataclass(frozen=True)
class UnetConfig:
    """Size of a `ChunkUnet`; ``build`` makes one.

    Raises:
        ContractError: if a size is out of its range.
    """

    kind: ClassVar[str] = "unet1d"
    channels: tuple[int, ...] = (256, 512, 1024)  # channels of each level; each further one halves the rows once more
    kernel: int = 5  # rows that a convolution spans, odd
    groups: int = 8  # groups of each GroupNorm; they divide the channels
    step_dim: int = 256  # length of the noise-level embedding

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))  # JSON has only lists
        require_least(self.kind, self, 1, "kernel", "groups")
        require_step_dim(self.kind, self.step_dim)
        if self.kernel % 2 == 0:
            raise ContractError(f"unet1d: kernel is {self.kernel}; want an odd number of rows")
        if not self.channels or any(count < 1 or count % self.groups for count in self.channels):
            raise ContractError(f"unet1d: channels are {self.channels}; want multiples of groups, {self.groups}")

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
            halve = _Conv(n_out, n_out, 3, stride=2, padding=1) if i < last else nn.Identity()
            self.down.append(nn.ModuleList([block(n_in, n_out), block(n_out, n_out), halve]))
        self.middle = nn.ModuleList([block(dims[-1], dims[-1]), block(dims[-1], dims[-1])])
        for n_out, n_in in reversed(list(pairwise(dims[1:]))):
            double = _ConvTranspose(n_out, n_out, 4, stride=2, padding=1)
            self.up.append(nn.ModuleList([block(2 * n_in, n_out), block(n_out, n_out), double]))
        self.leave = nn.Sequential(
            _conv_norm_mish(dims[1], dims[1], config.kernel, config.groups), _Conv(dims[1], action_dim, 1)
        )

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Map a noisy chunk x (B, H, A) at times t (B,) or (B, H) under cond (B, K, E) to (B, H, A)."""
        step = self.step(t)  # (B, S) or (B, H, S)
        flat = cond.flatten(1)
        films = [torch.cat([step, flat if step.ndim == 2 else flat[:, None].expand(-1, step.shape[1], -1)], dim=-1)]
        for _ in self.up:  # a level sees half the rows of the one above
            films.append(films[-1] if step.ndim == 2 else films[-1].unflatten(1, (-1, 2)).mean(2))
        levels = [*range(len(films)), -1, *range(len(films) - 1, 0, -1)]  # down, in the middle, and up again
        blocks = zip(self._blocks(), (level for level in levels for _ in range(2)), strict=True)
        return self._through(x, [block.film(films[level]) for block, level in blocks])

    def at(self, times: Tensor, cond: Tensor) -> list[Callable[[Tensor], Tensor]]:
        """Return a function of x (B, H, A) for each of the times (n,), under cond (B, K, E).

        What the blocks are told of noise level and condition is computed once, for all times.
        """
        step, flat = self.step(times), cond.flatten(1)
        whole = (len(times), cond.shape[0], -1)
        film = torch.cat([step[:, None].expand(whole), flat.expand(whole)], dim=-1)  # (n, B, F)
        told = zip(*(block.film(film).unbind() for block in self._blocks()), strict=True)
        return [partial(self._through, told=one) for one in told]

    def _blocks(self) -> Iterator["_FilmBlock"]:
        """Yield the blocks in the order in which a chunk passes them."""
        pairs = [*(level[:2] for level in self.down), self.middle, *(level[:2] for level in self.up)]
        for pair in pairs:
            yield from pair  # type: ignore[misc]

    def _through(self, x: Tensor, told: Sequence[Tensor]) -> Tensor:
        """Pass a chunk (B, H, A) through all blocks, each with what it is ``told``."""
        each = iter(told)
        hidden = x.transpose(1, 2)  # (B, A, H)
        skips = []
        for first, second, halve in self.down:  # type: ignore[misc]
            hidden = second(first(hidden, next(each)), next(each))
            skips.append(hidden)
            hidden = halve(hidden)
        for block in self.middle:
            hidden = block(hidden, next(each))
        for first, second, double in self.up:  # type: ignore[misc]
            hidden = torch.cat([hidden, skips.pop()], dim=1)
            hidden = double(second(first(hidden, next(each)), next(each)))
        return self.leave(hidden).transpose(1, 2)


class _FilmBlock(nn.Module):
    """Two convolutions with a per-channel scale and shift of the condition between them, and a skip."""

    def __init__(self, n_in: int, n_out: int, film_dim: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.first = _conv_norm_mish(n_in, n_out, kernel, groups)
        self.second = _conv_norm_mish(n_out, n_out, kernel, groups)
        self.film = nn.Sequential(nn.Mish(), nn.Linear(film_dim, 2 * n_out))
        self.skip = _Conv(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Map (B, C, h) to (B, C', h), told ``film`` of level and condition: (B, 2 C'), or of each row (B, h, 2 C')."""
        scale, shift = (told[..., None] if told.ndim == 2 else told.transpose(1, 2)).chunk(2, dim=1)
        return self.second(torch.addcmul(shift, self.first(x), 1 + scale)) + self.skip(x)


def _conv_norm_mish(n_in: int, n_out: int, kernel: int, groups: int) -> nn.Sequential:
    return nn.Sequential(_Conv(n_in, n_out, kernel, padding=kernel // 2), nn.GroupNorm(groups, n_out), nn.Mish())


class _Conv(nn.Conv1d):
    """A convolution; of few chunks on a CPU a matrix product with the weights as they lie.

    The library packs the weights of each convolution anew at each call, which takes longer than the product itself.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H) to (B, C', H / stride)."""
        if not _few(x):
            return super().forward(x)
        spans = pad(x, (int(self.padding[0]),) * 2).unfold(2, self.kernel_size[0], self.stride[0])  # (B, C, H', K)
        return linear(spans.transpose(1, 2).flatten(2), self.weight.flatten(1), self.bias).transpose(1, 2)


class _ConvTranspose(nn.ConvTranspose1d):
    """The same for what doubles the rows."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map (B, C, H) to (B, C', stride H)."""
        if not _few(x):
            return super().forward(x, output_size)
        assert self.bias is not None
        kernel, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        rows = (x.shape[2] - 1) * stride - 2 * padding + kernel
        parts = (x.transpose(1, 2) @ self.weight.flatten(1)).transpose(1, 2)  # (B, C' K, H)
        whole = fold(parts, (1, rows), (1, kernel), padding=(0, padding), stride=(1, stride))
        return whole[:, :, 0] + self.bias[:, None]


def _few(x: Tensor) -> bool:
    return x.shape[0] <= FEW and x.device.type == "cpu" and not torch.compiler.is_compiling()

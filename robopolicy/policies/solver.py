"""Samplers as pure functions of (denoiser, grid, noise).

A denoiser D(x (B, ...), t (B,)) says which clean x0 a noisy x at level t came from. Guidance, clipping and
inpainting are wrappers D -> D; no solver knows of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robopolicy.errors import ContractError, UnknownName

Denoiser = Callable[[Tensor, Tensor], Tensor]
SOLVERS: tuple[str, ...] = ("ddim", "ddpm")


@dataclass(frozen=True)
class SolverConfig:
    """Which solver, and how many times it calls the network."""

    name: Literal["ddim", "ddpm"] = "ddim"
    steps: int = 16

    def __post_init__(self) -> None:
        if self.name not in SOLVERS:
            raise UnknownName("solver", self.name, SOLVERS)


@dataclass(frozen=True)
class Grid:
    """The noise levels a solver visits, noisiest first."""

    t: Tensor  # (n,) int64
    alpha_bar: Tensor  # (n + 1,) float32; the last is 1, the clean end


def trailing_grid(alpha_bar: Tensor, n: int) -> Grid:
    """Spread ``n`` levels over all of alpha_bar (T,), the noisiest included.

    diffusers' default, ``leading``, would start 16 of 100 steps at t = 90, where a seventh of the signal's
    amplitude is still there, and feed the network pure noise (Lin et al. 2024, table 2).

    Raises:
        ContractError: if n is not within 1..T.
    """
    steps = len(alpha_bar)
    if not 1 <= n <= steps:
        raise ContractError(f"solver: {n} steps of a process of {steps}; want 1 to {steps}")
    t = torch.round(torch.arange(n, 0, -1, dtype=torch.float64) * (steps / n)).long().to(alpha_bar.device) - 1
    return Grid(t, torch.cat([alpha_bar[t], alpha_bar.new_ones(1)]))


def ddim(denoise: Denoiser, grid: Grid, noise: Tensor) -> Tensor:
    """Follow the deterministic path from ``noise`` (B, ...) to a sample. Song et al. 2021, eq. 12 with sigma 0."""
    x = noise
    for i, t in enumerate(grid.t):
        here, there = grid.alpha_bar[i], grid.alpha_bar[i + 1]
        x0 = denoise(x, t.expand(len(x)))
        eps = (x - here.sqrt() * x0) / (1 - here).sqrt()
        x = there.sqrt() * x0 + (1 - there).sqrt() * eps
    return x


def ddpm(denoise: Denoiser, grid: Grid, noise: Tensor) -> Tensor:
    """Draw ancestrally. Ho et al. 2020, eq. 6 and 7, with the posterior's own (small) variance.

    Args:
        denoise: the denoiser.
        grid: of n levels.
        noise: (n, B, ...) unit noise: the start, then what is added after each step but the last.
    """
    x = noise[0]
    for i, t in enumerate(grid.t):
        here, there = grid.alpha_bar[i], grid.alpha_bar[i + 1]
        alpha = here / there
        x0 = denoise(x, t.expand(len(x)))
        x = (there.sqrt() * (1 - alpha) * x0 + alpha.sqrt() * (1 - there) * x) / (1 - here)
        if i + 1 < len(grid.t):
            x = x + ((1 - there) / (1 - here) * (1 - alpha)).sqrt() * noise[i + 1]
    return x


def clipped(denoise: Denoiser, limit: float = 1.0) -> Denoiser:
    """Return a denoiser whose answers stay within [-limit, limit], where normalised data lie."""
    return lambda x, t: denoise(x, t).clamp(-limit, limit)


def noise_like(config: SolverConfig, shape: tuple[int, ...], draw: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
    """Draw the noise that the solver of ``config`` needs for a sample of ``shape``."""
    return torch.stack([draw(shape) for _ in range(config.steps)]) if config.name == "ddpm" else draw(shape)

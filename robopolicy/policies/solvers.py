"""Samplers as pure functions of (denoiser, grid, noise), for every process with x = alpha(t) x0 + sigma(t) eps.

A denoiser D(x (B, ...), t) says which clean x0 a noisy x at the grid's level t came from. Guidance, clipping and
inpainting are wrappers D -> D; no solver knows of them, nor of the process that made the grid. A grid is plain numbers
and every step is a sum of x, x0 and fresh noise with numbers before them: nothing looks at the value of a tensor, so a
whole solve can be exported or captured in a CUDA graph, and what depends on levels alone is done once, before it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robopolicy.errors import ContractError, UnknownName

Denoiser = Callable[[Tensor, float], Tensor]  # x (B, ...) and its level, one of the grid's, to x0 (B, ...)
SolverName = Literal["ddim", "ddpm", "euler", "heun", "dpm++2m", "ancestral", "consistency"]
SOLVERS: tuple[str, ...] = ("ddim", "ddpm", "euler", "heun", "dpm++2m", "ancestral", "consistency")
STOCHASTIC: tuple[str, ...] = ("ddpm", "ancestral", "consistency")


@dataclass(frozen=True)
class SolverConfig:
    """Which solver, and how many times it calls the network (heun: twice a step but the last).

    Raises:
        UnknownName: if there is no such solver.
        ContractError: if steps or eta are out of range.
    """

    name: SolverName = "ddim"  # consistency goes with a process that learns jumps
    steps: int = 16  # noise levels visited, each a call of the network, two of heun's
    eta: float = 0.0  # share of fresh noise of ddim, 0 (deterministic) to 1 (ancestral)

    def __post_init__(self) -> None:
        if self.name not in SOLVERS:
            raise UnknownName("solver", self.name, SOLVERS)
        if self.steps < 1 or not 0 <= self.eta <= 1:
            raise ContractError(f"solver: steps {self.steps}, eta {self.eta}; want steps >= 1 and 0 <= eta <= 1")
        if self.eta > 0 and self.name != "ddim":
            raise ContractError(f"solver: eta {self.eta} of {self.name}; only ddim has one")

    @property
    def stochastic(self) -> bool:
        """Whether it draws fresh noise at every step."""
        return self.name in STOCHASTIC or self.eta > 0


@dataclass(frozen=True)
class Grid:
    """The noise levels that a solver visits, noisiest first, and the clean end; plain numbers, on no device."""

    t: tuple[float, ...]  # n + 1 levels, as the process counts them; the last is the clean one
    alpha: tuple[float, ...]  # n + 1 shares of the signal; the last is 1
    sigma: tuple[float, ...]  # n + 1 shares of the noise; the last is 0

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.t) - 1


def ddim(denoise: Denoiser, grid: Grid, noise: Tensor, eta: float = 0.0) -> Tensor:
    """Song et al. 2021, eq. 12, for any alpha and sigma; eta 1 draws ancestrally.

    With eta 0 this is Euler's method: along EDM's probability flow, and along the straight lines of flow matching.

    Args:
        denoise: the denoiser.
        grid: of n steps.
        noise: (B, ...) unit noise; for eta > 0 (n, B, ...): the start, then what each step but the last adds.
        eta: share of fresh noise, 0 to 1.
    """
    x = grid.sigma[0] * (noise if eta == 0 else noise[0])
    for i in range(len(grid) - 1):
        x0 = denoise(x, grid.t[i])
        up = eta * _ancestral_sigma(grid, i) if eta else 0.0
        kept, new = _line(grid, i, math.sqrt(max(grid.sigma[i + 1] ** 2 - up**2, 0.0)) if up else grid.sigma[i + 1])
        x = (kept * x).add_(x0, alpha=new)
        if up:
            x.add_(noise[i + 1], alpha=up)
    return denoise(x, grid.t[-2])


def ddpm(denoise: Denoiser, grid: Grid, noise: Tensor) -> Tensor:
    """Draw ancestrally with the posterior's own (small) variance: Ho et al. 2020, eq. 6 and 7; noise (n, B, ...)."""
    return ddim(denoise, grid, noise, eta=1.0)


def euler(denoise: Denoiser, grid: Grid, noise: Tensor) -> Tensor:
    """Euler's method on the probability flow, or on the flow's velocity; noise (B, ...)."""
    return ddim(denoise, grid, noise)


def ancestral(denoise: Denoiser, grid: Grid, noise: Tensor) -> Tensor:
    """Euler steps with fresh noise (k-diffusion's ``euler_ancestral``, eta 1); noise (n, B, ...)."""
    return ddim(denoise, grid, noise, eta=1.0)


def heun(denoise: Denoiser, grid: Grid, noise: Tensor) -> Tensor:
    """Average the slope here with the slope there; the last step, onto clean data, is Euler's. Karras 2022, alg. 1.

    The slope is taken along the chord (change of alpha) x0 + (change of sigma) eps, Karras' own for EDM and
    the velocity for flow matching. On a variance preserving process this is of second order as well, and stays finite
    where x / alpha, in which k-diffusion steps, does not.
    """
    x = grid.sigma[0] * noise
    for i in range(len(grid) - 1):
        kept, new = _line(grid, i, grid.sigma[i + 1])
        there = (kept * x).add_(denoise(x, grid.t[i]), alpha=new)
        slope = (grid.sigma[i + 1] - grid.sigma[i]) / grid.sigma[i + 1]  # of the chord there, on x; then on x0
        slope_x0 = grid.alpha[i + 1] - grid.alpha[i] - grid.alpha[i + 1] * slope
        x0 = denoise(there, grid.t[i + 1])
        x = (0.5 * x).add_(there, alpha=(1 + slope) / 2).add_(x0, alpha=slope_x0 / 2)
    return denoise(x, grid.t[-2])


def dpmpp_2m(denoise: Denoiser, grid: Grid, noise: Tensor) -> Tensor:
    """DPM-Solver++(2M): second order, first and last step of first. Lu et al. 2022, alg. 2; noise (B, ...)."""
    x = grid.sigma[0] * noise
    before: Tensor | None = None
    for i in range(len(grid) - 1):
        x0 = denoise(x, grid.t[i])
        kept, new = _line(grid, i, grid.sigma[i + 1])
        ahead = 0.0 if before is None else _log_snr_step(grid, i) / (2 * _log_snr_step(grid, i - 1))
        x = (kept * x).add_(x0, alpha=new * (1 + ahead))
        if before is not None:
            x.add_(before, alpha=-new * ahead)
        before = x0
    return denoise(x, grid.t[-2])


def consistency(jump: Denoiser, grid: Grid, noise: Tensor) -> Tensor:
    """Jump to the clean end, noise the result anew, jump again. Song et al. 2023 (consistency models), alg. 1.

    Args:
        jump: says where the probability flow through x (B, ...) at level t ends.
        grid: of k steps.
        noise: (k, B, ...) unit noise.
    """
    x = grid.sigma[0] * noise[0]
    for i in range(len(grid) - 1):
        x0 = jump(x, grid.t[i])
        x = (grid.alpha[i + 1] * x0).add_(noise[i + 1], alpha=grid.sigma[i + 1])
    return jump(x, grid.t[-2])


def solve(config: SolverConfig, denoise: Denoiser, grid: Grid, noise: Tensor) -> Tensor:
    """Run the solver of ``config``; ``noise`` is what `noise_like` drew, (n, B, ...) if it is stochastic."""
    if config.name == "ddim":
        return ddim(denoise, grid, noise, config.eta)
    functions = {
        "ddpm": ddpm, "euler": euler, "heun": heun, "dpm++2m": dpmpp_2m, "ancestral": ancestral,
        "consistency": consistency,
    }  # fmt: skip
    return functions[config.name](denoise, grid, noise)


def told(denoise: Callable[[Tensor, Tensor], Tensor]) -> Denoiser:
    """Return a denoiser of a function that wants the level of each sample, x (B, ...) and t (B,)."""
    return lambda x, t: denoise(x, x.new_full(x.shape[:1], t))


def clipped(denoise: Denoiser, limit: Tensor | float = 1.0) -> Denoiser:
    """Return a denoiser whose answers stay within [-limit, limit], where normalised data lie."""
    least = -limit
    return lambda x, t: denoise(x, t).clamp(least, limit)  # type: ignore[arg-type]  # both tensors or both numbers


def noise_like(config: SolverConfig, shape: tuple[int, ...], draw: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
    """Draw the noise that the solver of ``config`` needs for a sample of ``shape``."""
    return torch.stack([draw(shape) for _ in range(config.steps)]) if config.stochastic else draw(shape)


def _line(grid: Grid, i: int, sigma: float) -> tuple[float, float]:
    """Return a and b of a x + b x0 = alpha[i + 1] x0 + ``sigma`` eps, the noise eps being what x at i holds of it."""
    kept = sigma / grid.sigma[i]
    return kept, grid.alpha[i + 1] - grid.alpha[i] * kept


def _ancestral_sigma(grid: Grid, i: int) -> float:
    """Return the fresh noise of a full ancestral step from level i: that of the posterior, Ho et al. 2020, eq. 7."""
    left = grid.alpha[i] * grid.sigma[i + 1] / (grid.sigma[i] * grid.alpha[i + 1])  # 0 at a flow's pure noise
    return grid.sigma[i + 1] * math.sqrt(max(1 - left**2, 0.0))


def _log_snr_step(grid: Grid, i: int) -> float:
    """Return the rise of log(alpha / sigma) from level i to the next; infinite from a flow's pure noise."""
    if grid.alpha[i] == 0:
        return math.inf
    return math.log(grid.alpha[i + 1] * grid.sigma[i] / (grid.alpha[i] * grid.sigma[i + 1]))

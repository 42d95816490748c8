"""Samplers as pure functions of (denoiser, grid, noise), for every process with x = alpha(t) x0 + sigma(t) eps.

A denoiser D(x (B, ...), t (B,)) says which clean x0 a noisy x at level t came from. Guidance, clipping and
inpainting are wrappers D -> D; no solver knows of them, nor of the process that made the grid. Everything is a tensor
operation without a look at a value, so a whole solve can be captured in a CUDA graph.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robopolicy.errors import ContractError, UnknownName

Denoiser = Callable[[Tensor, Tensor], Tensor]
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

    name: SolverName = "ddim"
    steps: int = 16
    eta: float = 0.0  # share of fresh noise of ddim, 0 (deterministic) to 1 (ancestral)

    def __post_init__(self) -> None:
        if self.name not in SOLVERS:
            raise UnknownName("solver", self.name, SOLVERS)
        if self.steps < 1 or not 0 <= self.eta <= 1:
            raise ContractError(f"solver: steps {self.steps}, eta {self.eta}; want steps >= 1 and 0 <= eta <= 1")

    @property
    def stochastic(self) -> bool:
        """Whether it draws fresh noise at every step."""
        return self.name in STOCHASTIC or self.eta > 0


@dataclass(frozen=True)
class Grid:
    """The noise levels that a solver visits, noisiest first, and the clean end."""

    t: Tensor  # (n + 1,) levels, as the process counts them; the last is the clean one
    alpha: Tensor  # (n + 1,) share of the signal; the last is 1
    sigma: Tensor  # (n + 1,) share of the noise; the last is 0

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
    start, fresh = (noise, None) if eta == 0 else (noise[0], noise)
    x = grid.sigma[0] * start
    for i in range(len(grid)):
        x0, eps = _split(denoise, grid, x, i)
        alpha, sigma = grid.alpha[i + 1], grid.sigma[i + 1]
        if fresh is None or i + 1 == len(grid):
            x = alpha * x0 + sigma * eps
        else:
            up = eta * _ancestral_sigma(grid, i)
            x = alpha * x0 + (sigma**2 - up**2).clamp_min(0).sqrt() * eps + up * fresh[i + 1]
    return x


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
    the velocity for flow matching.
    """
    x = grid.sigma[0] * noise
    for i in range(len(grid)):
        d_alpha, d_sigma = grid.alpha[i + 1] - grid.alpha[i], grid.sigma[i + 1] - grid.sigma[i]
        x0, eps = _split(denoise, grid, x, i)
        here = d_alpha * x0 + d_sigma * eps
        if i + 1 == len(grid):
            x = x + here
        else:
            x0, eps = _split(denoise, grid, x + here, i + 1)
            x = x + (here + d_alpha * x0 + d_sigma * eps) / 2
    return x


def dpmpp_2m(denoise: Denoiser, grid: Grid, noise: Tensor) -> Tensor:
    """DPM-Solver++(2M): second order, first and last step of first. Lu et al. 2022, alg. 2; noise (B, ...)."""
    log_snr = grid.alpha.log() - grid.sigma.log()  # -inf at pure noise of a flow, inf at the clean end
    x = grid.sigma[0] * noise
    before: Tensor | None = None
    for i in range(len(grid)):
        x0 = denoise(x, grid.t[i].expand(len(x)))
        blend = x0
        if before is not None and i + 1 < len(grid):
            h, h_before = log_snr[i + 1] - log_snr[i], log_snr[i] - log_snr[i - 1]
            blend = x0 + h / (2 * h_before) * (x0 - before)
        ratio = grid.sigma[i + 1] / grid.sigma[i]
        x = ratio * x + (grid.alpha[i + 1] - grid.alpha[i] * ratio) * blend
        before = x0
    return x


def consistency(jump: Denoiser, grid: Grid, noise: Tensor) -> Tensor:
    """Jump to the clean end, noise the result anew, jump again. Song et al. 2023 (consistency models), alg. 1.

    Args:
        jump: says where the probability flow through x (B, ...) at level t ends.
        grid: of k steps.
        noise: (k, B, ...) unit noise.
    """
    x = grid.sigma[0] * noise[0]
    for i in range(len(grid)):
        x0 = jump(x, grid.t[i].expand(len(x)))
        x = x0 if i + 1 == len(grid) else grid.alpha[i + 1] * x0 + grid.sigma[i + 1] * noise[i + 1]
    return x


def solve(config: SolverConfig, denoise: Denoiser, grid: Grid, noise: Tensor) -> Tensor:
    """Run the solver of ``config``; ``noise`` is what `noise_like` drew, (n, B, ...) if it is stochastic."""
    if config.name == "ddim":
        return ddim(denoise, grid, noise, config.eta)
    functions = {
        "ddpm": ddpm, "euler": euler, "heun": heun, "dpm++2m": dpmpp_2m, "ancestral": ancestral,
        "consistency": consistency,
    }  # fmt: skip
    return functions[config.name](denoise, grid, noise)


def clipped(denoise: Denoiser, limit: float = 1.0) -> Denoiser:
    """Return a denoiser whose answers stay within [-limit, limit], where normalised data lie."""
    return lambda x, t: denoise(x, t).clamp(-limit, limit)


def noise_like(config: SolverConfig, shape: tuple[int, ...], draw: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
    """Draw the noise that the solver of ``config`` needs for a sample of ``shape``."""
    return torch.stack([draw(shape) for _ in range(config.steps)]) if config.stochastic else draw(shape)


def _split(denoise: Denoiser, grid: Grid, x: Tensor, i: int) -> tuple[Tensor, Tensor]:
    """Return the clean part and the noise of x, as the denoiser sees it at level i."""
    x0 = denoise(x, grid.t[i].expand(len(x)))
    return x0, (x - grid.alpha[i] * x0) / grid.sigma[i]


def _ancestral_sigma(grid: Grid, i: int) -> Tensor:
    """Return the fresh noise of a full ancestral step from level i: that of the posterior, Ho et al. 2020, eq. 7."""
    shrink = grid.alpha[i] * grid.sigma[i + 1] / grid.sigma[i]  # 0 at a flow's pure noise
    kept: Tensor = grid.sigma[i + 1] / grid.alpha[i + 1] * (grid.alpha[i + 1] ** 2 - shrink**2).clamp_min(0).sqrt()
    return kept

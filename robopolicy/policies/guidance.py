"""Wrappers of a denoiser that bend its answers: a hard prefix and real-time chunking."""

from collections.abc import Callable

import torch
from torch import Tensor

from robopolicy.errors import UnknownName
from robopolicy.policies.config import RealTimeConfig
from robopolicy.policies.solvers import Denoiser, Grid


def prefixed(denoise: Callable[[Tensor, Tensor], Tensor], prefix: Tensor, clean_level: float) -> Denoiser:
    """Return a denoiser whose first rows are known: given to the network clean, at the clean level, and kept.

    Args:
        denoise: takes x (B, H, A) and levels (B, H).
        prefix: (P, A) or (B, P, A), normalised.
        clean_level: of the process.
    """
    count = prefix.shape[-2]

    def bent(x: Tensor, t: float) -> Tensor:
        rows = x.new_full(x.shape[:2], t)
        rows[:, :count] = clean_level
        given = torch.cat([prefix.expand(len(x), -1, -1), x[:, count:]], dim=1)
        return torch.cat([given[:, :count], denoise(given, rows)[:, count:]], dim=1)

    return bent


def real_time(denoise: Denoiser, grid: Grid, previous: Tensor, weights: Tensor, config: RealTimeConfig) -> Denoiser:
    """Return a denoiser pulled to what is left of the running chunk. Black et al. 2025 (RTC), eq. 2 to 4.

    The pull is written for the clean chunk in place of the velocity, so it serves every process: with the shares of
    signal and noise a = alpha / (alpha + sigma) and b = sigma / (alpha + sigma), D + b min(beta, (a^2 + b^2) / (ab)) g,
    where g is the weighted difference W (Y - D), through the denoiser's Jacobian (``vjp``) or as it is (``identity``,
    then never more than the whole difference). Rows of weight 1 are those that will have been executed before the new
    chunk arrives: they come out as they were.

    Args:
        denoise: of the network.
        grid: whose levels it will be asked about.
        previous: (R, A) normalised, its rows those of the chunk.
        weights: (R,) from `agreement`.
        config: the guidance's limit, and how it reaches the noisy chunk.
    """
    if not bool(weights.any()):
        return denoise
    pull, fixed = weights[:, None], (weights >= 1)[:, None]
    shares = dict(zip(grid.t, zip(grid.alpha, grid.sigma, strict=True), strict=True))

    def bent(x: Tensor, t: float) -> Tensor:
        alpha, sigma = shares[t]
        a, b = alpha / (alpha + sigma), sigma / (alpha + sigma)
        gain = b * min((a**2 + b**2) / max(a * b, 1e-9), config.beta)
        if config.jacobian == "identity":
            clean = denoise(x, t)
            clean = clean + min(gain, 1.0) * pull * (previous - clean)
        else:
            clean, through = _pulled_back(denoise, x, t, lambda clean: pull * (previous - clean))
            clean = clean + gain * (alpha + sigma) * through
        return torch.where(fixed, previous, clean)

    return bent


def _pulled_back(
    denoise: Denoiser, x: Tensor, t: float, difference: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return D(x) and ``difference(D(x))`` times the Jacobian of D at x."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        clean = denoise(x, t)
    through = torch.autograd.grad(clean, x, difference(clean.detach()))[0]
    return clean.detach(), through


def agreement(horizon: int, delay: int, n_execute: int, schedule: str = "exp") -> Tensor:
    """Return how much each row of a new chunk must agree with the running one, (horizon,): RTC, eq. 5.

    1 for the ``delay`` rows that are executed meanwhile, fading to 0 at row horizon - n_execute, beyond which the
    running chunk holds nothing.

    Raises:
        UnknownName: if the schedule is not exp, linear or ones.
    """
    end = max(horizon - n_execute, delay)
    i = torch.arange(horizon, dtype=torch.float32)
    fade = ((end - i) / (end - delay + 1)).clamp(0, 1)
    if schedule == "exp":
        fade = fade * torch.expm1(fade) / (torch.e - 1)
    elif schedule == "ones":
        fade = (fade > 0).float()
    elif schedule != "linear":
        raise UnknownName("schedule", schedule, ("exp", "linear", "ones"))
    return torch.where(i < delay, 1.0, torch.where(i < end, fade, 0.0))

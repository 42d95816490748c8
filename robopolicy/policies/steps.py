"""The noise level as a vector, for every network."""

import math

import torch
from torch import Tensor, nn

from robopolicy.errors import ContractError


def sinusoidal(t: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Return sines and cosines of t (...,) at ``dim / 2`` geometric frequencies: (..., dim).

    Vaswani et al., Attention Is All You Need, 2017, section 3.5.
    """
    return _waves(t, _frequencies(dim, max_period).to(t.device))


def require_step_dim(axis: str, dim: int) -> None:
    """Check that a noise level can be embedded in ``dim`` numbers, as many sines as cosines; raises ContractError."""
    if dim < 2 or dim % 2:
        raise ContractError(f"{axis}: step_dim is {dim}; want an even number, at least 2")


class StepEmbedding(nn.Module):
    """Sinusoids of the noise level through two layers: t (...,) to (..., out_dim)."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.frequencies: Tensor  # (dim / 2,)
        self.register_buffer("frequencies", _frequencies(dim), persistent=False)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.Mish(), nn.Linear(4 * dim, out_dim))

    def forward(self, t: Tensor) -> Tensor:
        """Embed t, (B,) or one for each row of each chunk, (B, H)."""
        embedded: Tensor = self.mlp(_waves(t, self.frequencies))
        return embedded


def _frequencies(dim: int, max_period: float = 10_000.0) -> Tensor:
    half = dim // 2
    return torch.exp(torch.arange(half) * (-math.log(max_period) / max(half - 1, 1)))


def _waves(t: Tensor, frequencies: Tensor) -> Tensor:
    angles = t[..., None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)

"""A diffusion transformer over the rows of a chunk that attends to the observation tokens (Peebles and Xie 2023)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from robopolicy.errors import ContractError
from robopolicy.policies.ranges import require_least, require_share
from robopolicy.policies.steps import StepEmbedding, sinusoidal


@dataclass(frozen=True)
class TransformerConfig:
    """Size of a `ChunkTransformer`; ``build`` makes one.

    Raises:
        ContractError: if a size is out of its range, or the width cannot be shared out evenly among the heads.
    """

    kind: ClassVar[str] = "transformer"
    width: int = 256  # numbers a row becomes
    depth: int = 8  # transformer blocks
    heads: int = 4  # heads of attention; they divide the width
    dropout: float = 0.0  # share of the units that training leaves out
    causal: bool = False  # rows see only the rows before them, as Diffusion Policy's does

    def __post_init__(self) -> None:
        require_least(self.kind, self, 1, "width", "depth", "heads")
        require_share(self.kind, self, "dropout")
        if self.width % (2 * self.heads):
            raise ContractError(f"transformer: width {self.width} is not a multiple of twice its {self.heads} heads")

    def build(self, horizon: int, action_dim: int, tokens: int, token_dim: int) -> nn.Module:
        """Return the network for chunks (horizon, action_dim) under conditions (tokens, token_dim)."""
        return ChunkTransformer(self, horizon, action_dim, tokens, token_dim)


class ChunkTransformer(nn.Module):
    """Rows are tokens: they see each other, then the condition; the noise level sets each block's norms (adaLN-Zero).

    Every branch starts at zero, so a new network is the identity on its rows and says 0.
    """

    def __init__(self, config: TransformerConfig, rows: int, action_dim: int, tokens: int, token_dim: int) -> None:
        super().__init__()
        width = config.width
        self.enter, self.row = nn.Linear(action_dim, width), _places(rows, width)
        self.see, self.place = nn.Linear(token_dim, width), _places(tokens, width)
        self.step = StepEmbedding(width, width)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = _modulation(width, 2)
        self.leave = _zeroed(nn.Linear(width, action_dim))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Map a noisy chunk x (B, H, A) at times t (B,) or (B, H) under cond (B, K, E) to (B, H, A)."""
        step = self.step(t if t.ndim == 2 else t[:, None])  # (B, 1, W), or (B, H, W)
        seen = self.see(cond) + self.place
        rows = self.enter(x) + self.row
        for block in self.blocks:
            rows = block(rows, step, seen)
        shift, scale = self.modulate(step).chunk(2, dim=-1)
        return self.leave(self.norm(rows) * (1 + scale) + shift)


class _Block(nn.Module):
    """Self-attention, cross-attention to the condition, and an MLP, each added to the rows."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.width
        self.norm_self, self.norm_mlp = (nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.norm_cross, self.norm_seen = nn.LayerNorm(width), nn.LayerNorm(width)
        self.modulate = _modulation(width, 6)
        self.attend = _Attention(width, config.heads, config.dropout, config.causal)
        self.look = _Attention(width, config.heads, config.dropout)
        _zeroed(self.look.leave)  # the other two are gated by the noise level
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.SiLU(), nn.Dropout(config.dropout), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, rows: Tensor, step: Tensor, seen: Tensor) -> Tensor:
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.modulate(step).chunk(6, dim=-1)
        within = self.norm_self(rows) * (1 + scale) + shift
        rows = rows + gate * self.dropout(self.attend(within, within))
        rows = rows + self.dropout(self.look(self.norm_cross(rows), self.norm_seen(seen)))
        return rows + gate_mlp * self.dropout(self.mlp(self.norm_mlp(rows) * (1 + scale_mlp) + shift_mlp))


class _Attention(nn.Module):
    """Multi-head attention of rows (B, H, W) to others (B, K, W)."""

    def __init__(self, width: int, heads: int, dropout: float, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.dropout, self.causal = heads, dropout, causal
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.leave = nn.Linear(width, width)

    def forward(self, rows: Tensor, others: Tensor) -> Tensor:
        key, value = self.key_value(others).chunk(2, dim=-1)
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query(rows), key, value)
        )
        dropped = self.dropout if self.training else 0.0
        mixed = scaled_dot_product_attention(query, key, value, dropout_p=dropped, is_causal=self.causal)
        return self.leave(mixed.transpose(1, 2).flatten(2))


def _places(count: int, width: int) -> nn.Parameter:
    """Start as sinusoids, as large as what they are added to: small random ones take many times longer to learn."""
    return nn.Parameter(sinusoidal(torch.arange(count), width, max_period=100.0))


def _modulation(width: int, parts: int) -> nn.Sequential:
    return nn.Sequential(nn.SiLU(), _zeroed(nn.Linear(width, parts * width)))


def _zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer

"""A diffusion transformer over the rows of a chunk that attends to the observation tokens (Peebles and Xie 2023)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn


@dataclass(frozen=True)
class TransformerConfig:
    """Size of a `ChunkTransformer`; ``build`` makes one."""

    kind: ClassVar[str] = "transformer"
    width: int = 256
    depth: int = 8
    heads: int = 4
    dropout: float = 0.0
    causal: bool = False  # rows see only the rows before them, as Diffusion Policy's does

    def build(self, horizon: int, action_dim: int, tokens: int, token_dim: int) -> nn.Module:
        """Return the network for chunks (horizon, action_dim) under conditions (tokens, token_dim)."""
        raise NotImplementedError

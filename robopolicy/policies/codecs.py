"""Codecs: what a network says of a chunk against the robot's commands; an anchor is fixed once a chunk.

The anchor is the newest observation's tool pose, so a relative chunk is decoded against the observation that made it and
not anew at every row.
"""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from robopolicy.errors import ContractError
from robopolicy.spec import PolicySpec


class Codec(Protocol):
    """Commands to what the network learns, and back; an exact inverse."""

    dim: int  # of a row as the network sees it
    untouched: tuple[bool, ...]  # (dim,) which elements are not to be scaled

    def encode(self, actions: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Return (B, R, dim) of commands (B, R, A) under the observation's ``state`` {name: (B, T, D)}, robot units."""
        ...

    def decode(self, values: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Return commands (N, R, A) of values (N, R, dim) under ``state`` {name: (1 or N, T, D)}."""
        ...


class Plain:
    """Commands as they are: joints, vectors, poses."""

    def __init__(self, spec: PolicySpec) -> None:
        self.dim = spec.action.dim
        rotation = spec.action.kind == "tool_pose"
        self.untouched = tuple(rotation and 3 <= i < 9 for i in range(self.dim))

    def encode(self, actions: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Return the actions."""
        return actions

    def decode(self, values: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Return the values."""
        return values


def make_codec(name: str, spec: PolicySpec) -> Codec:
    """Return the codec ``name`` for the commands of ``spec``.

    Raises:
        ContractError: if it needs tool poses and the spec has none.
    """
    if name == "plain":
        return Plain(spec)
    raise ContractError(f"codec {name!r} is not there yet")

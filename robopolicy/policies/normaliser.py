"""Scaling between robot units and the numbers a network works with, saved with the weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robopolicy.errors import ContractError
from robopolicy.spec import ActionSpec, StateSpec

RANGE_EPS = 1e-4  # a dimension whose half range is below this is constant: it is shifted, never blown up


class Normaliser(nn.Module):
    """Per-dimension min-max to [-1, 1]; angles modulo 2 pi become (sin, cos).

    A wrapped element's sine takes its place and its cosine is appended at the end, so D elements become
    ``out_dim`` = D + the number of wrapped ones. The statistics are buffers: they travel with the weights and
    are NaN until fitted, so that a forgotten fit can never pass for an identity.

    Args:
        dim: D.
        wrapped: which elements are angles modulo 2 pi; default none.
        untouched: which elements pass unchanged; default none.
    """

    def __init__(
        self, dim: int, wrapped: Sequence[bool] | None = None, untouched: Sequence[bool] | None = None
    ) -> None:
        super().__init__()
        wrapped = list(wrapped) if wrapped is not None else [False] * dim
        untouched = list(untouched) if untouched is not None else [False] * dim
        self.dim = dim
        self.out_dim = dim + sum(wrapped)
        self.center: Tensor
        self.half_range: Tensor
        self.wrapped: Tensor
        self.fixed: Tensor
        self.register_buffer("center", torch.full((dim,), torch.nan))  # units of the stream
        self.register_buffer("half_range", torch.full((dim,), torch.nan))
        self.register_buffer("wrapped", torch.tensor([i for i in range(dim) if wrapped[i]], dtype=torch.long), False)
        fixed = torch.tensor([w or u for w, u in zip(wrapped, untouched, strict=True)])
        self.register_buffer("fixed", fixed, persistent=False)

    @classmethod
    def of_state(cls, spec: StateSpec) -> "Normaliser":
        """Return the normaliser of a state stream; ``rad_wrapped`` becomes (sin, cos), ``quat`` is left as it is."""
        return cls(spec.dim, wrapped=spec.wrapped, untouched=spec.unscaled)

    @classmethod
    def of_action(cls, spec: ActionSpec) -> "Normaliser":
        """Return the normaliser of an action; the rotation of a tool pose is left as it is, already in [-1, 1]."""
        rotation = [spec.kind == "tool_pose" and 3 <= i < 9 for i in range(spec.dim)]
        return cls(spec.dim, untouched=rotation)

    @property
    def fitted(self) -> bool:
        """Whether ``fit`` was called or statistics were loaded."""
        return bool(torch.isfinite(self.center).all() and torch.isfinite(self.half_range).all())

    def fit(self, values: Tensor) -> None:
        """Take the range of ``values`` (N, D).

        Raises:
            ContractError: on another shape, no rows, or a number that is not finite.
        """
        if values.ndim != 2 or values.shape[1] != self.dim or len(values) == 0:
            raise ContractError(f"normaliser: cannot fit values {tuple(values.shape)}; want (N, {self.dim}), N >= 1")
        if not torch.isfinite(values).all():
            raise ContractError("normaliser: cannot fit values that are not all finite")
        values = values.to(self.center.device)
        low, high = values.amin(0).double(), values.amax(0).double()
        half = (high - low) / 2
        self.center.copy_(torch.where(self.fixed, 0.0, (high + low) / 2))
        self.half_range.copy_(torch.where(self.fixed | (half < RANGE_EPS), 1.0, half))

    def forward(self, values: Tensor) -> Tensor:
        """Map (..., D) in robot units to (..., out_dim) for the network."""
        scaled = (values - self.center) / self.half_range
        if len(self.wrapped) == 0:
            return scaled
        angles = values[..., self.wrapped]
        return torch.cat([scaled.index_copy(-1, self.wrapped, angles.sin()), angles.cos()], dim=-1)

    def inverse(self, scaled: Tensor) -> Tensor:
        """Map (..., out_dim) back to (..., D) in robot units; wrapped angles come back in (-pi, pi]."""
        values = scaled[..., : self.dim] * self.half_range + self.center
        if len(self.wrapped) == 0:
            return values
        angles = torch.atan2(scaled[..., self.wrapped], scaled[..., self.dim :])
        return values.index_copy(-1, self.wrapped, angles)

    def stats(self) -> dict[str, list[float]]:
        """Return the statistics as plain numbers, for people to read."""
        return {"center": self.center.tolist(), "half_range": self.half_range.tolist()}

"""Scaling between robot units and the numbers a network works with, saved with the weights."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robopolicy.errors import ContractError, UnknownName
from robopolicy.spec import ActionSpec, StateSpec

RANGE_EPS = 1e-4  # a dimension whose scale is below this is constant: it is shifted, never blown up
TAILS = 0.01  # share of the values beyond either end of the range that ``quantile`` maps to [-1, 1]
Method = Literal["minmax", "meanstd", "quantile", "identity"]
METHODS: tuple[str, ...] = ("minmax", "meanstd", "quantile", "identity")


class Normaliser(nn.Module):
    """(values - center) / scale, each dimension by itself; angles modulo 2 pi become (sin, cos).

    A wrapped element's sine takes its place and its cosine is appended at the end, so D elements become
    ``out_dim`` = D + the number of wrapped ones. The statistics are buffers: they travel with the weights and
    are NaN until fitted, so that a forgotten fit can never pass for an identity.

    Args:
        dim: D.
        wrapped: which elements are angles modulo 2 pi; default none.
        untouched: which elements pass unchanged; default none.
        method: ``minmax`` maps the range to [-1, 1]; ``meanstd`` to mean 0 and deviation 1; ``quantile`` the range
            without its `TAILS` to [-1, 1], so that an outlier does not squeeze all else; ``identity`` does nothing.
        steps: rows with statistics of their own, for values (..., steps, D); None is one for all.

    Attributes:
        limit: the largest normalised magnitude of what was fitted, scalar: beyond it lies nothing demonstrated.

    Raises:
        UnknownName: if there is no such method.
    """

    def __init__(
        self,
        dim: int,
        wrapped: Sequence[bool] | None = None,
        untouched: Sequence[bool] | None = None,
        *,
        method: Method = "minmax",
        steps: int | None = None,
    ) -> None:
        super().__init__()
        if method not in METHODS:
            raise UnknownName("normaliser", method, METHODS)
        wrapped = list(wrapped) if wrapped is not None else [False] * dim
        untouched = list(untouched) if untouched is not None else [False] * dim
        self.dim, self.method, self.steps = dim, method, steps
        self.out_dim = dim + sum(wrapped)
        shape = (dim,) if steps is None else (steps, dim)
        self.center: Tensor
        self.scale: Tensor
        self.limit: Tensor
        self.wrapped: Tensor
        self.fixed: Tensor
        self.register_buffer("center", torch.full(shape, torch.nan))  # units of the stream
        self.register_buffer("scale", torch.full(shape, torch.nan))
        self.register_buffer("limit", torch.tensor(torch.nan))
        self.register_buffer("wrapped", torch.tensor([i for i in range(dim) if wrapped[i]], dtype=torch.long), False)
        fixed = torch.tensor([w or u for w, u in zip(wrapped, untouched, strict=True)])
        self.register_buffer("fixed", fixed, persistent=False)

    @classmethod
    def of_state(cls, spec: StateSpec, method: Method = "minmax") -> "Normaliser":
        """Return the normaliser of a state stream; ``rad_wrapped`` becomes (sin, cos), ``quat`` is left as it is."""
        return cls(spec.dim, wrapped=spec.wrapped, untouched=spec.unscaled, method=method)

    @classmethod
    def of_action(cls, spec: ActionSpec, method: Method = "minmax") -> "Normaliser":
        """Return the normaliser of an action; the rotation of a tool pose is left as it is, already in [-1, 1]."""
        rotation = [spec.kind == "tool_pose" and 3 <= i < 9 for i in range(spec.dim)]
        return cls(spec.dim, untouched=rotation, method=method)

    @property
    def fitted(self) -> bool:
        """Whether ``fit`` was called or statistics were loaded."""
        return bool(torch.isfinite(self.center).all() and torch.isfinite(self.scale).all() and (self.scale > 0).all())

    def fit(self, values: Tensor, valid: Tensor | None = None) -> None:
        """Take the statistics of ``values``.

        Args:
            values: (N, D), or windows (N, T, D).
            valid: (N, T) bool, which rows of the windows count; the others only repeat an episode's end.

        Raises:
            ContractError: on another shape, no rows, or a number that is not finite.
        """
        want = (values.ndim, *values.shape[1:]) if len(values) else ()
        if want not in ((2, self.dim), (3, self.steps or (values.shape[1] if values.ndim == 3 else 0), self.dim)):
            shape = f"(N, {self.dim})" if self.steps is None else f"(N, {self.steps}, {self.dim})"
            raise ContractError(f"normaliser: cannot fit values {tuple(values.shape)}; want {shape}, N >= 1")
        if not torch.isfinite(values).all():
            raise ContractError("normaliser: cannot fit values that are not all finite")
        values = values.to(self.center.device)
        groups = [values[:, k] for k in range(self.steps)] if self.steps else [values.flatten(0, -2)]
        if valid is not None:
            valid = valid.to(values.device)
            groups = [
                g[v]
                for g, v in zip(
                    groups, [valid[:, k] for k in range(self.steps)] if self.steps else [valid.flatten()], strict=True
                )
            ]
        found = [self._statistics(group) for group in groups if len(group)]
        if len(found) < len(groups):
            raise ContractError("normaliser: a row of the windows is padding everywhere; the episodes are too short")
        center, scale = (torch.stack(parts) if self.steps else parts[0] for parts in zip(*found, strict=True))
        self.center.copy_(center)
        self.scale.copy_(scale)
        scaled = [(group - c) / s for group, (c, s) in zip(groups, found, strict=True)]
        self.limit.copy_(torch.stack([part.abs().amax() for part in scaled]).amax().clamp_min(1.0))

    def _statistics(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return center and scale, (D,) each, of values (N, D)."""
        low, high = values.amin(0).double(), values.amax(0).double()
        center, scale = (high + low) / 2, (high - low) / 2
        if self.method == "meanstd":
            center, scale = values.double().mean(0), values.double().std(0, correction=0)
        elif self.method == "quantile":
            ordered = values.double().sort(0).values
            tail = int(TAILS * len(values))
            below, above = ordered[tail], ordered[-1 - tail]
            usable = (above - below) / 2 >= RANGE_EPS  # a gripper that is open 99 % of the time has no such range
            center, scale = (
                torch.where(usable, (above + below) / 2, center),
                torch.where(usable, (above - below) / 2, scale),
            )
        fixed = self.fixed if self.method != "identity" else torch.ones_like(self.fixed)
        return torch.where(fixed, 0.0, center).float(), torch.where(fixed | (scale < RANGE_EPS), 1.0, scale).float()

    def forward(self, values: Tensor) -> Tensor:
        """Map (..., D) in robot units to (..., out_dim) for the network; (..., steps, D) if each step has its own."""
        scaled = (values - self.center) / self.scale
        if len(self.wrapped) == 0:
            return scaled
        angles = values[..., self.wrapped]
        return torch.cat([scaled.index_copy(-1, self.wrapped, angles.sin()), angles.cos()], dim=-1)

    def inverse(self, scaled: Tensor) -> Tensor:
        """Map (..., out_dim) back to (..., D) in robot units; wrapped angles come back in (-pi, pi]."""
        values = scaled[..., : self.dim] * self.scale + self.center
        if len(self.wrapped) == 0:
            return values
        angles = torch.atan2(scaled[..., self.wrapped], scaled[..., self.dim :])
        return values.index_copy(-1, self.wrapped, angles)

    def stats(self) -> dict[str, Any]:
        """Return the statistics as plain numbers, for people to read."""
        return {"method": self.method, "center": self.center.tolist(), "scale": self.scale.tolist()}


def require_fitted(normalisers: Mapping[str, Normaliser], where: str) -> None:
    """Check that every normaliser has statistics.

    Raises:
        ContractError: naming those that have none.
    """
    bare = [name for name, normaliser in normalisers.items() if not normaliser.fitted]
    if bare:
        raise ContractError(
            f"{where}: the normaliser of {', '.join(bare)} was never fitted; train it or load a checkpoint"
        )

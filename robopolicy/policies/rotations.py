"""Rotations in torch, batched: what `robopolicy.rotations` is in numpy."""

import torch
from torch import Tensor


def quat_to_matrix(quat: Tensor) -> Tensor:
    """Convert quaternions wxyz (..., 4), of any length but zero, to matrices (..., 3, 3)."""
    w, x, y, z = (quat / quat.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], dim=-1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], dim=-1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def rot6d_to_matrix(rot6d: Tensor) -> Tensor:
    """Return the rotations (..., 3, 3) that Gram-Schmidt makes of two columns (..., 6). Zhou et al. 2019, eq. 15."""
    first = torch.nn.functional.normalize(rot6d[..., :3], dim=-1)
    second = rot6d[..., 3:] - (first * rot6d[..., 3:]).sum(-1, keepdim=True) * first
    second = torch.nn.functional.normalize(second, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


def matrix_to_rot6d(matrix: Tensor) -> Tensor:
    """Return the first two columns of (..., 3, 3), one after the other: (..., 6)."""
    return torch.cat([matrix[..., :, 0], matrix[..., :, 1]], dim=-1)


def orthonormal(rot6d: Tensor) -> Tensor:
    """Return the columns (..., 6) of the rotation that is nearest in the Gram-Schmidt sense."""
    return matrix_to_rot6d(rot6d_to_matrix(rot6d))


def wrap(angle: Tensor) -> Tensor:
    """Return the angle in (-pi, pi] that differs by whole turns."""
    return torch.atan2(angle.sin(), angle.cos())

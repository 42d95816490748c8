"""Views of one moment on the device: what all of them together say of each point (view consistency).

Points are shares of the picture, -1 to 1, as in `robopolicy.policies.track_augment`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from robopolicy.errors import ContractError
from robopolicy.geometry.cameras import Camera

NEAR = 0.02  # m; a point nearer to a camera than this is behind it, and its views are left as they are
ROUNDS = 8  # of the fixed-point iteration that takes a lens away; 1e-6 of the focal length for usual lenses


class Views(nn.Module):
    """Calibrated cameras of pictures of known size, as tensors.

    Args:
        cameras: V of them, two at least.
        sizes: (H, W) of the pictures their calibration is of, each.

    Raises:
        ContractError: if there are fewer than two, or two are at the same place: depth cannot be told.
    """

    def __init__(self, cameras: Sequence[Camera], sizes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        if len(cameras) < 2:
            raise ContractError(f"views: {len(cameras)} camera; motion tracks want two at least")
        places = np.array([camera.T_base_cam[:3, 3] for camera in cameras])
        apart = np.linalg.norm(places[:, None] - places[None], axis=-1)[np.triu_indices(len(cameras), 1)]
        if apart.min() < 1e-3:
            raise ContractError("views: two cameras are at the same place; want them apart, 60 to 90 degrees at best")
        self.rotation: Tensor  # (V, 3, 3) R_base_cam
        self.place: Tensor  # (V, 3) m
        self.intrinsics: Tensor  # (V, 3, 3)
        self.lens: Tensor  # (V, 12)
        self.side: Tensor  # (V, 2) W and H, px
        for name, value in {
            "rotation": [camera.T_base_cam[:3, :3] for camera in cameras],
            "place": places,
            "intrinsics": [camera.K for camera in cameras],
            "lens": [np.pad(camera.distortion, (0, 12 - len(camera.distortion))) for camera in cameras],
            "side": [(width, height) for height, width in sizes],
        }.items():
            self.register_buffer(name, torch.tensor(np.array(value), dtype=torch.float32), persistent=False)
        self._straight = not bool(self.lens.any())

    def pixels(self, shares: Tensor) -> Tensor:
        """Return the pixels of shares (..., V, P, 2)."""
        return (shares + 1) / 2 * self.side[:, None] - 0.5

    def shares(self, pixels: Tensor) -> Tensor:
        """Return the shares of the picture of pixels (..., V, P, 2)."""
        return (pixels + 0.5) / self.side[:, None] * 2 - 1

    def agreed(self, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Return where each view would show the points that all views together see nearest to what each says.

        A point in space is the nearest to all rays in the least squares sense, which has a closed form and needs no
        decomposition: a plan asks for thousands at every step of its solver.

        Args:
            shares: (..., V, P, 2).

        Returns:
            The same shape; and how far off each view was, px, (..., V, P). Points that would be behind a camera are
            left as they are, with an infinite distance.
        """
        pixels = self.pixels(shares)
        rays = self._rays(pixels)  # (..., V, P, 3) in the base frame, unit
        eye = torch.eye(3, device=shares.device)
        across = eye - rays[..., :, None] * rays[..., None, :]  # (..., V, P, 3, 3): what is off the ray
        total = across.sum(-4)
        aim = (across @ self.place[:, None, :, None]).sum(-4)
        points = _solved(total, aim[..., 0])  # (..., P, 3)
        seen = (points.unsqueeze(-3) - self.place[:, None]) @ self.rotation  # (..., V, P, 3) in the cameras' frames
        bad = ~(seen[..., 2] > NEAR).all(-2, keepdim=True) | ~torch.isfinite(points).all(-1).unsqueeze(-2)
        depth = torch.where(bad, 1.0, seen[..., 2])
        made = self._project(seen[..., :2] / depth[..., None])
        apart = torch.where(bad, torch.inf, (made - pixels).norm(dim=-1))
        return torch.where(bad[..., None], shares, self.shares(made)), apart

    def _rays(self, pixels: Tensor) -> Tensor:
        K = self.intrinsics[:, None]
        y = (pixels[..., 1] - K[..., 1, 2]) / K[..., 1, 1]
        x = (pixels[..., 0] - K[..., 0, 2] - K[..., 0, 1] * y) / K[..., 0, 0]
        plane = torch.stack([x, y], dim=-1)
        if not self._straight:
            bent = plane
            for _ in range(ROUNDS):
                plane = plane + bent - self._bent(plane)
        rays = torch.cat([plane, torch.ones_like(plane[..., :1])], dim=-1) @ self.rotation.transpose(-1, -2)
        return rays / rays.norm(dim=-1, keepdim=True)

    def _project(self, plane: Tensor) -> Tensor:
        if not self._straight:
            plane = self._bent(plane)
        K = self.intrinsics[:, None]
        x = plane[..., 0] * K[..., 0, 0] + plane[..., 1] * K[..., 0, 1] + K[..., 0, 2]
        return torch.stack([x, plane[..., 1] * K[..., 1, 1] + K[..., 1, 2]], dim=-1)

    def _bent(self, plane: Tensor) -> Tensor:
        """As `Camera` does."""
        k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = self.lens[:, None].unbind(-1)
        x, y = plane.unbind(-1)
        r2 = x * x + y * y
        radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        return torch.stack(
            [
                x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + r2 * (s1 + r2 * s2),
                y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y + r2 * (s3 + r2 * s4),
            ],
            dim=-1,
        )


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    """Return the solutions (..., 3) of symmetric systems (..., 3, 3), by cofactors."""
    a, b, c = matrix[..., 0, :], matrix[..., 1, :], matrix[..., 2, :]
    bc, ca, ab = torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)
    det = (a * bc).sum(-1, keepdim=True)
    return (bc * right[..., :1] + ca * right[..., 1:2] + ab * right[..., 2:]) / det

"""Views of one moment on the device: what all of them together say of each point (view consistency).

Points are shares of the picture, -1 to 1, as in `robopolicy.policies.track_augment`. All views are asked at every step
of a solver, for few points: what counts is how many operations that takes, and not how large they are. What depends on
the cameras alone is therefore multiplied out beforehand, and what a lens does is looked up.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from robopolicy.errors import ContractError
from robopolicy.geometry.cameras import Camera

NEAR = 0.02  # m; a point nearer to a camera than this is behind it, and its views are left as they are
PARALLEL = 1e-9  # of a determinant that is 2 sin^2 of the angle between two rays; less is no angle
REACH = 1.25  # shares; further out a lens is taken to move points as it does there
CELLS, FINEST = 128, 512  # a side of the tables of what a lens does: as few as will do
MISSED = 0.005  # px of the picture, at most, between the places of a table; points go through two
SURE = 0.75  # of the radius at which a lens folds; nearer to it a pixel is so wide an angle that no table is as good


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
        sides = [(width, height) for height, width in sizes]
        onto = [_onto(camera, side) for camera, side in zip(cameras, sides, strict=True)]
        self.side: Tensor  # (V, 2) W and H, px
        self.rays: Tensor  # (V, 3, 6) of (x, y, 1), shares without a lens, to a ray as `meet` has it
        self.seen: Tensor  # (V, 6, 3) of what `meet` solves to shares times depth, and depth
        self.total: Tensor  # (1, 5, 4)
        self.lenses: Tensor  # (2, V, 2, C, C) by how many shares lenses are to be taken away, and are to be put there
        self.reach: Tensor  # (2, V, 1, 1) shares that these span
        self._straight = not any(camera.distortion.any() for camera in cameras)
        made = {
            "side": sides,
            "rays": [_rays(*each) for each in zip(cameras, onto, strict=True)],
            "seen": [_seen(*each) for each in zip(cameras, onto, strict=True)],
            "total": [_total(places)],
        }
        if not self._straight:
            lenses = [_lens(*each, CELLS) for each in zip(cameras, onto, sides, strict=True)]
            if (finer := np.sqrt(max(missed for *_, missed in lenses) / MISSED)) > 1:
                cells = min(int(np.ceil(CELLS * finer)), FINEST)
                lenses = [_lens(*each, cells) for each in zip(cameras, onto, sides, strict=True)]
            tables, reach, _ = zip(*lenses, strict=True)
            made |= {"lenses": np.stack(tables, axis=1), "reach": np.stack(reach, axis=1)[..., None, None]}
        for name, value in made.items():
            self.register_buffer(name, torch.tensor(np.array(value), dtype=torch.float32), persistent=False)

    def pixels(self, shares: Tensor) -> Tensor:
        """Return the pixels of shares (..., V, P, 2)."""
        return (shares + 1) / 2 * self.side[:, None] - 0.5

    def shares(self, pixels: Tensor) -> Tensor:
        """Return the shares of the picture of pixels (..., V, P, 2)."""
        return (pixels + 0.5) / self.side[:, None] * 2 - 1

    def agreed(self, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Return where each view would show the points that all views together see nearest to what each says.

        Args:
            shares: (..., V, P, 2).

        Returns:
            The same shape; and how far off each view was, px, (..., V, P). Points that would be behind a camera are
            left as they are, with an infinite distance.
        """
        first = shares.movedim(-3, 0)  # (V, ..., P, 2)
        made, fine = self.meet(first.flatten(1, -2))
        off = (made - first.flatten(1, -2)) * (self.side[:, None] / 2)
        apart = torch.where(fine[..., 0], off.norm(dim=-1), torch.inf).view(first.shape[:-1])
        return made.view(first.shape).movedim(0, -3), apart.movedim(0, -2)

    def meet(self, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `agreed` does, of points (V, M, 2), and which of them are in front of all cameras, (1, M, 1).

        A point in space is the nearest to all rays in the least squares sense: with d the unit vector along the ray of
        each camera at o, the sum of (I - d d') is A and that of (I - d d') o is b, and A x = b. The adjugate of A is
        made of the cross products of its rows, and a projection does not ask by what x is scaled, so nothing is
        divided by A's determinant.
        """
        ideal = shares if self._straight else shares + self._by_the_lens(0, shares)
        rays = torch.baddbmm(self.rays[:, 2:], ideal, self.rays[:, :2])  # (V, M, 6): d o, then d three times, d twice
        rays = rays / rays[..., 1:4].norm(dim=-1, keepdim=True)
        every = rays.permute(1, 2, 0)[:, 1:], rays.transpose(0, 1)[..., :4]  # (M, 5, V), (M, V, 4)
        sums = torch.baddbmm(self.total, *every, alpha=-1)  # (M, 5, 4): b and A in rows 0, 1, 2, and 0, 1 once more
        adjugate = torch.linalg.cross(sums[:, 1:4, 1:], sums[:, 2:, 1:])  # (M, 3, 3), symmetric as A
        points = torch.bmm(adjugate, sums[:, :3, :2])  # (M, 3, 2): det A x, and det A above two zeros
        shown = points.flatten(1) @ self.seen  # (V, M, 3)
        depth = shown[..., 2:]
        fine = (depth > points[:, :1, 1].clamp_min(PARALLEL) * NEAR).all(0, keepdim=True)
        made = shown[..., :2] / depth
        if not self._straight:
            made = made + self._by_the_lens(1, made)
        return torch.where(fine, made, shares), fine

    def _by_the_lens(self, way: int, shares: Tensor) -> Tensor:
        """Return by how many shares (V, M, 2) a lens moves points: 0 to where they were without it, 1 back."""
        at = (shares / self.reach[way])[:, :, None]
        found = grid_sample(self.lenses[way], at, mode="bilinear", padding_mode="border", align_corners=True)
        return found[..., 0].transpose(1, 2)


def _onto(camera: Camera, side: tuple[int, int]) -> np.ndarray:
    """Return the matrix (3, 3) that takes (x, y, 1) on the undistorted image plane to shares of the picture."""
    width, height = side
    made: np.ndarray = np.array([[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]]) @ camera.K
    return made


def _rays(camera: Camera, onto: np.ndarray) -> np.ndarray:
    """Return (3, 6): shares (x, y, 1) to the ray's direction d in the base frame, as d o, d1, d2, d3, d1, d2."""
    along = (camera.T_base_cam[:3, :3] @ np.linalg.inv(onto)).T
    return np.column_stack([along @ camera.T_base_cam[:3, 3], along, along[:, :2]])


def _seen(camera: Camera, onto: np.ndarray) -> np.ndarray:
    """Return (6, 3): (x, 1, y, 0, z, 0) of a point in the base frame to its shares times its depth, and its depth."""
    made = np.zeros((6, 3))
    made[[0, 2, 4, 1]] = (onto @ camera.P).T
    return made


def _total(places: np.ndarray) -> np.ndarray:
    """Return (5, 4): of `Views.meet`, what d d' is taken from: the places' sum, and V I in rows 0, 1, 2, 0, 1."""
    return np.column_stack([places.sum(0), len(places) * np.eye(3)])[[0, 1, 2, 0, 1]]


def _lens(camera: Camera, onto: np.ndarray, side: tuple[int, int], cells: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return by how many shares a lens is to be taken away, and how it is to be put there, (2, 2, C, C), rows first;
    how far out from the middle both reach, (2,) shares; and by how many pixels the worst misses between its places.

    Where a lens shows nothing, it does what it does at the next place towards the middle where it shows something.
    """

    def onto_shares(pixels: np.ndarray) -> np.ndarray:
        return (pixels + 0.5) / side * 2 - 1

    def grid(reach: float) -> np.ndarray:
        return np.stack(np.meshgrid(*[np.linspace(-reach, reach, cells + 1)] * 2), axis=-1)  # (C, C, 2) x and y

    def onto_plane(shares: np.ndarray) -> np.ndarray:
        made: np.ndarray = (shares - onto[:2, 2]) @ np.linalg.inv(onto[:2, :2]).T
        return made

    def put(plane: np.ndarray) -> np.ndarray:
        rays = np.concatenate([plane, np.ones((*plane.shape[:-1], 1))], -1)
        return onto_shares(camera.project(rays @ camera.T_base_cam[:3, :3].T + camera.T_base_cam[:3, 3]))

    far, fold = REACH, 0.999 * camera.fold
    if np.isfinite(fold):
        angle = np.linspace(0, 2 * np.pi, cells)
        far = min(far, float(np.abs(put(fold * np.stack([np.cos(angle), np.sin(angle)], axis=-1))).max()))
    shares = grid(far)
    plane = camera.rays((shares + 1) / 2 * side - 0.5)
    if (lost := np.isnan(plane).any(-1)).any() and np.isfinite(fold):
        way = onto_plane(shares[lost])
        plane[lost] = fold * way / np.linalg.norm(way, axis=-1, keepdims=True)
        shares[lost] = put(plane[lost])
    middle = onto_shares(camera.K[:2, 2])
    while (lost := np.isnan(plane).any(-1)).any():
        shares[lost] = middle + 0.97 * (shares[lost] - middle)
        plane[lost] = camera.rays((shares[lost] + 1) / 2 * side - 0.5)
    ideal = plane @ onto[:2, :2].T + onto[:2, 2]
    reach = float(np.abs(ideal).max())
    there = grid(reach)
    rays = onto_plane(there)
    shown = put(rays)
    moved = np.stack([ideal - shares, shown - there])
    sure = [
        (np.abs(at).max(-1) <= 1) & (np.linalg.norm(ray, axis=-1) <= SURE * camera.fold)
        for at, ray in ((shares, plane), (shown, rays))
    ]
    return moved.transpose(0, 3, 1, 2), np.array([far, reach]), _missed(moved, np.stack(sure), side)


def _missed(moved: np.ndarray, counts: np.ndarray, side: tuple[int, int]) -> float:
    """Return by how many pixels interpolation between places of tables (2, C, C, 2) may miss where a place counts.

    In the middle of a cell it is off by an eighth of the second differences along both sides.
    """
    down, right = np.diff(moved, 2, axis=1)[:, :, 1:-1], np.diff(moved, 2, axis=2)[:, 1:-1]
    off = np.linalg.norm((np.abs(down) + np.abs(right)) * np.array(side) / 16, axis=-1)
    return float(off[counts[:, 1:-1, 1:-1]].max(initial=0.0))

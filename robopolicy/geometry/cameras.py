"""A calibrated camera: where it is, how it projects, and what its lens does, in OpenCV's convention."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.polynomial import Polynomial

from robopolicy.errors import BehindCamera, ContractError, UnknownCamera

DISTORTIONS = (0, 4, 5, 8, 12)  # counts of coefficients: none; k1 k2 p1 p2; k3; k4 k5 k6; s1 s2 s3 s4
NEAREST = 1e-6  # m, in front of the camera; nearer is behind it
FAR_M = 50.0  # from the base: a camera so far off is told in mm
ROUNDS = 20  # of Newton's method at most; strong lenses take six


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with a lens (OpenCV's rational model with thin prism).

    The centre of the first pixel is (0, 0), x to the right and y down; the camera looks along its +z.

    Args:
        K: (3, 3) intrinsics, pixels.
        T_base_cam: (4, 4) pose of the camera in the base frame, m.
        distortion: 0, 4, 5, 8 or 12 coefficients in OpenCV's order.
        size: (H, W) pixels of the pictures it was calibrated for; None: not told.
        name: by which errors call it.

    Raises:
        ContractError: naming the part that is no such thing, or that is of pictures of another size.
    """

    K: np.ndarray
    T_base_cam: np.ndarray
    distortion: np.ndarray = field(default_factory=lambda: np.zeros(0))
    size: tuple[int, int] | None = None
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        this = f"camera {self.name!r}" if self.name else "camera"
        for name, shape in (("K", (3, 3)), ("T_base_cam", (4, 4))):
            found = np.array(getattr(self, name), np.float64)
            if found.shape != shape or not np.isfinite(found).all():
                raise ContractError(f"{this}: {name} is {found.shape}; want finite {shape}")
            object.__setattr__(self, name, found)
        lens = np.array(self.distortion, np.float64).ravel()
        if len(lens) not in DISTORTIONS or not np.isfinite(lens).all():
            raise ContractError(f"{this}: {len(lens)} distortion coefficients; want finite {DISTORTIONS} of them")
        object.__setattr__(self, "distortion", lens)
        turn = self.T_base_cam[:3, :3]
        if not np.allclose(turn @ turn.T, np.eye(3), atol=1e-4) or np.linalg.det(turn) < 0:
            raise ContractError(f"{this}: T_base_cam has no rotation matrix; want orthonormal columns, determinant 1")
        if not (self.K[0, 0] > 0 and self.K[1, 1] > 0):
            raise ContractError(f"{this}: K has focal lengths {_row(np.diagonal(self.K)[:2])}; want them above 0")
        for name in ("K", "T_base_cam"):
            _require_last_row(f"{this}: {name}", getattr(self, name))
        if (away := float(np.linalg.norm(self.T_base_cam[:3, 3]))) > FAR_M:
            raise ContractError(
                f"{this}: T_base_cam puts it {away:.4g} m from the base; want metres, {FAR_M:g} at most"
            )
        if abs(self.K[1, 0]) > 1e-6:
            raise ContractError(f"{this}: K[1, 0] is {self.K[1, 0]:g}; want 0")
        if self.size is not None:
            object.__setattr__(self, "size", (int(self.size[0]), int(self.size[1])))
            if not self.inside(self.K[:2, 2]):
                raise ContractError(
                    f"{this}: K has its principal point at ({_row(self.K[:2, 2], ', ')}), outside pictures of "
                    f"{self.size[1]} x {self.size[0]} px (W x H); want K of pictures of that size"
                )

    @classmethod
    def from_json(cls, entry: Mapping[str, Any], name: str = "camera") -> "Camera":
        """Return the camera of an entry of `EpisodeMeta.cameras`.

        Raises:
            ContractError: naming the camera, if it was never calibrated or the entry is damaged.
        """
        if not isinstance(entry, Mapping) or "K" not in entry or "T_base_cam" not in entry:
            raise ContractError(f"camera {name!r} is not calibrated: K and T_base_cam are wanted (calibrate-cameras)")
        size = entry.get("size")
        try:
            size = None if size is None else (*size,)
            return cls(entry["K"], entry["T_base_cam"], entry.get("distortion", ()), size, name=name)
        except ContractError:
            raise  # it names the camera
        except (TypeError, ValueError) as error:
            raise ContractError(f"camera {name!r}: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """Return an entry of `EpisodeMeta.cameras`."""
        told: dict[str, Any] = {"K": self.K.tolist(), "T_base_cam": self.T_base_cam.tolist()}
        if len(self.distortion):
            told["distortion"] = self.distortion.tolist()
        return told if self.size is None else {**told, "size": list(self.size)}

    @property
    def P(self) -> np.ndarray:
        """(3, 4), from the base frame to the undistorted image plane at focal length 1."""
        turn, place = self.T_base_cam[:3, :3], self.T_base_cam[:3, 3]
        return np.hstack([turn.T, -(turn.T @ place)[:, None]])

    def resized(self, height: int, width: int) -> "Camera":
        """Return the camera of the same pictures made (height, width) pixels, aspect kept or not.

        Raises:
            ContractError: if it does not know its own size.
        """
        return replace(self, K=self._scaling(height, width) @ self.K, size=(height, width))

    def resized_pixels(self, pixels: np.ndarray, height: int, width: int) -> np.ndarray:
        """Return where in the pictures of `resized` is what this camera shows at pixels (..., 2).

        Raises:
            ContractError: if it does not know its own size.
        """
        scale = self._scaling(height, width)
        moved: np.ndarray = np.asarray(pixels, np.float64) @ scale[:2, :2].T + scale[:2, 2]
        return moved

    def apart(self, other: "Camera") -> tuple[float, float]:
        """Return how far another camera stands from this one, m, and by how much it is turned, deg."""
        turn = self.T_base_cam[:3, :3].T @ other.T_base_cam[:3, :3]
        distance = float(np.linalg.norm(self.T_base_cam[:3, 3] - other.T_base_cam[:3, 3]))
        return distance, float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1.0, 1.0))))

    def is_like(self, other: "Camera") -> bool:
        """Whether both would show everything at the same pixels, but for rounding."""
        pairs = [(getattr(self, name), getattr(other, name)) for name in ("K", "T_base_cam", "distortion")]
        alike = all(a.shape == b.shape and np.allclose(a, b, rtol=1e-6, atol=1e-6) for a, b in pairs)
        return alike and self.size == other.size

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return pixels (..., 2), sub-pixel and wherever they land, of points (..., 3) in the base frame, m.

        Beyond the angle up to which the lens is known, where its polynomial would fold back into the picture, points
        go on outwards.

        Raises:
            BehindCamera: counting the points that are not in front of the camera, or not finite.
            ContractError: on another shape.
        """
        points = np.asarray(points, np.float64)
        if points.shape[-1:] != (3,):
            raise ContractError(f"camera: cannot project points {points.shape}; want (..., 3)")
        seen = points @ self.P[:, :3].T + self.P[:, 3]
        behind = ~(seen[..., 2] > NEAREST)
        if (lost := ~np.isfinite(points).all(-1)).any():
            raise BehindCamera(f"{int(lost.sum())} of {lost.size} points are not finite: nobody can say where they are")
        if behind.any():
            raise BehindCamera(
                f"{int(behind.sum())} of {behind.size} points are behind the camera, the first {points[behind][0]} m "
                "in the base frame; is its pose right?"
            )
        plane = seen[..., :2] / seen[..., 2:]
        share = np.minimum(1.0, self.fold / np.maximum(np.linalg.norm(plane, axis=-1, keepdims=True), 1e-12))
        return self._pixels(self._bent(share * plane) + (1 - share) * plane)

    def rays(self, pixels: np.ndarray) -> np.ndarray:
        """Return where pixels (..., 2) lie on the undistorted image plane at focal length 1, (..., 2).

        NaN where the lens shows no such point, or shows it only from beyond its `fold`, mirrored.
        """
        plane = self._plane(np.asarray(pixels, np.float64))
        return self._straight(plane) if len(self.distortion) else plane

    def inside(self, pixels: np.ndarray) -> np.ndarray:
        """Return whether pixels (..., 2) are in the picture, (...,) bool.

        Raises:
            ContractError: if its size is not known.
        """
        if self.size is None:
            raise ContractError("camera: its size is not known, so neither is what lies outside")
        height, width = self.size
        x, y = pixels[..., 0], pixels[..., 1]
        shown: np.ndarray = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
        return shown

    @cached_property
    def fold(self) -> float:
        """The radius on the image plane at which the lens first bends inwards again; infinite if it never does.

        Of r N(s) / D(s), s = r^2: where the slope N D + 2 s (N' D - N D') or D is zero.
        """
        k1, k2, _, _, k3, k4, k5, k6 = np.pad(self.distortion, (0, 12 - len(self.distortion)))[:8]
        above, below = Polynomial([1, k1, k2, k3]).trim(), Polynomial([1, k4, k5, k6]).trim()
        slope = above * below + Polynomial([0, 2]) * (above.deriv() * below - above * below.deriv())
        roots = np.concatenate([slope.trim().roots(), below.roots()])
        ahead = roots.real[(np.abs(roots.imag) < 1e-9) & (roots.real > 0)]
        return float(np.sqrt(ahead.min())) if len(ahead) else np.inf

    def _scaling(self, height: int, width: int) -> np.ndarray:
        """Return (3, 3): where pixels go when pictures are made (height, width), corners on corners."""
        if self.size is None:
            raise ContractError("camera: its size is not known, so neither is what another would show")
        down, across = height / self.size[0], width / self.size[1]
        return np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]])  # of pixel centres

    def _pixels(self, plane: np.ndarray) -> np.ndarray:
        pixels: np.ndarray = plane @ self.K[:2, :2].T + self.K[:2, 2]
        return pixels

    def _plane(self, pixels: np.ndarray) -> np.ndarray:
        (fx, skew, cx), (_, fy, cy) = self.K[:2]
        y = (pixels[..., 1] - cy) / fy
        return np.stack([(pixels[..., 0] - cx - skew * y) / fx, y], axis=-1)

    def _bent(self, plane: np.ndarray) -> np.ndarray:
        """Return where the lens puts points of the image plane (..., 2)."""
        if not len(self.distortion):
            return plane
        k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = np.pad(self.distortion, (0, 12 - len(self.distortion)))
        x, y = plane[..., 0], plane[..., 1]
        r2 = x * x + y * y
        radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        return np.stack(
            [
                x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + r2 * (s1 + r2 * s2),
                y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y + r2 * (s3 + r2 * s4),
            ],
            axis=-1,
        )

    def _straight(self, bent: np.ndarray) -> np.ndarray:
        """Return the inverse of `_bent` by Newton's method; NaN where the lens shows no such point.

        Newton's method may come to a point beyond the fold, where the polynomial runs backwards: that is none.
        Tangential and prism terms move the fold a little; there the determinant of the slope is what tells.
        """
        at, step = bent.copy(), 1e-6 * np.eye(2)
        for _ in range(ROUNDS):
            miss = self._bent(at) - bent
            right = (self._bent(at + step[0]) - self._bent(at - step[0])) / 2e-6
            down = (self._bent(at + step[1]) - self._bent(at - step[1])) / 2e-6
            slope = np.stack([right, down], axis=-1)  # (..., 2, 2)
            det = slope[..., 0, 0] * slope[..., 1, 1] - slope[..., 0, 1] * slope[..., 1, 0]
            det = np.where(np.abs(det) < 1e-12, np.nan, det)
            dx = (slope[..., 1, 1] * miss[..., 0] - slope[..., 0, 1] * miss[..., 1]) / det
            dy = (slope[..., 0, 0] * miss[..., 1] - slope[..., 1, 0] * miss[..., 0]) / det
            at = at - np.stack([dx, dy], axis=-1)
            if not np.nanmax(np.abs([dx, dy]), initial=0.0) > 1e-12:
                break
        lost = ~(np.abs(self._bent(at) - bent).max(axis=-1) < 1e-9)
        lost |= ~(np.linalg.norm(at, axis=-1) <= self.fold) | ~(det > 0)
        return np.where(lost[..., None], np.nan, at)


def _row(numbers: np.ndarray, between: str = " ") -> str:
    return between.join(f"{number:.6g}" for number in numbers)


def _require_last_row(what: str, matrix: np.ndarray) -> None:
    """Refuse a matrix that does not end in 0 ... 0 1."""
    want = np.eye(len(matrix))[-1]
    if not np.allclose(matrix[-1], want, atol=1e-6):
        hint = "; is it transposed?" if np.allclose(matrix[:, -1], want, atol=1e-6) else ""
        raise ContractError(f"{what} has the last row {_row(matrix[-1])}; want {_row(want)}{hint}")


def cameras_of(calibrations: Mapping[str, Any], names: Sequence[str]) -> dict[str, Camera]:
    """Return the named cameras of `EpisodeMeta.cameras`, in that order.

    Raises:
        UnknownCamera: naming those there are.
        ContractError: naming one that was never calibrated, or that the tool carries: its pose is that of one moment.
    """
    for name in names:
        if name not in calibrations:
            raise UnknownCamera("calibrated camera", name, calibrations)
        if "T_tool_cam" in calibrations[name]:
            raise ContractError(f"camera {name!r} rides on the tool; want cameras that stand still in the base frame")
    return {name: Camera.from_json(calibrations[name], name) for name in names}


def shown_by(cameras: Mapping[str, Camera], points: np.ndarray) -> dict[str, np.ndarray]:
    """Return {view: pixels (..., 2)} of points (..., 3) in the base frame, m.

    Raises:
        BehindCamera: naming the camera.
    """
    shown = {}
    for name, camera in cameras.items():
        try:
            shown[name] = camera.project(points)
        except BehindCamera as error:
            raise BehindCamera(f"camera {name!r}: {error}") from error
    return shown

"""From tracks in two or more pictures back to a motion of the tool in space."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from robopolicy.errors import ContractError, TracksLost
from robopolicy.geometry import se3
from robopolicy.geometry.cameras import Camera
from robopolicy.geometry.gripping import hold_gripper
from robopolicy.geometry.keypoints import POINTS, GripperKeypoints
from robopolicy.geometry.pose_fit import refine_pose
from robopolicy.geometry.rigid import breadth, fit_rigid
from robopolicy.geometry.triangulation import Triangulated, triangulate

LEAST_NOISE, MOST_NOISE = 2e-4, 0.02  # rad; of tracks: less is not believed, more is another fault
DOUBT = 1 / 3  # of the gate: what misses by so much counts half
TOLD, OUTSIDE, DISAGREE, MISSHAPEN = range(4)
WHY = {
    OUTSIDE: "fewer than two pictures show points enough",
    DISAGREE: "the views do not agree on where the points are",
    MISSHAPEN: "the points have not the gripper's shape",
}


@dataclass(frozen=True)
class Tool:
    """Where the tool is before the first step; of several plans at once, where each one's is.

    Args:
        position: (..., 3) m in the base frame.
        quat: (..., 4) wxyz.
        opening: (...), 0 closed to 1 open, as measured.
        commanded: (...), the opening commanded last, which holds until all views say otherwise; None: as measured.

    Raises:
        ContractError: if it is no finite pose.
    """

    position: np.ndarray
    quat: np.ndarray
    opening: np.ndarray | float
    commanded: np.ndarray | float | None = None

    def __post_init__(self) -> None:
        for name, size in (("position", 3), ("quat", 4)):
            found = np.array(getattr(self, name), np.float64)
            none = name == "quat" and not found.any(-1).all()
            if found.shape[-1:] != (size,) or not np.isfinite(found).all() or none:
                raise ContractError(f"tool: {name} is {found}; want {size} finite numbers")
            object.__setattr__(self, name, found)
        opening = np.asarray(self.opening, np.float64)
        if not ((opening >= 0) & (opening <= 1)).all():
            raise ContractError(f"tool: opening is {self.opening}; want 0 closed to 1 open")


@dataclass(frozen=True)
class Lifting:
    """When tracks are believed, and how smooth a motion is.

    Args:
        margin: how far outside a picture, in shares of its sides, a point still counts as shown.
        gate_rad: a point whose rays miss each other by more does not count (17 px in 640x480 pictures of 45 degrees).
        miss_m: a step whose points lie further, root mean square, from the gripper's does not count.
        broad: of the gripper's breadth that the points left must have at least, so that its turn can be told.
        bridge: steps in a row that do not count and are filled in between others.
        acceleration_m: typical second difference of the position from step to step, m.
        acceleration_rad: the same of the turn, rad.
        refine: fit the pixels after the points.
        smooth: smooth over the steps.
        closes_above, opens_below: of the grasp, see `hold_gripper`.
    """

    margin: float = 0.1
    gate_rad: float = 0.03
    miss_m: float = 0.03
    broad: float = 0.3
    bridge: int = 2
    acceleration_m: float = 0.005
    acceleration_rad: float = 0.03
    refine: bool = True
    smooth: bool = True
    closes_above: float = 0.5
    opens_below: float = 0.5


@dataclass(frozen=True)
class Motion:
    """Poses of the tool over the steps of plans, the first one step ahead.

    Args:
        position: (..., H, 3) m in the base frame; NaN where no pose can be told.
        quat: (..., H, 4) wxyz, without jumps of sign; NaN likewise.
        opening: (..., H) commands of the gripper, 0 closed to 1 open.
        residual_px: (..., H) root mean square over points and views of how far the points are seen from where they
            would be; a score of failure. NaN where no point is shown by two views.
        residual_m: (..., H) root mean square distance of the points to the gripper's, m; NaN where none is fitted.
        why: (..., H) uint8, 0 or the key of `WHY` for a step that tells no pose of itself (it may be filled in).
    """

    position: np.ndarray
    quat: np.ndarray
    opening: np.ndarray
    residual_px: np.ndarray
    residual_m: np.ndarray
    why: np.ndarray

    def __getitem__(self, at: int) -> "Motion":
        """Return the plans at one place of the first dimension."""
        return Motion(*(part[at] for part in vars(self).values()))

    @property
    def told(self) -> np.ndarray:
        """(...) int, how many steps from the first on have a pose."""
        told: np.ndarray = np.logical_and.accumulate(np.isfinite(self.position).all(-1), axis=-1).sum(-1)
        return told

    def require(self, steps: int) -> None:
        """Refuse plans that do not tell the pose of each of the first ``steps`` steps.

        Raises:
            TracksLost: naming the first such step, its reason, and the residual there.
            ContractError: if the plans have fewer steps.
        """
        told, length = self.told.ravel(), self.position.shape[-2]
        if steps > length:
            raise ContractError(f"motion: {steps} steps are wanted of plans of {length}")
        if (told >= steps).all():
            return
        worst = int(np.argmin(told))
        step = int(told[worst])
        why, residual = (each.reshape(-1, length)[worst, step] for each in (self.why, self.residual_px))
        far = f" (residual {residual:.0f} px)" if np.isfinite(residual) else ""
        raise TracksLost(
            f"tracks are lost: {int((told < steps).sum())} of {told.size} plans tell no motion for {steps} steps; the "
            f"worst from step {step + 1} on: {WHY[int(why)]}{far}"
        )


def tracks_to_poses(
    tracks: np.ndarray,
    grasp: np.ndarray,
    cameras: Sequence[Camera],
    keypoints: GripperKeypoints,
    start: Tool,
    *,
    origin: np.ndarray | None = None,
    apart: np.ndarray | None = None,
    lifting: Lifting = Lifting(),
) -> Motion:
    """Return the motion whose keypoints run along these tracks in all pictures.

    Each step's points are triangulated, the gripper's points are fitted to them at the opening that the distance of
    the tips tells, the pose is refined on the pixels, and the poses are smoothed on SE(3). Points weigh less the more
    the views disagree on them. What cannot be told is NaN and has its reason in `why`.

    Args:
        tracks: (..., V, H, 5, 2) pixels of the points in the order of `ROLES`, as in the pictures.
        grasp: (..., V, H), 1 closed and 0 open.
        cameras: V of them.
        keypoints: of the gripper.
        start: the tool before the first step; it may have leading dimensions, which broadcast against the tracks'.
        origin: (V, 5, 2) or (..., V, 5, 2) pixels where the tracks start. With it they are moved to start at the
            projected keypoints of ``start``: a constant offset does not count, and tracks that stay where they start
            give exactly the pose there. None: they are believed as they are.
        apart: (..., H, 5) px by which the views missed each other before somebody brought them together, root mean
            square over them: the tracks no longer show it, and a point beyond the gate does not count all the same.
            None: nobody did.
        lifting: limits and smoothness.

    Raises:
        ContractError: if the shapes do not match, or as `triangulate` does.
        BehindCamera: with ``origin``, if the tool is behind a camera.
    """
    tracks, grasp = _checked(tracks, grasp, cameras)
    *plans, views, steps = tracks.shape[:-2]
    commanded = start.opening if start.commanded is None else start.commanded
    opening = hold_gripper(grasp, commanded, closes_above=lifting.closes_above, opens_below=lifting.opens_below)
    if origin is not None:
        here = keypoints.placed(start.position, start.quat, np.asarray(start.opening))
        shown = np.stack([camera.project(here) for camera in cameras], axis=-3)
        tracks = tracks + (shown - _origin(origin, tracks))[..., None, :, :]
    opened, quat = _every(start.opening, plans, 0), _every(start.quat, plans, 1)  # (N,), (N, 4)
    base = _every(se3.pose(start.position, start.quat), plans, 2)
    pixels = np.moveaxis(tracks.reshape(-1, views, steps, POINTS, 2), 1, 0).reshape(views, -1, POINTS, 2)
    pixels = np.stack([_shown(p, c, lifting.margin) for p, c in zip(pixels, cameras, strict=True)])
    points = triangulate(pixels, cameras)
    focal = float(np.mean([np.diagonal(camera.K)[:2] for camera in cameras]))
    gate_px = lifting.gate_rad * focal
    weights = _weights(points, gate_px)
    if apart is not None:
        before = _before(apart, grasp).reshape(-1, POINTS)
        weights = np.where(before < gate_px, weights, 0.0)
        points = replace(points, residual_px=np.maximum(points.residual_px, before))
    shape = keypoints.at(_openings(points.points, keypoints, opened, steps))
    T, residual_m, why = _fitted(points, weights, shape, lifting)
    own = _frames(keypoints.at(opened))  # (N, 4, 4)
    frame = np.repeat(own, steps, axis=0)
    T, local = T @ frame, (shape - frame[:, None, :3, 3]) @ frame[:, :3, :3]
    each = np.where(np.isfinite(points.rays).all(-1), weights, 0.0)  # (V, M, 5)
    refined, information, left = refine_pose(T, local, points.rays, each, cameras, doubt_px=DOUBT * gate_px)
    T = refined if lifting.refine else T
    why[(why == TOLD) & np.isnan(T).any((-1, -2))] = MISSHAPEN  # as fitted it would lie behind a camera
    T = T.reshape(-1, steps, 4, 4)
    if lifting.smooth:
        noise = _noise(left, each, steps, focal)
        sure = (information / noise[:, None] ** 2).reshape(-1, steps, 6)
        stiffness = np.repeat([lifting.acceleration_m**-2.0, lifting.acceleration_rad**-2.0], 3)
        T = se3.smooth_poses(T, base @ own, sure, stiffness, bridge=lifting.bridge)
    T = T @ se3.inverse(own)[:, None]
    return Motion(
        T[..., :3, 3].reshape(*plans, steps, 3),
        _signed(se3.quats_of(T[..., :3, :3]), quat).reshape(*plans, steps, 4),
        opening,
        _residual(points.residual_px, cameras).reshape(*plans, steps),
        residual_m.reshape(*plans, steps),
        why.reshape(*plans, steps),
    )


def _checked(tracks: np.ndarray, grasp: np.ndarray, cameras: Sequence[Camera]) -> tuple[np.ndarray, np.ndarray]:
    tracks, grasp = np.asarray(tracks, np.float64), np.asarray(grasp, np.float64)
    if tracks.ndim < 4 or tracks.shape[-4] != len(cameras) or tracks.shape[-2:] != (POINTS, 2) or not tracks.size:
        raise ContractError(f"tracks are {tracks.shape}; want (..., {len(cameras)}, H, {POINTS}, 2), a row a camera")
    if grasp.shape != tracks.shape[:-2]:
        raise ContractError(f"grasp is {grasp.shape}; want {tracks.shape[:-2]}, as the tracks")
    return tracks, grasp


def _every(values: np.ndarray | float, plans: Sequence[int], own: int) -> np.ndarray:
    """Return (N, ...), one for each of the ``plans``, of values whose last ``own`` dimensions belong to one."""
    values = np.asarray(values, np.float64)
    shape = values.shape[values.ndim - own :]
    every: np.ndarray = np.broadcast_to(values, (*plans, *shape)).reshape(-1, *shape)
    return every


def _origin(origin: np.ndarray, tracks: np.ndarray) -> np.ndarray:
    origin = np.asarray(origin, np.float64)
    each = (*tracks.shape[:-3], *tracks.shape[-2:])
    if origin.shape not in (each[-3:], each):
        raise ContractError(f"origin is {origin.shape}; want {each[-3:]} or {each}: where the tracks start")
    return origin


def _before(apart: np.ndarray, grasp: np.ndarray) -> np.ndarray:
    apart = np.asarray(apart, np.float64)
    shape = (*grasp.shape[:-2], grasp.shape[-1], POINTS)
    if apart.shape != shape:
        raise ContractError(f"apart is {apart.shape}; want {shape}: of each step and point")
    return apart


def _shown(pixels: np.ndarray, camera: Camera, margin: float) -> np.ndarray:
    """Return the pixels (..., 2) that the picture shows, with a margin; NaN for the others."""
    if camera.size is None:
        return pixels
    sides = np.array(camera.size[::-1])
    inside = (pixels >= -0.5 - margin * sides) & (pixels <= (1 + margin) * sides - 0.5)
    return np.where(inside.all(-1, keepdims=True), pixels, np.nan)


def _weights(points: Triangulated, gate_px: float) -> np.ndarray:
    """Return how much points (M, P) count: Cauchy's weights of what the views disagree by, none beyond the gate."""
    misses = np.where(np.isnan(points.residual_px), np.inf, points.residual_px)
    return np.where(misses < gate_px, 1 / (1 + (misses / (DOUBT * gate_px)) ** 2), 0.0)


def _fitted(
    points: Triangulated, weights: np.ndarray, shape: np.ndarray, lifting: Lifting
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return poses (M, 4, 4) that put the gripper's points there, NaN where none is told, misfits (M,) m, and why."""
    whole = lifting.broad * breadth(shape, np.ones(shape.shape[:-1]))
    shown, agreed = (breadth(shape, 1.0 * counts) >= whole for counts in (points.views >= 2, weights > 0))
    fit = fit_rigid(shape, points.points, np.where(agreed[:, None], weights, 0.0))
    shaped = fit.residual_m <= lifting.miss_m
    why = np.select([~shown, ~agreed, ~shaped], [OUTSIDE, DISAGREE, MISSHAPEN], TOLD).astype(np.uint8)
    T = np.zeros((len(why), 4, 4))
    T[:, :3, :3], T[:, :3, 3], T[:, 3, 3] = fit.rotation, fit.translation, 1.0
    return np.where((why == TOLD)[:, None, None], T, np.nan), fit.residual_m, why


def _openings(points: np.ndarray, keypoints: GripperKeypoints, start: np.ndarray, steps: int) -> np.ndarray:
    """Return the openings (M,) told by the tips' distance; where no tips are seen, as the step before; start (N,)."""
    offset = start - keypoints.opening(keypoints.at(start))  # 0 but for tips that do not move apart
    openings: np.ndarray = np.clip(keypoints.opening(points).reshape(-1, steps) + offset[:, None], 0.0, 1.0)
    last = start
    for step in range(steps):
        last = openings[:, step] = np.where(np.isfinite(openings[:, step]), openings[:, step], last)
    return openings.ravel()


def _frames(points: np.ndarray) -> np.ndarray:
    """Return the principal axes of points (N, P, 3), in which what is known of their pose hardly mixes, (N, 4, 4)."""
    frames = np.zeros((len(points), 4, 4))
    middle = points.mean(-2, keepdims=True)
    axes = np.linalg.eigh(np.swapaxes(points - middle, -1, -2) @ (points - middle)).eigenvectors
    frames[:, :3, :3] = axes * np.linalg.det(axes)[:, None, None]
    frames[:, :3, 3], frames[:, 3, 3] = middle[:, 0], 1.0
    return frames


def _noise(left: np.ndarray, each: np.ndarray, steps: int, focal: float) -> np.ndarray:
    """Return the noise of a pixel (M,), px, that the misfits of all steps of its plan tell: one number a plan.

    Six numbers of the pose and the opening were fitted to two a pixel.
    """
    pixels = (each > 0).sum((0, 2))
    counts = np.isfinite(left)
    squares = np.where(counts, left * left * pixels, 0.0).reshape(-1, steps).sum(-1)
    free = np.where(counts, np.maximum(2 * pixels - 7, 1), 0).reshape(-1, steps).sum(-1)
    noise = np.sqrt(squares / np.maximum(free, 1))
    return np.repeat(np.clip(noise, LEAST_NOISE * focal, MOST_NOISE * focal), steps)


def _signed(quats: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return quaternions (N, H, 4), each in the sign nearer to the one before it; the first one's is start (N, 4)."""
    last = start
    for step in range(quats.shape[1]):
        flips = (quats[:, step] * last).sum(-1, keepdims=True) < 0
        quats[:, step] = np.where(flips, -quats[:, step], quats[:, step])
        last = np.where(np.isfinite(quats[:, step]), quats[:, step], last)
    return quats


def _residual(residual: np.ndarray, cameras: Sequence[Camera]) -> np.ndarray:
    """Return the root mean square over points (M, P) that two views show, px; behind a camera counts a diagonal."""
    diagonal = max(float(np.hypot(*(2 * camera.K[:2, 2]))) for camera in cameras)
    squares = np.minimum(residual, diagonal) ** 2
    shown = np.isfinite(squares)
    total = np.where(shown, squares, 0.0).sum(-1) / np.maximum(shown.sum(-1), 1)
    return np.where(shown.any(-1), np.sqrt(total), np.nan)

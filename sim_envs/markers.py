"""Poses from cameras: ArUco and AprilTag markers through OpenCV, held to the plane they lie in where it is known."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import ContractError, UnknownName
from robopolicy.rotations import matrix_to_quat, quat_to_matrix
from robopolicy.settings import keys, mapping, read_settings
from robopolicy.types import Observation
from sim_envs.tracked import PoseMeasurement

OFF_PLANE = 0.06  # of its size by which a tag's corner may be off where its plane says; it is not in it if more
OFF_CORNER_PX = 1.5  # the same in pixels, which is more for a small tag: corners are found no better
OFF_PX = 2.0  # root mean square of what a free pose may leave, pixels


@dataclass(frozen=True)
class Marker:
    """A tag on an object.

    Raises:
        ContractError: if its size is no size, or its pose on the object none.
    """

    id: int
    object: str  # as the task names it
    size: float  # m, the black square's edge
    # Where the tag is on the object: x y z (m), quaternion wxyz. The tag's x is right, its y up, its z out of it.
    T_object_marker: tuple[float, ...] = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
    plane: float | None = None  # m: height of the tag while the object lies on the table; None: anywhere

    def __post_init__(self) -> None:
        if not (np.isfinite(self.size) and self.size > 0):
            raise ContractError(f"marker {self.id}: size is {self.size:g}; want metres, above 0")
        pose = self.T_object_marker
        if len(pose) != 7 or abs(np.linalg.norm(pose[3:]) - 1) > 0.01:
            raise ContractError(f"marker {self.id}: T_object_marker is {list(pose)}; want x y z (m) and a unit wxyz")

    @property
    def corners(self) -> np.ndarray:
        """Its corners (4, 3) m in the object's frame: top left, top right, bottom right, bottom left."""
        h = self.size / 2
        flat = np.array([[-h, h, 0], [h, h, 0], [h, -h, 0], [-h, -h, 0]])
        found: np.ndarray = flat @ quat_to_matrix(np.array(self.T_object_marker[3:])).T + self.T_object_marker[:3]
        return found


@dataclass(frozen=True)
class Calibration:
    """A camera that stands still, in OpenCV's convention.

    Raises:
        ContractError: if the matrices have other shapes, or T_base_cam is no rotation and place.
    """

    K: np.ndarray  # (3, 3) pixels, the centre of the first pixel at (0, 0)
    T_base_cam: np.ndarray  # (4, 4) m
    distortion: np.ndarray = field(default_factory=lambda: np.zeros(5))  # as cv2.calibrateCamera gives it

    def __post_init__(self) -> None:
        if np.shape(self.K) != (3, 3) or np.shape(self.T_base_cam) != (4, 4) or not np.isfinite(self.K).all():
            raise ContractError(
                f"want K 3x3 and T_base_cam 4x4; they are {np.shape(self.K)}, {np.shape(self.T_base_cam)}"
            )
        turn = self.T_base_cam[:3, :3]
        stiff = np.allclose(turn @ turn.T, np.eye(3), atol=1e-3) and np.linalg.det(turn) > 0
        if not (stiff and np.isfinite(self.T_base_cam).all() and np.array_equal(self.T_base_cam[3], [0, 0, 0, 1])):
            raise ContractError(
                "T_base_cam is no rotation and place: want [R t; 0 0 0 1], the camera's pose in the base"
            )
        if not np.isfinite(self.distortion).all():
            raise ContractError(f"distortion is {self.distortion}; want finite numbers")


@dataclass(frozen=True)
class MarkerSettings:
    """The markers file."""

    markers: tuple[Marker, ...]
    cameras: Mapping[str, Calibration]
    dictionary: str = "DICT_4X4_50"  # of cv2.aruco; AprilTags: DICT_APRILTAG_36h11


def load_markers(path: Path | str) -> MarkerSettings:
    """Read the YAML file: ``markers`` (a list), ``cameras`` ({name: K, T_base_cam, distortion}), ``dictionary``.

    Raises:
        ConfigError: naming the file and the key that is missing, unknown or makes no sense.
        MissingExtra: without ruamel.yaml.
    """
    return read_settings(path, _settings, "the YAML file of the markers")


class MarkerFinder:
    """Finds tracked objects in an observation's pictures.

    A tag whose plane is known is found by the rays through its corners where they meet that plane, which leaves out
    what a camera sees worst, the distance: 0.1 mm against 9 mm at 0.65 m. One that does not fit its plane, as on an
    object that is lifted, is not reported. Tags without a plane are found by perspective, all of an object's together.

    Args:
        settings: markers, cameras, dictionary.

    Raises:
        UnknownName: if OpenCV has no such dictionary; the valid ones are named.
    """

    def __init__(self, settings: MarkerSettings) -> None:
        import cv2

        names = [name for name in dir(cv2.aruco) if name.startswith("DICT_")]
        if settings.dictionary not in names:
            raise UnknownName("ArUco dictionary", settings.dictionary, names)
        self._cv2, self._settings = cv2, settings
        self._seen_ns: dict[str, int] = {}  # stamp of each camera's last picture
        self._markers = {marker.id: marker for marker in settings.markers}
        parameters = cv2.aruco.DetectorParameters()
        parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_CONTOUR
        which = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, settings.dictionary))
        self._detector = cv2.aruco.ArucoDetector(which, parameters)

    def __call__(self, seen: Observation) -> Iterator[PoseMeasurement]:
        """Return where objects were when each new picture of a calibrated camera was taken."""
        for name, camera in self._settings.cameras.items():
            if name not in seen.images:
                continue
            stamp_ns = seen.image_stamps_ns.get(name, seen.stamp_ns)
            if self._seen_ns.get(name) != stamp_ns and seen.images[name].ndim == 3:  # depth shows no tags
                self._seen_ns[name] = stamp_ns
                yield from self.find(seen.images[name], camera, stamp_ns)

    def find(self, picture: np.ndarray, camera: Calibration, stamp_ns: int) -> list[PoseMeasurement]:
        """Return the objects seen in a picture (H, W, 3) uint8 RGB, each once: by the tag that fits its plane best."""
        grey = self._cv2.cvtColor(np.ascontiguousarray(picture), self._cv2.COLOR_RGB2GRAY)
        corners, ids, _ = self._detector.detectMarkers(grey)
        of_object: dict[str, list[tuple[Marker, np.ndarray]]] = {}
        for found, number in zip(corners, [] if ids is None else np.ravel(ids), strict=False):
            marker = self._markers.get(int(number))
            if marker is not None:
                of_object.setdefault(marker.object, []).append((marker, np.asarray(found, np.float64).reshape(4, 2)))
        poses = {name: self._pose(tags, camera) for name, tags in of_object.items()}
        return [PoseMeasurement(name, stamp_ns, pose[:3, 3], matrix_to_quat(pose[:3, :3]))
                for name, pose in poses.items() if pose is not None]  # fmt: skip

    def _pose(self, tags: list[tuple[Marker, np.ndarray]], camera: Calibration) -> np.ndarray | None:
        level = [(marker, pixels) for marker, pixels in tags if marker.plane is not None]
        if not level:
            return self._free(tags, camera)
        found = [(*self._on_plane(marker, pixels, camera), _edge(pixels)) for marker, pixels in level]
        off, pose, edge = min(found, key=lambda item: item[0])
        return pose if off <= max(OFF_PLANE, OFF_CORNER_PX / edge) else None

    def _on_plane(self, marker: Marker, pixels: np.ndarray, camera: Calibration) -> tuple[float, np.ndarray]:
        """Return how far the corners are off, in sizes, and T_base_object by where their rays meet the plane."""
        flat = self._cv2.undistortPoints(pixels[:, None], camera.K, camera.distortion)[:, 0]
        rays = np.column_stack([flat, np.ones(4)]) @ camera.T_base_cam[:3, :3].T
        eye = camera.T_base_cam[:3, 3]
        met = eye + rays * ((marker.plane - eye[2]) / rays[:, 2])[:, None]  # type: ignore[operator]
        return _upright(marker, met)

    def _free(self, tags: list[tuple[Marker, np.ndarray]], camera: Calibration) -> np.ndarray | None:
        cv2 = self._cv2
        solid = np.concatenate([marker.corners for marker, _ in tags])
        pixels = np.concatenate([one for _, one in tags])
        how = cv2.SOLVEPNP_IPPE if len(tags) == 1 else cv2.SOLVEPNP_SQPNP
        good, turn, shift = cv2.solvePnP(solid, pixels, camera.K, camera.distortion, flags=how)
        if not good:
            return None
        again = cv2.projectPoints(solid, turn, shift, camera.K, camera.distortion)[0][:, 0]
        if float(np.sqrt(np.mean(np.sum((again - pixels) ** 2, axis=1)))) > OFF_PX:
            return None
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = cv2.Rodrigues(turn)[0], shift.ravel()
        return camera.T_base_cam @ pose


def _edge(pixels: np.ndarray) -> float:
    """Mean length of a tag's edges, pixels."""
    return float(np.linalg.norm(pixels - np.roll(pixels, 1, axis=0), axis=1).mean())


def _upright(marker: Marker, met: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the pose about the base frame's z that brings an object's corners nearest to points (4, 3) of a plane.

    Kabsch in two dimensions: the best turn is the angle of the sum of products. An object that lies on the table stands
    as its own frame does, so only x, y and yaw are sought; z is what the plane says.
    """
    solid = marker.corners
    a, b = solid[:, :2] - solid[:, :2].mean(axis=0), met[:, :2] - met[:, :2].mean(axis=0)
    yaw = np.arctan2(np.sum(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]), np.sum(a * b))
    c, s = np.cos(yaw), np.sin(yaw)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, met.mean(axis=0) - turn @ solid.mean(axis=0)
    left = solid @ turn.T + pose[:3, 3] - met
    return float(np.linalg.norm(left, axis=1).max() / marker.size), pose


def _settings(data: Any) -> MarkerSettings:
    values = mapping(data, "the file")
    for key in values:
        if key not in ("markers", "cameras", "dictionary"):
            raise UnknownName("key in the file", key, ("markers", "cameras", "dictionary"))
    listed = values.get("markers")
    if not isinstance(listed, list) or not listed:
        raise ContractError("markers: want a list, each with id, object and size")
    markers = [Marker(**keys(one, Marker, f"markers[{i}]", ("id", "object", "size"))) for i, one in enumerate(listed)]
    numbers = [marker.id for marker in markers]
    if len(set(numbers)) < len(numbers):
        raise ContractError(f"markers: an id is there twice in {numbers}")
    cameras = {name: _camera(one, f"cameras.{name}") for name, one in mapping(values.get("cameras"), "cameras").items()}
    if not cameras:
        raise ContractError("cameras: want at least one, with K and T_base_cam")
    return MarkerSettings(tuple(markers), cameras, str(values.get("dictionary") or "DICT_4X4_50"))


def _camera(data: Any, where: str) -> Calibration:
    values = keys(data, Calibration, where, ("K", "T_base_cam"))
    try:
        return Calibration(**{name: np.array(value, np.float64) for name, value in values.items()})
    except (TypeError, ValueError) as error:
        raise ContractError(f"{where}: {error}") from error

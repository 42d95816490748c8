"""Export to UMI's ``dataset.zarr.zip``: grippers' poses as position, axis-angle and width in metres."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError, MissingExtra, UnknownName
from robopolicy.rotations import matrix_to_quat, rot6d_to_matrix
from robopolicy.spec import PolicySpec
from robopolicy_data import carried
from robopolicy_data.episode import Episode
from robopolicy_data.exporters.destination import chosen, fresh
from robopolicy_data.exporters.diffusion_policy import blosc
from robopolicy_data.exporters.zarr2 import Zarr2Writer
from robopolicy_data.importers.umi import PARTS, robots_of
from robopolicy_data.reader import Dataset

OURS = {"tool_pos": 3, "tool_quat": 4, "gripper": 1}  # states from which robot0's pose is made
PICTURE_CODECS = ("jxl", "blosc")
_BLOCK = 32  # frames decoded at a time


def export_umi(
    dataset_path: Path | str,
    destination: Path | str,
    *,
    episodes: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
    gripper_width_m: float = 0.08,
    pictures: str = "jxl",
) -> int:
    """Write a zip that UMI opens; return the number of episodes.

    A dataset with states ``robotK_eef_pos`` and so on is written under those names, and without an action if its action
    is what UMI's sampler makes of them. Of any other, ``tool_pos``, ``tool_quat`` and ``gripper`` (0 closed .. 1 open)
    become robot0, and a ``tool_pose`` action UMI's seven numbers; its own streams lie beside them for the way back.
    Cameras are ``cameraK_rgb`` in the order of the spec, never resized; depth cameras cannot be exported.

    Args:
        dataset_path: what to export.
        destination: the zip to make.
        episodes: positions; None is all.
        progress: called with (episodes done, episodes in all); it goes array by array, so this is a share.
        gripper_width_m: how far the gripper opens.
        pictures: ``"jxl"`` (JPEG-XL as UMI's, but lossless) or ``"blosc"`` (lz4; opens without imagecodecs).

    Raises:
        DatasetError: if the states hold no pose, or the destination exists.
        MissingExtra: if imagecodecs, which writes JPEG-XL, is not installed.
    """
    dataset = Dataset(dataset_path)
    spec, picked = dataset.spec, chosen(dataset, episodes)
    if depth := [name for name, camera in spec.cameras.items() if camera.kind == "depth"]:
        raise DatasetError(f"cannot export to UMI: it has no depth cameras, and {depth} are")
    native = bool(robots_of(spec.state))
    if not native and any(name not in spec.state or spec.state[name].dim != dim for name, dim in OURS.items()):
        want = "robotK_eef_pos (3), robotK_eef_rot_axis_angle (3) and robotK_gripper_width (1)"
        raise DatasetError(
            f"cannot export to UMI: the states {sorted(spec.state)} hold no pose; want {', '.join(OURS)}, or {want}"
        )
    codec = _picture_codec(pictures)
    with fresh(destination) as partial, Zarr2Writer(partial, zipped=True) as writer:
        _Export(writer, spec, picked, native, gripper_width_m).write(codec, progress)
    return len(picked)


class _Export:
    """The arrays of one export."""

    def __init__(
        self, writer: Zarr2Writer, spec: PolicySpec, picked: Sequence[Episode], native: bool, width_m: float
    ) -> None:
        self._writer, self._spec, self._picked = writer, spec, picked
        self._native, self._width_m = native, width_m
        self._total = sum(episode.length for episode in picked)
        cameras = [k for k in spec.cameras if k.startswith("camera") and k.endswith("_rgb")]
        same = cameras == list(spec.cameras)
        self._keys = {k: k if same else f"camera{i}_rgb" for i, k in enumerate(spec.cameras)}
        self._keys |= {k: k for k in spec.state}

    def write(self, codec: Any, progress: Callable[[int, int], None] | None) -> None:
        writer, spec = self._writer, self._spec
        ends = np.cumsum([episode.length for episode in self._picked])
        writer.group("", {carried.KEY: carried.attributes(spec, self._keys, self._picked)})
        for group in ("data", "meta", f"meta/{carried.KEY}"):
            writer.group(group)
        writer.array("meta/episode_ends", (len(ends),), "int64", [ends])
        for name, state in spec.state.items():
            self._numbers(f"data/{name}", state.dim, [e.state(name) for e in self._picked])
        if not self._native:
            robots = [robot0(episode, self._width_m) for episode in self._picked]
            for key in robots[0]:
                self._numbers(f"data/{key}", robots[0][key].shape[1], [poses[key] for poses in robots])
        self._demo_poses()
        self._actions()
        for name in carried.columns(self._picked[0], spec):
            columns = [carried.columns(episode, spec)[name] for episode in self._picked]
            writer.array(f"meta/{carried.KEY}/{name}", (self._total,), columns[0].dtype.name, columns)
        for done, (name, camera) in enumerate(spec.cameras.items(), 1):
            blocks = (block for episode in self._picked for block in _frames(episode, name))
            key = f"data/{self._keys[name]}"
            writer.array(key, (self._total, *camera.shape), "uint8", blocks, chunk_rows=1, codec=codec)
            if progress is not None:
                progress(len(self._picked) * done // len(spec.cameras), len(self._picked))

    def _actions(self) -> None:
        """The action as it is, for the way back; and UMI's own unless its sampler makes the same."""
        kept = [episode.action() for episode in self._picked]
        self._numbers(f"meta/{carried.KEY}/action", kept[0].shape[1], kept)
        if self._native:
            made = [umi_action(episode.state, self._spec.state) for episode in self._picked]
            if all(a.shape == b.shape and np.array_equal(a, b) for a, b in zip(kept, made, strict=True)):
                return
        elif self._spec.action.kind == "tool_pose":
            kept = [np.concatenate(list(pose7(a[:, :3], a[:, 3:9], a[:, 9:], self._width_m)), axis=1) for a in kept]
        else:
            return  # commands of another kind mean nothing to UMI; its sampler takes the poses
        self._numbers("data/action", kept[0].shape[1], kept)

    def _demo_poses(self) -> None:
        """``robotK_demo_start_pose`` and ``_end_pose``: what the import kept, else an episode's first and last pose."""
        robots = robots_of(self._spec.state) or ["robot0"]
        for robot in robots:
            for which, row in (("start", 0), ("end", -1)):
                key = f"{robot}_demo_{which}_pose"
                if key in self._spec.state:
                    continue
                rows = []
                for episode in self._picked:
                    pose = dict(episode.meta.extra.get("umi") or {}).get(key)
                    if pose is None:
                        parts = episode.state if self._native else robot0(episode, self._width_m).__getitem__
                        pose = np.concatenate([parts(f"{robot}_{p}")[row] for p in ("eef_pos", "eef_rot_axis_angle")])
                    rows.append(np.broadcast_to(np.asarray(pose, np.float64), (episode.length, 6)))
                self._writer.array(f"data/{key}", (self._total, 6), "float64", rows)

    def _numbers(self, name: str, dim: int, columns: Sequence[np.ndarray]) -> None:
        self._writer.array(name, (self._total, dim), "float32", columns)


def robot0(episode: Episode, width_m: float) -> dict[str, np.ndarray]:
    """Return robot0's parts (T, 3), (T, 3) and (T, 1) float32 from ``tool_pos``, ``tool_quat`` and ``gripper``."""
    rotation = quat_to_rotvec(episode.state("tool_quat"))
    values = (episode.state("tool_pos"), rotation, episode.state("gripper") * np.float32(width_m))
    return {f"robot0_{part}": value.astype(np.float32) for part, value in zip(PARTS, values, strict=True)}


def umi_action(state: Callable[[str], np.ndarray], names: Mapping[str, Any]) -> np.ndarray:
    """Return what UMI's sampler makes of the poses, (T, 7 a robot) float32."""
    return np.concatenate([state(f"{robot}_{part}") for robot in robots_of(names) for part in PARTS], axis=1)


def pose7(position: np.ndarray, rot6d: np.ndarray, gripper: np.ndarray, width_m: float) -> tuple[np.ndarray, ...]:
    """Return position (T, 3) m, axis-angle (T, 3) rad and width (T, 1) m, float32, of a tool pose action's parts."""
    quats = np.stack([matrix_to_quat(matrix) for matrix in rot6d_to_matrix(rot6d)])
    return position, quat_to_rotvec(quats).astype(np.float32), gripper * np.float32(width_m)


def quat_to_rotvec(quat: np.ndarray) -> np.ndarray:
    """Convert quaternions wxyz (T, 4) to axis times angle (T, 3), angle 0 to pi."""
    quat = np.asarray(quat, np.float64)
    quat = quat / np.linalg.norm(quat, axis=1, keepdims=True)
    quat = np.where(quat[:, :1] < 0, -quat, quat)
    sine = np.linalg.norm(quat[:, 1:], axis=1)
    angle = 2 * np.arctan2(sine, quat[:, 0])
    scale = np.where(sine > 1e-12, angle / np.where(sine > 1e-12, sine, 1.0), 2.0)
    vector: np.ndarray = quat[:, 1:] * scale[:, None]
    return vector


def _picture_codec(name: str) -> Any:
    if name not in PICTURE_CODECS:
        raise UnknownName("codec of pictures", name, PICTURE_CODECS)
    if name == "blosc":
        return blosc("default")
    try:
        from imagecodecs.numcodecs import Jpegxl
    except ImportError:
        raise MissingExtra("imagecodecs", "convert") from None
    return _Lossless([Jpegxl(lossless=True, effort=effort, numthreads=1) for effort in (2, 3, 4)])


class _Lossless:
    """imagecodecs' JPEG-XL, each picture decoded again and compared: libjxl 0.11.2 loses bits now and then at effort 1.

    Its description holds only those settings that UMI's own copy of the codec knows.
    """

    _KNOWN = (
        "id", "level", "effort", "distance", "lossless", "decodingspeed", "photometric", "planar", "usecontainer",
        "index", "keeporientation", "numthreads",
    )  # fmt: skip

    def __init__(self, codecs: Sequence[Any]) -> None:
        self._codecs = codecs

    def encode(self, chunk: np.ndarray) -> bytes:
        for codec in self._codecs:
            data = bytes(codec.encode(chunk))
            if np.array_equal(np.asarray(codec.decode(data)).reshape(chunk.shape), chunk):
                return data
        raise DatasetError("JPEG-XL does not hold a picture without loss; export with pictures='blosc'")

    def get_config(self) -> dict[str, Any]:
        config = self._codecs[0].get_config()
        return {key: config[key] for key in self._KNOWN}


def _frames(episode: Episode, camera: str) -> Iterator[np.ndarray]:
    for start in range(0, episode.length, _BLOCK):
        yield episode.images(camera, slice(start, start + _BLOCK))

"""Where things lie in a LeRobot dataset v3.0, and how a spec maps to its features and back.

Read in lerobot 0.4.4 (datasets/utils.py, datasets/lerobot_dataset.py); version 2.1 has a file an episode.
"""

from typing import Any

from robopolicy.spec import CameraSpec, PolicySpec

VERSION = "v3.0"
INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
CHUNK_FILES, DATA_MB, VIDEO_MB = 1000, 100, 200  # files a chunk folder, size at which a new file begins

IMAGES, DEPTH = "observation.images.", "observation.depth."
STATE, ACTION, DONE, SUCCESS = "observation.state", "action", "next.done", "next.success"
COUNTERS = ("frame_index", "episode_index", "index", "task_index")  # int64
OWN = "robopolicy"  # our own key in info.json, and prefix of our own columns
SOURCE, STEP_NS, ACTION_NS = f"{OWN}.source", f"{OWN}.time.step", f"{OWN}.time.action"
_DEPTH = {"is_depth_map": True, "depth_unit": "mm"}
META = f"{OWN}/meta"  # column of meta/episodes: all of EpisodeMeta, as JSON


def camera_key(name: str, camera: CameraSpec) -> str:
    """Return the feature of a camera; depth has a family of its own, for ``images`` are scaled to 0..1."""
    return (IMAGES if camera.kind == "colour" else DEPTH) + name


def camera_ns(name: str) -> str:
    """Return the column with a camera's capture stamps."""
    return f"{OWN}.time.{name}"


def state_slices(spec: PolicySpec) -> dict[str, slice]:
    """Return where each state lies in the one vector ``observation.state``."""
    ends, slices = 0, {}
    for name, state in spec.state.items():
        slices[name] = slice(ends, ends := ends + state.dim)
    return slices


def features(spec: PolicySpec, videos: bool) -> dict[str, dict[str, Any]]:
    """Return ``info.json``'s description of every column and video.

    Args:
        spec: the dataset's.
        videos: whether colour cameras are videos; otherwise, like depth, pictures in the parquet.
    """
    found: dict[str, dict[str, Any]] = {}
    if spec.state:
        names = [n for name, state in spec.state.items() for n in _elements(name, state.dim)]
        found[STATE] = _feature("float32", [len(names)], names)
    found[ACTION] = _feature("float32", [spec.action.dim], list(spec.action.names))
    for name, camera in spec.cameras.items():
        kind = "video" if videos and camera.kind == "colour" else "image"
        shape = [camera.height, camera.width, 3 if camera.kind == "colour" else 1]
        feature = _feature(kind, shape, ["height", "width", "channels"])
        found[camera_key(name, camera)] = feature | ({} if camera.kind == "colour" else {"info": dict(_DEPTH)})
    found |= {key: _feature("bool", [1]) for key in (DONE, SUCCESS)}
    found[SOURCE] = _feature("int64", [1]) | {"info": {"spec": spec.to_json()}}  # LeRobot's own tools keep it there
    found |= {key: _feature("int64", [1]) for key in (STEP_NS, ACTION_NS, *map(camera_ns, spec.cameras))}
    found["timestamp"] = _feature("float32", [1])
    return found | {key: _feature("int64", [1]) for key in COUNTERS}


def video_info(camera: CameraSpec, codec: str, fps: float) -> dict[str, Any]:
    """Return what LeRobot says of a video beside its feature."""
    return {
        "video.height": camera.height,
        "video.width": camera.width,
        "video.codec": codec,
        "video.pix_fmt": "yuv420p",
        "video.is_depth_map": False,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
    }


def _elements(name: str, dim: int) -> list[str]:
    return [name] if dim == 1 else [f"{name}.{i}" for i in range(dim)]


def _feature(dtype: str, shape: list[int], names: list[str] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "names": names}

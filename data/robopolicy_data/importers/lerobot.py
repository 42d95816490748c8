"""LeRobot datasets, v3.0 and v2.x, as ours; an export of ours becomes the dataset that it was made from."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError, RobopolicyError
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import EpisodeMeta, Observation, Step
from robopolicy_data.exporters import lerobot_layout as layout
from robopolicy_data.importers.columns import exact_float32, require_new
from robopolicy_data.importers.lerobot_source import Source, SourceEpisode
from robopolicy_data.layout import SOURCES
from robopolicy_data.metadata import meta_from_json
from robopolicy_data.writer import DatasetWriter

_JPEG = b"\xff\xd8"


def import_lerobot(
    source: Path | str,
    destination: Path | str,
    *,
    lossless: bool = False,
    quality: int = 90,
    round_to_float32: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Import a LeRobot dataset into a new dataset, episode by episode; return the number of episodes.

    Numbers are equal bit for bit. Videos are decoded and stored as JPEG, or lossless; pictures in the parquet stay as
    they are (JPEG bytes untouched, others lossless). Killed half-way it leaves a dataset marked as incomplete.

    Args:
        source: the LeRobot dataset's folder.
        destination: the dataset to make; must not exist, or be empty.
        lossless: store the decoded videos bit for bit.
        quality: of their JPEG otherwise.
        round_to_float32: accept numbers that float32 cannot hold.
        progress: called with (episodes done, episodes in all).

    Raises:
        DatasetError: if a file is missing, damaged or does not fit, or the destination is taken.
        NewerFormat: if a newer LeRobot wrote it.
        MissingExtra: without pyarrow, or PyAV for videos.
        DiskFull: if there is no room; what was imported so far stays, marked as incomplete.
    """
    target, path = require_new(destination), Path(source)
    with closing(Source(path)) as opened:
        plan = _plan(opened, round_to_float32)
        exact = lossless or _holds_files(opened, plan)
        total = len(opened.episodes)
        with DatasetWriter(target, plan.spec, quality=quality, lossless=exact, importing=str(source)) as writer:
            for done, episode in enumerate(opened.episodes, 1):
                columns = opened.columns(episode)
                recording = writer.begin(_meta(opened, episode, columns, plan))
                for step in _steps(opened, episode, columns, plan):
                    recording.add(step)
                recording.commit()
                if progress is not None:
                    progress(done, total)
            writer.imported()
    return total


@dataclass(frozen=True)
class _Plan:
    """Which feature becomes what."""

    spec: PolicySpec
    states: Mapping[str, tuple[str, slice]]  # {state: feature, elements of it}
    cameras: Mapping[str, str]  # {camera: feature}
    left_out: tuple[str, ...]
    rounding: bool


def _plan(source: Source, rounding: bool) -> _Plan:
    """Read the features.

    Raises:
        DatasetError: if there is no action, or our own spec does not fit the rest.
    """
    where = source.root / layout.INFO
    action = source.features.get(layout.ACTION)
    if action is None or len(action["shape"]) != 1:
        raise DatasetError(f"{where}: no feature 'action' of shape [A]; it has {', '.join(sorted(source.features))}")
    if not source.episodes:
        raise DatasetError(f"{source.root}: there are no episodes")
    if source.spec is not None:
        return _own_plan(source, rounding)
    states = {
        _name(key): (key, slice(0, feature["shape"][0]))
        for key, feature in source.features.items()
        if key.startswith("observation.") and _is_vector(feature)
    }
    cameras = {_name(key): key for key, feature in source.features.items() if _is_camera(feature)}
    names = _names(action["names"], action["shape"][0])
    spec = PolicySpec(
        cameras={name: _camera(source.features[key]) for name, key in cameras.items()},
        state={name: StateSpec(part.stop, ("1",)) for name, (_, part) in states.items()},
        action=ActionSpec("vector", names, ("1",)),
        rate_hz=source.rate_hz,
    )
    used = {*cameras.values(), *(key for key, _ in states.values()), layout.ACTION, layout.SUCCESS, layout.DONE}
    known = used | {"timestamp", *layout.COUNTERS}
    left = tuple(key for key in source.features if key not in known and not key.startswith(f"{layout.OWN}."))
    return _Plan(spec, states, cameras, left, rounding)


def _own_plan(source: Source, rounding: bool) -> _Plan:
    """Take back what our export said."""
    where = source.root / layout.INFO
    try:
        spec = PolicySpec.from_json(source.spec)
    except (TypeError, RobopolicyError) as error:
        raise DatasetError(f"{where}: the spec in {layout.SOURCE} is not what an export writes ({error})") from error
    for key, feature in layout.features(spec, videos=True).items():
        got = source.features.get(key)
        if got is None or got["shape"] != feature["shape"]:
            raise DatasetError(f"{where}: feature {key!r} is {got}, but the spec in {layout.SOURCE} makes it {feature}")
    states = {name: (layout.STATE, part) for name, part in layout.state_slices(spec).items()}
    cameras = {name: layout.camera_key(name, camera) for name, camera in spec.cameras.items()}
    return _Plan(spec, states, cameras, (), rounding)


def _meta(source: Source, episode: SourceEpisode, columns: Mapping[str, np.ndarray], plan: _Plan) -> EpisodeMeta:
    """Return what is known of an episode: all of it from an export of ours, else task, robot and success."""
    imported: dict[str, Any] = {"imported": f"lerobot {source.root.name}"}
    if episode.meta is not None:
        try:
            meta = meta_from_json(episode.meta)
        except TypeError as error:
            raise DatasetError(f"{source.root}: episode {episode.index}: {layout.META}: {error}") from error
        return replace(meta, extra={**meta.extra, **imported})
    if layout.STEP_NS not in columns:
        imported["stamps"] = "nominal: step / rate, LeRobot keeps none"
    if plan.left_out:
        imported["left_out"] = list(plan.left_out)
    reached = columns.get(layout.SUCCESS)
    task = "; ".join(episode.tasks) or source.root.name
    success = None if reached is None else bool(np.any(reached))
    return EpisodeMeta(task, source.robot or source.root.name, success=success, extra=imported)


def _steps(source: Source, episode: SourceEpisode, columns: Mapping[str, np.ndarray], plan: _Plan) -> Iterator[Step]:
    """Yield the steps of one episode; a picture lives as long as its step."""
    spec, where = plan.spec, f"{episode.data}: episode {episode.index}"
    nominal = np.arange(episode.length) * spec.period_ns
    stamps = columns.get(layout.STEP_NS, nominal)
    due = columns.get(layout.ACTION_NS, stamps)
    driver = columns.get(layout.SOURCE, np.full(episode.length, SOURCES.index("human")))
    if not np.all((driver >= 0) & (driver < len(SOURCES))):
        raise DatasetError(f"{where}: {layout.SOURCE} holds {int(driver.max())}; want 0 to {len(SOURCES) - 1}")
    seen = {name: columns.get(layout.camera_ns(name), stamps) for name in spec.cameras}
    used = {layout.ACTION, *(key for key, _ in plan.states.values())}
    vectors = {key: exact_float32(f"{where}, {key}", columns[key], 0, plan.rounding) for key in used}
    action = vectors[layout.ACTION]
    state = {name: vectors[key][:, part] for name, (key, part) in plan.states.items()}
    pictures = {name: source.pictures(episode, key) for name, key in plan.cameras.items()}
    for k in range(episode.length):
        images, encoded = {}, {}
        for name, camera in spec.cameras.items():
            found = next(pictures[name])
            if isinstance(found, bytes):
                if found[:2] == _JPEG:
                    encoded[name] = found
                found = _decode(found, camera, f"{where}, {plan.cameras[name]}, frame {k}")
            if found.shape != camera.shape:
                raise DatasetError(f"{where}, {plan.cameras[name]}, frame {k}: {found.shape}, want {camera.shape}")
            images[name] = found
        observation = Observation(
            int(stamps[k]),
            {name: values[k] for name, values in state.items()},
            images,
            {name: int(values[k]) for name, values in seen.items()},
            encoded,
        )
        yield Step(observation, action[k], int(due[k]), SOURCES[int(driver[k])])  # type: ignore[arg-type]


def _decode(data: bytes, camera: CameraSpec, where: str) -> np.ndarray:
    """Decode a picture file."""
    import cv2
    import simplejpeg

    try:
        if data[:2] == _JPEG:
            return np.asarray(simplejpeg.decode_jpeg(data, "RGB"))
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except (ValueError, cv2.error) as error:
        raise DatasetError(f"{where}: not a whole picture: {str(error).splitlines()[0]}") from error
    if image is None or image.dtype != camera.dtype:
        found = "not a whole picture" if image is None else f"{image.dtype}"
        raise DatasetError(f"{where}: {found}; want {camera.dtype}, PNG or JPEG")
    if image.ndim == 2 and camera.kind == "colour":
        image = np.repeat(image[..., None], 3, axis=-1)
    return np.ascontiguousarray(image[..., 2::-1]) if image.ndim == 3 else image


def _holds_files(source: Source, plan: _Plan) -> bool:
    """Whether a colour camera's pictures are files in the parquet: what is not JPEG there would first lose now."""
    keys = (key for name, key in plan.cameras.items() if plan.spec.cameras[name].kind == "colour")
    return any(source.features[key]["dtype"] == "image" for key in keys)


def _is_vector(feature: Mapping[str, Any]) -> bool:
    return feature["dtype"] not in ("video", "image", "string", "bool") and len(feature["shape"]) == 1


def _is_camera(feature: Mapping[str, Any]) -> bool:
    """Whether it is pictures that we hold: colour, or depth as 16-bit files in millimetres."""
    if feature["dtype"] not in ("video", "image") or len(feature["shape"]) != 3:
        return False
    return not _is_depth(feature) or (feature["dtype"] == "image" and feature["info"].get("depth_unit", "mm") == "mm")


def _is_depth(feature: Mapping[str, Any]) -> bool:
    info = feature.get("info") or {}
    return bool(info.get("is_depth_map") or info.get("video.is_depth_map"))


def _camera(feature: Mapping[str, Any]) -> CameraSpec:
    """Return the size: shape is (H, W, C) unless its names begin with the channels."""
    shape, names = feature["shape"], feature.get("names") or ("height", "width", "channels")
    first = str(names[0]).startswith("channel") if isinstance(names, list | tuple) else False
    height, width = shape[1:] if first else shape[:2]
    return CameraSpec(int(height), int(width), "depth" if _is_depth(feature) else "colour")


def _name(key: str) -> str:
    """Return a name for a feature: ``observation.images.front`` is called ``front``."""
    for prefix in (layout.IMAGES, layout.DEPTH, "observation."):
        if key.startswith(prefix):
            key = key.removeprefix(prefix)
            break
    return re.sub(r"[^A-Za-z0-9_.\-]", "_", key)


def _names(names: Any, dim: int) -> tuple[str, ...]:
    """Return the action's element names: a list, or a dict with one."""
    if isinstance(names, Mapping):
        names = next((value for value in names.values() if isinstance(value, list)), None)
    if isinstance(names, list) and len(names) == dim:
        return tuple(map(str, names))
    return tuple(f"a{i}" for i in range(dim))

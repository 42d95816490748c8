"""Import UMI's ``dataset.zarr.zip``: poses of hand-held grippers and JPEG-XL pictures, with no action of their own."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import EpisodeMeta
from robopolicy_data.carried import KEY
from robopolicy_data.importers.columns import (
    Columns,
    exact_float32,
    exact_uint8,
    nominal_ns,
    require_new,
    write_columns,
)
from robopolicy_data.importers.diffusion_policy import carried_by, carried_columns, read_ends
from robopolicy_data.importers.zarr2 import Zarr2Store, require_lengths
from robopolicy_data.writer import DatasetWriter

EXPECTED = (
    "expected UMI's dataset.zarr.zip: data/robotK_eef_pos (N, 3), data/robotK_eef_rot_axis_angle (N, 3), "
    "data/robotK_gripper_width (N, 1), data/cameraK_rgb (N, H, W, 3), meta/episode_ends (E,)"
)
PARTS = {  # of one robot, in the order in which UMI's sampler joins them to an action
    "eef_pos": (("x", "y", "z"), "m"),
    "eef_rot_axis_angle": (("rx", "ry", "rz"), "rad"),
    "gripper_width": (("width",), "m"),
}
RATE_HZ = 60_000 / 1001  # of the GoPro; the file does not say
_CONSTANT = re.compile(r"robot\d+_demo_(start|end)_pose")


def import_umi(
    source: Path | str,
    destination: Path | str,
    *,
    rate_hz: float | None = None,
    round_to_float32: bool = False,
    allow_missing: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Import UMI's replay buffer into a new dataset; return the number of episodes.

    ``robotK_*`` become states of the same names. The action is ``data/action`` if there is one, else what UMI's sampler
    makes: position, axis-angle rotation and gripper width of every robot *at the same step*. ``robotK_demo_start_pose``
    and ``_end_pose`` (constant in an episode, float64) go to the meta: ``extra.umi``. Pictures are stored lossless, as
    decoded. A file that `export_umi` wrote comes back with its own spec, stamps, actions and metas.

    Args:
        source: the zip, or a folder of the same layout.
        destination: the dataset to make; must not exist, or be empty.
        rate_hz: of the recording; None is 59.94, the GoPro's. Stamps are nominal: step / rate.
        round_to_float32: accept float64 numbers that float32 cannot hold.
        allow_missing: take chunks that are not there for zeros.
        progress: called with (episodes done, episodes in all).

    Raises:
        DatasetError: if the source has another layout or is damaged, or the destination is taken.
        MissingExtra: if the pictures are JPEG-XL and imagecodecs is not installed.
    """
    target = require_new(destination)
    with Zarr2Store(source, EXPECTED, allow_missing=allow_missing) as store:
        ends = read_ends(store)
        arrays = store.arrays("data")
        require_lengths(store.path, arrays, ends[-1])
        carried = carried_by(store, len(ends))
        robots = robots_of(arrays)
        if not robots:
            raise DatasetError(f"{store.path}: no data/robot0_eef_pos; {EXPECTED}")
        spec = carried.spec if carried is not None else _spec(store, arrays, robots, rate_hz or RATE_HZ)
        with DatasetWriter(target, spec, lossless=True, importing=str(source)) as writer:
            for number, (start, stop) in enumerate(zip((0, *ends[:-1]), ends, strict=True)):
                if carried is not None:
                    columns = _own_columns(store, arrays, carried.names, spec, start, stop)
                    write_columns(writer, carried.metas[number], columns)
                else:
                    columns = _columns(store, arrays, spec, start, stop, round_to_float32)
                    write_columns(writer, _meta(store, arrays, start, stop), columns)
                if progress is not None:
                    progress(number + 1, len(ends))
            writer.imported()
    return len(ends)


def robots_of(names: Mapping[str, Any]) -> list[str]:
    """Return ``robot0``, ``robot1``, ... as far as all their parts are among the names."""
    found: list[str] = []
    while all(f"robot{len(found)}_{part}" in names for part in PARTS):
        found.append(f"robot{len(found)}")
    return found


def _spec(store: Zarr2Store, arrays: Mapping[str, Any], robots: list[str], rate_hz: float) -> PolicySpec:
    cameras, state = {}, {}
    for name, array in arrays.items():
        if array.ndim == 4:
            if array.shape[-1] != 3:
                raise DatasetError(f"{store.path}: data/{name} has shape {array.shape}; a camera is (N, H, W, 3)")
            cameras[name] = CameraSpec(int(array.shape[1]), int(array.shape[2]))
        elif name != "action" and not _CONSTANT.fullmatch(name):
            dim = int(np.prod(array.shape[1:], dtype=int))
            part = name.partition("_")[2] if name.startswith("robot") else ""
            known = PARTS.get(part)
            if array.dtype.kind not in "fiu" or (known is not None and dim != len(known[0])):
                raise DatasetError(f"{store.path}: data/{name} is {array.dtype} {array.shape}; {EXPECTED}")
            state[name] = StateSpec(dim, (known[1] if known else "1",))
    names = [f"{robot}_{element}" for robot in robots for elements, _ in PARTS.values() for element in elements]
    units = [unit for _ in robots for elements, unit in PARTS.values() for _ in elements]
    if "action" in arrays and arrays["action"].shape[1:] != (len(names),):
        dim = int(np.prod(arrays["action"].shape[1:], dtype=int))
        names, units = [f"a{i}" for i in range(dim)], ["1"]
    return PolicySpec(cameras, state, ActionSpec("vector", tuple(names), tuple(units)), rate_hz)


def _columns(
    store: Zarr2Store, arrays: Mapping[str, Any], spec: PolicySpec, start: int, stop: int, rounding: bool
) -> Columns:
    def numbers(name: str) -> np.ndarray:
        values = store.read(f"data/{name}", arrays[name], start, stop)
        return exact_float32(f"data/{name}", values, start, rounding)

    state = {name: numbers(name) for name in spec.state}
    if "action" in arrays:
        action = numbers("action")
    else:
        action = np.concatenate([state[f"{robot}_{part}"] for robot in robots_of(state) for part in PARTS], axis=1)
    pictures = {name: _pictures(store, arrays[name], f"data/{name}", start) for name in spec.cameras}
    return Columns(action, state, pictures, nominal_ns(stop - start, spec.rate_hz))


def _own_columns(
    store: Zarr2Store, arrays: Mapping[str, Any], keys: Mapping[str, str], spec: PolicySpec, start: int, stop: int
) -> Columns:
    """What `export_umi` wrote: the streams under their keys, the action as it was below ``meta/robopolicy``."""
    for name in (*spec.state, *spec.cameras):
        if keys.get(name) not in arrays:
            raise DatasetError(f"{store.path}: data/{keys.get(name, name)} is missing; its {KEY} attributes name it")
    group = f"meta/{KEY}"
    kept = store.arrays(group)
    if "action" not in kept:
        raise DatasetError(f"{store.path}: {group}/action is missing")
    state = {n: store.read(f"data/{keys[n]}", arrays[keys[n]], start, stop) for n in spec.state}
    pictures = {n: _pictures(store, arrays[keys[n]], f"data/{keys[n]}", start) for n in spec.cameras}
    action = store.read(f"{group}/action", kept["action"], start, stop)
    return Columns(action, state, pictures, **carried_columns(store, spec, start, stop))


def _pictures(store: Zarr2Store, array: Any, name: str, offset: int) -> Callable[[int, int], np.ndarray]:
    def read(first: int, stop: int) -> np.ndarray:
        return exact_uint8(name, store.read(name, array, offset + first, offset + stop), offset + first)

    return read


def _meta(store: Zarr2Store, arrays: Mapping[str, Any], start: int, stop: int) -> EpisodeMeta:
    name = store.path.name.split(".")[0]
    poses = {}
    for key in filter(_CONSTANT.fullmatch, arrays):
        values = store.read(f"data/{key}", arrays[key], start, stop)
        if np.any(values != values[0]):
            raise DatasetError(f"{store.path}: data/{key} changes within an episode, rows {start}..{stop}; it may not")
        poses[key] = values[0].tolist()
    made = "data/action" if "action" in arrays else "the pose and width of the same step, as UMI's sampler makes it"
    extra = {"imported": f"umi {name}", "stamps": "nominal: step / rate, the source has none", "action": made}
    return EpisodeMeta(name, name, embodiment="human", extra={**extra, "umi": poses})

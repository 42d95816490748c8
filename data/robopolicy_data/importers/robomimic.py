"""Import robomimic's HDF5: ``data/demo_i/{actions, obs/<key>, states, rewards, dones}`` and its filters."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError, DiskFull
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import EpisodeMeta
from robopolicy_data.carried import KEY, Carried
from robopolicy_data.derived import write_derived
from robopolicy_data.exporters.robomimic import DERIVED, require_h5py
from robopolicy_data.importers.columns import (
    Columns,
    exact_float32,
    exact_uint8,
    nominal_ns,
    require_new,
    write_columns,
)
from robopolicy_data.metadata import meta_from_json
from robopolicy_data.writer import DatasetWriter

_EXPECTED = "expected robomimic's HDF5: data/demo_0/actions (T, A), data/demo_0/obs/<key> (T, ...)"
_DEMO = re.compile(r"demo_(\d+)")
RATE_HZ = 20.0  # robosuite's, where the file does not say
_KEPT = ("states", "rewards", "dones")


def import_robomimic(
    source: Path | str,
    destination: Path | str,
    *,
    rate_hz: float | None = None,
    round_to_float32: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Import a robomimic file into a new dataset; return the number of episodes.

    ``obs/<key>`` of pictures (T, H, W, 3) uint8 become cameras (``_image`` is taken off), other numbers states, the
    actions an action as they are. ``states``, ``rewards`` and ``dones`` go bit for bit to ``derived/robomimic@1``, and
    so does ``model_file``; ``env_args`` and the filters that name a demo to ``extra``. Success is whether a reward of
    0s and 1s holds a 1; unknown otherwise. ``next_obs`` is the obs of the next step and is not stored. A file that
    `export_robomimic` wrote comes back with its own spec, stamps and metas.

    Args:
        source: the HDF5 file.
        destination: the dataset to make; must not exist, or be empty.
        rate_hz: of the recording; None is ``control_freq`` of the file's ``env_args``, else 20. Stamps are nominal.
        round_to_float32: accept float64 numbers that float32 cannot hold, which most files have.
        progress: called with (episodes done, episodes in all).

    Raises:
        DatasetError: if the source has another layout or is damaged, or the destination is taken.
        MissingExtra: without h5py.
    """
    target = require_new(destination)
    with _opened(Path(source)) as file, _readable(Path(source)):
        demos = _demos(file, Path(source))
        env_args = _env_args(file["data"], Path(source))
        carried = _carried(file["data"], demos, Path(source))
        if carried is not None:
            spec, keys = carried.spec, carried.names
        else:
            spec = _spec(file, demos[0], _rate(rate_hz, env_args), Path(source))
            keys = {name: name for name in spec.state} | _camera_keys(file, demos[0])
        reader = _Reader(file, spec, keys, Path(source), round_to_float32)
        filters = _filters(file)
        with DatasetWriter(target, spec, lossless=True, importing=str(source)) as writer:
            for number, demo in enumerate(demos):
                columns = reader.columns(demo, own=carried is not None)
                if carried is not None:
                    meta = carried.metas[number]
                else:
                    meta = _meta(file["data"][demo], Path(source), env_args, filters.get(demo, []))
                written = write_columns(writer, meta, columns)
                _keep(target, written, file["data"][demo], own=carried is not None)
                if progress is not None:
                    progress(number + 1, len(demos))
            writer.imported()
    return len(demos)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    h5py = require_h5py()
    if not path.is_file():
        raise DatasetError(f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}; {_EXPECTED}")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DatasetError(f"{path} is no HDF5 file, or a truncated one ({_short(error)}); {_EXPECTED}") from error
    with file:
        yield file


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Make one line of what HDF5 says of damage inside the file."""
    try:
        yield
    except DiskFull:
        raise
    except (OSError, RuntimeError, KeyError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DatasetError(f"{path} is damaged ({_short(error)})") from error


def _demos(file: Any, path: Path) -> list[str]:
    """Return the names of the demos in robomimic's order: by number."""
    found = [name for name in file.get("data", {}) if _DEMO.fullmatch(name)]
    if not found:
        raise DatasetError(f"{path}: no data/demo_0; {_EXPECTED}")
    return sorted(found, key=lambda name: int(name[5:]))


def _env_args(data: Any, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(data.attrs.get("env_args", "{}"))
        return dict(found)
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{path}: data's env_args are no JSON ({_short(error)})") from error


def _rate(given: float | None, env_args: Mapping[str, Any]) -> float:
    found = (env_args.get("env_kwargs") or {}).get("control_freq")
    return given or (float(found) if isinstance(found, int | float) and found > 0 else RATE_HZ)


def _carried(data: Any, demos: list[str], path: Path) -> Carried | None:
    """Return what our own exporter put into the attributes, the metas from the demos'."""
    if KEY not in data.attrs:
        return None
    try:
        carried = Carried(json.loads(data.attrs[KEY]), path)
        carried.metas = [meta_from_json(json.loads(data[demo].attrs[KEY])) for demo in demos]
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path}: its {KEY} attributes are damaged ({_short(error)})") from error
    return carried


def _camera_keys(file: Any, demo: str) -> dict[str, str]:
    obs = file["data"][demo].get("obs", {})
    return {key.removesuffix("_image"): key for key in obs if obs[key].ndim == 4}


def _spec(file: Any, demo: str, rate_hz: float, path: Path) -> PolicySpec:
    group = file["data"][demo]
    if "actions" not in group or group["actions"].ndim != 2 or "obs" not in group:
        raise DatasetError(f"{path}: data/{demo} holds {sorted(group)}; {_EXPECTED}")
    cameras, state = {}, {}
    for name, key in _camera_keys(file, demo).items():
        shape = group["obs"][key].shape
        if shape[-1] != 3:
            raise DatasetError(f"{path}: data/{demo}/obs/{key} has shape {shape}; a camera is (T, H, W, 3)")
        cameras[name] = CameraSpec(int(shape[1]), int(shape[2]))
    for key, array in group["obs"].items():
        if array.ndim != 4:
            if array.dtype.kind not in "fiu":
                raise DatasetError(f"{path}: data/{demo}/obs/{key} is {array.dtype}; a state is numbers (T, D)")
            state[key] = StateSpec(int(np.prod(array.shape[1:], dtype=int)), ("1",))
    dim = int(group["actions"].shape[1])
    return PolicySpec(cameras, state, ActionSpec("vector", tuple(f"a{i}" for i in range(dim)), ("1",)), rate_hz)


class _Reader:
    """The columns of one demo after another, each compared with the spec."""

    def __init__(self, file: Any, spec: PolicySpec, keys: Mapping[str, str], path: Path, rounding: bool) -> None:
        self._data, self._spec, self._keys, self._path, self._rounding = file["data"], spec, keys, path, rounding

    def columns(self, demo: str, *, own: bool) -> Columns:
        length = self._array(demo, "actions", None).shape[0]
        if length == 0:
            raise DatasetError(f"{self._path}: data/{demo} has no steps")
        low = {name: (f"obs/{self._keys[name]}", state.dim) for name, state in self._spec.state.items()}
        more: dict[str, Any] = {"step_ns": nominal_ns(length, self._spec.rate_hz)}
        if own:
            more = {
                "step_ns": self._own(demo, "time_step", length), "action_ns": self._own(demo, "time_action", length),
                "camera_ns": {name: self._own(demo, f"time_{name}", length) for name in self._spec.cameras},
                "sources": self._own(demo, "source", length),
            }  # fmt: skip
        return Columns(
            action=self._numbers(demo, "actions", length, self._spec.action.dim),
            state={name: self._numbers(demo, key, length, dim) for name, (key, dim) in low.items()},
            pictures={name: self._pictures(demo, name, length) for name in self._spec.cameras},
            **more,
        )

    def _array(self, demo: str, key: str, length: int | None) -> Any:
        where = f"{self._path}: data/{demo}/{key}"
        if key not in self._data[demo]:
            raise DatasetError(f"{where} is missing; the other demos have it")
        array = self._data[demo][key]
        if array.ndim == 0 or (length is not None and array.shape[0] != length):
            raise DatasetError(f"{where} has shape {array.shape}, but the demo has {length} actions")
        return array

    def _numbers(self, demo: str, key: str, length: int, dim: int) -> np.ndarray:
        array = self._array(demo, key, length)
        what = f"{self._path}: data/{demo}/{key}"
        if array.dtype.kind not in "fiu" or int(np.prod(array.shape[1:], dtype=int)) != dim:
            raise DatasetError(f"{what} is {array.dtype} {array.shape}; want numbers ({length}, {dim})")
        return exact_float32(what, array[()], 0, self._rounding)

    def _own(self, demo: str, name: str, length: int) -> np.ndarray:
        column: np.ndarray = self._array(demo, f"{KEY}/{name}", length)[()]
        return column

    def _pictures(self, demo: str, name: str, length: int) -> Callable[[int, int], np.ndarray]:
        key, camera = f"obs/{self._keys[name]}", self._spec.cameras[name]
        array, what = self._array(demo, key, length), f"{self._path}: data/{demo}/{key}"
        want = camera.shape if camera.kind == "colour" else (*camera.shape, 1)
        if array.shape[1:] != want:
            raise DatasetError(f"{what} has shape {array.shape}; want ({length}, {', '.join(map(str, want))})")

        def read(first: int, stop: int) -> np.ndarray:
            block = array[first:stop]
            return block[..., 0] if camera.kind == "depth" else exact_uint8(what, block, first)

        return read


def _meta(demo: Any, path: Path, env_args: Mapping[str, Any], filters: list[str]) -> EpisodeMeta:
    robot = str(env_args.get("env_name") or path.stem)
    extra = {"imported": f"robomimic {path.name} {demo.name.rpartition('/')[2]}", "stamps": "nominal: step / rate"}
    meta = EpisodeMeta(robot, robot, success=_success(demo), extra={**extra, "env_args": dict(env_args)})
    return meta if not filters else replace(meta, extra={**meta.extra, "filters": filters})


def _success(demo: Any) -> bool | None:
    """Whether the task was done: robomimic's sparse reward is 1 where it is; any other reward says nothing sure."""
    if "rewards" not in demo:
        return None
    rewards = np.asarray(demo["rewards"][()], float)
    return bool(np.any(rewards == 1)) if np.all((rewards == 0) | (rewards == 1)) else None


def _filters(file: Any) -> dict[str, list[str]]:
    """Return {demo: the filters that name it}."""
    found: dict[str, list[str]] = {}
    for name in file.get("mask", {}):
        for demo in file["mask"][name][()]:
            found.setdefault(demo.decode() if isinstance(demo, bytes) else str(demo), []).append(name)
    return found


def _keep(dataset: Path, number: int, demo: Any, *, own: bool) -> None:
    """Put what the episode has no stream for beside it, bit for bit; of our own files what an import had kept."""
    arrays = {name: np.asarray(demo[name][()]) for name in _KEPT if name in demo}
    if isinstance(demo.attrs.get("model_file"), str):
        arrays["model_file"] = np.frombuffer(demo.attrs["model_file"].encode(), np.uint8)
    if own:
        kept = json.loads(demo[KEY].attrs["kept"])
        arrays = {name: array for name, array in arrays.items() if name in kept}
    if arrays:
        write_derived(dataset, number, DERIVED, arrays)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__

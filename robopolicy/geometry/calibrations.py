"""The file of calibrated cameras, `cams.yaml`: `robopolicy calibrate-cameras` writes it, all that want cameras read it.

front:
  K: [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]      pixels
  T_base_cam: 4 x 4                             m; or T_tool_cam of a camera that the tool carries
  distortion: [k1, k2, p1, p2, ...]             OpenCV's
  size: [H, W]
  calibration: {...}                            how well it is known; no reader needs it
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robopolicy.errors import ConfigError, ContractError, RobopolicyError, UnknownCamera
from robopolicy.geometry.cameras import Camera
from robopolicy.settings import mapping, read_settings

WHAT = "the file of calibrated cameras, as `robopolicy calibrate-cameras` writes it"


def read_cameras(path: Path | str, names: Sequence[str] | None = None, *, extra: str = "ros") -> dict[str, Camera]:
    """Return the cameras of a file, in the order asked for.

    Args:
        path: YAML, or JSON if its name ends in .json, which no extra is needed for.
        names: of those wanted; None is all that stand still.
        extra: that brings ruamel.yaml to who wants this file.

    Raises:
        ConfigError: naming the file, and the camera that was never calibrated, is damaged or rides on the tool.
        MissingExtra: without ruamel.yaml.
    """
    entries = read_calibrations(path, extra=extra)
    if names is None:
        names = [name for name, entry in entries.items() if "T_base_cam" in entry]
        if not names:
            raise ConfigError(f"{path}: no camera in it has a place in the base frame, T_base_cam")
    try:
        return {name: _fixed(entries, name) for name in names}
    except RobopolicyError as error:
        raise ConfigError(f"{path}: {error}") from error


def read_calibrations(path: Path | str, *, extra: str = "ros") -> dict[str, dict[str, Any]]:
    """Return the file's entries, each as `EpisodeMeta.cameras` has it; raises as `read_cameras`."""
    if Path(path).suffix.lower() != ".json":
        return read_settings(path, _entries, WHAT, extra=extra)
    try:
        return _entries(json.loads(Path(path).read_text("utf-8")))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; want {WHAT}") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path} is no JSON: {error}") from error
    except RobopolicyError as error:
        raise ConfigError(f"{path}: {error}") from error


def calibrations_for(path: Path | str, sizes: Mapping[str, tuple[int, int]]) -> dict[str, dict[str, Any]]:
    """Return `EpisodeMeta.cameras` of a robot's cameras: entries without what only says how well they are known.

    Args:
        path: of the file; cameras of the robot that it lacks are left out.
        sizes: {view: (H, W)} of the robot's pictures.

    Raises:
        ConfigError: if a camera's pictures have another size than it was calibrated at, or, where that was not told,
            its principal point is outside them.
    """
    found = {}
    for name, entry in read_calibrations(path).items():
        if name not in sizes:
            continue
        told = tuple(entry.get("size") or ())
        if told and told != tuple(sizes[name]):
            (height, width), now = told, sizes[name]
            raise ConfigError(
                f"{path}: camera {name!r} was calibrated at {width} x {height}, its pictures are {now[1]} x {now[0]}"
            )
        try:
            _require_camera({**entry, "size": sizes[name]}, name)
        except ContractError as error:
            raise ConfigError(f"{path}: {error}") from error
        found[name] = {key: value for key, value in entry.items() if key != "calibration"}
    return found


def write_calibrations(path: Path | str, entries: Mapping[str, Mapping[str, Any]], head: str = "") -> None:
    """Write entries, {view: K, ...}, as YAML, or as JSON if the name ends in .json; ``head`` is a comment of the YAML.

    Raises:
        ContractError: if an entry is no camera.
    """
    path = Path(path)
    _entries({name: dict(entry) for name, entry in entries.items()})
    if path.suffix.lower() == ".json":
        text = json.dumps(entries, indent=1) + "\n"
    else:
        comment = "".join(f"# {line}\n" for line in head.splitlines())
        text = comment + "".join(f"{_key(name)}:\n{_block(entry, 2)}" for name, entry in entries.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(path.name + ".part")
    whole.write_text(text, "utf-8")
    whole.replace(path)


def _fixed(entries: Mapping[str, dict[str, Any]], name: str) -> Camera:
    if name not in entries:
        raise UnknownCamera("calibrated camera", name, entries)
    if "T_base_cam" not in entries[name]:
        if "T_tool_cam" in entries[name]:
            raise ContractError(f"camera {name!r} rides on the tool; it has no place of its own in the base frame")
        raise ContractError(f"camera {name!r} has a lens and no place: T_base_cam is wanted (calibrate-cameras)")
    return Camera.from_json(entries[name], name)


def _entries(data: Any) -> dict[str, dict[str, Any]]:
    found = {name: mapping(entry, f"camera {name}") for name, entry in mapping(data, "the file").items()}
    if not found:
        raise ContractError("there is no camera in it")
    for name, entry in found.items():
        if "K" not in entry:
            raise ContractError(f"camera {name!r} is not calibrated: K is wanted (calibrate-cameras)")
        _require_camera(entry, name)
    return found


def _require_camera(entry: Mapping[str, Any], name: str) -> None:
    """Refuse a damaged entry; raises ContractError naming the camera."""
    for place in ("T_base_cam", "T_tool_cam"):
        if place in entry:
            Camera.from_json({**entry, "T_base_cam": entry[place]}, name)


def _block(values: Mapping[str, Any], indent: int) -> str:
    space, lines = " " * indent, []
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            lines.append(f"{space}{_key(name)}:\n{_block(value, indent + 2)}")
        elif isinstance(value, list) and value and isinstance(value[0], list):
            rows = "".join(f"{space}- {_plain(row)}\n" for row in value)
            lines.append(f"{space}{_key(name)}:\n{rows}")
        else:
            lines.append(f"{space}{_key(name)}: {_plain(value)}\n")
    return "".join(lines)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and name.lower() not in _WORDS else json.dumps(name)


_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, float):  # 1e-05 is text to a reader of YAML 1.1
        return re.sub(r"^(-?\d+)e", r"\1.0e", json.dumps(value, allow_nan=False))
    return json.dumps(value, allow_nan=False)
